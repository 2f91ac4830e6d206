"""Builds a dataset of many clips: in several processes, resumable, and atomically.

Each clip is prepared into a small dataset of its own, `DIR.work/KEY`, where KEY is a hash of the
video, the joints and the options. When all are done, their records are copied into `DIR.next`,
which then replaces DIR. So an interrupted run resumes, a repeated run does nothing, and a run with
more videos adds them.
"""

import dataclasses
import functools
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from tqdm import tqdm

from psrjax import io
from psrjax.data import codec, store
from psrjax.data.source import Source
from psrjax.errors import UserError
from psrjax.prepare.common import joint_files
from psrjax.prepare.monocular import body_streams, pipeline, preview
from psrjax.prepare.monocular.pipeline import MEDIAPIPE, PreparationOptions, VideoClip

VERSION = 4  # of prepared clips: raise it, and every clip is prepared anew
KIND = "videos"  # `kind` in the metadata of these datasets
SUMMARY = "prepare.json"
PREVIEWS = "previews"

_DEFAULTS = PreparationOptions()


@dataclass(frozen=True)
class FinishedClip:
    """A prepared clip: the small (or older) dataset that holds it, and its report.

    `pieces` are its clips there, (split, name).
    """

    name: str
    key: str
    folder: Path
    pieces: tuple[tuple[str, str], ...]
    report: dict[str, Any]


def prepare(
    clips: Sequence[VideoClip],
    directory: str | os.PathLike,
    options: PreparationOptions = _DEFAULTS,
    *,
    processes: int = 0,
) -> dict[str, Any]:
    """Prepares clips into the dataset `directory`, adding to those it holds.

    Args:
      clips: of distinct names; an existing clip is prepared anew if its video or joints changed.
      directory: the dataset.
      options: of all clips of the dataset.
      processes: number of processes; 0: one for every two cores, since MediaPipe uses two.

    Returns:
      {"clips": {name: report}, "failed": {name: why}, "new": number of clips prepared by this run};
      the first two are also stored as `prepare.json`, beside the videos in `previews`.

    Raises:
      UserError: if the folder holds something else, no clip can be prepared, or the disk is full.
        Clips prepared until then are kept in `DIR.work` and not prepared again.
    """
    directory = Path(os.path.abspath(directory))
    names = [clip.name for clip in clips]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"two clips have the name {twice!r}: rename one of the videos")
    work = directory.with_name(directory.name + ".work")
    with io.locked(work, "psrjax prepare"), _terminated_as_interrupted():
        _recover(directory)
        kept = _existing(directory, options)
        failed: dict[str, str] = {}
        keys = _keys(clips, options, failed)
        done = {name: one for name, one in kept.items() if keys.get(name, one.key) == one.key}
        unchanged = set(done)
        done |= {
            clip.name: found
            for clip in clips
            if clip.name in keys and clip.name not in done
            and (found := _finished(work, clip.name, keys[clip.name]))
        }  # fmt: skip
        todo = [clip for clip in clips if clip.name in keys and clip.name not in done]
        made, broken = _prepare_all(todo, keys, work, options, processes)
        failed |= broken
        done |= made
        if not done:
            raise UserError(f"no clip could be prepared: {'; '.join(failed.values())}")
        summary = {
            "clips": {name: one.report for name, one in sorted(done.items())},
            "failed": failed,
            "new": len(made),
        }
        if set(done) != unchanged or not (directory / SUMMARY).is_file():
            _assemble(directory, done, summary, options)
        else:
            io.write_json(directory / SUMMARY, summary)
        shutil.rmtree(work, ignore_errors=True)
    return summary


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Handles SIGTERM as Ctrl-C: processes are ended, finished clips stay."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _recover(directory: Path) -> None:
    """Completes a replacement of the dataset that was interrupted between its two steps."""
    old = directory.with_name(directory.name + ".old")
    if old.is_dir() and not directory.exists():
        old.replace(directory)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(directory.with_name(directory.name + ".next"), ignore_errors=True)


def _existing(directory: Path, options: PreparationOptions) -> dict[str, FinishedClip]:
    """Returns the clips of an existing dataset.

    Raises:
      UserError: if the folder is something else, or has other options.
    """
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return {}
    if not (directory / store.MANIFEST).is_file():
        raise UserError(f"{directory}: exists and is no dataset; name another folder")
    meta = store.read_manifest(directory)["meta"]
    if meta.get("kind") != KIND:
        raise UserError(f"{directory}: a dataset of another kind; remove it or name another folder")
    for name, value in _described(options).items():
        before = meta["options"].get(name, _described(PreparationOptions())[name])
        if before != value:
            raise UserError(
                f"{directory}: prepared with {name}={before}, now {value}: all clips of a dataset "
                "have the same options; name another folder"
            )
    reports = io.read_json(directory / SUMMARY)["clips"]
    return {
        name: FinishedClip(
            name, one["key"], directory, tuple(map(tuple, one["pieces"])), reports[name]
        )
        for name, one in meta["prepared"].items()
        if one["version"] == VERSION
    }


