"""Inspects a stored dataset: counts and ranges, a check against the contract, pictures."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from etils import epath
from jaxtyping import UInt8
from tqdm import tqdm

from psrjax import io
from psrjax.data import codec, sampling, spec, store, video
from psrjax.data.source import Clip, Source
from psrjax.errors import UserError
from psrjax.ops import pose
from psrjax.vision import drawing

RUN = 32  # frames read at once
SAMPLED = 24  # frames of a view that ranges are computed on
SHEET = 8  # frames in a row of the contact sheet
ROWS = 40  # rows of a contact sheet at most
_LONGEST = 1500  # frames of a preview at most
_PREVIEWED = (
    *("frames", "mask", "joints", "flow", "flow_confidence", "iuv", "mesh_label", "background"),
)


def sources(directory: str | os.PathLike) -> dict[str, Source]:
    """Opens the splits of a dataset.

    Raises:
      UserError: as `Source` does.
    """
    return {split: Source(directory, split) for split in store.read_manifest(directory)["splits"]}


def stats(directory: str | os.PathLike) -> dict[str, Any]:
    """Counts what a dataset holds, and computes ranges of its streams.

    Returns:
      {"bytes", "streams", "splits": {split: {"clips", "views", "frames", "seconds", "sizes",
      "fps", "shortest", "longest"}}, "ranges": {stream: {"low", "high", "mean"}}, "joints":
      {"missing": {name: fraction}, "low_confidence": fraction}}, JSON-able; ranges are of `SAMPLED`
      frames of each view, spread evenly.

    Raises:
      UserError: as `Source` does, and for records that are damaged.
    """
    opened = sources(directory)
    ranges: dict[str, _Range] = {}
    joints = []
    for split, source in opened.items():
        for clip in tqdm(source.clips, f"read {split}", unit="clip"):
            for view in clip.views.values():
                frames = np.unique(np.linspace(0, view.frames - 1, SAMPLED).round().astype(int))
                loaded = source.load(clip.name, view.name, frames.tolist())
                for stream in source.streams:
                    if codec.STREAMS[stream].by_source:
                        continue
                    values = loaded.read(stream)
                    ranges.setdefault(stream, _Range()).add(values)
                    if stream == "joints":
                        joints.append(values)
    first = next(iter(opened.values()))
    return {
        "bytes": _bytes(io.absolute(directory)),
        "streams": {name: codec.STREAMS[name].meaning for name in first.streams},
        "splits": {split: _counts(source.clips) for split, source in opened.items()},
        "ranges": {name: found.told() for name, found in sorted(ranges.items())},
        "joints": _joints(np.concatenate(joints)) if joints else {},
    }


def _counts(clips: Sequence[Clip]) -> dict[str, Any]:
    views = [view for clip in clips for view in clip.views.values()]
    sizes = Counter(f"{view.size[1]}x{view.size[0]}" for view in views)
    frames = [clip.frames for clip in clips]
    return {
        "clips": len(clips),
        "views": len(views),
        "frames": sum(view.frames for view in views),
        "seconds": round(sum(view.frames / (view.fps or 25.0) for view in views), 2),
        "sizes": dict(sizes),
        "fps": sorted({round(view.fps, 3) for view in views}),
        "shortest": min(frames),
        "longest": max(frames),
    }


@dataclass
class _Range:
    low: float = np.inf
    high: float = -np.inf
    total: float = 0.0
    count: int = 0

    def add(self, values: np.ndarray) -> None:
        values = values[np.isfinite(values)]
        if values.size:
            self.low = min(self.low, float(values.min()))
            self.high = max(self.high, float(values.max()))
            self.total += float(values.sum(dtype=np.float64))
            self.count += values.size

    def told(self) -> dict[str, float]:
        mean = self.total / max(self.count, 1)
        return {"low": round(self.low, 4), "high": round(self.high, 4), "mean": round(mean, 4)}


def _joints(joints: np.ndarray) -> dict[str, Any]:
    there = pose.present(joints)
    missing = 1.0 - there.mean(0)
    return {
        "missing": {
            pose.NAMES[joint]: round(float(missing[joint]), 3)
            for joint in range(pose.COUNT)
            if missing[joint] > 0
        },
        "low_confidence": round(float((joints[..., 2][there] <= 0.3).mean()), 4)
        if there.any()
        else 0.0,
    }


def _bytes(folder: epath.Path) -> int:
    """Sums the sizes of a folder's files; buckets have no recursive glob."""
    return sum(_bytes(e) if e.is_dir() else e.stat().length for e in folder.iterdir())


def check(directory: str | os.PathLike) -> list[str]:
    """Reads every record of a dataset and lists its problems, one line each.

    Each view is decoded whole and checked against the contract (`spec.check`), with every key that
    the dataset gives. Further: flow is zero at a clip's first frame, joints lie in [-1, 1] and are
    zero where missing, masks are not empty, and times increase.

    Raises:
      UserError: if the dataset cannot be opened at all.
    """
    wrong: list[str] = []
    for split in store.read_manifest(directory)["splits"]:
        try:
            source = Source(directory, split)
        except UserError as error:
            wrong.append(str(error))
            continue
        for clip in tqdm(source.clips, f"check {split}", unit="clip"):
            for view in clip.views:
                where = f"{split}, clip {clip.name!r}, view {view!r}"
                try:
                    wrong += [f"{where}: {what}" for what in _view_problems(source, clip, view)]
                except UserError as error:
                    wrong.append(f"{where}: {error}")
    return wrong


