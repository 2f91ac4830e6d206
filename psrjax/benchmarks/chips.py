"""What chips can do: peaks, memory, links, and which slices of them there are."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Chip:
    """One chip, by its maker's numbers.

    Attributes:
      name: as in --topology.
      platform: "tpu" or "gpu".
      peak: bfloat16 FLOP/s.
      bandwidth: of the main memory, bytes/s.
      memory: bytes of main memory that a program may use.
      link: bytes/s that a device sends over one axis of its slice, in both directions together; on
        GPUs to the others of its host.
      network: bytes/s of a device to other hosts; 0 where the links reach them.
      passes: {type and precision of the factors: how often the bfloat16 rate goes into theirs}.
      slices: the sizes that are sold; () where any is that the compiler takes.
    """

    name: str
    platform: str
    peak: float
    bandwidth: float
    memory: float
    link: float
    network: float
    passes: Mapping[str, float]
    slices: tuple[str, ...] = ()

    def compute_seconds(self, flops: Mapping[str, int]) -> float:
        """Returns the least time for products of matrices, {type of the factors: FLOPs}."""
        return sum(n * self.passes.get(kind, 1.0) for kind, n in flops.items()) / self.peak

    def memory_seconds(self, moved: float) -> float:
        """Returns the least time to move so many bytes to and from the main memory."""
        return moved / self.bandwidth


# A float32 product is one bfloat16 product on a TPU, unless a precision is asked for.
_TPU_PASSES = {"f32 high": 3.0, "f32 highest": 6.0}
_GPU_PASSES = {"f32": 2.0, "f32 high": 2.0, "f32 highest": 989.4 / 66.9}  # TF32, and CUDA cores
_SQUARES = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")

# Peaks and bandwidths: cloud.google.com/tpu/docs and NVIDIA's data sheet (H100 SXM5). Usable
# memory: libtpu's message when a program is too large, XLA's description of the H100. Links: "How
# to Scale Your Model" (jax-ml.github.io/scaling-book), which measured them.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v5e", "tpu", 197e12, 819e9, 15.75 * 2**30, 90e9, 0.0, _TPU_PASSES, _SQUARES),
        Chip("v5p", "tpu", 459e12, 2765e9, 95.74 * 2**30, 180e9, 0.0, _TPU_PASSES),
        Chip("v6e", "tpu", 918e12, 1640e9, 31.25 * 2**30, 180e9, 0.0, _TPU_PASSES, _SQUARES),
        Chip("h100", "gpu", 989.4e12, 3352e9, 79.14 * 2**30, 450e9, 50e9, _GPU_PASSES),
    )
}
