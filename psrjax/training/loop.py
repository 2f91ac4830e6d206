"""The training loop: one stage, from the step that its directory is at to its last step."""

import collections
import contextlib
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from etils import epath
from jax.sharding import Sharding

from psrjax import config as config_lib
from psrjax.config import RunConfig
from psrjax.data import loader, spec
from psrjax.errors import UserError
from psrjax.methods import base
from psrjax.ops import conv
from psrjax.pretrained import registry
from psrjax.synthetic import dataset
from psrjax.training import checkpoint, interrupt, optimizer, profile, refinement, sharding, writer
from psrjax.training.state import TrainState, init_state, with_params, with_variables
from psrjax.training.step import (
    Step,
    check_finite,
    check_fits,
    check_weights,
    growing,
    jit_step,
    make_step,
    nonfinite,
)

_IN_FLIGHT = 2  # steps that the devices may have before them: one runs, the next one is ready


def train_stage(
    config: RunConfig,
    directory: str | os.PathLike[str],
    *,
    evaluate: Callable[[TrainState, int], None] | None = None,
    score: Callable[[TrainState], float] | None = None,
    progress: Callable[[str, int, int], writer.Progress] = writer.Progress,
    traced: range = range(0),
    begin: Callable[[], None] = lambda: None,
    replay: bool = False,
) -> TrainState:
    """Trains one stage in its directory; killed and called again, it goes on bit for bit.

    Args:
      config: of the stage (`config.stage_config`); a fresh state starts from `config.init`.
      directory: of the stage, local or gs://.
      evaluate: called with (state, step) every `config.evaluate_steps`, to write samples.
      score: of `config.keep_best`, the higher the better: called with every state that is saved,
        except where the run is about to be stopped.
      progress: makes the progress display, from (stage, first step, last step).
      traced: the steps to be profiled, see `profile.Trace`.
      begin: called once model and data are found to fit; nothing is written before.
      replay: makes the steps after the last checkpoint again, up to where the next one would be,
        looks at each, and writes nothing.

    Returns:
      The state after the last step.

    Raises:
      UserError: for a config, data or directory that does not fit, and for losses that are not
        finite; the last checkpoint is then as it was.
      SystemExit, KeyboardInterrupt: after SIGTERM or SIGINT, once the state is saved.
    """
    conv.use(config.conv)
    directory, stage = checkpoint.absolute(directory), config.method.stage
    mesh = sharding.make_mesh(config.mesh)
    config = sharding.for_devices(config, sharding.row_devices(mesh))
    batch_sharding, replicated = sharding.batch_sharding(mesh), sharding.replicated(mesh)
    method = base.build(**config_lib.method_fields(config))
    weights = {update: dict(terms) for update, terms in config.weights.items()}
    optimizers = optimizer.make_optimizers(config.optimizer, method.updates)
    pretrained = jax.device_put({n: registry.load(n) for n in method.pretrained}, replicated)

    batches = partial(
        loader.train_batches,
        dataset.resolve_path(config.data),
        method.reads,
        batch=config.batch,
        seed=config.seed,
        sharding=batch_sharding,
    )
    example = _example(batches)

    make = partial(init_state, method, optimizers, _sizes(example), ema=config.ema > 0)
    abstract = jax.eval_shape(make, config.seed)
    check_weights(method, weights, abstract, example, pretrained)
    _check_options(config, method, abstract, example)
    shardings = sharding.state_sharding(abstract, mesh, min_bytes=config.mesh.fsdp_min_bytes)
    sharding.log_placement(abstract, shardings, mesh)

    begin()
    with contextlib.ExitStack() as stack:
        stack.enter_context(checkpoint.explain_full_disks(directory))
        closing = lambda thing: stack.enter_context(contextlib.closing(thing))  # noqa: E731
        checkpoints = closing(checkpoint.Checkpoints(directory, config))
        state = checkpoints.restore(sharding.place(abstract, shardings)) or _initialize(
            jax.jit(make, out_shardings=shardings)(config.seed), method, config, replicated
        )
        start = int(state.step)
        end = min(start + config.checkpoint_steps, config.steps) if replay else config.steps
        records = _elsewhere(stack) if replay else directory

        step_at = growing(
            make_step(
                method,
                weights,
                optimizers,
                accumulate=config.accumulate,
                ema=config.ema,
                placement=sharding.Placement(mesh, shardings.params, config.mesh.norm_groups),
            ),
            int(config.grow * config.steps),
        )
        train_step = _CompiledStep(
            stage, step_at, (shardings, batch_sharding, replicated), (example, pretrained)
        )
        state = train_step.reach(start + 1, state)
        data = closing(batches(start_step=start))
        record = closing(_recorder(records, start, method, state))
        shown = closing(progress(stage, start, end))
        stop = stack.enter_context(interrupt.StopRequest(checkpoints.reached_preemption))
        trace = closing(profile.Trace(records, traced))
        logs = collections.deque[dict[str, jax.Array]]([{}] * _IN_FLIGHT, maxlen=_IN_FLIGHT)
        for step in range(start + 1, end + 1):
            state = train_step.reach(step, state)
            trace.reach(step, logs[-1])
            with profile.step(step):
                batch = next(data)
                state, log = _advance(train_step, (state, batch, pretrained), logs)
            shown.update(step)
            if replay:
                _check_replayed(state, method, weights, batch, data.names(batch))
                continue
            stopping, last = stop.reached(step), step == config.steps
            saving, writing = (
                step % every == 0 or last for every in (config.checkpoint_steps, config.log_steps)
            )
            if saving or writing or stopping:
                check_finite(state, method, weights, checkpoints.latest_step())
            if writing:
                _write(config, method, step, log, record, shown)
            if not stopping:  # what is killed before its checkpoint is whole is made again
                _evaluate_where_due(evaluate, config, state, step)
            if saving or stopping:
                checkpoints.save(
                    step,
                    state,
                    data.get_state(),
                    loss=float(log[f"{next(iter(method.updates))}/loss"]),
                    score=score(state) if score and (last or not stopping) else None,
                )
            if stopping:
                _evaluate_where_due(evaluate, config, state, step)
                if not last:
                    stop.leave(
                        f"{stage} is saved at step {step}; the same command goes on from there"
                    )
        return state


