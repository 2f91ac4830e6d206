"""Runs MediaPipe's pose detector in a virtual environment of its own, through a pipe.

MediaPipe 0.10.21 is the last release whose wheel holds its pose model, so that it works without a
network once installed; it needs numpy < 2 and Python up to 3.12, which psrjax cannot promise. So a
virtual environment in the cache folder, made on first use, runs `detector_worker`.
"""

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from absl import logging
from jaxtyping import Float, UInt8

from psrjax import io
from psrjax.errors import UserError
from psrjax.ops import pose
from psrjax.prepare.common import detector_worker as worker

VERSION = "0.10.21"
PYTHONS = ((3, 10), (3, 12))  # first and last with wheels of all that it needs
PYTHON_VARIABLE = "PSRJAX_MEDIAPIPE_PYTHON"
OTHERS = (
    "give joints from files instead: --joints PATH of OpenPose, COCO-17/MMPose/RTMPose or "
    "MediaPipe JSON, NTU .skeleton or .npz"
)
LEAST_VISIBLE = 0.1  # MediaPipe places every joint; less visible ones count as missing

# Every package of MediaPipe's environment, without those that poses do not need (jax, sound).
# OpenCV is headless, and the last before 4.10: that one's JPEG 2000 reader (CVE-2025-53644) is
# mended in 4.12, which NumPy 1 cannot load. All have wheels for `PYTHONS`.
_PACKAGES = (
    f"mediapipe=={VERSION}",
    "absl-py==2.5.1",
    "attrs==26.1.0",
    "contourpy==1.3.2",
    "cycler==0.12.1",
    "flatbuffers==25.12.19",
    "fonttools==4.61.1",
    "kiwisolver==1.4.9",
    "matplotlib==3.10.8",
    "numpy==1.26.4",
    "opencv-contrib-python-headless==4.9.0.80",
    "packaging==26.0",
    "pillow==12.3.0",
    "protobuf==4.25.9",
    "pyparsing==3.3.1",
    "python-dateutil==2.9.0.post0",
    "six==1.17.0",
)
_COMPLETE = "complete"  # a file in the environment's folder, written last


@dataclass(frozen=True)
class Detection:
    """One frame's person: joints (26, 3) in pixels (missing: 0), and mask (h, w) uint8.

    Both are zero if nobody was found.
    """

    joints: Float[np.ndarray, "26 3"]
    mask: UInt8[np.ndarray, "h w"]


class PoseDetector:
    """A running MediaPipe process, which tracks one person through the frames of a clip.

    Use as a context manager; `close` ends the process.

    Raises:
      UserError: if the environment cannot be made, or MediaPipe does not start or breaks off.
    """

    def __init__(self, python: Path | None = None):
        self._errors = tempfile.TemporaryFile()  # lives as long as the process
        command = [os.fspath(python or environment()), worker.__file__]
        quiet = {"GLOG_minloglevel": "2", "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONPATH": ""}
        quiet["MPLBACKEND"] = "agg"  # a notebook names one that MediaPipe's matplotlib lacks
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=os.environ | quiet,
                start_new_session=True,  # Ctrl-C is for the parent, which closes the pipe
            )
        except OSError as error:
            raise UserError(f"{command[0]}: MediaPipe's Python does not start ({error})") from error
        assert self._process.stdin and self._process.stdout
        self._stdin, self._stdout = self._process.stdin, self._process.stdout
        if self._read(len(worker.READY)) != worker.READY:
            raise self._broken("is of another version of psrjax")

    def __enter__(self) -> "PoseDetector":
        return self

    def __exit__(self, *details: object) -> None:
        self.close()

    def detect(self, frames: Iterable[UInt8[np.ndarray, "h w 3"]]) -> Iterator[Detection]:
        """Detects the person in each frame of one clip, in order of time."""
        self._write(worker.HEADER.pack(0, 0))
        for frame in frames:
            height, width = frame.shape[:2]
            self._write(worker.HEADER.pack(height, width) + np.ascontiguousarray(frame).tobytes())
            if not worker.FOUND.unpack(self._read(worker.FOUND.size))[0]:
                yield Detection(
                    np.zeros((pose.COUNT, 3), np.float32), np.zeros((height, width), np.uint8)
                )
                continue
            landmarks = np.frombuffer(self._read(33 * 4 * 4), np.float32).reshape(33, 4)
            mask = np.frombuffer(self._read(height * width), np.uint8).reshape(height, width)
            yield Detection(landmarks_to_joints(landmarks), mask)

    def close(self) -> None:
        """Ends the process."""
        for pipe in (self._stdin, self._stdout):
            try:
                pipe.close()
            except OSError:  # already ended
                continue
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def _write(self, data: bytes) -> None:
        try:
            self._stdin.write(data)
            self._stdin.flush()
        except OSError as error:
            raise self._broken("broke off") from error

    def _read(self, count: int) -> bytes:
        data = self._stdout.read(count)
        if len(data) < count:
            raise self._broken("broke off")
        return data

    def _broken(self, what: str) -> UserError:
        """Returns the error to raise when the worker ends, with the last line that it wrote."""
        self._process.kill()
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        last = lines[-1].strip() if lines else f"exit code {self._process.returncode}"
        return UserError(f"MediaPipe {what} ({last}); {OTHERS}")


