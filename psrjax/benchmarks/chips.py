"""What chips can do: peaks, memory, links, and which slices of them there are."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One chip, by its maker's numbers.

    Attributes:
      name: as in --topology.
      platform: "tpu" or "gpu".
      peak: bfloat16 FLOP/s.
      bandwidth: of the main memory, bytes/s.
      memory: bytes of main memory that a program may use.
      passes: {type and precision of the factors: how often the bfloat16 rate goes into theirs}.
      slices: the sizes that are sold; () where any is that the compiler takes.
      link: bytes/s that a device sends along one axis of its slice, both ways together; a GPU, to
        the others of its host.
      axes: of the slice, 1 on GPUs.
      ring: from this length on an axis goes round.
      network: bytes/s that a GPU sends to other hosts.
      latency: seconds of a hop; on GPUs of a collective in a host, and of each doubling of hosts.
      per_host: devices.
      host_cores: of a host.
    """

    name: str
    platform: str
    peak: float
    bandwidth: float
    memory: float
    passes: Mapping[str, float]
    slices: tuple[str, ...] = ()
    link: float
    axes: int
    ring: int = 0
    network: float = 0.0
    latency: float
    per_host: int
    host_cores: int

    def compute_seconds(self, flops: Mapping[str, int]) -> float:
        """Returns the least time for products of matrices, {type of the factors: FLOPs}."""
        return sum(n * self.passes.get(kind, 1.0) for kind, n in flops.items()) / self.peak

    def memory_seconds(self, moved: float) -> float:
        """Returns the least time to move so many bytes to and from the main memory."""
        return moved / self.bandwidth


# A float32 product is one bfloat16 product on a TPU, unless a precision is asked for.
_TPU_PASSES = {"f32 high": 3.0, "f32 highest": 6.0}
_GPU_PASSES = {"f32": 2.0, "f32 high": 2.0, "f32 highest": 989.4 / 66.9}  # TF32, and CUDA cores
_GRIDS = ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")

# Peaks, bandwidths, hosts: cloud.google.com/tpu/docs and NVIDIA's data sheet (H100 SXM5). Usable
# memory: libtpu's message when a program is too large, XLA's description of the H100. Links and
# latency of TPUs: "How to Scale Your Model" (jax-ml.github.io/scaling-book). The latencies of GPUs
# are guesses: those of NCCL are of this order. Cores are half of a machine type's vCPUs.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            name="v5e",
            platform="tpu",
            peak=197e12,
            bandwidth=819e9,
            memory=15.75 * 2**30,
            passes=_TPU_PASSES,
            slices=_GRIDS,
            link=90e9,
            axes=2,
            ring=16,
            latency=1e-6,
            per_host=4,
            host_cores=56,
        ),
        Chip(
            name="v5p",
            platform="tpu",
            peak=459e12,
            bandwidth=2765e9,
            memory=95.74 * 2**30,
            passes=_TPU_PASSES,
            link=180e9,
            axes=3,
            ring=4,
            latency=1e-6,
            per_host=4,
            host_cores=104,
        ),
        Chip(
            name="v6e",
            platform="tpu",
            peak=918e12,
            bandwidth=1640e9,
            memory=31.25 * 2**30,
            passes=_TPU_PASSES,
            slices=_GRIDS,
            link=180e9,
            axes=2,
            ring=16,
            latency=1e-6,
            per_host=4,
            host_cores=90,
        ),
        Chip(
            name="h100",
            platform="gpu",
            peak=989.4e12,
            bandwidth=3352e9,
            memory=79.14 * 2**30,
            passes=_GPU_PASSES,
            link=450e9,
            axes=1,
            network=50e9,
            latency=20e-6,
            per_host=8,
            host_cores=104,
        ),
    )
}
