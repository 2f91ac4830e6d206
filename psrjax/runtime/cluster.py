"""The other processes of a run: whether there are any, and how this one joins them.

JAX itself finds them on TPU VMs, on Kubernetes, under SLURM and under Open MPI, but
`jax.distributed.initialize` fails or waits for minutes where there are none. So it is called only
where the signs of several processes are there; anywhere else the user names them.
"""

import atexit
import contextlib
import importlib.util
import itertools
import os
import pickle
import re
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax._src.distributed
import numpy as np
from jax.experimental import multihost_utils

from psrjax.errors import UserError

Work = TypeVar("Work")
HEARTBEAT_SECONDS = 30  # without one for so long a process counts as dead, and the others end
_BEAT_SECONDS, _SILENCE_SECONDS, _HOUR_MS = 4.0, 20.0, 3_600_000
_BEATS, _ENDED = "psrjax/beats/", "ended"
_METADATA_SECONDS = 2.0
_EXIT_MISTAKE, _EXIT_LOST = 2, 1
_LOST = (
    "another process of this run ended or cannot be reached, so this one ends too: start the same "
    "command again in all of them; a training goes on from its last checkpoint"
)
_LOSS = re.compile(r"gloo|nccl|connection|peer|heartbeat|coordinat|UNAVAILABLE|DEADLINE", re.I)
_WAYS = "--coordinator=HOST:PORT --processes=N --process_id=I (or JAX_COORDINATOR_ADDRESS, …)"


@dataclass(frozen=True)
class Named:
    """What the user says of the processes; "" and -1 where nothing is said."""

    coordinator: str = ""  # host:port of process 0
    processes: int = -1
    process_id: int = -1

    @classmethod
    def merged(cls, flags: "Named", environ: Mapping[str, str]) -> "Named":
        """Returns the flags, and where one is not given JAX's variable of the environment."""
        return cls(
            flags.coordinator or environ.get("JAX_COORDINATOR_ADDRESS", ""),
            flags.processes if flags.processes >= 0 else _number(environ, "JAX_NUM_PROCESSES"),
            flags.process_id if flags.process_id >= 0 else _number(environ, "JAX_PROCESS_ID"),
        )


def join(flags: Named = Named()) -> None:
    """Joins this process to the others of its run, if there are any; before any use of devices.

    A process that dies ends the others within `HEARTBEAT_SECONDS` and the seconds of its last step,
    each with one line.

    Raises:
      UserError: if the user named the others in part only, or they cannot be found or reached.
    """
    if jax.distributed.is_initialized():
        return
    options = find(Named.merged(flags, os.environ), os.environ, metadata=_metadata)
    if options is None:
        return
    try:
        jax.distributed.initialize(**options, heartbeat_timeout_seconds=HEARTBEAT_SECONDS)
        _watch(jax._src.distributed.global_state)
    except (RuntimeError, ValueError, OSError, KeyError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"the other processes of this run were not found or did not come ({reason}): start the "
            f"same command in all of them, name them by {_WAYS}, or give --processes=1 to run alone"
        ) from error


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """Ends this process at once, with one line, where it or another one cannot go on.

    Python's own end waits for minutes for the other processes of the run. A process alone is left
    to itself.
    """
    try:
        yield
    except UserError as error:
        if not jax.distributed.is_initialized():
            raise
        _leave(str(error), _EXIT_MISTAKE)
    except jax.errors.JaxRuntimeError as error:
        if not jax.distributed.is_initialized() or not _LOSS.search(str(error)):
            raise
        _leave(_LOST, _EXIT_LOST)


def _watch(state: Any) -> None:
    """Watches the other processes from two threads, until this one ends.

    JAX's own watch aborts with a stack trace that says nothing: this one is to be sooner.
    """
    client, ending = state.client, threading.Event()
    beat, end = f"{_BEATS}{state.process_id}", f"psrjax/end/{state.process_id}"

    def end_after(look: Callable[[], None]) -> None:
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # process 0 does not answer
            look()
        if not ending.is_set():
            _leave(_LOST, _EXIT_LOST)

    looks = (lambda: _await_silence(client, beat, ending), lambda: _await_failure(client, end))
    threads = [threading.Thread(target=end_after, args=(look,), daemon=True) for look in looks]

    def stop() -> None:  # before JAX waits for the others; a thread left in JAX aborts Python's end
        ending.set()
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            client.key_value_set(end, _ENDED)
        for thread in threads:
            thread.join()

    for thread in threads:
        thread.start()
    atexit.register(stop)


def _await_silence(client: Any, own: str, ending: threading.Event) -> None:
    """Counts up this process's number in the store of process 0 until another's stays the same."""
    seen: dict[str, tuple[str, float]] = {}
    for count in itertools.count():
        client.key_value_set(own, str(count), allow_overwrite=True)
        now = time.monotonic()
        for key, value in client.key_value_dir_get(_BEATS):
            if seen.get(key, ("", 0.0))[0] != value:
                seen[key] = value, now
            elif value != _ENDED and now - seen[key][1] > _SILENCE_SECONDS:
                return
        if ending.wait(_BEAT_SECONDS):
            return client.key_value_set(own, _ENDED, allow_overwrite=True)


def _await_failure(client: Any, end: str) -> None:
    """Waits for what comes when this process ends, and so fails at the moment that process 0 does.

    Raises:
      JaxRuntimeError: then.
    """
    while True:
        try:
            client.blocking_key_value_get(end, _HOUR_MS)
            return
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise


