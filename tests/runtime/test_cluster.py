"""A process joins others where there are signs of them, and waits for none where there are none."""

import http.server
import os
import socket
import subprocess
import sys
import threading
import time

import jax
import pytest

from psrjax.errors import UserError
from psrjax.runtime import cluster

SLURM = {
    "SLURM_JOB_ID": "4096001",
    "SLURM_STEP_NODELIST": "127.0.0.1",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}
OPEN_MPI = {
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "0",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
}
OPEN_MPI_4 = OPEN_MPI | {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://127.0.0.1:34911"}
# A command that counts the processes of its run, started as the program starts its own.
COUNT = """
import os, sys, types
import jax
from psrjax.cli import main

def count(arguments):
    from jax.experimental import multihost_utils
    import numpy as np
    numbers = multihost_utils.process_allgather(np.array([jax.process_index()]))
    print("processes", jax.process_count(), "numbers", numbers.ravel().tolist())

sys.modules["psrjax.cli.count"] = types.SimpleNamespace(main=count)
main.run("count", sys.argv[1:])
"""


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


ALONE = cluster.Named()


def find(environ, named=ALONE, metadata=lambda attribute: ""):
    return cluster.find(named, environ, metadata=metadata)


def vm(**attributes):
    return lambda attribute: attributes.get(attribute.replace("-", "_"), "")


@pytest.mark.parametrize(
    "environ",
    [
        SLURM,
        OPEN_MPI_4,
        {"TPU_WORKER_HOSTNAMES": "host-0,host-1", "TPU_WORKER_ID": "1"},
        {"TPU_PROCESS_ADDRESSES": "host-0:8471,host-1:8471", "TPU_WORKER_ID": "1"},
        {"TPU_WORKER_HOSTNAMES": "localhost", "MEGASCALE_COORDINATOR_ADDRESS": "host-0"},
    ],
)
def test_jax_finds_the_others_where_the_environment_tells_of_several(environ):
    assert find(environ) == {}
    given = cluster.Named("10.0.0.1:1234")
    assert find(environ, given) in (
        {"coordinator_address": "10.0.0.1:1234"},
        {
            "coordinator_address": "10.0.0.1:1234",
            "num_processes": 2,
            "process_id": 0,
            "local_device_ids": [0],
        },
    )
    assert find(environ, cluster.Named(processes=1)) is None


@pytest.mark.parametrize(
    "attributes",
    [
        {"worker_network_endpoints": "unknown:8470:10.0.0.1,unknown:8470:10.0.0.2"},
        {
            "worker_network_endpoints": "10.0.0.1",
            "tpu_env": "MEGASCALE_COORDINATOR_ADDRESS: '10.0.0.1'\nMEGASCALE_NUM_SLICES: '2'",
        },
    ],
)
def test_the_metadata_of_a_tpu_vm_tell_of_several_hosts_or_slices(attributes):
    assert find({}, metadata=vm(**attributes)) == {}
    assert find({"JAX_PLATFORMS": "cpu"}, metadata=vm(**attributes)) is None
    assert find({"TPU_SKIP_MDS_QUERY": "1"}, metadata=vm(**attributes)) is None


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"},
        SLURM | {"SLURM_NTASKS": "1"},
        # A batch script, before any `srun`.
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
        OPEN_MPI_4 | {"OMPI_COMM_WORLD_SIZE": "1"},
        {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
    ],
)
def test_a_process_alone_is_left_alone(environ):
    assert find(environ) is None
    assert find(environ, metadata=vm(worker_network_endpoints="unknown:8470:10.0.0.1")) is None


def test_a_pod_of_an_indexed_job_asks_kubernetes_if_its_client_is_installed(monkeypatch):
    pod = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert find(pod) is None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "kubernetes")
    assert find(pod) == {}


def test_open_mpi_5_needs_the_address_only():
    with pytest.raises(UserError, match="Open MPI runs 2 processes .* --coordinator=HOST:PORT"):
        find(OPEN_MPI)
    assert find(OPEN_MPI | {"OMPI_COMM_WORLD_RANK": "1"}, cluster.Named("10.0.0.1:1234")) == {
        "coordinator_address": "10.0.0.1:1234",
        "num_processes": 2,
        "process_id": 1,
        "local_device_ids": [0],
    }


