"""The loop: trains one stage, from wherever its directory says it is, to its last step."""

import contextlib
import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
from absl import logging
from jax.sharding import Sharding
from ml_collections import ConfigDict

from psrjax import config as config_lib
from psrjax.data import loader, spec
from psrjax.methods import base
from psrjax.ops import conv
from psrjax.pretrained import registry as pretrained_lib
from psrjax.synthetic import dataset
from psrjax.training import checkpoint, interrupt, optimizer, sharding, state, step, writer


def train_stage(
    config: ConfigDict,
    directory: str | os.PathLike,
    *,
    evaluate: Callable[[state.TrainState, int], None] | None = None,
    progress: Callable[[str, int, int], writer.Progress] = writer.Progress,
) -> state.TrainState:
    """Trains one stage in its directory; killed and called again, it goes on bit for bit.

    Args:
      config: of the stage (`config.stage_config`); a fresh state starts from `config.init`.
      directory: of the stage, local or gs://.
      evaluate: called with (state, step) every `config.evaluate_steps`, to write samples.
      progress: makes the progress display, from (stage, first step, last step).

    Returns:
      The state after the last step.

    Raises:
      UserError: for a config, data or directory that does not fit, and for losses that are not
        finite; the last checkpoint is then as it was.
      SystemExit, KeyboardInterrupt: after SIGTERM or SIGINT, once the state is saved.
    """
    directory, label = checkpoint.absolute(directory), config.method.stage
    sharding.use_compilation_cache()
    conv.use(config.conv)
    mesh = sharding.make_mesh(config.mesh)
    sharding.check_batch(config.batch, config.accumulate, mesh)
    by_rows, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)

    method = base.build(**config_lib.method_fields(config))
    weights = {update: dict(terms) for update, terms in config.weights.items()}
    optimizers = optimizer.make_optimizers(config.optimizer, method.updates)
    pretrained = {name: pretrained_lib.load(name) for name in method.pretrained}
    pretrained = jax.device_put(pretrained, whole)

    options = {"batch": config.batch, "seed": config.seed, "sharding": by_rows}
    data_config = dataset.resolve_path(config.data)
    batches = partial(loader.train_batches, data_config, method.reads, **options)
    with contextlib.closing(batches(start_step=0)) as first:
        example = jax.tree.map(sharding.describe, next(first))

    make = partial(state.init_state, method, optimizers, _sizes(example), ema=config.ema > 0)
    abstract = jax.eval_shape(make, config.seed)
    step.check_weights(method, weights, abstract, example, pretrained)
    if config.accumulate > 1 and "batch_stats" in abstract.stats:
        logging.info("batch statistics are of micro-batches, not of the batch: accumulate > 1")
    placed = sharding.state_sharding(abstract, mesh, min_bytes=config.mesh.fsdp_min_bytes)
    sharding.log_placement(abstract, placed, mesh)

    with contextlib.ExitStack() as stack:
        stack.enter_context(checkpoint.telling_full_disks(directory))
        closing = lambda thing: stack.enter_context(contextlib.closing(thing))  # noqa: E731
        saved = closing(checkpoint.Checkpoints(directory, config))
        now = saved.restore(sharding.place(abstract, placed))
        if now is None:
            fresh = jax.jit(make, out_shardings=placed)(config.seed)
            now = _begin(fresh, method, config, whole)
        start = int(now.step)

        began = time.monotonic()
        play = step.make_step(
            method, weights, optimizers, accumulate=config.accumulate, ema=config.ema
        )
        play = step.jit_step(play, placed, by_rows, whole).lower(now, example, pretrained).compile()
        writer.describe_parameters(directory, now.params)
        writer.describe_compilation(label, play, time.monotonic() - began)

        data = closing(batches(start_step=start))
        record = closing(writer.Writer(directory, start))
        shown = closing(progress(label, start, config.steps))
        stop = stack.enter_context(interrupt.StopRequest(saved.reached_preemption))
        log: dict[str, jax.Array] = {}
        for count in range(start + 1, config.steps + 1):
            batch = next(data)
            jax.block_until_ready(log)  # one step ahead of the device is enough
            with jax.transfer_guard("disallow"):
                now, log = play(now, batch, pretrained)
            shown.update(count)
            stopping, last = stop.reached(count), count == config.steps
            saving = count % config.checkpoint_steps == 0 or last or stopping
            writing = count % config.log_steps == 0 or last
            if saving or writing:
                step.check_finite(now, method, weights, saved.latest_step())
            if writing:
                scalars = {name: float(value) for name, value in jax.device_get(log).items()}
                rates = optimizer.learning_rates(config.optimizer, count - 1)
                record.write(count, scalars | rates)
                shown.note({update: scalars[f"{update}/loss"] for update in method.updates})
            if saving:
                saved.save(count, now, data.get_state())
            if evaluate and config.evaluate_steps and (count % config.evaluate_steps == 0 or last):
                evaluate(now, count)
            if stopping and not last:
                stop.leave(f"{label} is saved at step {count}; the same command goes on from there")
        return now


def _begin(
    fresh: state.TrainState, method: base.Method, config: ConfigDict, whole: Sharding
) -> state.TrainState:
    """The fresh state, warmed up by the method, then with the nets of the run it starts from and
    what the method's new nets inherit from them."""
    if type(method).warm_start is not base.Method.warm_start:
        clips = loader.TrainFrames(dataset.resolve_path(config.data))
        fresh = state.with_params(fresh, method.warm_start(jax.device_get(fresh.params), clips))
    if not config.init.path:
        return fresh
    stage = checkpoint.find_stage(config.init.path, config.init.stage)
    origin = checkpoint.absolute(config.init.path) / stage
    variables = checkpoint.load_variables(origin, whole)["variables"]
    begun = checkpoint.start_from(fresh, variables, config.init.nets, origin)
    if type(method).init_from_previous is base.Method.init_from_previous:
        return begun
    return state.with_variables(
        begun, method.init_from_previous({"params": begun.params, **begun.stats})
    )


def _sizes(example: Mapping[str, Any]) -> dict[str, int]:
    """The sizes of the contract's axes in a batch; one row is enough to make parameters."""
    sizes = {}
    for name, array in example.items():
        axes = zip(spec.KEYS[name].axes.split(), array.shape)
        sizes |= {axis: size for axis, size in axes if not axis.isdigit()}
    return sizes | {"b": 1}
