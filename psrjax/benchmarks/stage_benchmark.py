"""Measures how fast one stage of any method trains and synthesizes on this machine.

Needs only jax, flax, optax, numpy, ml_collections and jaxtyping, to run on a bare accelerator
machine; the loader and PyTorch are imported on demand.
"""

import os
import time
from typing import Any

import jax
from absl import logging

from psrjax import config as config_lib
from psrjax.benchmarks import operations, roofline, timing
from psrjax.benchmarks.compiled_stage import BenchmarkOptions, parameters, prepare
from psrjax.methods import base
from psrjax.runtime import machine

_OPERATION_RUNS = 20


def run(config: Any, options: BenchmarkOptions) -> dict[str, Any]:
    """Measures a stage, single operations, and on request the data and PyTorch.

    Args:
      config: of the stage.
      options: what to measure.

    Returns:
      The numbers that `text_table.table` prints, ready for JSON; seconds, and rates per second.

    Raises:
      UserError: as `prepare` and `torch_comparison.compare`.
    """
    jax.config.update("jax_enable_compilation_cache", False)  # compilation is measured too
    result = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine.describe(),
        "versions": machine.versions(),
        "commit": machine.commit(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else -1.0,
        "method": config_lib.method_fields(config),
        "sizes": options.window_sizes(config),
        "training_sizes": options.training_sizes(config),
    }
    if options.data:
        from psrjax.benchmarks import data_benchmark  # needs more than a bare machine has

        logging.info("timing the data")
        data = config.copy_and_resolve_references()
        result["data"] = data_benchmark.measure(
            config_lib.update(data, {"data.path": options.data}),
            base.build(**config_lib.method_fields(config)).reads,
            batch=options.batch,
            sizes=result["training_sizes"],
            joints=options.joints,
        )
    if options.runs:
        result |= _measure_stage(config, options)
    return result


def _measure_stage(config: Any, options: BenchmarkOptions) -> dict[str, Any]:
    """Times synthesis, the training step, single operations, and on request PyTorch."""
    logging.info("compiling")
    stage = prepare(config, options)
    peak = timing.matrix_peak(stage.method.dtype)
    chip = roofline.find_chip(peak)
    result: dict[str, Any] = {
        "parameters": parameters(stage),
        "matrix_peak_flops_per_s": peak,
    }
    logging.info("timing synthesis and the training step")
    for name, call in stage.calls.items():
        found, program = timing.measure(call, runs=options.runs), stage.programs[name]
        count = stage.flops[name]
        result[name] = found.summary() | {
            "per_s": 1.0 / found.median,
            "clips_per_s": options.batch / found.median,
            "flops": count,
            "flops_per_s": count / found.median,
            "fraction_of_peak": count / found.median / peak,
            "compile_s": program.compile_seconds,
            "xla_flops": program.executed_flops,
            "roofline": roofline.compare(program, count, found.median, chip),
        }
        if name in ("forward", "animate"):
            frames = options.batch * options.window_sizes(config)["t"]
            result[name]["s_per_frame"] = found.median / frames
    if options.operations:
        result["operations"] = {
            name: timing.measure(call, runs=_OPERATION_RUNS).summary()
            for name, call in operations.calls().items()
        }
    result["peak_memory_gib"] = machine.peak_memory_gib()
    device = jax.local_devices()[0].memory_stats() or {}  # none on CPUs
    result["peak_device_memory_gib"] = device.get("peak_bytes_in_use", 0) / 2**30
    if options.against:
        from psrjax.benchmarks import torch_comparison

        result["against"] = torch_comparison.compare(stage, config, options)
    return result