def _leave(message: str, code: int) -> None:
    print(f"psrjax: {' '.join(message.split())}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(code)


def find(
    named: Named, environ: Mapping[str, str], *, metadata: Callable[[str], str]
) -> dict[str, Any] | None:
    """Returns the arguments of `jax.distributed.initialize`; None where this process is alone.

    Args:
      named: by the user.
      environ: of this process.
      metadata: returns an attribute of a Google Cloud machine, "" where there is none.

    Raises:
      UserError: if `named` is not whole, or Open MPI does not tell who the first process is.
    """
    if named.processes == 1:
        return None
    mpi = (_number(environ, "OMPI_COMM_WORLD_SIZE"), _number(environ, "OMPI_COMM_WORLD_RANK"))
    if named.coordinator and named.processes < 0 and named.process_id < 0 and mpi[0] > 1:
        local = _number(environ, "OMPI_COMM_WORLD_LOCAL_RANK")
        return _options(Named(named.coordinator, *mpi)) | {"local_device_ids": [max(local, 0)]}
    if named.processes >= 0 or named.process_id >= 0:
        return _options(named)
    found = (
        _of_tpu(environ, metadata)
        or _of_slurm(environ)
        or (mpi[0] > 1 and "OMPI_MCA_orte_hnp_uri" in environ)
        or _of_kubernetes(environ)
    )
    if found:
        return {"coordinator_address": named.coordinator} if named.coordinator else {}
    if mpi[0] > 1:
        raise UserError(
            f"Open MPI runs {mpi[0]} processes but does not tell JAX where the first one is: give "
            "--coordinator=HOST:PORT, a free port on the host of rank 0"
        )
    return _options(named) if named.coordinator else None


def share() -> tuple[int, int]:
    """Returns (the number of this process, how many there are)."""
    return jax.process_index(), jax.process_count()


def own_part(work: Sequence[Work]) -> Sequence[Work]:
    """Returns the part of some work that is this process's; the parts are in order."""
    number, count = share()
    first, end = (i * len(work) // count for i in (number, number + 1))
    return work[first:end]


def gather(value: Any) -> list[Any]:
    """Returns what each process gives, in their order; each must call it, and waits for the others.

    Args:
      value: anything that can be pickled.
    """
    if jax.process_count() == 1:
        return [value]
    packed = np.frombuffer(pickle.dumps(value), np.uint8)
    sizes = multihost_utils.process_allgather(np.int32(len(packed))).tolist()
    padded = np.pad(packed, (0, max(sizes) - len(packed)))
    every = multihost_utils.process_allgather(padded)
    return [pickle.loads(own[:size].tobytes()) for own, size in zip(every, sizes)]


def _options(named: Named) -> dict[str, Any]:
    if not named.coordinator or not 0 <= named.process_id < named.processes:
        told = (named.coordinator or "none", named.processes, named.process_id)
        raise UserError(
            "coordinator {}, processes {}, process_id {}: give all three, the process_id from 0 to "
            "processes - 1: {}".format(*told, _WAYS)
        )
    if not named.coordinator.rpartition(":")[2].isdigit() or ":" not in named.coordinator:
        raise UserError(f"--coordinator={named.coordinator}: it is HOST:PORT, of process 0")
    return {
        "coordinator_address": named.coordinator,
        "num_processes": named.processes,
        "process_id": named.process_id,
    }


def _of_tpu(environ: Mapping[str, str], metadata: Callable[[str], str]) -> bool:
    """Returns whether a TPU slice, or several, have more hosts than this one.

    Kubernetes tells by variables of the environment, a TPU VM by its metadata.
    """
    hosts = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES")
    if "MEGASCALE_COORDINATOR_ADDRESS" in environ or len((hosts or "").split(",")) > 1:
        return True
    platforms = environ.get("JAX_PLATFORMS", "")
    if hosts or "TPU_SKIP_MDS_QUERY" in environ or (platforms and "tpu" not in platforms):
        return False
    several_hosts = len(metadata("worker-network-endpoints").split(",")) > 1
    return several_hosts or "MEGASCALE_COORDINATOR_ADDRESS" in metadata("tpu-env")


def _of_slurm(environ: Mapping[str, str]) -> bool:
    """Returns whether this is one of several tasks that `srun` started."""
    needed = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID", "SLURM_LOCALID")
    return _number(environ, "SLURM_NTASKS") > 1 and all(name in environ for name in needed)


def _of_kubernetes(environ: Mapping[str, str]) -> bool:
    """Returns whether this is a pod of an indexed Job, whose number of pods JAX can ask for."""
    pod = "KUBERNETES_SERVICE_HOST" in environ and "JOB_COMPLETION_INDEX" in environ
    return pod and importlib.util.find_spec("kubernetes") is not None


def _metadata(attribute: str) -> str:
    """Asks for an attribute of this TPU VM; "" where it is none, without a request."""
    # Of the TPU generations, older ones show as accel0, …, newer ones as vfio/0, …
    devices = [*Path("/dev").glob("accel*"), *Path("/dev/vfio").glob("[0-9]*")]
    return ask_metadata_server(attribute) if devices else ""


def ask_metadata_server(attribute: str) -> str:
    """Returns an attribute of a Google Cloud machine; "" on other machines, after two seconds."""
    host = os.environ.get("GCE_METADATA_IP", "169.254.169.254")
    url = f"http://{host}/computeMetadata/v1/instance/attributes/{attribute}"
    request = urllib.request.Request(url, headers={"Metadata-Flavor": "Google"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=_METADATA_SECONDS) as answer:
            return answer.read().decode()
    except (urllib.error.URLError, OSError, ValueError):
        return ""


def _number(environ: Mapping[str, str], name: str) -> int:
    """Returns a number of the environment; -1 where there is none."""
    value = environ.get(name, "")
    if value and not value.isdigit():
        raise UserError(f"{name}={value}: it is a number of processes, or of one of them")
    return int(value) if value else -1
