"""Sets up JAX for the whole process: the other processes of the run, the compilation cache."""

import os

import jax

from psrjax import io


def start_distributed() -> None:
    """Joins this process to the others of the run, if there are any; before any use of devices.

    TPU slices of several hosts and SLURM jobs of several tasks are found by JAX itself. Anywhere
    else the environment tells: JAX_COORDINATOR_ADDRESS (host:port of process 0), JAX_NUM_PROCESSES
    and JAX_PROCESS_ID.
    """
    if jax.distributed.is_initialized():
        return
    address = os.environ.get("JAX_COORDINATOR_ADDRESS")
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
    tasks = int(os.environ.get("SLURM_NTASKS", "1")) if "SLURM_STEP_ID" in os.environ else 1
    if address and "JAX_NUM_PROCESSES" in os.environ:
        jax.distributed.initialize(
            address, int(os.environ["JAX_NUM_PROCESSES"]), int(os.environ["JAX_PROCESS_ID"])
        )
    elif address or tasks > 1 or len(hosts) > 1 or "MEGASCALE_COORDINATOR_ADDRESS" in os.environ:
        jax.distributed.initialize()


def use_compilation_cache() -> None:
    """Keeps compiled programs in the user's own cache folder, unless JAX has another one."""
    if jax.config.values["jax_compilation_cache_dir"]:
        return
    folder = io.cache_folder() / "compiled"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # who writes here runs code in our name
    jax.config.update("jax_compilation_cache_dir", os.fspath(folder))