def _described(options: PreparationOptions) -> dict[str, Any]:
    return json.loads(json.dumps(dataclasses.asdict(options)))


def _keys(
    clips: Sequence[VideoClip], options: PreparationOptions, failed: dict[str, str]
) -> dict[str, str]:
    """Hashes each clip's video, joints and options; clips with missing files are `failed`."""
    keys = {}
    for clip in clips:
        try:
            state = {
                "version": VERSION,
                "clip": dataclasses.asdict(clip) | {"video": os.path.abspath(clip.video)},
                "options": _described(options),
                "video": _state(Path(clip.video)),
                "joints": [] if clip.joints == MEDIAPIPE else _state(_joints(clip)),
            }
        except UserError as error:
            failed[clip.name] = str(error)
            continue
        except OSError as error:
            failed[clip.name] = f"{error.filename}: cannot be read ({error.strerror})"
            continue
        keys[clip.name] = hashlib.sha256(json.dumps(state).encode()).hexdigest()[:16]
    return keys


def _joints(clip: VideoClip) -> Path:
    return joint_files.find(clip.joints, clip.video)


def _state(path: Path) -> list[list[Any]]:
    """Returns size and modification time of a file, or of all files under a folder."""
    if path.is_dir():
        found = sorted(child for child in path.rglob("*") if child.is_file())
        stats = [child.stat() for child in found]
        names = hashlib.sha256("\n".join(map(str, found)).encode()).hexdigest()
        newest = max((stat.st_mtime_ns for stat in stats), default=0)
        return [[names, sum(stat.st_size for stat in stats), newest]]
    stat = path.stat()
    return [[path.name, stat.st_size, stat.st_mtime_ns]]


def _finished(work: Path, name: str, key: str) -> FinishedClip | None:
    """Returns a clip that an earlier run finished (its summary is written last), or None."""
    folder = work / key
    if not (folder / SUMMARY).is_file():
        return None
    summary = io.read_json(folder / SUMMARY)
    pieces = tuple(tuple(piece) for piece in summary["pieces"])
    return FinishedClip(name, key, folder, pieces, summary["report"])


