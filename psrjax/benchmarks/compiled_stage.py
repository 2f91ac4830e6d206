"""Compiles the programs of one stage of any method, ready to be timed."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from absl import logging

from psrjax import config as config_lib
from psrjax.benchmarks import flops, timing
from psrjax.data import spec
from psrjax.errors import UserError
from psrjax.inference import synthesizer
from psrjax.methods import base
from psrjax.ops import conv
from psrjax.pretrained import registry
from psrjax.training import optimizer
from psrjax.training import state as states
from psrjax.training import step as steps


@dataclass(frozen=True)
class BenchmarkOptions:
    """The sizes and what to measure.

    Attributes:
      height: of the frames.
      width: of the frames.
      frames: of a synthesized window, and of the training clip too where the source is the same
        moment in another view; 0 is the config's. Other clips are trained on as the config says.
      batch: clips.
      runs: timed runs of synthesis and of the step; 0 leaves them out, for the data alone.
      against: "" or "torch".
      pairs: timed pairs of runs against PyTorch.
      data: "" or the data whose loading is timed, see `data_benchmark.measure`.
      joints: where the joints of a video to be prepared come from.
      operations: also time single operations.
    """

    height: int
    width: int
    frames: int = 0
    batch: int = 1
    runs: int = 10
    against: str = ""
    pairs: int = 5
    data: str = ""
    joints: str = "mediapipe"
    operations: bool = True

    def training_sizes(self, config: Any) -> dict[str, int]:
        """Returns the sizes of the contract's axes in a training batch."""
        how = config.data.sampling
        if how.source == "same_time":
            return self.window_sizes(config)
        return self._sizes(how.k, how.t + how.history)

    def window_sizes(self, config: Any) -> dict[str, int]:
        """Returns the sizes of the contract's axes in synthesis."""
        how = config.data.sampling
        frames = self.frames or how.t
        return self._sizes(frames if how.source == "same_time" else how.k, frames)

    def _sizes(self, k: int, t: int) -> dict[str, int]:
        return {"b": self.batch, "k": k, "t": t, "h": self.height, "w": self.width}


@dataclass
class CompiledStage:
    """One stage of a method, its state, batches of random numbers, and its programs compiled.

    Attributes:
      method: at its stage.
      state: the training state; `step` replaces it.
      batch: a training batch on the wire's types, on the device.
      window: likewise, for synthesis.
      weights: of pretrained networks.
      programs: "step", and either "forward" (source and window to video) or, where synthesis
        computes something once for each source, "start" and then "animate", window by window.
      carry: what "start" gives.
      forward_flops: {layer: FLOPs} of synthesis, start included.
      flops: {program: FLOPs}.
    """

    method: base.Method
    state: states.TrainState
    batch: dict[str, jax.Array]
    window: dict[str, jax.Array]
    weights: dict[str, Any]
    programs: dict[str, timing.Program]
    carry: Any
    forward_flops: dict[str, int]
    flops: dict[str, int]
    log: dict[str, jax.Array] = field(default_factory=dict)

    @property
    def calls(self) -> dict[str, Callable[[], Any]]:
        """{program: call}, in the order of `text_table.PROGRAMS`."""
        known = {
            "forward": self.synthesize,
            "start": self.begin,
            "animate": self.animate,
            "step": self.step,
        }
        return {name: call for name, call in known.items() if name in self.programs}

    @property
    def trained(self) -> dict[str, Any]:
        """The trained variables, not their moving averages."""
        return {"params": self.state.params, **self.state.stats}

    def synthesize(self) -> jax.Array:
        """Makes the window's video, (b t h w 3), with the running statistics."""
        if "forward" in self.programs:
            return self.programs["forward"].call(self.trained, self.window)
        return self.programs["animate"].call(self.trained, self.window, self.begin())

    def begin(self) -> Any:
        """Computes what synthesis keeps of its source."""
        return self.programs["start"].call(self.trained, self.window)

    def animate(self) -> jax.Array:
        """Makes the window's video from what is kept of the source."""
        return self.programs["animate"].call(self.trained, self.window, self.carry)

    def step(self) -> dict[str, jax.Array]:
        """Makes one training step; returns what it logs."""
        self.state, self.log = self.programs["step"].call(self.state, self.batch, self.weights)
        return self.log