def _view_problems(source: Source, clip: Clip, view: str) -> Iterator[str]:
    entry = clip.views[view]
    masked = 0
    for start in range(0, entry.frames, RUN):
        frames = range(start, min(start + RUN, entry.frames))
        window = sampling.Window(clip.name, view, view, start, tuple(frames), tuple(frames))
        sample = sampling.assemble(source, window, _keys(source))
        batch = {key: value[None] for key, value in sample.items()}
        spec.check(batch, batch)
        loaded = source.load(clip.name, view, [start])
        for stream in ("flow", "flow_forward", "mesh_flow", "flow_confidence"):
            if start == 0 and stream in source.streams and loaded.read(stream).any():
                yield f"{stream} is not zero at the clip's first frame"
        if "target_joints" in batch:
            yield from _joint_problems(batch["target_joints"][0], start)
        if "target_mask" in batch:
            masked += int((batch["target_mask"] > 32).any(axis=(0, 2, 3, 4)).sum())
    if "mask" in source.streams and masked == 0:
        yield "no frame has a person's mask"
    times = entry.meta.get("times")
    if times is not None and (len(times) != entry.frames or not (np.diff(times) > 0).all()):
        yield f"{len(times)} times for {entry.frames} frames, or they do not increase"


def _keys(source: Source) -> list[str]:
    """Keys of the contract that a single view of a dataset gives."""
    given = []
    for key in spec.KEYS:
        try:
            sampling.require(source, [key])
        except UserError:
            continue
        if key not in ("index", "valid", "target_mean", "target_prior", "target_visibility"):
            given.append(key)
    return given


def _joint_problems(joints: np.ndarray, start: int) -> Iterator[str]:
    there = pose.present(joints)
    far = np.abs(joints[..., :2]).max(-1) > 1.0
    for what, bad in (
        ("a joint outside [-1, 1]", there & far),
        ("a confidence outside [0, 1]", (joints[..., 2] > 1.0) | (joints[..., 2] < 0.0)),
        ("a missing joint that is not zero", ~there & (joints != 0).any(-1)),
    ):
        if bad.any():
            time, joint = np.argwhere(bad)[0]
            yield f"frame {start + time}: {what}: {pose.NAMES[joint]} {joints[time, joint]}"


def show(directory: str | os.PathLike, to: str | os.PathLike) -> list[Path]:
    """Writes `contact_sheet.png` (a row for each view) and `preview.mp4` (of the first clip).

    Returns:
      The paths of the files.

    Raises:
      UserError: as `Source` does, or if the folder cannot be written to.
    """
    opened = sources(directory)
    rows = [
        (f"{split}: {clip.name} {view} ({clip.views[view].frames})", source, clip, view)
        for split, source in opened.items()
        for clip in source.clips
        for view in clip.views
    ]
    chosen = [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, ROWS).round().astype(int))]
    sheet = Path(to) / "contact_sheet.png"
    pictures = [_row(*row) for row in tqdm(chosen, "contact sheet", unit="view")]
    width = max(picture.shape[1] for picture in pictures)
    padded = [np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0))) for p in pictures]
    with io.replacing(sheet) as temporary:
        temporary.write_bytes(codec.encode_png(np.concatenate(padded)))
    movie = Path(to) / "preview.mp4"
    _, source, clip, view = rows[0]
    video.write(movie, _panels(source, clip, view), fps=clip.views[view].fps or 25.0)
    return [sheet, movie]


def _read_shown(
    source: Source, clip: Clip, view: str, frames: Sequence[int], shown: Sequence[str]
) -> dict[str, np.ndarray]:
    loaded = source.load(clip.name, view, frames)
    return {stream: loaded.read(stream) for stream in shown if stream in source.streams}


def _row(title: str, source: Source, clip: Clip, view: str) -> UInt8[np.ndarray, "h w 3"]:
    count = clip.views[view].frames
    frames = np.linspace(0, count - 1, SHEET).round().astype(int).tolist()
    streams = _read_shown(source, clip, view, frames, ("frames", "mask", "joints"))
    panels = []
    for index in range(len(frames)):
        picture = drawing.panel(drawing.one_frame(streams, index))
        side = picture.shape[1] // (2 if "mask" in streams else 1)
        panels.append(picture[:, :side])
    row = np.concatenate(panels, 1)
    scale = 160 / row.shape[0]
    row = cv2.resize(row, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return next(iter(video.beside({title: row[None]}, smallest=1)))


def _panels(source: Source, clip: Clip, view: str) -> Iterator[np.ndarray]:
    count = min(clip.views[view].frames, _LONGEST)
    fastest = 1.0
    for start in range(0, count, RUN):
        frames = list(range(start, min(start + RUN, count)))
        streams = _read_shown(source, clip, view, frames, _PREVIEWED)
        if "flow" in streams:
            fastest = max(fastest, drawing.flow_range(streams["flow"]))
        for index in range(len(frames)):
            yield drawing.panel(drawing.one_frame(streams, index), fastest=fastest)
