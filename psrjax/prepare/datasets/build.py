"""A published data set's folder becomes a stored data set: clip by clip, resumable, whole or not.

The work on one clip is the set's `views`, a pure function; `encode_clip` is that work as TFDS stores
it. The loop here, several processes, and Apache Beam (`raw_builder`) all call it.
"""

import dataclasses
import functools
import hashlib
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from psrjax import io
from psrjax.data import codec, store
from psrjax.data.source import Source
from psrjax.errors import UserError
from psrjax.prepare.datasets import adapter, catalogue
from psrjax.runtime import workers

VERSION = 1  # of what is prepared: raise it and every clip is prepared anew
SUMMARY = "prepare.json"


def encode_clip(
    name: str, options: adapter.DatasetOptions, task: adapter.Task
) -> list[tuple[str, codec.EncodedView]]:
    """The work on one clip: (split, what is stored of a view), in order.

    Raises UserError as the set's `views` does.
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
    """Writes the data set `name` of the folder `root` as the stored data set `directory`.

    Clips are prepared into `DIRECTORY.work` first: a run that was cut off goes on where it was, and
    one that is repeated does nothing. Clips that cannot be used are told and left out.

    Args:
      name: of `catalogue.NAMES`.
      root: the data set's own files.
      directory: where it will stand; must not exist, or be what an equal call has made.
      options: how.
      processes: how many clips at once; 0: one a core.

    Returns:
      {"clips": how many were stored, "failed": {clip: why}, "notes": what was left out}, also
      stored as `prepare.json`.

    Raises:
      UserError: if nothing can be used, the folder is something else, or the disk is full.
    """
    chosen = catalogue.get(name)
    options = adapter.complete_options(chosen, options)
    found = adapter.find_tasks(chosen, root, options)
    directory = Path(os.path.abspath(directory))
    keys = {task.name: _key(name, options, task) for task in found.tasks}
    whole = hashlib.sha256(json.dumps(sorted(keys.values())).encode()).hexdigest()
    if (directory / store.MANIFEST).is_file():
        stored = store.read_manifest(directory)["meta"]
        if stored.get("prepared") == whole:
            return stored["summary"]
        raise UserError(
            f"{directory}: holds a data set of other files or options; remove it or name another"
        )
    work = directory.with_name(directory.name + ".work")
    with io.alone(work):
        failed = {}
        one = functools.partial(_prepare_one, name, options, work)
        with (
            workers.mapping(one, processes or os.cpu_count() or 1) as each,
            tqdm(total=len(found.tasks), desc=name, unit="clip") as bar,
        ):
            work_on = [(task, keys[task.name]) for task in found.tasks]
            for task, why in zip(found.tasks, each(work_on)):
                if why:
                    failed[task.name] = why
                    bar.write(f"left out: {why}")
                bar.update()
        done = [task for task in found.tasks if task.name not in failed]
        if not done:
            raise UserError(f"no clip could be prepared: {'; '.join(failed.values())}")
        splits = by_split((work / keys[task.name]) for task in done)
        summary = {"clips": len(done), "failed": failed, "notes": list(found.notes)}
        facts = {"prepared": whole, "summary": summary}
        store.write(directory, splits, meta={**meta_of(name, options), **facts})
        io.write_json(directory / SUMMARY, summary)
        shutil.rmtree(work, ignore_errors=True)
    return summary


def _key(name: str, options: adapter.DatasetOptions, task: adapter.Task) -> str:
    """What tells a clip from every other state of it."""
    stats = {role: _state(Path(path)) for role, path in sorted(task.files.items())}
    said = [VERSION, name, dataclasses.asdict(options), dataclasses.asdict(task), stats]
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def _state(path: Path) -> list[int]:
    try:
        stat = path.stat()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    return [stat.st_size, stat.st_mtime_ns]


def _prepare_one(
    name: str, options: adapter.DatasetOptions, work: Path, task_and_key: tuple[adapter.Task, str]
) -> str:
    """Prepares one clip into a small data set of its own; returns why it cannot be, or nothing."""
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


def by_split(folders: Any) -> dict[str, Iterator[codec.EncodedView]]:
    """{split: what the stored data sets in `folders` hold}, "train" first."""
    inside: dict[str, list[Path]] = defaultdict(list)
    for folder in folders:
        for split in store.read_manifest(folder)["splits"]:
            inside[split].append(folder)
    order = sorted(inside, key=lambda split: (split != store.TRAIN_SPLIT, split))
    return {split: _stored(split, inside[split]) for split in order}


def _stored(split: str, folders: Sequence[Path]) -> Iterator[codec.EncodedView]:
    for folder in folders:
        source = Source(folder, split)
        for clip in source.clips:
            for view in clip.views:
                yield from source.encoded(clip.name, view)


def meta_of(name: str, options: adapter.DatasetOptions) -> Mapping[str, Any]:
    """Facts of the whole data set, as `build` stores them, of one that Beam has built."""
    return {
        **catalogue.get(name).meta(options),
        "dataset": name,
        "options": dataclasses.asdict(options),
    }
