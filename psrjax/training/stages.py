"""Trains the stages of a config one after the other, in one run directory."""

import contextlib
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np
from absl import logging
from etils import epath

from psrjax import config as config_lib
from psrjax import io
from psrjax.config import RunConfig
from psrjax.data import codec, loader
from psrjax.errors import UserError
from psrjax.evaluation import method_evaluation, score_table
from psrjax.methods import base
from psrjax.metrics import registry
from psrjax.synthetic import dataset
from psrjax.training import checkpoint, loop, sharding, writer
from psrjax.training.state import TrainState
from psrjax.vision import drawing

_SAMPLES = 2  # windows in one picture of samples


def train(
    config: RunConfig,
    workdir: str | os.PathLike[str],
    *,
    progress: Callable[[str, int, int], writer.Progress] | None = None,
    traced: range = range(0),
    rewind: int = 0,
    replay: bool = False,
) -> TrainState | None:
    """Trains the stages in `<workdir>/<stage>/`; skips finished ones, resumes the cut one.

    Each stage starts from the one before it in `config.stages`, the first one of this run from
    `config.init` where that is given. `progress` is as in `loop.train_stage`; by default its label
    says the stage's place; `traced` are the steps of each stage that are profiled. `rewind` is a
    step of the last stage begun whose checkpoint it goes on from; later ones are removed. `replay`
    is that of `loop.train_stage`, for the first stage that is not finished.

    Returns:
      The state at the end of the last stage that was trained; None if all were finished.

    Raises:
      UserError: as `loop.train_stage` and `_scorer`; if a stage ends before the last traced step;
        if `workdir` belongs to another method or batch; if the stage before the first one to train
        has no checkpoint.
    """
    config_lib.validate(config)
    _check_traced(config, traced)
    root = checkpoint.absolute(workdir)
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0 and not io.is_remote(root):
            stack.enter_context(io.locked(Path(root), "psrjax train"))
        if (root / checkpoint.CONFIG).exists():
            checkpoint.compare_configs(checkpoint.read_run_config(root), config, root)
        if rewind and jax.process_index() == 0:
            begun = [name for name in config.stages if checkpoint.saved_steps(root / name)]
            checkpoint.rewind(root / (begun or config.stages)[-1], rewind)
        progress = progress or partial(_progress, config.stages)
        return _train(config, root, progress, traced, replay)


def _train(
    config: RunConfig,
    root: epath.Path,
    progress: Callable[[str, int, int], writer.Progress],
    traced: range,
    replay: bool,
) -> TrainState | None:
    def begin() -> None:
        if jax.process_index() == 0 and not replay:
            checkpoint.write_run_config(root, config)

    state = None
    for place, stage in enumerate(config.stages):
        if config.only and stage not in config.only:
            continue
        own = config_lib.stage_config(config, stage)
        if is_finished(root / stage, own):
            logging.info("%s: finished, at step %d", root / stage, own.steps)
            continue
        is_first = stage == (config.only or config.stages)[0]
        if place > 0 and not (is_first and config.init.path):
            own = _from_stage_before(own, root, config.stages[place - 1])
        state = loop.train_stage(
            own,
            root / stage,
            evaluate=partial(write_samples, own, root),
            score=_scorer(own),
            progress=progress,
            traced=traced,
            begin=begin,
            replay=replay,
        )
        if replay:
            logging.info("%s: up to step %d all is finite", root / stage, int(state.step))
            break
    return state


def _check_traced(config: RunConfig, traced: range) -> None:
    for stage in config.only or config.stages:
        steps = config_lib.stage_config(config, stage).steps
        if traced and traced[-1] > steps:
            raise UserError(
                f"--profile={traced[0]}:{traced[-1]}: stage {stage!r} ends at step {steps}"
            )


def _progress(stages: tuple[str, ...], stage: str, start: int, total: int) -> writer.Progress:
    label = f"stage {stages.index(stage) + 1} of {len(stages)}, {stage}"
    return writer.Progress(label, start, total)


def is_finished(directory: epath.Path, config: RunConfig) -> bool:
    """Returns True if a stage has a checkpoint at its last step."""
    steps = checkpoint.saved_steps(directory)
    return bool(steps) and steps[0] >= config.steps


def write_samples(config: RunConfig, root: epath.Path, state: TrainState, step: int) -> None:
    """Writes `<root>/<stage>/samples/<step>.png`: windows of the evaluation split, row by label.

    A line of `scores.jsonl` beside it says how good they are: {"step", "<metric>/<name>": value}.
    Every process of a run calls it; the first one writes.
    """
    method = base.build(**config_lib.method_fields(config))
    variables = sharding.to_this_process(state.variables)
    found = method_evaluation.evaluate(method, variables, config, limit=_SAMPLES, samples=_SAMPLES)
    if jax.process_index() > 0:
        return
    picture = np.concatenate([drawing.grid(sample.videos) for sample in found.samples], 0)
    folder = root / config.method.stage / "samples"
    with io.replacing(folder / f"{step:07d}.png") as temporary:
        temporary.write_bytes(codec.encode_png(picture))
    measured = {
        f"{metric}/{row['name']}": row["metrics"][metric]
        for metric in score_table.JUDGED_BY
        for row in score_table.overall(found.rows)
    }
    lines = folder / "scores.jsonl"
    before = lines.read_text().splitlines() if lines.exists() else []
    kept = [line for line in before if json.loads(line)["step"] < step]  # others are made again
    io.write_text(lines, "\n".join([*kept, json.dumps({"step": step, **measured}), ""]))


def _scorer(config: RunConfig) -> Callable[[TrainState], float] | None:
    """Returns the score of `config.keep_best`, the higher the better; None where it is not asked.

    Raises:
      UserError: for an unknown metric or split.
    """
    metric, split = config.keep_best, config.data.validation_split
    if not metric:
        return None
    known = (*registry.BASIC, *registry.FURTHER)
    if metric not in known:
        raise UserError(f"config.keep_best: no metric {metric!r}; there are {', '.join(known)}")
    loader.open_split(dataset.resolve_path(config.data), split)
    method = base.build(**config_lib.method_fields(config))
    further = () if metric in registry.BASIC else (metric,)
    sign = -1.0 if score_table.lower_is_better(metric) else 1.0

    def score(state: TrainState) -> float:
        variables = sharding.to_this_process(state.variables)
        found = method_evaluation.evaluate(method, variables, config, split=split, metrics=further)
        value = score_table.overall(found.rows, score_table.STEP)[-1]["metrics"].get(metric)
        if value is None:
            raise UserError(f"config.keep_best={metric}: split {split!r} does not give it")
        logging.info("%s: %s %.4f on %s", config.method.stage, metric, value, split)
        return sign * value

    return score


def _from_stage_before(config: RunConfig, root: epath.Path, before: str) -> RunConfig:
    if not checkpoint.saved_steps(root / before):
        raise UserError(
            f"stage {config.method.stage!r} starts from {before!r}, which has no checkpoint in "
            f"{root}: train {before!r} first, or set config.init.path to a run that has it"
        )
    init = {"init.path": os.fspath(root), "init.stage": before, "init.nets": ()}
    return config_lib.update(config, init)
