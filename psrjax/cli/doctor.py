"""Shows installed versions, devices, and whether videos can be written and read."""

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from psrjax import io
from psrjax.data import video
from psrjax.runtime import machine


def main(arguments: Sequence[str]) -> None:
    """Prints the findings, and exits with 1 if something that commands need is broken."""
    del arguments
    print(machine.versions())
    print(f"commit {machine.commit() or 'unknown: not a checkout'}")
    print(machine.describe())
    checks = {"computation": _computation, "video": _video, "cache": _cache, "disk": _disk}
    broken = False
    for name, check in checks.items():
        try:
            print(f"{name}: {check()}")
        except Exception as error:  # whatever is broken here is what the user wants to be told
            print(f"{name}: BROKEN, {type(error).__name__}: {error}")
            broken = True
    sys.exit(1 if broken else 0)


def _computation() -> str:
    ones = jnp.ones((256, 256))
    if float(jax.jit(jnp.dot)(ones, ones)[0, 0]) != 256:
        raise ArithmeticError("256 ones do not add up to 256")
    return f"works on {jax.default_backend()}, {jax.device_count()} device(s)"


def _video() -> str:
    frames = np.zeros((8, 64, 64, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "try.mp4"
        video.write(path, frames, fps=25)
        read = len(video.read(path).frames)
    if read != len(frames):
        raise OSError(f"wrote {len(frames)} frames of H.264 and read {read}")
    return "H.264 is written and read"


def _cache() -> str:
    return f"{io.cache_folder()} (rendered data; PSRJAX_CACHE names another place)"


def _disk() -> str:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    return f"{free:.1f} GiB free in {Path.cwd()}"
