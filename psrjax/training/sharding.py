"""How arrays lie on devices: finding the other processes, the mesh, and the rules of placement."""

import math
import os
from collections.abc import Mapping
from typing import Any

import jax
from absl import logging
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from psrjax import io
from psrjax.errors import UserError

AXES = ("data", "fsdp")


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
    """Keeps compiled programs in the user's own cache folder, unless JAX was told another place."""
    if jax.config.jax_compilation_cache_dir:
        return
    folder = io.cache_folder() / "compiled"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # who writes here runs code in our name
    jax.config.update("jax_compilation_cache_dir", os.fspath(folder))


def make_mesh(mesh_config: Mapping[str, Any]) -> Mesh:
    """The ("data", "fsdp") mesh over all devices of all processes; -1 is "what is left".

    A run of one process may take fewer devices than there are.

    Raises:
      UserError: if the sizes do not multiply to the number of devices.
    """
    devices = jax.device_count()
    fsdp = mesh_config["fsdp"]
    data = mesh_config["data"] if mesh_config["data"] > 0 else devices // fsdp
    used = data * fsdp
    if used > devices or (used < devices and (mesh_config["data"] < 0 or jax.process_count() > 1)):
        raise UserError(
            f"config.mesh: data={mesh_config['data']} times fsdp={fsdp} does not make the "
            f"{devices} devices of this run; set config.mesh.fsdp to a divisor of {devices}"
        )
    # Auto, because make_mesh's own default types shardings into every operation of the nets.
    return jax.make_mesh(
        (data, fsdp), AXES, axis_types=(AxisType.Auto,) * 2, devices=jax.devices()[:used]
    )


def check_batch(batch: int, accumulate: int, mesh: Mesh) -> None:
    """Raises UserError unless every device gets the same share of every micro-batch."""
    if (batch // accumulate) % mesh.size:
        raise UserError(
            f"config.batch={batch} with accumulate={accumulate} gives micro-batches of "
            f"{batch // accumulate}, which {mesh.size} devices cannot share: make config.batch a "
            f"multiple of {mesh.size * accumulate}"
        )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The batch, cut along its first axis over all devices."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def state_sharding(abstract: Any, mesh: Mesh, *, min_bytes: int = 1 << 20) -> Any:
    """The sharding of every leaf of a state, by one rule, from its shapes (`jax.eval_shape`).

    An array of at least `min_bytes` is cut along its largest axis that the "fsdp" axis divides;
    all others are replicated.
    """
    parts = mesh.shape["fsdp"]

    def place(leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        fits = [axis for axis, size in enumerate(leaf.shape) if size % parts == 0 and size >= parts]
        if parts == 1 or not fits or _bytes(leaf) < min_bytes:
            return replicated(mesh)
        largest = max(fits, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * largest, "fsdp"))

    return jax.tree.map(place, abstract)


def describe(array: jax.Array) -> jax.ShapeDtypeStruct:
    """The shape, type and sharding of an array, without its values."""
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=array.sharding)


def place(abstract: Any, shardings: Any) -> Any:
    """A tree of shapes and types with the shardings that its arrays are to have."""
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        abstract,
        shardings,
    )


def log_placement(abstract: Any, shardings: Any, mesh: Mesh) -> None:
    """Says how many devices there are and how many bytes of the state each holds."""
    whole = sum(map(_bytes, jax.tree.leaves(abstract)))
    share = sum(
        math.prod(sharding.shard_shape(leaf.shape)) * _item_bytes(leaf)
        for leaf, sharding in zip(jax.tree.leaves(abstract), jax.tree.leaves(shardings))
    )
    logging.info(
        "mesh data=%d fsdp=%d on %s; the state has %.1f MiB, %.1f MiB on each device",
        *(mesh.shape[axis] for axis in AXES),
        jax.devices()[0].device_kind,
        whole / 2**20,
        share / 2**20,
    )


def _bytes(leaf: jax.ShapeDtypeStruct) -> int:
    return math.prod(leaf.shape) * _item_bytes(leaf)


def _item_bytes(leaf: jax.ShapeDtypeStruct) -> int:
    is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return 8 if is_key else leaf.dtype.itemsize
