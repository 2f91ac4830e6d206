"""Facts for reports and `doctor`: the machine, the versions, the commit, the memory."""

import importlib.metadata
import os
import platform
import resource
import shutil
import subprocess
from pathlib import Path

import jax

import psrjax

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "av")


def describe() -> str:
    """Returns one line: cores, processor, memory, accelerators."""
    devices = jax.devices()
    kinds = ", ".join(sorted({device.device_kind for device in devices}))
    accelerator = "no accelerator" if devices[0].platform == "cpu" else f"{len(devices)} × {kinds}"
    usable, there = cores(), os.cpu_count() or 1
    number = f"{usable} of {there} cores" if usable < there else f"{there} core{'s' * (there > 1)}"
    return f"{number} of {processor()}, {memory_gib():.0f} GiB, {accelerator}"


def versions() -> str:
    """Returns one line: psrjax, Python and the packages that decide what a run computes."""
    packages = [f"{name} {version(name)}" for name in PACKAGES]
    own = [f"psrjax {psrjax.__version__}", f"Python {platform.python_version()}"]
    return ", ".join([*own, *packages])


def version(package: str) -> str:
    """Returns the installed version of a package, or "missing"."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def commit() -> str:
    """Returns the checkout's short commit, "+changes" where it was edited; "" outside one."""
    root = Path(psrjax.__file__).parents[1]
    if shutil.which("git") is None or not (root / ".git").exists():
        return ""
    name = _git(root, "rev-parse", "--short", "HEAD")
    edited = _git(root, "status", "--porcelain", "--untracked-files=no")
    return name + ("+changes" if name and edited else "")


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def processor() -> str:
    """Returns the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def cores() -> int:
    """Returns the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_gib() -> float:
    """Returns the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def peak_memory_gib() -> float:
    """Returns the peak memory of this process, plus the largest peak of one of its children."""
    unit = 1 if platform.system() == "Darwin" else 1024
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(resource.getrusage(kind).ru_maxrss for kind in kinds) * unit / 2**30
