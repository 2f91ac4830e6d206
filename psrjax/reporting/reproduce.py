"""Fills a table of a paper: trains and scores the run of each row, and writes the table."""

import dataclasses
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import logging
from etils import epath

from psrjax import config as config_lib
from psrjax import io
from psrjax.errors import UserError
from psrjax.evaluation import clip_metrics, method_evaluation, score_export
from psrjax.metrics import registry
from psrjax.reporting import demo, filled_table, paper_tables, report
from psrjax.reporting.paper_tables import Table
from psrjax.runtime import machine
from psrjax.training import checkpoint, stages

RECORD = "reproduce.json"  # in the directory of a run: how it was trained and scored
_MADE = ("commit", "machine")  # where a run was scored; of no matter for whether it is done
MIN_FRAMES = 16  # that a number of a table stands on


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """A run to train: its config, its directory, and the rows that it stands for.

    `after` is the run whose last stage it starts from, or None.
    """

    folder: epath.Path
    config: Any
    labels: tuple[str, ...]
    after: "PlannedRun | None"


def plan(
    table: Table, scale: str, folder: str | os.PathLike, *, data: str = "", seeds: int = 1
) -> list[PlannedRun]:
    """Plans the runs of a table, in the order of their rows; rows of one config share a run.

    A run begins with the run of `Row.after` that has its seed, so that seeds share nothing.

    Args:
      table: one that has no obstacle.
      scale: a name of `table.scales`.
      folder: where the runs go, each in a directory named after its variant.
      data: a stored dataset, instead of the config's own.
      seeds: the number of runs of each row, with the seeds 0, 1, …

    Raises:
      UserError: if the table cannot be filled by runs, or has no such scale; if `seeds` is below 1.
    """
    reason = paper_tables.obstacle(table)
    if reason:
        raise UserError(f"{table.name}: {reason}")
    if seeds < 1:
        raise UserError(f"--seeds={seeds}: the number of runs of each row starts at 1")
    root = checkpoint.absolute(folder)
    found: dict[str, PlannedRun] = {}
    for row, seed in itertools.product(table.rows, range(seeds)):
        if row.variant is None:
            continue
        changes = {"data.path": data} if data else {}
        changes |= {"seed": seed} if seed else {}
        first = None
        if row.after:
            first = _run(table, row.after, scale, root, changes)
            changes |= _init_from(first)
        run = _run(table, row.variant, scale, root, changes, after=first, labels=(row.label,))
        key = config_lib.to_json(run.config)
        if key in found:
            known = found[key]
            run = dataclasses.replace(known, labels=(*known.labels, row.label))
        found[key] = run
    return list(found.values())


def _run(
    table: Table,
    variant: str,
    scale: str,
    root: epath.Path,
    changes: Mapping[str, Any],
    *,
    after: PlannedRun | None = None,
    labels: tuple[str, ...] = (),
) -> PlannedRun:
    config = config_lib.update(paper_tables.load(table, variant, scale), changes)
    name = re.sub(r"[^a-z0-9.=+-]+", "_", variant.lower()).strip("_") or table.method
    name += f"-seed{changes['seed']}" if "seed" in changes else ""
    return PlannedRun(root / name, config, labels, after)


def _init_from(run: PlannedRun) -> dict[str, str]:
    """Returns the changes of a config that starts from the last stage of another run."""
    return {"init.path": os.fspath(run.folder), "init.stage": _last_stage(run)}


def _last_stage(run: PlannedRun) -> str:
    return (run.config.only or run.config.stages)[-1]


