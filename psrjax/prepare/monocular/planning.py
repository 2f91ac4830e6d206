"""Plans the clips of a dataset: their names and joints, and which are held out for "test"."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from psrjax.data import store
from psrjax.errors import UserError
from psrjax.prepare.common import clip_reader
from psrjax.prepare.monocular import dataset_builder
from psrjax.prepare.monocular.pipeline import VideoClip
from psrjax.prepare.multiview import layout

HOLDOUT_BY = ("auto", "time", "video")


@dataclass(frozen=True)
class ClipPlan:
    """Clips to prepare, and the fraction of each that is held out at its end."""

    clips: tuple[VideoClip, ...]
    holdout: float


def plan(
    inputs: Sequence[str | Path],
    directory: str | os.PathLike,
    *,
    joints: str,
    holdout: float,
    by: str = "auto",
) -> ClipPlan:
    """Plans the clips of some inputs for the dataset `directory`.

    A clip has the name of its video, with its folder's if two videos share a name. Clips of an
    existing dataset keep their split; of the new ones those with the lowest hash of their names
    are held out until the fraction is reached.

    Args:
      inputs: video files, folders of pictures, or folders of videos.
      directory: the dataset, which may exist.
      joints: as `VideoClip.joints`.
      holdout: the fraction that becomes the split "test".
      by: "time" holds out the end of every video, "video" whole videos; "auto" is as the existing
        dataset, else by time for a single video.

    Raises:
      UserError: if an input does not exist, or holds no video.
    """
    videos = [video for given in inputs for video in _videos(Path(given))]
    names = _names(videos)
    before = _held_out(Path(directory))
    if by == "auto":
        everything = set(names) | set(before.splits)
        by = before.by or ("time" if len(everything) == 1 else "video")
    splits = dict.fromkeys(names, "train") if by == "time" else _splits(names, before, holdout)
    clips = (
        VideoClip(str(video), name, joints, split=splits[name])
        for video, name in zip(videos, names)
    )
    return ClipPlan(tuple(clips), holdout if by == "time" else 0.0)


def _splits(names: Sequence[str], before: "_HeldOut", holdout: float) -> dict[str, str]:
    count = len(set(names) | set(before.splits))
    wanted = round(holdout * count)
    wanted = max(1, wanted) if holdout and count > 1 else wanted
    fresh = [name for name in names if name not in before.splits]
    fresh.sort(key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    lacking = wanted - sum(split == "test" for split in before.splits.values())
    new = {name: "test" if i < lacking else "train" for i, name in enumerate(fresh)}
    return before.splits | new


def _videos(given: Path) -> list[Path]:
    if not given.exists():
        raise UserError(f"{given}: no such file or folder")
    if given.is_file() or clip_reader.is_video(given):
        return [given]
    inside = [child for child in given.iterdir() if clip_reader.is_video(child)]
    if not inside:
        raise UserError(
            f"{given}: holds no video and no pictures (a multiview recording is a folder with "
            f"{layout.LAYOUT})"
        )
    return sorted(inside, key=clip_reader.natural_key)


def _names(videos: Sequence[Path]) -> list[str]:
    stems = [video.stem if video.is_file() else video.resolve().name for video in videos]
    names = [
        f"{video.resolve().parent.name}_{stem}" if stems.count(stem) > 1 else stem
        for video, stem in zip(videos, stems)
    ]
    twice = next((i for i, name in enumerate(names) if name in names[:i]), None)
    if twice is not None:
        raise UserError(f"{videos[twice]}: a second clip of its name; rename it, or name it once")
    return names


@dataclass(frozen=True)
class _HeldOut:
    """The split of an existing dataset, by "time" or "video"; "" if there is none."""

    by: str
    splits: dict[str, str]


def _held_out(directory: Path) -> _HeldOut:
    exists = (directory / store.MANIFEST).is_file()
    meta = store.read_manifest(directory)["meta"] if exists else {}
    if meta.get("kind") != dataset_builder.KIND:
        return _HeldOut("", {})
    splits = {name: one["pieces"][0][0] for name, one in meta["prepared"].items()}
    return _HeldOut("time" if meta["options"]["holdout"] else "video", splits)
