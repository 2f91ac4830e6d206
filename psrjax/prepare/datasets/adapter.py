"""The interface of dataset adapters: options, clips to prepare, and the adapter itself."""

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from psrjax.data import codec
from psrjax.errors import UserError
from psrjax.prepare.common import clip_reader


@dataclass(frozen=True)
class DatasetOptions:
    """Options of `psrjax prepare --dataset`; an empty value stands for the adapter's default.

    Attributes:
      size: (height, width) of the stored frames.
      crop: "squeeze" (the whole picture, its aspect ratio not kept), "whole", "fixed" or "follow"
        (see `psrjax.prepare.monocular.pipeline`).
      joints: "mediapipe", "none", or a file or folder of joints.
      margin: space that a crop leaves around the person, as a fraction of their extent.
      fps: frames per second to keep of videos, and the rate of folders of pictures.
      seconds: length of the pieces that clips are cut into.
      smpl: an SMPL model file.
      smpl_parameters: a folder of SMPL parameters, named like the clips.
    """

    size: tuple[int, int] = (0, 0)
    crop: str = ""
    joints: str = ""
    margin: float = 0.08
    fps: float = 0.0
    seconds: float = 0.0
    smpl: str = ""
    smpl_parameters: str = ""

    def __post_init__(self):
        clip_reader.check_rate(self.fps)
        if not all(0.0 <= each < math.inf for each in (self.margin, self.seconds)):
            raise UserError("margin and seconds are not negative")


UNSET = DatasetOptions()


@dataclass(frozen=True)
class Task:
    """One clip to prepare, or the pieces of one: small and picklable, all that a worker needs.

    Attributes:
      name: the clip's name.
      split: the split it belongs to.
      files: {role: path}, such as a camera's video.
      facts: JSON-able facts to store with it.
    """

    name: str
    split: str
    files: Mapping[str, str]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskList:
    """The clips to prepare of a folder; `notes` say what was left out and why."""

    tasks: tuple[Task, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DatasetAdapter:
    """Reads the folder of one published dataset. All functions are pure.

    Attributes:
      name: of the dataset.
      defaults: options that the user may change.
      crops: the supported values of `DatasetOptions.crop`.
      uses: names of the supported options.
      find: (folder, options) -> `TaskList`; opens no video.
      streams: options -> the streams of every clip.
      views: (task, options) -> (split, view) of one clip, in order.
      meta: options -> facts of the whole dataset.
    """

    name: str
    defaults: DatasetOptions
    crops: tuple[str, ...]
    uses: tuple[str, ...]
    find: Callable[[Path, DatasetOptions], TaskList]
    streams: Callable[[DatasetOptions], tuple[str, ...]]
    views: Callable[[Task, DatasetOptions], Iterator[tuple[str, codec.ClipView]]]
    meta: Callable[[DatasetOptions], dict[str, Any]] = lambda options: {}


def complete_options(dataset: DatasetAdapter, options: DatasetOptions) -> DatasetOptions:
    """Returns the options with the dataset's defaults where the user chose none.

    Raises:
      UserError: for an option or a crop that the dataset does not support.
    """
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    chosen = {name: value for name, value in values.items() if value != getattr(UNSET, name)}
    unknown = next((name for name in chosen if name not in dataset.uses), None)
    if unknown:
        raise UserError(
            f"--{unknown} means nothing to {dataset.name}, which knows {', '.join(dataset.uses)}"
        )
    result = replace(dataset.defaults, **chosen)
    if result.crop not in dataset.crops:
        raise UserError(f"--crop {result.crop}: {dataset.name} knows {', '.join(dataset.crops)}")
    return result


def find_tasks(
    dataset: DatasetAdapter, root: str | os.PathLike, options: DatasetOptions
) -> TaskList:
    """Finds the clips to prepare of a folder.

    Raises:
      UserError: if there is no such folder, it holds no clip, or two clips have the same name.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder of {dataset.name}")
    found = dataset.find(root, options)
    if not found.tasks:
        why = f" ({'; '.join(found.notes)})" if found.notes else ""
        raise UserError(
            f"{root}: no clip of {dataset.name} in it{why}; the documents' "
            f"page on {dataset.name} shows its layout"
        )
    name, count = Counter(task.name for task in found.tasks).most_common(1)[0]
    if count > 1:
        raise UserError(f"{root}: two clips have the name {name!r}; rename one")
    return found