def _prepare_all(
    todo: Sequence[VideoClip],
    keys: Mapping[str, str],
    work: Path,
    options: PreparationOptions,
    processes: int,
) -> tuple[dict[str, FinishedClip], dict[str, str]]:
    """Prepares clips; returns the finished ones, and why the others failed."""
    processes = min(len(todo), processes or max(1, (os.cpu_count() or 1) // 2))
    made: dict[str, FinishedClip] = {}
    failed: dict[str, str] = {}

    def settle(clip: VideoClip, result: Callable[[], None]) -> None:
        try:
            result()
            if finished := _finished(work, clip.name, keys[clip.name]):
                made[clip.name] = finished
        except io.DiskFullError as error:
            raise UserError(
                f"{error}; then run the same again: {len(made)} clips are kept in {work}"
            ) from error
        except UserError as error:
            failed[clip.name] = str(error)
        except MemoryError as error:
            failed[clip.name] = f"{clip.video}: not enough memory ({error}); try --seconds"

    if processes <= 1:
        for number, clip in enumerate(todo, 1):
            title = f"{clip.name} ({number} of {len(todo)})" if len(todo) > 1 else clip.name
            with tqdm(desc=title, unit="frame", mininterval=1.0) as bar:
                advance = functools.partial(_advance, bar)
                settle(
                    clip,
                    functools.partial(prepare_one, clip, options, work / keys[clip.name], advance),
                )
        return made, failed
    with tqdm(total=len(todo), desc="clips", unit="clip") as bar:
        for clip, result in _in_processes(todo, keys, work, options, processes):
            settle(clip, result)
            bar.update()
    return made, failed


def _in_processes(
    todo: Sequence[VideoClip],
    keys: Mapping[str, str],
    work: Path,
    options: PreparationOptions,
    processes: int,
) -> Iterator[tuple[VideoClip, Callable[[], None]]]:
    """Yields each finished clip with a function that raises its error, in any order.

    A process killed by the system, for lack of memory, breaks its pool: the clips not yet done are
    tried again one by one, and only one that breaks it again fails.
    """
    waiting = list(todo)
    while waiting:
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_set_up_worker)
        try:
            futures = {
                pool.submit(prepare_one, clip, options, work / keys[clip.name]): clip
                for clip in (waiting if processes > 1 else waiting[:1])
            }
            while futures:
                for future in wait(futures, return_when=FIRST_COMPLETED).done:
                    clip = futures.pop(future)
                    if not isinstance(future.exception(), BrokenProcessPool):
                        waiting.remove(clip)
                        yield clip, future.result
                    elif processes == 1:
                        waiting.remove(clip)
                        yield clip, functools.partial(_killed, clip)
        except BaseException:
            for child in multiprocessing.active_children():
                child.terminate()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        processes = 1


def _advance(bar: tqdm, what: str, frames: int) -> None:
    bar.set_postfix_str(what, refresh=False)
    bar.update(frames)


def _killed(clip: VideoClip) -> None:
    raise UserError(
        f"{clip.video}: the process that prepared it was killed, perhaps for lack of memory; try "
        "a smaller --size, or --seconds"
    )


def _set_up_worker() -> None:
    """Sets up a worker: one core besides MediaPipe's, and Ctrl-C left to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cv2.setNumThreads(1)


def prepare_one(
    clip: VideoClip,
    options: PreparationOptions,
    folder: Path,
    progress: Callable[[str, int], None] = lambda what, frames: None,
) -> None:
    """Prepares one clip into a dataset of its own; its summary is written last.

    Raises UserError as `pipeline.prepare_clip` and `store.write` do.
    """
    shutil.rmtree(folder, ignore_errors=True)
    with store.disk_errors(folder):
        prepared = pipeline.prepare_clip(clip, options, progress=progress)
        lifted = body_streams.lift_prepared(prepared) if options.body else None
        _write_one(prepared, lifted, folder)


def _write_one(
    prepared: pipeline.PreparedClip, lifted: body_streams.LiftedBody | None, folder: Path
) -> None:
    by_split: dict[str, list[pipeline.Piece]] = {}
    for piece in prepared.pieces:
        by_split.setdefault(piece.split, []).append(piece)
    splits = {
        split: (view for piece in pieces for view in _views(prepared, piece, lifted))
        for split, pieces in by_split.items()
    }
    store.write(folder, splits, meta={"kind": KIND})
    preview.write(folder / PREVIEWS / f"{prepared.clip.name}.mp4", prepared)
    preview.write_strips(folder / PREVIEWS, prepared)
    pieces = [(piece.split, piece.name) for piece in prepared.pieces]
    io.write_json(folder / SUMMARY, {"pieces": pieces, "report": prepared.report})


def _views(
    prepared: pipeline.PreparedClip, piece: pipeline.Piece, lifted: body_streams.LiftedBody | None
) -> Iterator[codec.ClipView]:
    views = prepared.views(piece)
    if lifted is None:
        return views
    return body_streams.add_body_streams(views, piece.start, lifted, prepared.masks)


def _assemble(
    directory: Path,
    done: Mapping[str, FinishedClip],
    summary: dict[str, Any],
    options: PreparationOptions,
) -> None:
    """Writes the dataset of all clips beside the old one, then replaces that."""
    fresh = directory.with_name(directory.name + ".next")
    wanted: dict[str, list[tuple[FinishedClip, str]]] = {}
    for _, one in sorted(done.items()):
        for split, name in one.pieces:
            wanted.setdefault(split, []).append((one, name))
    meta = {
        "kind": KIND,
        "options": _described(options),
        "prepared": {
            name: {"key": one.key, "pieces": one.pieces, "version": VERSION}
            for name, one in done.items()
        },
    }
    splits = {split: _stored(split, clips) for split, clips in sorted(wanted.items(), reverse=True)}
    store.write(fresh, splits, meta=meta)
    for name, one in done.items():
        for suffix in (".mp4", *preview.STRIPS):
            path = Path(PREVIEWS, name + suffix)
            if (one.folder / path).is_file():
                with io.replacing(fresh / path) as temporary:
                    shutil.copyfile(one.folder / path, temporary)
    io.write_json(fresh / SUMMARY, summary)
    old = directory.with_name(directory.name + ".old")
    if directory.exists():
        directory.replace(old)
    fresh.replace(directory)
    shutil.rmtree(old, ignore_errors=True)


def _stored(split: str, clips: Sequence[tuple[FinishedClip, str]]) -> Iterator[codec.EncodedView]:
    """Yields the records of clips from the datasets that hold them."""
    for one, name in clips:
        source = Source(one.folder, split)
        for view in source.clip(name).views:
            yield from source.encoded(name, view)
