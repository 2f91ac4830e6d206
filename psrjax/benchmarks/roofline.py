"""How near a program that ran came to the bound that the chip's peaks set it."""

from typing import Any

import jax
from absl import logging

from psrjax.benchmarks import compiled_program, timing
from psrjax.benchmarks.chips import CHIPS, Chip

# A part of what JAX calls a device -> the name of its chip; the first that fits.
_KINDS = {
    "H100 80GB HBM3": "h100",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v6": "v6e",
}


def find_chip(peak: float) -> Chip:
    """Returns the chip of this process, by its maker's numbers, or else by what was measured.

    Args:
      peak: FLOP/s of a product of matrices, measured; for a chip that is not known.
    """
    device = jax.local_devices()[0]
    for part, name in _KINDS.items():
        if part in device.device_kind:
            return CHIPS[name]
    return Chip(
        name=f"{device.device_kind}, as measured",
        platform=device.platform,
        peak=peak,
        bandwidth=timing.copy_bandwidth(),
        memory=0.0,
        passes={},
        link=0.0,
        axes=1,
        latency=0.0,
        per_host=1,
        host_cores=1,
    )


def compare(program: timing.Program, flops: float, seconds: float, chip: Chip) -> dict[str, Any]:
    """Returns a program's least time on the chip, what sets it, and how near it came.

    The bytes are those of every operation that XLA did not fuse into another: see
    `compiled_program`; a cache can make a program faster than this bound.

    Args:
      program: compiled for this process.
      flops: what it has to compute, however it is compiled.
      seconds: that it took.
      chip: that it ran on.
    """
    try:
        read = compiled_program.read(program.call.as_text())
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # Another XLA may print otherwise; the times that were measured are not lost for that.
        logging.warning("the program could not be read (%r): the bound is that of compute", error)
        read = compiled_program.Program()
    compute, memory = chip.compute_seconds(read.flops), chip.memory_seconds(read.bytes)
    least = max(compute, memory, flops / chip.peak)
    used = program.call.memory_analysis()
    return {
        "chip": chip.name,
        "mfu": flops / seconds / chip.peak,
        "at_least_s": least,
        "limit": "memory" if memory >= least else "compute",
        "fraction_of_roofline": least / seconds,
        "bytes": read.bytes,
        "memory_gib": 0.0
        if used is None
        else (
            used.argument_size_in_bytes
            + used.output_size_in_bytes
            - used.alias_size_in_bytes
            + used.temp_size_in_bytes
        )
        / 2**30,
    }
