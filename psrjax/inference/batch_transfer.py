"""Many transfers in one call: found by glob or CSV, resumable, with a contact sheet and a table."""

import csv
import dataclasses
import glob
import hashlib
import itertools
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from absl import logging

from psrjax import io
from psrjax.data import codec
from psrjax.errors import UserError
from psrjax.inference import intermediate_results, output_files, transfer
from psrjax.synthetic import dataset

TABLE, SHEET, ROWS = "table.csv", "contact_sheet.png", "rows"
_COLUMNS: tuple[str, ...] = (
    "name",
    "source",
    "driving",
    "frames",
    "seconds",
    "file",
    "failed",
    "key",
)
_MOMENTS = 4  # of each transfer on the contact sheet
_HEIGHT = 96  # pixels of a row of the contact sheet, at least
_DONE = ""


@dataclass(frozen=True)
class BatchPair:
    """The person of `source`, "" for the run's own, in the motion of `driving`."""

    name: str
    source: str
    driving: str


@dataclass(frozen=True)
class BatchResult:
    """The files of a batch, and its failures.

    Attributes:
      paths: of the results, the contact sheet and the table.
      failed: a line for each pair that could not be made.
      text: the table, for people.
    """

    paths: list[Path]
    failed: list[str]
    text: str


def find(source: str, driving: str, table: str) -> tuple[BatchPair, ...]:
    """Lists the pairs that were asked for; () where it is a single transfer.

    Args:
      source: a place, or a pattern of files, such as "people/*.jpg".
      driving: likewise. Every source is shown in every motion.
      table: instead of both: a CSV file with the columns `source` and `driving`, whose paths are
        relative to its folder.

    Raises:
      UserError: if a pattern or the file gives nothing.
    """
    if table:
        if source or driving:
            raise UserError("--batch: names sources and drivings: leave --source and --driving out")
        return _named(_read_pairs(Path(table)))
    if not _is_pattern(source) and not _is_pattern(driving):
        return ()
    if not driving:
        raise UserError("--source needs --driving too")
    return _named(itertools.product(_matching("source", source), _matching("driving", driving)))


def _is_pattern(place: str) -> bool:
    return glob.has_magic(place) and not os.path.exists(place)


def _matching(flag: str, place: str) -> list[str]:
    if not _is_pattern(place):
        return [place]
    found = sorted(glob.glob(os.path.expanduser(place), recursive=True))
    if not found:
        raise UserError(f"--{flag}={place}: no file has such a name")
    return found


def _read_pairs(path: Path) -> list[tuple[str, str]]:
    try:
        rows = list(csv.DictReader(path.read_text().splitlines()))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as CSV ({error})") from error
    if not rows or not {"source", "driving"} <= set(rows[0]):
        raise UserError(f"{path}: needs a first line with source,driving and a line for each pair")
    empty = next((number for number, row in enumerate(rows, 2) if not row["driving"]), None)
    if empty:
        raise UserError(f"{path}, line {empty}: names no driving")
    return [(_beside(path, row["source"]), _beside(path, row["driving"])) for row in rows]


def _beside(table: Path, place: str) -> str:
    is_file = place and place.partition(":")[0] != dataset.SYNTHETIC
    return os.fspath(table.parent / place) if is_file else place


def _named(places: Iterable[tuple[str, str]]) -> tuple[BatchPair, ...]:
    """Names pairs after their files; where that is not enough, also by their number."""
    pairs = list(places)
    stems = ["_in_".join(Path(p).stem for p in pair if p).replace(":", "_") for pair in pairs]
    names = [
        stem if stems.count(stem) == 1 else f"{stem}_{number}" for number, stem in enumerate(stems)
    ]
    return tuple(BatchPair(name, *pair) for name, pair in zip(names, pairs))


