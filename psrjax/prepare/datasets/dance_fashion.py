"""Adapter of DanceFashion (UBC Fashion) and all datasets in first-order-motion's layout.

`ROOT/{train,test}/NAME`, NAME being a video, a folder of frames or a strip of square frames side by
side; or videos and lists of addresses, as the authors publish the set.
"""

import dataclasses
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np

from psrjax.errors import UserError
from psrjax.prepare.common import clip_reader
from psrjax.prepare.datasets import adapter, video_clips

RATE = 30.0  # frames per second of folders and strips
_TEST_SHARE = 0.2  # of a folder without splits, as first-order-motion does
_PAIRS = {"distance", "source", "driving", "frame"}


def find(root: Path, options: adapter.DatasetOptions) -> adapter.TaskList:
    """Finds the clips of a folder, split by its folders, its lists, or at random four to one."""
    video_clips.check_crop(options)
    lists = {split: _list(root, split) for split in ("train", "test")}
    if (root / "train").is_dir() and (root / "test").is_dir():
        splits = {split: _clips(root / split) for split in ("train", "test")}
        notes = []
    elif all(lists.values()):
        everything = {path.stem: path for path in _clips(root)}
        splits = {s: [everything[n] for n in lists[s] if n in everything] for s in lists}
        lacking = [name for names in lists.values() for name in names if name not in everything]
        notes = [f"{len(lacking)} videos of the lists are not there"] if lacking else []
    else:
        splits, notes = _at_random(_clips(root)), ["no train/ and test/: split at random, 4 to 1"]
    tasks = [
        adapter.Task(
            video_clips.clip_name(path),
            split,
            {"video": str(path)},
            {"identity": path.stem.split("#")[0]},
        )
        for split, paths in splits.items()
        for path in paths
    ]
    return adapter.TaskList(tuple(tasks), tuple(notes + _pairs(root)))


def _clips(folder: Path) -> list[Path]:
    """Videos, folders of frames and strips in a folder."""
    strips = [p for p in folder.iterdir() if p.suffix.lower() in clip_reader.PICTURES]
    found = {*video_clips.list_videos(folder), *strips} - {folder / "train", folder / "test"}
    return sorted(found, key=clip_reader.natural_key)


def _list(root: Path, split: str) -> list[str]:
    """Names in a list of addresses, such as `fashion_train.txt`; none if there is no list."""
    paths = sorted(root.glob(f"*{split}*.txt"))
    lines = paths[0].read_text(errors="replace").split() if paths else []
    return [Path(unquote(urlparse(line).path)).stem for line in lines]


def _at_random(paths: list[Path]) -> dict[str, list[Path]]:
    """Splits as scikit-learn's train_test_split(test_size=0.2, random_state=0) does."""
    order = np.random.RandomState(0).permutation(len(paths))
    count = int(np.ceil(_TEST_SHARE * len(paths)))
    return {
        "train": [paths[index] for index in order[count:]],
        "test": [paths[index] for index in order[:count]],
    }


def _pairs(root: Path) -> list[str]:
    """One note per list of pairs, which name clips of the split "test" that animate each other."""
    lists = [
        path.name
        for path in sorted(root.glob("*.csv"))
        if _PAIRS <= set(path.open(errors="replace").readline().strip().split(","))
    ]
    return [f"{name}: a list of pairs to animate, not part of the dataset" for name in lists]


def views(task: adapter.Task, options: adapter.DatasetOptions) -> video_clips.Views:
    """Yields one clip: frames and flow, and with joints all streams of `video_clips`.

    Raises:
      UserError: naming the file, if it is damaged, of one frame, or a strip of another shape.
    """
    path = Path(task.files["video"])
    if path.suffix.lower() in clip_reader.PICTURES:
        if options.joints != video_clips.NO_JOINTS:
            raise UserError(f"{path}: joints are found in videos and folders, not in strips")
        frames = clip_reader.read_strip(path)
        box = (0, 0, *frames.shape[1:3])
        sized = np.stack([clip_reader.crop(one, box, options.size) for one in frames])
        times = np.arange(len(sized)) / (options.fps or RATE)
        return video_clips.frames_and_flow(task, options, sized, times, box)
    if path.is_dir() and not options.fps:
        options = dataclasses.replace(options, fps=RATE)
    return video_clips.views(task, options)


ADAPTER = adapter.DatasetAdapter(
    name="dance_fashion",
    # INTERnet: every frame is resized to 512 x 512, whatever its aspect ratio.
    defaults=adapter.DatasetOptions(size=(512, 512), crop="squeeze", joints=video_clips.NO_JOINTS),
    crops=("squeeze", "whole", "fixed", "follow"),
    uses=("size", "crop", "margin", "joints", "fps", "seconds"),
    find=find,
    streams=video_clips.streams,
    views=views,
)
