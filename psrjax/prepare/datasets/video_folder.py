"""A folder of videos, cut to clips of ten seconds and split by video: Dance-500's way (MFCI)."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import av

from psrjax.errors import UserError
from psrjax.prepare.datasets import adapter, video_clips
from psrjax.prepare.monocular import pipeline

SECONDS = 10.0
SHARES = {"test": 0.1, "validation": 0.1}  # of the clips; the rest trains: 400, 50, 50 of 500
_LISTS = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}


def find(root: Path, options: adapter.DatasetOptions) -> adapter.TaskList:
    """The videos of a folder and their splits: by its lists, else by the hash of their names.

    A name before the first `#` is the video's that a clip was cut from: all of it goes one way.
    """
    video_clips.check_crop(options)
    videos = video_clips.listed(root)
    origins = {video: _origin(video) for video in videos}
    splits, notes = _by_lists(root, origins), []
    if not splits:
        splits = by_hash({video: _pieces(video, options.seconds) for video in videos}, origins)
    tasks = []
    for video in videos:
        if video not in splits:
            notes.append(f"{video.name} is in no list")
            continue
        beside = video_clips.joints_beside(video) if not options.joints else {}
        name = video.stem if video.is_file() else video.name
        facts = {"origin": origins[video]}
        tasks.append(adapter.Task(name, splits[video], {"video": str(video), **beside}, facts))
    return adapter.TaskList(tuple(tasks), tuple(notes))


def _origin(video: Path) -> str:
    return (video.stem if video.is_file() else video.name).split("#")[0]


def _by_lists(root: Path, origins: dict[Path, str]) -> dict[Path, str]:
    """Splits by `train.txt`, `validation.txt` (or `val.txt`) and `test.txt`: a name a line.

    Raises:
      UserError: if one video is in two lists.
    """
    found: dict[str, str] = {}
    for split, names in _LISTS.items():
        path = next((root / f"{n}.txt" for n in names if (root / f"{n}.txt").is_file()), None)
        for line in path.read_text().splitlines() if path else ():
            origin = Path(line.strip()).stem.split("#")[0]
            if origin and found.setdefault(origin, split) != split:
                raise UserError(f"{path}: {origin!r} is also in the list of {found[origin]!r}")
    return {video: found[origin] for video, origin in origins.items() if origin in found}


def _pieces(video: Path, seconds: float) -> float:
    """How many clips a video becomes, about, by what its container says of its length."""
    if video.is_dir():
        return max(1.0, len(list(video.iterdir())) / 25.0 / (seconds or SECONDS))
    try:
        with av.open(str(video)) as container:
            length = (container.duration or 0) / av.time_base
    except (av.FFmpegError, OSError):
        length = 0.0  # damaged: told when its turn comes
    return max(1.0, round(length / (seconds or SECONDS)))


def by_hash(counts: dict[Path, float], origins: dict[Path, str]) -> dict[Path, str]:
    """Splits whole videos so that about a tenth of the clips tests, and another validates.

    In the order of the hashes of their names, videos fill "test", then "validation"; of three
    videos or more each split has one. The order does not change when videos are added.

    Args:
      counts: how many clips each becomes.
      origins: what was cut from one video stays together.
    """
    groups: dict[str, list[Path]] = {}
    for video, origin in origins.items():
        groups.setdefault(origin, []).append(video)
    order = sorted(groups, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    total = sum(counts.values())
    splits: dict[Path, str] = {}
    for split, share in SHARES.items():
        held = 0.0
        while order[1:] and (not held or held + _count(groups[order[0]], counts) <= share * total):
            name = order.pop(0)
            held += _count(groups[name], counts)
            splits |= dict.fromkeys(groups[name], split)
    return splits | {video: "train" for name in order for video in groups[name]}


def _count(videos: Sequence[Path], counts: dict[Path, float]) -> float:
    return sum(counts[video] for video in videos)


def views(task: adapter.Task, options: adapter.DatasetOptions) -> video_clips.Views:
    """The clips of one video: joints that lie beside it, else MediaPipe's.

    Raises:
      UserError: naming the file, as `raw_videos` does.
    """
    return video_clips.views(task, defaulted(options))


def defaulted(options: adapter.DatasetOptions) -> adapter.DatasetOptions:
    """With MediaPipe where no joints are named; those beside a video come first."""
    return options if options.joints else replace(options, joints=pipeline.MEDIAPIPE)


ADAPTER = adapter.DatasetAdapter(
    name="video_folder",
    defaults=adapter.DatasetOptions(size=(256, 256), crop="follow", seconds=SECONDS),
    crops=("squeeze", "whole", "fixed", "follow"),
    uses=("size", "crop", "margin", "joints", "fps", "seconds"),
    find=find,
    streams=video_clips.streams,
    views=views,
    meta=video_clips.meta("video_folder"),
)