def write(
    pairs: Sequence[BatchPair],
    ready: Callable[[BatchPair], transfer.Transfer],
    output: str | os.PathLike,
    *,
    made_by: Mapping[str, Any],
    overwrite: bool = False,
) -> BatchResult:
    """Makes every pair that is not made yet; one that fails is told, and the next is made.

    Files: `NAME.mp4` and what else a transfer writes, `contact_sheet.png` (a row for each pair:
    source, and driving and result at some moments) and `table.csv`.

    Args:
      pairs: see `find`.
      ready: makes a transfer of a pair ready. Transfers of one shape share one compilation.
      output: the folder; "DIR/*.gif" says what the results are.
      made_by: the options that change a result: with other ones it is made anew.
      overwrite: whether files that no earlier call has made may be written over.

    Raises:
      UserError: if the folder cannot be written to, or holds such files.
    """
    folder, suffix = _folder(output)
    before = {row["name"]: row for row in _read_table(folder / TABLE)}
    for pair in pairs:
        if pair.name not in before:
            io.require_new(folder / f"{pair.name}{suffix}", overwrite=overwrite)
    done: dict[str, dict[str, str]] = {}
    for number, pair in enumerate(pairs, 1):
        key, file = _key(pair, made_by), f"{pair.name}{suffix}"
        row = before.get(pair.name, {})
        if row.get("key") == key and row["failed"] == _DONE and (folder / file).exists():
            done[pair.name] = row
            continue
        logging.info("%d of %d: %s", number, len(pairs), pair.name)
        began, row = time.monotonic(), {**dataclasses.asdict(pair), "key": key, "file": file}
        picture = folder / ROWS / f"{pair.name}.png"
        begun = {pair.name: {**row, "failed": "cut off"}}
        _write_table(folder / TABLE, (before | done | begun).values())
        try:
            frames, failed = _make(ready(pair), folder / file, picture), _DONE
        except io.DiskFullError:
            raise
        except UserError as error:
            logging.warning("%s: %s", pair.name, error)
            frames, failed = 0, str(error)
        row |= {"frames": str(frames), "failed": failed}
        done[pair.name] = {**row, "seconds": f"{time.monotonic() - began:.1f}"}
        # What was made is not made again.
        _write_table(folder / TABLE, (before | done).values())
    _write_table(folder / TABLE, done.values())
    good = [row for row in done.values() if row["failed"] == _DONE]
    sheet = _contact_sheet(folder, [row["name"] for row in good])
    paths = [*(folder / row["file"] for row in good), *sheet, folder / TABLE]
    failed = [f"{row['name']}: {row['failed']}" for row in done.values() if row["failed"]]
    return BatchResult(paths, failed, _text(done.values()))


def _folder(output: str | os.PathLike) -> tuple[Path, str]:
    path, suffix = Path(output), ".mp4"
    if path.name.startswith("*."):
        path, suffix = path.parent, path.suffix
    output_files.check(path / f"x{suffix}")
    return path, suffix


def _key(pair: BatchPair, made_by: Mapping[str, Any]) -> str:
    """Names what a result is made of: the places, the state of their files, the options."""
    states = []
    for place in (pair.source, pair.driving):
        file = Path(place)
        state = file.stat() if place and file.exists() else None
        states.append((place, state.st_size, state.st_mtime_ns) if state else (place,))
    text = json.dumps([states, dict(made_by)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _make(made: transfer.Transfer, output: Path, row: Path) -> int:
    """Writes a transfer's files and its row of the contact sheet; returns its frames."""
    chosen = np.unique(np.linspace(0, len(made.times) - 1, _MOMENTS).round().astype(int)).tolist()
    panels = [made.source[0]]

    def watched() -> Iterator[transfer.TransferWindow]:
        first = 0
        for window in made:
            for frame in (
                each - first for each in chosen if first <= each < first + len(window.frames)
            ):
                panels.extend((window.driving[frame], window.frames[frame]))
            first += len(window.frames)
            yield window

    transfer.save(made, output, windows=watched())
    scale = max(1, -(-_HEIGHT // panels[0].shape[0]))
    picture = np.concatenate(panels, axis=1).repeat(scale, 0).repeat(scale, 1)
    intermediate_results.write_picture(row, picture)
    return len(made.times)


def _contact_sheet(folder: Path, names: Sequence[str]) -> list[Path]:
    rows = [codec.decode_png((folder / ROWS / f"{name}.png").read_bytes()) for name in names]
    if not rows:
        return []
    width = max(row.shape[1] for row in rows)
    drawn = []
    for name, row in zip(names, rows):
        bar = np.full((20, width, 3), 24, np.uint8)
        cv2.putText(bar, name, (6, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (240, 240, 240), 1)
        drawn += [bar, np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)))]
    intermediate_results.write_picture(folder / SHEET, np.concatenate(drawn))
    return [folder / SHEET]


def _read_table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines())) if path.is_file() else []


def _write_table(path: Path, rows: Iterable[Mapping[str, str]]) -> None:
    text = StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    io.write_text(path, text.getvalue())


def _text(rows: Iterable[Mapping[str, str]]) -> str:
    lines = [("name", "frames", "seconds", "")]
    lines += [(r["name"], r["frames"], r["seconds"], r["failed"] or "done") for r in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(3)]
    return "\n".join(
        f"{name:<{widths[0]}}  {frames:>{widths[1]}}  {seconds:>{widths[2]}}  {state}".rstrip()
        for name, frames, seconds, state in lines
    )