def test_flags_go_before_the_environment():
    environ = {
        "JAX_COORDINATOR_ADDRESS": "10.0.0.1:1",
        "JAX_NUM_PROCESSES": "4",
        "JAX_PROCESS_ID": "3",
    }
    merged = cluster.Named.merged(cluster.Named("10.0.0.2:2", process_id=0), environ)
    assert merged == cluster.Named("10.0.0.2:2", 4, 0)
    assert find({}, merged) == {
        "coordinator_address": "10.0.0.2:2",
        "num_processes": 4,
        "process_id": 0,
    }


@pytest.mark.parametrize(
    ("named", "message"),
    [
        (cluster.Named("10.0.0.1:1234"), "coordinator 10.0.0.1:1234, processes -1, process_id -1"),
        (cluster.Named(processes=2, process_id=0), "coordinator none, processes 2"),
        (cluster.Named("10.0.0.1:1234", 2, 2), "process_id 2: give all three"),
        (cluster.Named("10.0.0.1", 2, 0), "--coordinator=10.0.0.1: it is HOST:PORT"),
    ],
)
def test_processes_named_in_part_are_refused(named, message):
    with pytest.raises(UserError, match=message):
        find({}, named)


def test_a_number_that_is_none_is_refused():
    with pytest.raises(UserError, match="JAX_NUM_PROCESSES=two"):
        cluster.Named.merged(cluster.Named(), {"JAX_NUM_PROCESSES": "two"})


def test_the_metadata_server_is_asked_as_google_wants_it_and_not_for_long(monkeypatch):
    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            known = self.path.endswith("attributes/worker-network-endpoints")
            self.send_response(200 if known and self.headers["Metadata-Flavor"] else 404)
            self.end_headers()
            self.wfile.write(b"a:1:10.0.0.1,b:1:10.0.0.2")

        def log_message(self, *_):
            """Stays quiet."""

    with http.server.HTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("GCE_METADATA_IP", f"127.0.0.1:{server.server_port}")
        asked = cluster.ask_metadata_server("worker-network-endpoints")
        assert asked == "a:1:10.0.0.1,b:1:10.0.0.2"
        assert cluster.ask_metadata_server("tpu-env") == ""
        server.shutdown()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("GCE_METADATA_IP", f"127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        assert cluster.ask_metadata_server("tpu-env") == ""
        assert time.monotonic() - began < 10


def test_others_that_are_not_found_are_told_in_one_line(monkeypatch):
    def fails(**options):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", fails)
    monkeypatch.setattr(cluster, "find", lambda *_, **__: {})
    with pytest.raises(
        UserError, match=r"not found .*\(coordinator_address should .*--processes=1"
    ):
        cluster.join()


def by_flags(port, number):
    return {}, [f"--coordinator=127.0.0.1:{port}", "--processes=2", f"--process_id={number}"]


def by_slurm(port, number):
    numbers = {"SLURM_PROCID": str(number), "SLURM_LOCALID": str(number)}
    return SLURM | numbers | {"JAX_COORDINATOR_PORT": str(port)}, []


def by_open_mpi(port, number):
    names = ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK")
    numbers = dict.fromkeys(names, str(number))
    return OPEN_MPI_4 | numbers | {"JAX_COORDINATOR_PORT": str(port)}, []


@pytest.mark.parametrize("told", [by_flags, by_slurm, by_open_mpi])
def test_two_processes_over_loopback_find_each_other(told):
    port = free_port()
    processes = []
    for number in range(2):
        environment, arguments = told(port, number)
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", COUNT, *arguments],
                env={**os.environ, "XLA_FLAGS": "", **environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    for process in processes:
        output, _ = process.communicate(timeout=120)
        assert "processes 2 numbers [0, 1]" in output, output[-2000:]
        assert process.returncode == 0


@pytest.mark.parametrize(
    "arguments", [[], ["--processes=1", "--coordinator=127.0.0.1:1", "--process_id=0"]]
)
def test_one_process_without_signs_of_others_counts_itself(arguments):
    done = subprocess.run(
        [sys.executable, "-c", COUNT, *arguments], capture_output=True, text=True, timeout=120
    )
    assert "processes 1 numbers [0]" in done.stdout, done.stderr[-2000:]
