"""Compiles the programs of a stage for machines that are not here, in a process of its own.

The compiler of TPUs is libtpu, that of GPUs is in JAX's CUDA plugin; neither needs the machine. XLA
writes the optimised program and the memory that it assigned before it generates code, which takes
far longer: then the process is ended.
"""

import dataclasses
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from psrjax import config as config_lib
from psrjax.benchmarks import flops
from psrjax.benchmarks.chips import CHIPS, Chip
from psrjax.benchmarks.compiled_stage import BenchmarkOptions
from psrjax.config import RunConfig
from psrjax.data import loader, spec
from psrjax.errors import UserError
from psrjax.inference import synthesizer
from psrjax.methods import base
from psrjax.ops import conv
from psrjax.pretrained import registry
from psrjax.runtime import target
from psrjax.training import optimizer, sharding
from psrjax.training import state as states
from psrjax.training import step as steps

PROGRAMS = ("train", "synthesize")
_PLUGINS = {"tpu": ("libtpu", "compile"), "gpu": ("jax_cuda12_plugin", "cuda")}  # module, extra
_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",  # no metadata server is asked what this machine is
    "TPU_LOG_DIR": "disabled",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # a second process may compile at the same time
    "JAX_ENABLE_COMPILATION_CACHE": "0",
    "JAX_TRACEBACK_IN_LOCATIONS_LIMIT": "40",  # calls around an operation, to name its place
}
_CONFIG, _LOWERED, _MISTAKE, _LOG = "config.json", "lowered.json", "mistake.txt", "log.txt"
_PROGRAM, _BUFFERS = "*after_optimizations.txt", "*after_optimizations-buffer-assignment.txt"
_WRITTEN = "*after_optimizations-memory-usage-report.txt"  # after both of them
# XLA's description of an NVIDIA H100 80GB HBM3.
_H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 84978434048 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 } registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
runtime_version { major: 12 minor: 9 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What XLA made of a program.

    Attributes:
      text: the optimised program, for `compiled_program.read`.
      buffers: the buffer assignment, for `compiled_program.memory`.
      devices: that run it together.
      batch: clips, of all devices.
      sizes: of the contract's other axes.
      state_bytes: what a device holds of the state, {"cut": of arrays that fsdp cuts, or would cut,
        "whole": of the others}, before they are cut.
      model_flops: of one device, as `flops.count_step` counts them.
      lower_s: time to trace the program.
      compile_s: time to optimise it and to assign its memory; code is not generated.
    """

    text: str
    buffers: str
    devices: int
    batch: int
    sizes: dict[str, int]
    state_bytes: dict[str, int]
    model_flops: float
    lower_s: float
    compile_s: float


def find_chip(topology: str) -> Chip:
    """Finds the chip of "v5e:4x4", "h100" or "h100:2x8" (hosts and GPUs of each).

    Raises:
      UserError: for one that does not exist.
    """
    name, _, size = topology.partition(":")
    if name not in CHIPS:
        raise UserError(
            f"--topology={topology}: give a chip and its number, as in v5e:4x4; there are "
            + ", ".join(CHIPS)
        )
    chip = CHIPS[name]
    dimensions = size.split("x") if size else []
    if chip.slices and size not in chip.slices:
        raise UserError(
            f"--topology={topology}: {name} comes as {', '.join(chip.slices)}, as in "
            f"{name}:{chip.slices[0]}"
        )
    is_gpu = chip.platform == "gpu"
    fits = len(dimensions) in ((0, 1, 2) if is_gpu else (2, 3))
    if not fits or not all(re.fullmatch(r"[1-9]\d*", each) for each in dimensions):
        example = f"{name}, {name}:8 or {name}:2x8 (hosts x GPUs)" if is_gpu else f"{name}:2x2x1"
        raise UserError(f"--topology={topology}: no such size; give it as {example}")
    return chip


def compile_stage(config: RunConfig, topology: str, program: str) -> Compiled:
    """Compiles a program of a stage.

    Args:
      config: of the stage (`config.stage_config`), its batch that of all devices.
      topology: see `find_chip`.
      program: "train", the step; or "synthesize", a window on each device.

    Raises:
      UserError: for a topology that does not exist, a batch or fsdp that does not fit it, a
        compiler that is not installed or fails.
    """
    module, extra = _PLUGINS[find_chip(topology).platform]
    if importlib.util.find_spec(module) is None:
        raise UserError(
            f"--topology={topology} needs {module}, the compiler for it: "
            f"pip install 'psrjax[{extra}]'"
        )
    with tempfile.TemporaryDirectory(prefix="psrjax-compile-") as temporary:
        folder = Path(temporary)
        (folder / _CONFIG).write_text(config_lib.to_json(config))
        command = [sys.executable, "-m", __spec__.name, str(folder), topology, program]
        seconds = _run(command, folder)
        about = json.loads((folder / _LOWERED).read_text())
        return Compiled(
            text=_only(folder, _PROGRAM).read_text(),
            buffers=_only(folder, _BUFFERS).read_text(),
            compile_s=seconds - about["lower_s"],
            **about,
        )


def _run(command: list[str], folder: Path) -> float:
    """Runs the compiling process until the program is there; returns the seconds."""
    start = time.monotonic()
    with (folder / _LOG).open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, **_ENVIRONMENT}
        )
        try:
            while not any(folder.glob(_WRITTEN)) and process.poll() is None:
                time.sleep(0.2)
        finally:
            process.kill()
            process.wait()
    if any(folder.glob(_WRITTEN)):
        return time.monotonic() - start
    if (folder / _MISTAKE).exists():
        raise UserError((folder / _MISTAKE).read_text())
    lines = [line for line in (folder / _LOG).read_text(errors="replace").splitlines() if line]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    raise UserError(f"the compiler failed: {[*lines[-1:], *errors][-1] if lines else 'killed'}")


def _only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def main(folder: Path, topology: str, program: str) -> None:
    """Lowers and compiles, in the process that `compile_stage` starts."""
    config = config_lib.from_json((folder / _CONFIG).read_text())
    start = time.monotonic()
    try:
        lowered, about = _lower(config, find_chip(topology), topology, program)
    except UserError as error:
        (folder / _MISTAKE).write_text(str(error))
        sys.exit(2)
    about["lower_s"] = time.monotonic() - start
    (folder / _LOWERED).write_text(json.dumps(about))
    lowered.compile({"xla_dump_to": str(folder), "xla_dump_hlo_as_text": True})


def _lower(
    config: RunConfig, chip: Chip, topology: str, program: str
) -> tuple[Any, dict[str, Any]]:
    """Returns (the program, what `Compiled` says of it)."""
    target.use(chip.platform)
    conv.use(config.conv)
    mesh = sharding.make_mesh(config.mesh, _devices(chip, topology))
    if program == "train":
        return _lower_step(config, mesh)
    return _lower_synthesis(config, mesh)


def _devices(chip: Chip, topology: str) -> list[Any]:
    from jax.experimental import topologies

    size = topology.partition(":")[2]
    try:
        if chip.platform == "gpu":
            shape = "x".join(["1", *(["1"] * (2 - len(size.split("x")))), size or "1"])
            return topologies.get_topology_desc(
                "", "cuda", target_config=_H100, topology=shape
            ).devices
        return topologies.get_topology_desc(topology, "tpu").devices
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"--topology={topology}: {error}") from error


def _lower_step(config: RunConfig, mesh: jax.sharding.Mesh) -> tuple[Any, dict[str, Any]]:
    """Lowers the step as `training.loop` does, of arrays without values."""
    config = sharding.for_devices(config, sharding.row_devices(mesh))
    by_rows, replicated = sharding.batch_sharding(mesh), sharding.replicated(mesh)
    method = base.build(**config_lib.method_fields(config))
    optimizers = optimizer.make_optimizers(config.optimizer, method.updates)
    data: Any = config.data
    sizes = _sizes(loader.train_crop(data), config.batch).training_sizes(config)
    batch = _abstract(spec.zeros(method.reads, sizes), by_rows)
    weights = {update: dict(terms) for update, terms in config.weights.items()}
    pretrained = {name: _pretrained(name, replicated) for name in method.pretrained}
    state = _abstract_state(method, optimizers, sizes, config)
    steps.check_weights(method, weights, state, batch, pretrained)
    placed = sharding.state_sharding(state, mesh, min_bytes=config.mesh.fsdp_min_bytes)
    step = steps.make_step(
        method,
        weights,
        optimizers,
        accumulate=config.accumulate,
        ema=config.ema,
        placement=sharding.Placement(mesh, placed.params, config.mesh.norm_groups),
    )
    inputs = sharding.place(state, placed), batch, pretrained
    jitted = steps.jit_step(step, placed, by_rows, replicated)
    about = {
        "devices": mesh.size,
        "batch": config.batch,
        "sizes": sizes,
        "state_bytes": _state_bytes(state, config),
        "model_flops": flops.count_step(step, *inputs) / mesh.size,
    }
    return jitted.trace(*inputs).lower(), about


def _lower_synthesis(config: RunConfig, mesh: jax.sharding.Mesh) -> tuple[Any, dict[str, Any]]:
    """Lowers the synthesis of a window on every device; what is made once of a source is given."""
    method = base.build(**config_lib.method_fields(config))
    optimizers = optimizer.make_optimizers(config.optimizer, method.updates)
    options = _sizes(config.data.crop, mesh.size)
    sizes = options.window_sizes(config)
    state = _abstract_state(method, optimizers, options.training_sizes(config), config)
    variables = _placed(state.variables, sharding.replicated(mesh))
    by_rows = sharding.batch_sharding(mesh)
    batch = _abstract(spec.zeros(method.synthesis_reads, sizes), by_rows)
    programs = synthesizer.make_synthesizer(method)
    # The carry's arrays have a row for each window, but for what all windows share.
    carry = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape,
            leaf.dtype,
            sharding=by_rows if leaf.shape[:1] == (mesh.size,) else sharding.replicated(mesh),
        ),
        jax.eval_shape(programs.start, variables, batch),
    )
    inputs = variables, batch, carry
    counted = flops.count_forward(lambda *given: synthesizer.synthesize(method, *given), *inputs)
    about = {
        "devices": mesh.size,
        "batch": mesh.size,
        "sizes": sizes,
        "state_bytes": {},
        "model_flops": sum(counted.values()) / mesh.size,
    }
    return programs.synthesize.trace(*inputs).lower(), about


def _sizes(crop: tuple[int, int], batch: int) -> BenchmarkOptions:
    height, width = crop
    if not height:
        raise UserError("config.data.crop: give the height and width that the data has")
    return BenchmarkOptions(height, width, batch=batch)


def _abstract_state(
    method: base.Method, optimizers: Mapping[str, Any], sizes: Mapping[str, int], config: RunConfig
) -> states.TrainState:
    """Returns the state's shapes; one row is enough to make parameters."""
    one = {**sizes, "b": 1}
    make = lambda: states.init_state(method, optimizers, one, config.seed, ema=config.ema > 0)  # noqa: E731
    return jax.eval_shape(make)


def _abstract(batch: Mapping[str, Any], where: Any) -> dict[str, jax.ShapeDtypeStruct]:
    return _placed({n: jax.ShapeDtypeStruct(x.shape, x.dtype) for n, x in batch.items()}, where)


def _placed(tree: Any, where: Any) -> Any:
    return sharding.place(tree, jax.tree.map(lambda _: where, tree))


def _pretrained(name: str, where: Any) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    return {
        unit: {
            array: jax.ShapeDtypeStruct(shape, jnp.float32, sharding=where)
            for array, shape in arrays.items()
        }
        for unit, arrays in registry.shapes(name).items()
    }


def _state_bytes(state: states.TrainState, config: RunConfig) -> dict[str, int]:
    found = {"cut": 0, "whole": 0}
    for leaf in jax.tree.leaves(state):
        size = leaf.size * leaf.dtype.itemsize
        found["cut" if size >= config.mesh.fsdp_min_bytes else "whole"] += size
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
