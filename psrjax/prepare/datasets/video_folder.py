"""Adapter of a folder of videos, cut to ten seconds and split by video, as Dance-500 (MFCI)."""

import hashlib
from pathlib import Path

import av
from av.error import FFmpegError

from psrjax.errors import UserError
from psrjax.prepare.datasets import adapter, video_clips

SECONDS = 10.0
SHARES = {"test": 0.1, "validation": 0.1}  # of the clips; the rest trains: 400, 50, 50 of 500
_LISTS = {"train": ("train",), "validation": ("validation", "val"), "test": ("test",)}


def find(root: Path, options: adapter.DatasetOptions) -> adapter.TaskList:
    """Finds the videos of a folder; lists split them, or else the hash of their names.

    Clips with the same name before the first `#` were cut from one video and share a split.
    """
    video_clips.check_crop(options)
    videos = video_clips.list_videos(root)
    origins = {video: video_clips.clip_name(video).split("#")[0] for video in videos}
    splits, notes = _by_lists(root, origins), []
    if not splits:
        splits = by_hash({video: _pieces(video, options.seconds) for video in videos}, origins)
    tasks = []
    for video in videos:
        if video not in splits:
            notes.append(f"{video.name} is in no list")
            continue
        files, facts = video_clips.clip_files(video, options), {"origin": origins[video]}
        tasks.append(adapter.Task(video_clips.clip_name(video), splits[video], files, facts))
    return adapter.TaskList(tuple(tasks), tuple(notes))


def _by_lists(root: Path, origins: dict[Path, str]) -> dict[Path, str]:
    """Splits by `train.txt`, `validation.txt` (or `val.txt`) and `test.txt`, a name per line.

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
    """Approximate number of clips that a video is cut into, by its container's length."""
    if video.is_dir():
        return max(1.0, len(list(video.iterdir())) / 25.0 / (seconds or SECONDS))
    try:
        with av.open(str(video)) as container:
            length = (container.duration or 0) / av.time_base
    except (FFmpegError, OSError):
        length = 0.0  # damaged: reported when it is read
    return max(1.0, round(length / (seconds or SECONDS)))


def by_hash(counts: dict[Path, float], origins: dict[Path, str]) -> dict[Path, str]:
    """Splits whole videos so that about a tenth of the clips is for test, another for validation.

    In the order of the hashes of their names, which added videos do not change, videos fill "test",
    then "validation"; of three videos or more each split has one.

    Args:
      counts: number of clips of each video.
      origins: name of the video that each was cut from; these stay together.
    """
    groups: dict[str, list[Path]] = {}
    for video, origin in origins.items():
        groups.setdefault(origin, []).append(video)
    order = sorted(groups, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    clips = {name: sum(counts[video] for video in groups[name]) for name in groups}
    total = sum(counts.values())
    splits: dict[Path, str] = {}
    for split, share in SHARES.items():
        held = 0.0
        while order[1:] and (not held or held + clips[order[0]] <= share * total):
            name = order.pop(0)
            held += clips[name]
            splits |= dict.fromkeys(groups[name], split)
    return splits | {video: "train" for name in order for video in groups[name]}


def views(task: adapter.Task, options: adapter.DatasetOptions) -> video_clips.Views:
    """Yields the clips of one video. Raises UserError as `video_clips` does."""
    return video_clips.views(task, video_clips.with_detector(options))


ADAPTER = adapter.DatasetAdapter(
    name="video_folder",
    defaults=adapter.DatasetOptions(size=(256, 256), crop="follow", seconds=SECONDS),
    crops=("squeeze", "whole", "fixed", "follow"),
    uses=("size", "crop", "margin", "joints", "fps", "seconds"),
    find=find,
    streams=video_clips.streams,
    views=views,
)
