"""Two real processes over loopback compute what one computes, and one goes on where two stopped."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

from psrjax import config as config_lib
from psrjax.training import checkpoint, stages

RUN = Path(__file__).parents[1] / "helpers" / "toy_run.py"
SETTINGS = {"only": ("first",), "steps": 4, "mesh.data": 4, "mesh.fsdp": 2}


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def run_two_processes(workdir, steps):
    port = free_port()
    options = ["--variant=first", f"--set=steps={steps}", "--set=mesh.data=4", "--set=mesh.fsdp=2"]
    processes = []
    for number in range(2):
        environment = {
            **os.environ,
            "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
            "JAX_NUM_PROCESSES": "2",
            "JAX_PROCESS_ID": str(number),
        }
        command = [sys.executable, RUN, workdir, *options]
        processes.append(
            subprocess.Popen(
                command,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    for process in processes:
        output, _ = process.communicate(timeout=240)
        assert process.returncode == 0, output[-3000:]


def test_two_processes_reach_the_parameters_of_one_and_one_goes_on_where_two_stopped(toy, tmp_path):
    config = config_lib.update(toy.get_config("first"), SETTINGS)
    straight = stages.train(config, tmp_path / "one")
    run_two_processes(tmp_path / "two", steps=2)
    both = checkpoint.load_variables(tmp_path / "two" / "first")
    assert both["step"] == 2
    half = checkpoint.load_variables(tmp_path / "one" / "first")
    assert half["step"] == 4
    end = stages.train(config, tmp_path / "two")
    for x, y in zip(jax.tree.leaves(end.params), jax.tree.leaves(straight.params), strict=True):
        np.testing.assert_allclose(x, y, atol=2e-6)
    lines = (tmp_path / "two" / "first" / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 4  # one process writes
