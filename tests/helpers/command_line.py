"""Runs `psrjax` as a user does, in a process of its own with one device."""

import os
import subprocess
import sys

PROGRAM = "from psrjax.cli.main import console; console()"


def environment():
    """Returns this process's environment with one device and, for forks, one thread."""
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "device" not in flag]
    return {**os.environ, "XLA_FLAGS": " ".join(flags), "OPENBLAS_NUM_THREADS": "1"}


def psrjax(*arguments):
    """Returns how a command ended, its output as text."""
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True)
