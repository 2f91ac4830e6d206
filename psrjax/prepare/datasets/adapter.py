"""What readers of published data sets share: a unit of work, options, and what makes up a set."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from psrjax.data import codec
from psrjax.errors import UserError


@dataclass(frozen=True)
class DatasetOptions:
    """What a user may choose; the empty value of each stands for the set's own default.

    Attributes:
      size: (height, width) of the stored frames.
      crop: "squeeze" (the whole picture, its shape not kept), "whole", "fixed" or "follow" (see
        `psrjax.prepare.monocular.pipeline`).
      joints: "mediapipe", "none", or a file or folder of joints.
      margin: what a crop leaves around the person, as a fraction of his extent.
      fps: frames a second to keep of videos, and the rate of folders of pictures.
      seconds: clips are cut to pieces of this length.
      smpl: an SMPL model file.
      smpl_parameters: a folder of SMPL parameters, named like the clips.
    """

    size: tuple[int, int] | tuple[()] = ()
    crop: str = ""
    joints: str = ""
    margin: float = 0.08
    fps: float = 0.0
    seconds: float = 0.0
    smpl: str = ""
    smpl_parameters: str = ""


UNSET = DatasetOptions()


@dataclass(frozen=True)
class Task:
    """What becomes one clip (or the pieces of one): small, picklable, all that a worker needs.

    Attributes:
      name: of the clip.
      split: where it goes.
      files: {role: path}, such as a camera's video.
      facts: JSON-able facts to store with it.
    """

    name: str
    split: str
    files: Mapping[str, str]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TaskList:
    """The tasks of a folder, and in words what was left out and why."""

    tasks: tuple[Task, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class DatasetAdapter:
    """A published data set: how its folder is read. All functions are pure and of module level.

    Attributes:
      name: of the data set.
      defaults: options where the user chose none.
      crops: the values of `DatasetOptions.crop` that make sense.
      uses: the names of the options that mean something to it.
      find: (folder, options) -> `TaskList`; opens no video.
      streams: options -> the streams of every clip.
      views: (task, options) -> the views of one clip and split, in order: the work on one clip.
      meta: options -> facts of the whole data set.
    """

    name: str
    defaults: DatasetOptions
    crops: tuple[str, ...]
    uses: tuple[str, ...]
    find: Callable[[Path, DatasetOptions], TaskList]
    streams: Callable[[DatasetOptions], tuple[str, ...]]
    views: Callable[[Task, DatasetOptions], Iterator[tuple[str, codec.ClipView]]]
    meta: Callable[[DatasetOptions], dict[str, Any]]


def complete_options(raw: DatasetAdapter, options: DatasetOptions) -> DatasetOptions:
    """The options with the set's defaults where the user chose none.

    Raises:
      UserError: for an option or a crop that the set does not know.
    """
    empty = UNSET
    chosen = {
        name: getattr(options, name)
        for name in options.__dataclass_fields__
        if getattr(options, name) != getattr(empty, name)
    }
    unknown = next((option for option in chosen if option not in raw.uses), None)
    if unknown:
        raise UserError(
            f"--{unknown} means nothing to {raw.name}, which knows {', '.join(raw.uses)}"
        )
    result = replace(raw.defaults, **chosen)
    if result.crop not in raw.crops:
        raise UserError(f"--crop {result.crop}: {raw.name} knows {', '.join(raw.crops)}")
    return result


def find_tasks(raw: DatasetAdapter, root: str | os.PathLike, options: DatasetOptions) -> TaskList:
    """The tasks of a folder.

    Raises:
      UserError: if there is no such folder, it holds no clip of the set, or two bear one name.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder of {raw.name}")
    found = raw.find(root, options)
    if not found.tasks:
        why = f" ({'; '.join(found.notes)})" if found.notes else ""
        raise UserError(
            f"{root}: no clip of {raw.name} in it{why}; its layout is in datasets/{raw.name}/"
            "README.md"
        )
    names = [task.name for task in found.tasks]
    twice = next((name for name in set(names) if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{root}: two clips have the name {twice!r}; rename one")
    return found