def prepare(config: Any, options: BenchmarkOptions) -> CompiledStage:
    """Builds and compiles one stage.

    Args:
      config: of the stage (`psrjax.config.stage_config`).
      options: the sizes.

    Raises:
      UserError: for sizes or fields that the method refuses.
    """
    conv.use(config.conv)
    method = base.build(**config_lib.method_fields(config))
    optimizers = optimizer.make_optimizers(config.optimizer, method.updates)
    weights = {name: jax.device_put(_pretrained(name)) for name in method.pretrained}
    sizes, window_sizes = options.training_sizes(config), options.window_sizes(config)
    batch = jax.device_put(random_batch(method.reads, sizes))
    window = jax.device_put(random_batch(method.synthesis_reads, window_sizes))
    init = jax.jit(
        lambda seed: states.init_state(method, optimizers, sizes, seed, ema=config.ema > 0)
    )
    state = init(config.seed)
    terms = {update: dict(names) for update, names in config.weights.items()}
    steps.check_weights(method, terms, state, batch, weights)
    step = steps.make_step(method, terms, optimizers, accumulate=config.accumulate, ema=config.ema)

    begin = functools.partial(synthesizer.start, method)

    def animate(variables: Mapping, batch: Mapping, carry: Any) -> jax.Array:
        made, _ = synthesizer.synthesize(method, variables, batch, carry)
        return made["video"]

    def forward(variables: Mapping, batch: Mapping) -> jax.Array:
        return animate(variables, batch, begin(variables, batch))

    variables = {"params": state.params, **state.stats}
    carry = jax.jit(begin)(variables, window)
    synthesis = {"forward": (forward, (variables, window))}
    if jax.tree.leaves(carry):
        synthesis = {
            "start": (begin, (variables, window)),
            "animate": (animate, (variables, window, carry)),
        }
    layers = {name: flops.count_forward(run, *args) for name, (run, args) in synthesis.items()}
    totals = {name: sum(each.values()) for name, each in layers.items()}
    programs = {
        name: timing.compile_program(jax.jit(run), *args) for name, (run, args) in synthesis.items()
    }
    training = (state, batch, weights)
    programs["step"] = timing.compile_program(jax.jit(step, donate_argnums=0), *training)
    return CompiledStage(
        method=method,
        state=state,
        batch=batch,
        window=window,
        weights=weights,
        programs=programs,
        carry=carry,
        forward_flops=flops.count_forward(forward, variables, window),
        flops={**totals, "step": flops.count_step(step, *training)},
    )


def _pretrained(name: str) -> Mapping[str, Any]:
    """Loads weights by name, or untrained ones, which take the same time."""
    try:
        return registry.load(name)
    except UserError as error:
        logging.warning("%s; untrained weights stand in, which take the same time", error)
        return registry.load(f"{name.partition(':')[0]}:random")


def random_batch(keys: tuple[str, ...], sizes: Mapping[str, int], seed: int = 0) -> dict:
    """Draws a wire batch within the contract's ranges; flow is of a few pixels."""
    generator = np.random.default_rng(seed)
    batch = spec.zeros(keys, sizes)
    for name, array in batch.items():
        coding = spec.KEYS[name].coding
        if coding == spec.LABEL:
            values = generator.integers(0, 3, array.shape)
        elif coding == spec.IUV:
            values = generator.integers(0, (25, 256, 256), array.shape)
        elif array.dtype == np.uint8:
            values = generator.integers(0, 256, array.shape)
        elif "flow" in name:
            values = generator.uniform(-4.0, 4.0, array.shape)
        elif "joints" in name:
            values = generator.uniform((-1.0, -1.0, 0.5), 1.0, array.shape)
        else:
            values = generator.uniform(0.0, 1.0, array.shape)
        batch[name] = values.astype(array.dtype)
    return batch


def parameters(stage: CompiledStage) -> dict[str, int]:
    """Counts the parameters: {net: number}."""
    return {
        net: sum(leaf.size for leaf in jax.tree.leaves(tree))
        for net, tree in stage.state.params.items()
    }
