"""The benchmark: how fast one stage of a method runs and trains on this machine.

It needs only jax, flax, optax, numpy, ml_collections and jaxtyping, so that it also runs on a bare
accelerator machine; the loader and PyTorch are imported where they are asked for.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from psrjax import config as config_lib
from psrjax import pretrained
from psrjax.data import spec
from psrjax.errors import UserError
from psrjax.methods import base
from psrjax.metrics import image
from psrjax.ops import geometry
from psrjax.training import benchmark_flops as flops
from psrjax.training import benchmark_timing as timing
from psrjax.training import machine, optimizer
from psrjax.training import state as states
from psrjax.training import step as steps

PEERS = ("torch",)
_OPERATION_RUNS = 20
_LOADER_SECONDS = 5.0
_ACTIVITY = 0.5  # each value of a random batch keeps to this share of its range


@dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
      height: of the frames.
      width: of the frames.
      frames: of source and target.
      batch: clips.
      runs: timed runs of forward and of the step.
      against: "" or "torch".
      pairs: timed pairs of runs against the peer.
      data: "" or the data set whose loader is timed, as `config.data.path`.
    """

    height: int
    width: int
    frames: int
    batch: int = 1
    runs: int = 10
    against: str = ""
    pairs: int = 5
    data: str = ""

    @property
    def sizes(self) -> dict[str, int]:
        """The contract's axes."""
        return {
            "b": self.batch,
            "k": self.frames,
            "t": self.frames,
            "h": self.height,
            "w": self.width,
        }


@dataclass
class Subject:
    """One stage of a method, its state, a batch of random numbers, and both programs compiled.

    Attributes:
      method: at its stage.
      state: the training state; `step` replaces it.
      batch: on the wire's types, on the device.
      forward_flops: {layer: FLOPs} of the generator alone.
      step_flops: FLOPs of a training step.
    """

    method: base.Method
    state: states.TrainState
    batch: dict[str, jax.Array]
    weights: dict[str, jax.Array]
    forward_program: timing.Program
    step_program: timing.Program
    forward_flops: dict[str, int]
    step_flops: int
    log: dict[str, jax.Array] = field(default_factory=dict)

    def forward(self) -> jax.Array:
        """The synthesized video, (b t h w 3), with the kept statistics."""
        return self.forward_program.call(self.state.variables, self.batch)

    def step(self) -> dict[str, jax.Array]:
        """One training step: what it logs."""
        self.state, self.log = self.step_program.call(self.state, self.batch, self.weights)
        return self.log


def prepare(config: Any, options: Options) -> Subject:
    """Builds and compiles everything for one stage.

    Args:
      config: of the stage (`psrjax.config.stage_config`).
      options: the sizes.

    Raises:
      UserError: for sizes or fields that the method refuses, or missing pretrained weights.
    """
    method = base.build(**config_lib.method_fields(config))
    optimizers = optimizer.make_optimizers(config.optimizer, method.turns)
    weights = {name: jax.device_put(pretrained.load(name)) for name in method.pretrained}
    batch = jax.device_put(random_batch(method.reads, options.sizes))
    init = jax.jit(
        lambda seed: states.init_state(method, optimizers, options.sizes, seed, ema=config.ema > 0)
    )
    state = init(config.seed)
    terms = {turn: dict(names) for turn, names in config.weights.items()}
    steps.check_weights(method, terms, state, batch, weights)
    step = steps.make_step(method, terms, optimizers, accumulate=config.accumulate, ema=config.ema)

    def forward(variables: Mapping, batch: Mapping) -> jax.Array:
        def synthesize(method: base.Method, batch: Mapping) -> jax.Array:
            made, _ = method.synthesize(batch, method.start(batch))
            return made["video"]

        return method.apply(variables, spec.decode(batch), method=synthesize)

    return Subject(
        method,
        state,
        batch,
        weights,
        timing.compile_program(jax.jit(forward), state.variables, batch),
        timing.compile_program(jax.jit(step, donate_argnums=0), state, batch, weights),
        flops.count_forward(forward, state.variables, batch),
        flops.count_step(step, method.turns, state, batch, weights),
    )


