"""Runs in a folder, and how far the training of one has come."""

import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tensorboardX.proto import event_pb2

from psrjax import config as config_lib
from psrjax.errors import UserError
from psrjax.training import checkpoint, exported_run

_events: Any = event_pb2  # protocol buffers make their classes at run time
_DEPTH = 2  # folders below the given one in which runs are looked for
_SILENT = 120.0  # seconds without a record, at least, after which a training counts as stopped


@dataclass(frozen=True)
class StageState:
    """A stage of a training run: its steps so far, and its pace.

    Attributes:
      name: the stage's.
      step: the last one that is recorded or stored.
      steps: of the whole stage.
      pace: steps per second, 0.0 where it is not known.
      works: whether records still come.
    """

    name: str
    step: int
    steps: int
    pace: float
    works: bool


def find(folder: Path) -> list[str]:
    """Lists the runs in a folder and their exported files, relative to it, the newest first."""
    above = ["*/" * depth for depth in range(_DEPTH + 1)]
    found = [path for each in above[1:] for path in folder.glob(each + checkpoint.CONFIG)]
    found += [path for each in above for path in folder.glob(f"{each}*{exported_run.SUFFIX}")]
    found.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    runs = (path if exported_run.is_file(path) else path.parent for path in found)
    return [run.relative_to(folder).as_posix() for run in runs]


def place(folder: Path, name: str | None) -> Path:
    """Returns the directory of a run that `find` lists.

    Raises:
      UserError: for any other name.
    """
    known = find(folder)
    if not known:
        raise UserError(none_in(folder))
    if name not in known:
        raise UserError(f"Choose one of the runs in {folder}")
    return folder / name


def none_in(folder: Path) -> str:
    """Says that a folder has no run, and what to do."""
    return (
        f"No run in {folder}: train one first (psrjax train --config=SYSTEM:demo --workdir="
        f"{folder}/NAME), or name another folder: psrjax app --runs=DIR"
    )


def stages(run: Path, now: float | None = None) -> list[StageState]:
    """Reads how far each stage has come.

    Args:
      run: the run's directory.
      now: seconds since 1970.

    Raises:
      UserError: if this is no run's directory.
    """
    if exported_run.is_file(run):
        raise UserError(f"{run.name} was exported from a run: there is no training to watch")
    now = time.time() if now is None else now
    config = checkpoint.read_run_config(run)
    found = []
    for name in config.only or config.stages:
        steps = config_lib.stage_config(config, name).steps
        records = _records(run / name)
        stored = checkpoint.saved_steps(run / name)
        step = max([0, *stored, *(step for step, _ in records[-1:])])
        pace, works = 0.0, False
        if len(records) > 1:
            (first, begun), (last, ended) = records[0], records[-1]
            pace = (last - first) / max(ended - begun, 1e-9)
            between = (ended - begun) / (len(records) - 1)
            works = step < steps and now - ended < max(_SILENT, 3 * between)
        elif records:
            works = step < steps and now - records[0][1] < _SILENT
        found.append(StageState(name, step, steps, pace, works))
    return found


def seconds_left(found: Sequence[StageState]) -> float:
    """Estimates the seconds until the last stage ends, all at the pace of the one that works.

    Returns 0.0 where no stage works, or its pace is not known.
    """
    pace = next((stage.pace for stage in found if stage.works), 0.0)
    return sum(stage.steps - stage.step for stage in found) / pace if pace else 0.0


def newest_sample(run: Path) -> Path | None:
    """Returns the newest picture of samples; None before the first."""
    pictures = list(run.glob("*/samples/*.png"))
    return max(pictures, key=lambda path: path.stat().st_mtime, default=None)


def _records(stage: Path) -> list[tuple[int, float]]:
    """Reads (step, seconds since 1970) of the scalars in the newest file of events."""
    files = sorted(stage.glob("events.out.tfevents.*"))
    if not files:
        return []
    events = map(_events.Event.FromString, _messages(files[-1].read_bytes()))
    return [(e.step, e.wall_time) for e in events if e.HasField("summary")]


def _messages(data: bytes) -> Iterator[bytes]:
    """Splits a file of TFRecords, whose end may not be written yet."""
    start = 0
    while start + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, start)
        end = start + 12 + length  # behind the length and its checksum
        if end + 4 > len(data):
            return
        yield data[start + 12 : end]
        start = end + 4
