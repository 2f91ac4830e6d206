"""Reads and writes files whole or not at all: text and JSON, on a disk or in a bucket."""

import errno
import fcntl
import importlib.util
import json
import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from etils import epath

from psrjax.errors import UserError


def is_remote(path: str | os.PathLike) -> bool:
    """Returns whether a path is an address of a bucket, such as gs://bucket/folder."""
    return "://" in os.fspath(path)


def absolute(path: str | os.PathLike) -> epath.Path:
    """Returns the absolute path, local or gs://.

    Raises:
      UserError: if it is empty, or an address that nothing here can open.
    """
    place = os.fspath(path)
    if not place:
        raise UserError("an empty path: name a folder")
    if not is_remote(place):
        return epath.Path(os.path.abspath(os.path.expanduser(place)))
    scheme = place.partition("://")[0]
    if scheme != "gs":
        raise UserError(f"{place}: {scheme}:// cannot be opened; folders and gs:// addresses can")
    if importlib.util.find_spec("tensorflow") is None:  # which epath would take
        import fsspec  # a bare machine does not have it

        try:
            fsspec.get_filesystem_class("gcs")
        except ImportError as error:
            raise UserError(
                f"{place}: needs gcsfs: pip install 'psrjax[gcs]'; or copy it to a disk (`gcloud "
                "storage cp -r`), or mount the bucket (gcsfuse)"
            ) from error
    return epath.Path(place)


class DiskFullError(UserError):
    """The disk is full, so that further files cannot be written either."""


_FULL = (errno.ENOSPC, errno.EDQUOT)
_REASONS = {
    errno.ENOSPC: "the disk is full: make room, or write elsewhere",
    errno.EDQUOT: "the disk quota is used up: make room, or write elsewhere",
    errno.EFBIG: "larger than files may be here (ulimit -f): write elsewhere",
    errno.EACCES: "no permission",
    errno.EPERM: "no permission",
    errno.EROFS: "the disk is read-only",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EEXIST: "a part of the path is a file, not a folder",
    errno.EISDIR: "is a folder, not a file",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "its links go round in a circle",
    errno.EIO: "the disk does not answer as it should",
}


def explained(error: OSError, path: Any = None) -> UserError | None:
    """Turns an error of the file system into one line; None where the user cannot help it.

    Args:
      error: what was raised.
      path: the file it is about; by default the one that the error names, if it does.
    """
    place = error.filename if path is None else path
    if error.errno not in _REASONS:
        return None
    kind = DiskFullError if error.errno in _FULL else UserError
    where = "" if place is None else f"{os.fspath(place)}: "
    return kind(f"{where}{_REASONS[error.errno]}")


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[epath.Path]:
    """Yields a temporary name beside `path`; the file there replaces `path` if no error occurs.

    The temporary name keeps the suffix of `path`, by which video writers choose their format.

    Raises:
      UserError: if the disk is full or the folder cannot be written to; `path` is then unchanged.
    """
    path = epath.Path(path)
    temporary = path.parent / f".{path.stem}.{os.getpid()}.tmp{path.suffix}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        told = explained(error, path)
        if told is None:
            raise
        raise told from error
    finally:
        with suppress(NotADirectoryError):  # there was no folder to write to
            temporary.unlink(missing_ok=True)


def require_new(path: str | os.PathLike, *, overwrite: bool) -> None:
    """Raises UserError for a path where something lies, unless it may be written over."""
    there = Path(path)
    taken = any(there.iterdir()) if there.is_dir() else there.exists()
    if taken and not overwrite:
        raise UserError(f"{path}: is there already; --overwrite writes over it")


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a text file, whole or not at all. Raises UserError as `replacing` does."""
    with replacing(path) as temporary:
        temporary.write_text(text)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes indented JSON, whole or not at all. Raises UserError as `replacing` does."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file.

    Raises:
      UserError: if the file is missing or is not JSON, with its name and the place.
    """
    path = epath.Path(path)
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except OSError as error:
        raise explained(error, path) or error from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON, or cut off ({error})") from error


def checksum(value: Any) -> int:
    """Computes the CRC-32 of a JSON-able value, by which a file that holds it is known."""
    return zlib.crc32(json.dumps(value, sort_keys=True).encode())


def cache_folder() -> Path:
    """Folder of rendered data, weights and compiled programs: $PSRJAX_CACHE or ~/.cache/psrjax.

    Raises:
      UserError: if neither is known.
    """
    try:
        return Path(os.environ.get("PSRJAX_CACHE") or Path.home() / ".cache" / "psrjax")
    except RuntimeError as error:
        raise UserError("no home folder: name a folder with PSRJAX_CACHE") from error


@contextmanager
def locked(work: Path, command: str) -> Iterator[None]:
    """Holds the lock of a working folder. Raises UserError if another `command` holds it."""
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = open(work / "lock", "w")
    except OSError as error:
        raise explained(error, work) or error from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"{work}: another `{command}` is at work there; wait for it, or name another folder"
            ) from error
        try:
            yield
        finally:
            if work.is_dir() and {child.name for child in work.iterdir()} <= {"lock"}:
                shutil.rmtree(work, ignore_errors=True)  # nothing worth keeping
