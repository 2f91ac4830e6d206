"""Many clips become one data set: in several processes, resumable, whole or not at all.

Each clip is prepared into a small data set of its own beside the new one, in `DIR.work/KEY`, where
KEY tells the video, the joints and the options. When all are done, their records are copied into
`DIR.next`, which then takes the place of DIR. So a run that was cut off goes on where it was, one
that is repeated does nothing, and one that names more videos adds them.
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

VERSION = 2  # of what is prepared: raise it and every clip is prepared anew
KIND = "videos"  # `kind` in the facts of a data set that was made here
SUMMARY = "prepare.json"
PREVIEWS = "previews"

_DEFAULTS = PreparationOptions()


@dataclass(frozen=True)
class FinishedClip:
    """A clip that is prepared: in which small (or older) data set it lies, and its report.

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
    """Prepares clips into the data set `directory`, adding to what is there.

    Args:
      clips: their names must differ; a name that is there is prepared anew if its video, joints or
        options are others.
      directory: the data set.
      options: how; the same for all clips of a data set.
      processes: how many at once; 0: one for every two cores, since MediaPipe uses two.

    Returns:
      {"clips": {name: report}, "failed": {name: why}, "new": how many were prepared now}; the first
      two are also stored as `prepare.json`, beside the videos in `previews`.

    Raises:
      UserError: if the folder holds something else, no clip at all can be prepared, or the disk is
        full. What was prepared until then is kept in `DIR.work` and not done again.
    """
    directory = Path(os.path.abspath(directory))
    names = [clip.name for clip in clips]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"two clips have the name {twice!r}: rename one of the videos")
    work = directory.with_name(directory.name + ".work")
    with io.alone(work), _terminated_as_interrupted():
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
    """SIGTERM is handled as Ctrl-C is: processes are ended, finished clips stay."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _recover(directory: Path) -> None:
    """Ends an exchange of an old data set for a new one that was cut off between its two steps."""
    old = directory.with_name(directory.name + ".old")
    if old.is_dir() and not directory.exists():
        old.replace(directory)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(directory.with_name(directory.name + ".next"), ignore_errors=True)


def _existing(directory: Path, options: PreparationOptions) -> dict[str, FinishedClip]:
    """The clips of a data set that is there.

    Raises:
      UserError: if the folder is something else, or of other options.
    """
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return {}
    if not (directory / store.MANIFEST).is_file():
        raise UserError(f"{directory}: exists and is no data set; name another folder")
    meta = store.read_manifest(directory)["meta"]
    if meta.get("kind") != KIND:
        raise UserError(
            f"{directory}: a data set of another kind; remove it or name another folder"
        )
    for name, value in _described(options).items():
        before = meta["options"].get(name, _described(PreparationOptions())[name])
        if before != value:
            raise UserError(
                f"{directory}: prepared with {name}={before}, now {value}: one "
                "data set has one set of options; name another folder"
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
    """What tells each clip from every other state of it; files that are missing are `failed`."""
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
    """Sizes and times of change of a file, or of all files in a folder and in its folders."""
    if path.is_dir():
        found = sorted(child for child in path.rglob("*") if child.is_file())
        stats = [child.stat() for child in found]
        names = hashlib.sha256("\n".join(map(str, found)).encode()).hexdigest()
        newest = max((stat.st_mtime_ns for stat in stats), default=0)
        return [[names, sum(stat.st_size for stat in stats), newest]]
    stat = path.stat()
    return [[path.name, stat.st_size, stat.st_mtime_ns]]


def _finished(work: Path, name: str, key: str) -> FinishedClip | None:
    """A clip that an earlier run finished; its summary is written last."""
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
    """Prepares clips; those that fail are told and the others go on."""
    processes = min(len(todo), processes or max(1, (os.cpu_count() or 1) // 2))
    made: dict[str, FinishedClip] = {}
    failed: dict[str, str] = {}

    def settle(clip: VideoClip, result: Callable[[], None]) -> None:
        try:
            result()
            made[clip.name] = _finished(work, clip.name, keys[clip.name])
        except io.DiskFullError as error:
            raise UserError(
                f"{error}; run the same again then: {len(made)} clips are kept in {work}"
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
    """Each clip with what raises its error, as they end, in any order.

    A process that is killed (by the system, for want of memory) breaks its pool: the clips that
    were not done then are tried again one by one, and only the one that kills again is given up.
    """
    waiting = list(todo)
    while waiting:
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_one_of_many)
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
        f"{clip.video}: the process that prepared it was killed, perhaps for want of memory; try "
        "a smaller --size, or --seconds"
    )


def _one_of_many() -> None:
    """One worker is one core's work beside MediaPipe's; Ctrl-C is the parent's to handle."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    cv2.setNumThreads(1)


def prepare_one(
    clip: VideoClip,
    options: PreparationOptions,
    folder: Path,
    progress: Callable[[str, int], None] = lambda what, frames: None,
) -> None:
    """Prepares one clip into a data set of its own; its summary is written last.

    Raises UserError as `preparation.prepare_clip` and `store.write` do.
    """
    shutil.rmtree(folder, ignore_errors=True)
    with store.disk_errors(folder):
        prepared = pipeline.prepare_clip(clip, options, progress=progress)
        acted = body_streams.lift_prepared(prepared) if options.body else None
        _write_one(prepared, acted, folder)


def _write_one(
    prepared: pipeline.PreparedClip, acted: body_streams.LiftedBody | None, folder: Path
) -> None:
    by_split: dict[str, list[pipeline.Piece]] = {}
    for piece in prepared.pieces:
        by_split.setdefault(piece.split, []).append(piece)
    splits = {
        split: (view for piece in pieces for view in _views(prepared, piece, acted))
        for split, pieces in by_split.items()
    }
    store.write(folder, splits, meta={"kind": KIND})
    preview.write(folder / "preview.mp4", prepared)
    preview.write_strip(folder / "strip.jpg", prepared)
    pieces = [(piece.split, piece.name) for piece in prepared.pieces]
    io.write_json(folder / SUMMARY, {"pieces": pieces, "report": prepared.report})


def _views(
    prepared: pipeline.PreparedClip, piece: pipeline.Piece, acted: body_streams.LiftedBody | None
) -> Iterator[codec.ClipView]:
    views = prepared.views(piece)
    if acted is None:
        return views
    return body_streams.add_body_streams(views, piece.start, acted, prepared.masks)


def _assemble(
    directory: Path,
    done: Mapping[str, FinishedClip],
    summary: dict[str, Any],
    options: PreparationOptions,
) -> None:
    """Writes the data set of all clips beside the old one, and puts it in its place."""
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
        for kind in ("mp4", "jpg"):
            target = fresh / PREVIEWS / f"{name}.{kind}"
            inner = one.folder / ("preview.mp4" if kind == "mp4" else "strip.jpg")
            source = one.folder / PREVIEWS / target.name if one.folder == directory else inner
            if source.is_file():
                with io.replacing(target) as temporary:
                    shutil.copyfile(source, temporary)
    io.write_json(fresh / SUMMARY, summary)
    old = directory.with_name(directory.name + ".old")
    if directory.exists():
        directory.replace(old)
    fresh.replace(directory)
    shutil.rmtree(old, ignore_errors=True)


def _stored(split: str, clips: Sequence[tuple[FinishedClip, str]]) -> Iterator[codec.EncodedView]:
    """The records of clips out of the data sets in which they lie."""
    for one, name in clips:
        source = Source(one.folder, split)
        for view in source.clip(name).views:
            yield from source.encoded(name, view)