def landmarks_to_joints(landmarks: Float[np.ndarray, "33 4"]) -> Float[np.ndarray, "26 3"]:
    """Converts MediaPipe's 33 landmarks (x, y, visibility, presence) to the 26 joints."""
    seen = landmarks[:, 2] >= LEAST_VISIBLE
    return pose.convert(
        np.where(seen[:, None], landmarks[:, :3], 0.0).astype(np.float32), "mediapipe33", "body26"
    )


def environment(*, install: Callable[[Path, Path], None] | None = None) -> Path:
    """Returns the Python of MediaPipe's environment, made in the cache folder on first use.

    `$PSRJAX_MEDIAPIPE_PYTHON` names one that the user made. Of several processes that ask at once,
    one makes it and the others wait. An interrupted installation starts again.

    Args:
      install: replaces pip in tests: fills (folder, python).

    Raises:
      UserError: if it cannot be made; the message names the other sources of joints.
    """
    named = os.environ.get(PYTHON_VARIABLE)
    if named:
        if not os.access(named, os.X_OK):
            raise UserError(f"{PYTHON_VARIABLE}={named}: no Python there; {OTHERS}")
        return Path(named)
    folder = io.cache_folder() / f"mediapipe-{VERSION}"
    ready = folder / "bin" / "python"
    if (folder / _COMPLETE).is_file():
        return ready
    with _locked(folder):
        if not (folder / _COMPLETE).is_file():
            shutil.rmtree(folder, ignore_errors=True)
            (install or _install)(folder, ready)
            io.write_text(folder / _COMPLETE, f"mediapipe {VERSION}\n")
    return ready


def installed() -> bool:
    """Tells whether the environment exists already."""
    made = io.cache_folder() / f"mediapipe-{VERSION}" / _COMPLETE
    return bool(os.environ.get(PYTHON_VARIABLE)) or made.is_file()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds a lock beside a folder; the system releases it when the process ends."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = open(folder.with_name(folder.name + ".lock"), "w")
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        why = "the disk is full" if full else str(error)
        raise UserError(f"{folder.parent}: cannot be written ({why}); set PSRJAX_CACHE") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install(folder: Path, ready: Path) -> None:
    base = _base_python()
    logging.info("installing MediaPipe in %s (once, about 430 MB)", folder)
    _run([base, "-m", "venv", os.fspath(folder)], "the virtual environment cannot be made")
    pip = [os.fspath(ready), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    what = f"mediapipe {VERSION} and what it needs cannot be installed"
    _run([*pip, "--no-deps", *_PACKAGES], what)


def _base_python() -> str:
    """Finds a Python for which there is a wheel: this one, or one on the path."""
    first, last = PYTHONS
    if first <= sys.version_info[:2] <= last:
        return sys.executable
    names = (f"python3.{minor}" for minor in range(last[1], first[1] - 1, -1))
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        raise UserError(
            f"MediaPipe {VERSION} exists for Python {first[0]}.{first[1]} to {last[0]}.{last[1]}; "
            f"this is {sys.version_info[0]}.{sys.version_info[1]} and no other is on the path: "
            f"name one that has it in {PYTHON_VARIABLE}, or {OTHERS}"
        )
    return found


def _run(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        output = (done.stderr.strip() or done.stdout.strip() or "no reason given").splitlines()
        reason = next((line for line in output if "ERROR" in line), output[-1])
        raise UserError(f"MediaPipe's environment: {what} ({reason.strip()}); {OTHERS}")