def random_batch(keys: tuple[str, ...], sizes: Mapping[str, int], seed: int = 0) -> dict:
    """A wire batch of random numbers within the contract's ranges; flow is of a few pixels."""
    generator = np.random.default_rng(seed)
    batch = spec.zeros(keys, sizes)
    for name, array in batch.items():
        coding = spec.KEYS[name].coding
        if coding == spec.LABEL:
            values = generator.integers(0, 3, array.shape)
        elif array.dtype == np.uint8:
            values = generator.integers(0, 256, array.shape)
        elif "flow" in name:
            values = generator.uniform(-4.0, 4.0, array.shape)
        else:
            values = generator.uniform(0.0, 1.0, array.shape)
        batch[name] = values.astype(array.dtype)
    return batch


def run(config: Any, options: Options) -> dict[str, Any]:
    """Measures a stage, single operations, and on request the loader and the peer.

    Args:
      config: of the stage.
      options: what to measure.

    Returns:
      What `table` prints, ready for JSON. Times are in seconds, rates per second.

    Raises:
      UserError: as `prepare`, or for an unknown or missing peer.
    """
    if options.against and options.against not in PEERS:
        raise UserError(f"--against={options.against}: no such peer; there are {', '.join(PEERS)}")
    jax.config.update("jax_enable_compilation_cache", False)  # compilation is measured too
    logging.info("compiling")
    subject = prepare(config, options)
    peak = timing.matrix_peak(subject.method.dtype)
    result = {
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine.describe(),
        "versions": machine.versions(),
        "commit": machine.commit(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else -1.0,
        "method": config_lib.method_fields(config) | {"parameters": parameters(subject)},
        "sizes": options.sizes,
        "matrix_peak_flops_per_s": peak,
    }
    logging.info("timing forward and the training step")
    for name, call, program, count in (
        ("forward", subject.forward, subject.forward_program, sum(subject.forward_flops.values())),
        ("step", subject.step, subject.step_program, subject.step_flops),
    ):
        found = timing.measure(call, runs=options.runs)
        result[name] = found.summary() | {
            "per_s": 1.0 / found.median,
            "clips_per_s": options.batch / found.median,
            "flops": count,
            "flops_per_s": count / found.median,
            "fraction_of_peak": count / found.median / peak,
            "compile_s": program.compile_seconds,
            "xla_flops": program.executed_flops,
        }
    result["operations"] = {
        name: timing.measure(call, runs=_OPERATION_RUNS).summary()
        for name, call in operations().items()
    }
    result["peak_memory_gib"] = machine.peak_memory_gib()
    device = jax.local_devices()[0].memory_stats() or {}  # none on CPUs
    result["peak_device_memory_gib"] = device.get("peak_bytes_in_use", 0) / 2**30
    if options.data:
        logging.info("timing the loader")
        result["loader"] = _time_loader(config, subject.method, options)
    if options.against:
        from psrjax.training import benchmark_peer

        result["against"] = benchmark_peer.compare(subject, config, options)
    return result


def parameters(subject: Subject) -> dict[str, int]:
    """{net: how many parameters it has}."""
    return {
        net: sum(leaf.size for leaf in jax.tree.leaves(tree))
        for net, tree in subject.state.params.items()
    }


def operation_inputs() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The inputs of the single operations: 64-channel features and a flow; frames and frames."""
    generator = np.random.default_rng(0)
    features = generator.normal(size=(1, 256, 256, 64)).astype(np.float32)
    flow = generator.uniform(-6.0, 6.0, size=(1, 256, 256, 2)).astype(np.float32)
    frames = generator.uniform(size=(2, 8, 256, 256, 3)).astype(np.float32)
    return {"warp": (features, flow), "ssim": (frames[0], frames[1])}


def operations() -> dict[str, Any]:
    """{name: call}: single operations, forward with the gradients of both or of one input."""

    def warped(features: jax.Array, flow: jax.Array) -> jax.Array:
        return jnp.square(geometry.warp(features, flow)).mean()

    def similarity(video: jax.Array, truth: jax.Array) -> jax.Array:
        return image.ssim(video, truth).mean()

    warp = jax.jit(jax.value_and_grad(warped, argnums=(0, 1)))
    ssim = jax.jit(jax.value_and_grad(similarity))
    inputs = jax.device_put(operation_inputs())
    return {"warp": lambda: warp(*inputs["warp"]), "ssim": lambda: ssim(*inputs["ssim"])}


def _time_loader(config: Any, method: base.Method, options: Options) -> dict[str, float]:
    """Clips per second of the training loader, alone on the machine."""
    from psrjax.data import loader  # grain and ArrayRecord, which a bare machine has not

    data = config.data.copy_and_resolve_references()
    with data.unlocked():
        data.path = options.data
        data.crop = (options.height, options.width)
        data.sampling.k = data.sampling.t = options.frames
    batches = loader.train_batches(
        data, method.reads, batch=options.batch, seed=config.seed, start_step=0
    )
    try:
        jax.block_until_ready(next(batches))
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < _LOADER_SECONDS:
            jax.block_until_ready(next(batches))
            count += 1
        seconds = time.perf_counter() - start
    finally:
        batches.close()
    return {"batches": count, "clips_per_s": options.batch * count / seconds}


def table(result: Mapping[str, Any]) -> str:
    """The result as lines of text."""
    sizes, method = result["sizes"], result["method"]
    width = f", width {method['width']}" if "width" in method else ""
    lines = [
        f"{result['machine']}; load {result['load_average']:.1f}",
        f"{result['versions']}; commit {result['commit'] or 'unknown'}",
        f"{method['name']} {method['stage']}{width}, {sizes['b']} × {sizes['t']} frames of "
        f"{sizes['h']}x{sizes['w']}, {method['dtype']}; parameters "
        + ", ".join(f"{net} {count:,}" for net, count in method["parameters"].items()),
        f"matrix-product peak, same run: {result['matrix_peak_flops_per_s'] / 1e9:.0f} GFLOP/s",
        "",
        f"{'':12}{'median':>10} {'quartiles':>17} {'per s':>8} {'clips/s':>8} {'GFLOP':>8} "
        f"{'GFLOP/s':>8} {'of peak':>8} {'compile':>8}",
    ]
    for name in ("forward", "step"):
        row = result[name]
        lines.append(
            f"{name:12}{_milliseconds(row)} {row['per_s']:8.3f} {row['clips_per_s']:8.3f} "
            f"{row['flops'] / 1e9:8.1f} {row['flops_per_s'] / 1e9:8.1f} "
            f"{row['fraction_of_peak']:8.1%} {row['compile_s']:6.1f} s"
        )
    for name, row in result["operations"].items():
        lines.append(f"{name + ' + grad':12}{_milliseconds(row)}")
    if "loader" in result:
        lines.append(f"loader      {result['loader']['clips_per_s']:.1f} clips/s")
    device = result["peak_device_memory_gib"]
    on_device = f", {device:.2f} GiB on the device" if device else ""
    lines.append(f"peak memory {result['peak_memory_gib']:.2f} GiB{on_device}")
    if "against" in result:
        lines += ["", *_against(result["against"])]
    return "\n".join(lines)


def _milliseconds(row: Mapping[str, float]) -> str:
    quartiles = f"{row['quartile_low_s'] * 1e3:.1f}..{row['quartile_high_s'] * 1e3:.1f}"
    return f"{row['median_s'] * 1e3:7.1f} ms {quartiles:>17}"


def _against(found: Mapping[str, Any]) -> list[str]:
    lines = [
        f"against {found['versions']}, {found['threads']} threads, {found['format']}",
        f"same parameters ({found['parameters']:,}), same FLOPs per layer; step "
        f"{found['step_gflop']:.1f} GFLOP by formula, {found['peer_step_gflop']:.1f} by PyTorch's "
        "counter",
        f"outputs differ by {found['output_difference']:.1e} at most, the step's logged values by "
        f"{found['log_difference']:.1e} of their size",
        f"{'':12}{'psrjax':>10} {'peer':>10} {'ratio':>7} {'quartiles':>14} {'pairs':>6}",
    ]
    for name, row in found["pairs"].items():
        ratio = row["ratio"]
        quartiles = f"{ratio['quartile_low_s']:.2f}..{ratio['quartile_high_s']:.2f}"
        ours, theirs = row["psrjax"]["median_s"] * 1e3, row["peer"]["median_s"] * 1e3
        lines.append(
            f"{name:12}{ours:7.1f} ms {theirs:7.1f} ms {ratio['median_s']:7.2f} "
            f"{quartiles:>14} {ratio['runs']:6d}"
        )
    return lines
