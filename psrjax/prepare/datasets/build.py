"""Builds a stored dataset of a published dataset's folder: clip by clip, resumable, whole or not.

A clip is prepared by the adapter's `views`, a pure function, and encoded by `encode_clip`, which
the processes here and Apache Beam (`tfds_builder`) both call.
"""

import dataclasses
import functools
import hashlib
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from psrjax import io
from psrjax.data import codec, store
from psrjax.data.source import Source
from psrjax.errors import UserError
from psrjax.prepare.datasets import adapter, catalogue
from psrjax.runtime import workers

VERSION = 1  # of the prepared clips: if it is raised, every clip is prepared anew
SUMMARY = "prepare.json"


def encode_clip(
    name: str, options: adapter.DatasetOptions, task: adapter.Task
) -> list[tuple[str, codec.EncodedView]]:
    """Prepares one clip: (split, encoded view), in order.

    Raises UserError as the adapter's `views` does.
    """
    views = catalogue.get(name).views(task, options)
    return [(split, codec.encode(view)) for split, view in views]


def build(
    name: str,
    root: str | os.PathLike,
    directory: str | os.PathLike,
    options: adapter.DatasetOptions = adapter.UNSET,
    *,
    processes: int = 0,
) -> dict[str, Any]:
    """Writes the dataset `name` in the folder `root` as the stored dataset `directory`.

    Clips are prepared into `DIRECTORY.work` first: an interrupted run goes on where it was, and a
    repeated one does nothing. Clips that cannot be used are reported and left out.

    Args:
      name: of `catalogue.NAMES`.
      root: the dataset's own files.
      directory: the new folder; must not exist, or be the result of an equal call.
      options: size, crop and further options.
      processes: number of clips prepared at once; 0: one per core.

    Returns:
      {"clips": number of stored clips, "failed": {clip: reason}, "notes": what was left out}, also
      stored as `prepare.json`.

    Raises:
      UserError: if nothing can be used, the folder is something else, or the disk is full.
    """
    dataset = catalogue.get(name)
    options = adapter.complete_options(dataset, options)
    found = adapter.find_tasks(dataset, root, options)
    directory = Path(os.path.abspath(directory))
    keys = {task.name: _key(name, options, task) for task in found.tasks}
    whole = hashlib.sha256(json.dumps(sorted(keys.values())).encode()).hexdigest()
    if (directory / store.MANIFEST).is_file():
        stored = store.read_manifest(directory)["meta"]
        if stored.get("prepared") == whole:
            return stored["summary"]
        raise UserError(
            f"{directory}: holds a dataset of other files or options; remove it or name another"
        )
    work = directory.with_name(directory.name + ".work")
    with io.locked(work, "psrjax prepare"):
        failed = {}
        one = functools.partial(_prepare_one, name, options, work)
        with (
            workers.mapping(one, processes or os.cpu_count() or 1) as each,
            tqdm(total=len(found.tasks), desc=name, unit="clip") as bar,
        ):
            keyed = [(task, keys[task.name]) for task in found.tasks]
            for task, why in zip(found.tasks, each(keyed)):
                if why:
                    failed[task.name] = why
                    bar.write(f"left out: {why}")
                bar.update()
        done = [task for task in found.tasks if task.name not in failed]
        if not done:
            raise UserError(f"no clip could be prepared: {'; '.join(failed.values())}")
        summary = {"clips": len(done), "failed": failed, "notes": list(found.notes)}
        meta = {**meta_of(name, options), "prepared": whole, "summary": summary}
        store.write(directory, _by_split(work / keys[task.name] for task in done), meta=meta)
        io.write_json(directory / SUMMARY, summary)
        shutil.rmtree(work, ignore_errors=True)
    return summary


def _key(name: str, options: adapter.DatasetOptions, task: adapter.Task) -> str:
    """Hash of everything that a prepared clip depends on."""
    states = {role: _state(Path(path)) for role, path in sorted(task.files.items())}
    inputs = [VERSION, name, dataclasses.asdict(options), dataclasses.asdict(task), states]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:16]


def _state(path: Path) -> list[int]:
    try:
        stat = path.stat()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    return [stat.st_size, stat.st_mtime_ns]


def _prepare_one(
    name: str, options: adapter.DatasetOptions, work: Path, task_and_key: tuple[adapter.Task, str]
) -> str:
    """Prepares one clip as a small dataset of its own; returns the reason if it cannot."""
    task, key = task_and_key
    folder = work / key
    if (folder / store.MANIFEST).is_file():
        return ""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        views = defaultdict(list)
        for split, view in encode_clip(name, options, task):
            views[split].append(view)
        store.write(folder, views)
    except io.DiskFullError:
        raise
    except UserError as error:
        return str(error)
    return ""


def _by_split(folders: Iterable[Path]) -> dict[str, Iterator[codec.EncodedView]]:
    """{split: the views of the stored datasets `folders`}, "train" first."""
    inside: dict[str, list[Path]] = defaultdict(list)
    for folder in folders:
        for split in store.read_manifest(folder)["splits"]:
            inside[split].append(folder)
    return {split: _stored(split, inside[split]) for split in sorted(inside, key=train_first)}


def train_first(split: str) -> tuple[bool, str]:
    """Sort key of splits: "train", then by name."""
    return split != store.TRAIN_SPLIT, split


def _stored(split: str, folders: Sequence[Path]) -> Iterator[codec.EncodedView]:
    for folder in folders:
        source = Source(folder, split)
        for clip in source.clips:
            for view in clip.views:
                yield from source.encoded(clip.name, view)


def meta_of(name: str, options: adapter.DatasetOptions) -> Mapping[str, Any]:
    """Returns the facts of the whole dataset that are stored with it."""
    return {
        "kind": name,
        **catalogue.get(name).meta(options),
        "dataset": name,
        "options": dataclasses.asdict(options),
    }