def fill(
    table: Table,
    scale: str,
    folder: str | os.PathLike,
    *,
    data: str = "",
    seeds: int = 1,
    command: str = "",
) -> dict[str, Any]:
    """Trains and scores the missing runs, and writes the table.

    Each run is resumed where it was cut off, and scored once: the same call goes on. A scored run
    needs no checkpoints any more. The table is there from the first run on, with the rows that are
    done.

    Args:
      table: see `plan`.
      scale: see `plan`.
      folder: see `plan`; the table goes there as `table.json`, `.md`, `.csv` and `.tex`, with
        `report.html`.
      data: see `plan`.
      seeds: see `plan`; the table has the means.
      command: what the user typed, for the report.

    Returns:
      What `filled_table.make` gives.

    Raises:
      UserError: as `plan`, training and evaluation do; if a run would be scored on fewer than
        `MIN_FRAMES` frames.
    """
    root = checkpoint.absolute(folder)
    runs = plan(table, scale, root, data=data, seeds=seeds)
    about = {"scale": scale, "scale_note": table.scales[scale].get("note", ""), "seeds": seeds}
    about |= {"command": command, "made": []}
    about |= {"obstacles": {metric: why for run in runs for metric, why in _obstacles(table, run)}}
    results: dict[str, list[filled_table.Result]] = {}
    filled = {}
    for number, (run, scored) in enumerate(zip(runs, _scored_configs(runs)), 1):
        logging.info("%s, run %d of %d: %s", table.name, number, len(runs), ", ".join(run.labels))
        _require_frames(table, scored)
        record = _record(table, run, scored)
        if not _is_scored(run, record):
            if run.after:
                stages.train(run.after.config, run.after.folder)
            stages.train(run.config, run.folder)
            _score(table, run, scored, record)
        rows, clips = (
            io.read_json(run.folder / n) for n in (score_export.RESULTS, score_export.CLIPS)
        )
        for label in run.labels:
            results.setdefault(label, []).append(filled_table.Result(run.folder, rows, clips))
        made = {key: io.read_json(run.folder / RECORD).get(key, "unknown") for key in _MADE}
        if made not in about["made"]:
            about["made"].append(made)
        filled = filled_table.make(table, results, about)
        filled_table.write(root, filled)  # after every run: a long list can be looked at
    report.write(*(run.folder for run in runs), output=root / "report.html", filled=(filled,))
    return filled


def _scored_configs(runs: Sequence[PlannedRun]) -> list[Any]:
    """Returns the configs that runs are scored by: those of their last stages.

    All have as many source frames as any, so that the same frames lie behind them and are scored; a
    method of fewer takes the first ones.
    """
    configs = [config_lib.stage_config(run.config, _last_stage(run)) for run in runs]
    sources = max(config.data.sampling.k for config in configs)
    return [config_lib.update(config, {"data.sampling.k": sources}) for config in configs]


def _require_frames(table: Table, config: Any) -> None:
    """Checks, before a run is trained, that it will be scored on enough frames."""
    clips, frames = method_evaluation.scored_frames(config, windows=table.windows)
    if frames < MIN_FRAMES:
        raise UserError(
            f"{table.name}: {frames} frames of {clips} clip{'s' * (clips != 1)} would be scored, "
            f"fewer than {MIN_FRAMES}; name data with more or longer clips with --data"
        )


def _record(table: Table, run: PlannedRun, scored: Any) -> dict[str, Any]:
    """Says all that a run's scores depend on, as it is kept beside them."""
    return {
        "windows": table.windows,
        "metrics": [metric for metric in table.columns.values() if metric],
        "sources": scored.data.sampling.k,
        "config": json.loads(config_lib.to_json(run.config)),
    }


def _is_scored(run: PlannedRun, record: Mapping[str, Any]) -> bool:
    """Tells whether the scores of exactly this run are there; its checkpoints are not asked for."""
    files = (RECORD, score_export.RESULTS, score_export.CLIPS)
    there = all((run.folder / name).exists() for name in files)
    known = io.read_json(run.folder / RECORD) if there else {}
    return there and {key: known.get(key) for key in record} == record


def _score(table: Table, run: PlannedRun, config: Any, record: Mapping[str, Any]) -> None:
    """Scores a trained run by a config's data; the record is written last."""
    method, variables, *_ = checkpoint.restore_for_inference(run.folder)
    refused = dict(_obstacles(table, run))
    further = [m for m in _further(table) if m not in refused]
    found = method_evaluation.evaluate(
        method,
        variables,
        config,
        windows=table.windows,
        metrics=further,
        show_progress=True,
    )
    method_evaluation.write(run.folder, found)
    demo.show_clips(method, variables, config, run.folder / "videos")
    made = dict(zip(_MADE, (machine.commit(), machine.describe())))
    io.write_json(run.folder / RECORD, {**record, **made})


def _further(table: Table) -> list[str]:
    """Lists the metrics of a table that an evaluation takes only on request."""
    return [m for m in table.columns.values() if m and m not in registry.BASIC]


def _obstacles(table: Table, run: PlannedRun) -> Iterator[tuple[str, str]]:
    """Yields (metric, reason) for the table's metrics that the run's clips cannot have."""
    data = run.config.data
    frames = 0 if table.windows == method_evaluation.IN_A_ROW else data.sampling.t
    for metric in _further(table):
        if reason := clip_metrics.obstacle(metric, side=min(data.crop), frames=frames):
            yield metric, reason