def _recorder(
    directory: epath.Path, start: int, method: base.Method, state: TrainState
) -> writer.Writer:
    writer.describe_parameters(directory, state.params)
    return writer.Writer(directory, start, method.warnings)


def _evaluate_where_due(
    evaluate: Callable[[TrainState, int], None] | None,
    config: RunConfig,
    state: TrainState,
    step: int,
) -> None:
    every = config.evaluate_steps
    if evaluate and every and (step % every == 0 or step == config.steps):
        evaluate(state, step)


def _elsewhere(stack: contextlib.ExitStack) -> epath.Path:
    return epath.Path(stack.enter_context(tempfile.TemporaryDirectory()))


def _advance(
    train_step: Callable[..., tuple[TrainState, dict[str, jax.Array]]],
    inputs: tuple[Any, ...],
    logs: collections.deque[dict[str, jax.Array]],
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Makes a step as soon as the one before the last is done; adds its log to `logs`."""
    jax.block_until_ready(logs[0])
    with jax.transfer_guard("disallow"):
        state, log = train_step(*inputs)
    logs.append(log)
    return state, log


def _check_replayed(
    state: TrainState,
    method: base.Method,
    weights: Mapping[str, Mapping[str, float]],
    batch: Mapping[str, jax.Array],
    names: Sequence[str],
) -> None:
    """Raises UserError if this step was not finite, with its batch and what is wrong in that."""
    found = nonfinite(state, method, weights)
    if not found:
        return
    floats = {name: array for name, array in batch.items() if array.dtype.kind == "f"}
    wrong = [name for name, array in floats.items() if not bool(jnp.isfinite(array).all())]
    inputs = f"{', '.join(wrong)} of it not finite" if wrong else "all of it finite"
    raise UserError(
        f"stage {method.stage}, step {int(state.step)}: {found} is not finite; its batch, "
        f"{inputs}: {', '.join(names)}"
    )


def _example(batches: Callable[..., Any]) -> Any:
    """Returns the shapes of the first batch."""
    with contextlib.closing(batches(start_step=0)) as first:
        return jax.tree.map(sharding.describe, next(first))


def _check_options(config: RunConfig, method: base.Method, state: TrainState, example: Any) -> None:
    if config.init.path:
        checkpoint.find_stage(config.init.path, config.init.stage)
    if config.grow:
        check_fits(method, state, jax.eval_shape(spec.halve, example), "config.grow")
    if any(config.data.train_crop):
        sizes = _sizes(example)
        whole = spec.zeros(method.reads, {**sizes, "h": 2 * sizes["h"], "w": 2 * sizes["w"]})
        check_fits(method, state, whole, "config.data.train_crop")
    if config.accumulate > 1 and "batch_stats" in state.stats:
        logging.info("batch statistics are of micro-batches, not of the batch: accumulate > 1")


def _write(
    config: RunConfig,
    method: base.Method,
    step: int,
    log: Mapping[str, jax.Array],
    record: writer.Writer,
    shown: writer.Progress,
) -> None:
    """Records a step's log, and shows its losses."""
    numbers = {name: float(value) for name, value in jax.device_get(log).items()}
    record.write(step, numbers | optimizer.learning_rates(config.optimizer, step - 1))
    shown.note({update: numbers[f"{update}/loss"] for update in method.updates})


class _CompiledStep:
    """The step of each number, compiled where another one begins."""

    def __init__(
        self,
        stage: str,
        step_at: Callable[[int], Step],
        shardings: tuple[Any, Any, Any],
        inputs: tuple[Any, Any],
    ):
        """Compiles nothing yet.

        Args:
          stage: its name, for the log.
          step_at: see `growing`.
          shardings: of the state, the batch and everything else.
          inputs: a batch, or its shapes, and the pretrained networks.
        """
        self._stage, self._step_at = stage, step_at
        self._shardings, self._inputs = shardings, inputs
        self._step: Step | None = None
        self._restart = jax.jit(_restarted, out_shardings=shardings[0], donate_argnums=0)

    def reach(self, number: int, state: TrainState) -> TrainState:
        """Makes the step of that number the one that is called; returns the state to call it with.

        Where frames become larger, the optimizers' moments begin anew.
        """
        step = self._step_at(number)
        if number > 1 and step is not self._step_at(number - 1):
            state = self._restart(state)
        if step is not self._step:
            self._step, self._compiled = step, self._compile(step, state)
        return state

    def __call__(self, *inputs: Any) -> Any:
        return self._compiled(*inputs)

    def _compile(self, step: Step, state: TrainState) -> jax.stages.Compiled:
        began = time.monotonic()
        lowered = jit_step(step, *self._shardings).lower(state, *self._inputs)
        writer.announce_compilation(self._stage, lowered)
        compiled = lowered.compile()
        writer.describe_compilation(self._stage, compiled, time.monotonic() - began)
        return compiled


def _restarted(state: TrainState) -> TrainState:
    return state.replace(opt=optimizer.restarted(state.opt))


def _initialize(
    fresh: TrainState, method: base.Method, config: RunConfig, replicated: Sharding
) -> TrainState:
    """Applies the method's warm start, `config.init` and what the method derives from its nets."""
    if type(method).warm_start is not base.Method.warm_start:
        clips = loader.TrainFrames(dataset.resolve_path(config.data))
        fresh = with_params(fresh, method.warm_start(jax.device_get(fresh.params), clips))
    if config.init.run:
        fresh = refinement.with_estimate(fresh, config.init.run)
    if not config.init.path:
        return fresh
    init = config.init
    variables, origin = checkpoint.load_origin(init.path, init.stage, replicated)
    state = checkpoint.start_from(fresh, variables, config.init.nets, origin)
    if type(method).init_from_previous is base.Method.init_from_previous:
        return state
    return with_variables(state, method.init_from_previous({"params": state.params, **state.stats}))


def _sizes(example: Mapping[str, Any]) -> dict[str, int]:
    """Returns the sizes of the batch's axes; one row is enough to make parameters."""
    sizes: dict[str, int] = {}
    for name, array in example.items():
        axes = zip(spec.KEYS[name].axes.split(), array.shape)
        sizes |= {axis: size for axis, size in axes if not axis.isdigit()}
    return sizes | {"b": 1}
