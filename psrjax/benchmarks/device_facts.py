"""Says what this machine's accelerators are and reach: `python -m … FILE` writes JSON."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from psrjax.benchmarks import timing
from psrjax.runtime import machine

_PACKAGES = ("torch", "triton", "jax-cuda13-plugin", "jax-cuda12-plugin", "libtpu")


def facts() -> dict[str, Any]:
    """Returns machine, versions, devices, driver, FLOP/s of bfloat16 products, a copy's bytes/s."""
    return {
        "machine": machine.describe(),
        "versions": machine.versions(),
        "packages": {name: machine.version(name) for name in _PACKAGES},
        "commit": machine.commit(),
        "devices": [f"{each.platform} {each.device_kind}" for each in jax.devices()],
        "driver": _driver(),
        "matrix_peak_flops_per_s": timing.matrix_peak(jnp.bfloat16),
        "copy_bytes_per_s": timing.copy_bandwidth(),
    }


def _driver() -> str:
    """Returns nvidia-smi's line of the first GPU; "" without one."""
    if not shutil.which("nvidia-smi"):
        return ""
    query = "--query-gpu=name,driver_version,memory.total,clocks.max.sm,power.limit"
    command = ["nvidia-smi", query, "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True)
    return (done.stdout or done.stderr).strip().partition("\n")[0]


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(facts()))
