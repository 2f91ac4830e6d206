"""Placement of arrays on devices: the mesh, one rule for the state, and what a step asks for.

The mesh has three axes. Rows of a batch are cut over "data" and "fsdp" together, the height of
frames over "space", and large arrays of the state over "fsdp" alone.
"""

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from psrjax import config as config_lib
from psrjax.config import MeshSection, RunConfig
from psrjax.data import spec
from psrjax.errors import UserError
from psrjax.nn import layers
from psrjax.training import optimizer

AXES = ("data", "fsdp", "space")
_ROWS = AXES[:2]  # the axes over which rows are cut
_LEAST_ROWS = 4  # of a map on each device of "space"; maps with fewer stay whole


def make_mesh(config: MeshSection, devices: Sequence[Any] | None = None) -> Mesh:
    """Makes the mesh of `AXES` over all devices of all processes; data=-1 takes the rest.

    A run of one process may take fewer devices than there are. `devices` are others than this
    run's, to compile for.

    Raises:
      UserError: if the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    count, inner = len(devices), config.fsdp * config.space
    data = config.data if config.data > 0 else count // inner
    used = data * inner
    if used > count or (used < count and (config.data < 0 or jax.process_count() > 1)):
        raise UserError(
            f"config.mesh: data={config.data} times fsdp={config.fsdp} times space={config.space} "
            f"does not make the {count} devices of this run; give divisors of {count}"
        )
    sizes = data, config.fsdp, config.space
    # Auto, because make_mesh's own default types shardings into every operation of the nets.
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3, devices=devices[:used])


def row_devices(mesh: Mesh) -> int:
    """Returns among how many devices, or groups of "space", the rows of a batch are shared."""
    return math.prod(mesh.shape[axis] for axis in _ROWS)


def for_devices(config: RunConfig, devices: int) -> RunConfig:
    """Returns a stage's config with the batch of so many devices, where it is given for each.

    The rates of `config.optimizer` are those for `config.batch`. For `batch_per_device` times the
    devices they are multiplied by the ratio of the two batches ("linear": Goyal et al. 2017, for
    SGD), by its square root ("sqrt": Malladi et al. 2022, for Adam) or stay ("fixed"). The number
    of steps, and schedules in steps, stay as they are.

    Args:
      config: of the stage.
      devices: `row_devices` of the mesh.

    Raises:
      UserError: unless every device, and every group of batch norm, gets the same share of every
        micro-batch.
    """
    if not config.batch_per_device:
        _check_batch(config, devices)
        return config
    batch = config.batch_per_device * devices
    factor = (batch / config.batch) ** config_lib.BATCH_RATES[config.batch_rates]
    logging.info(
        "stage %s: batch %d (%d on each of %d devices) instead of %d: learning rates times %.3g",
        *(config.method.stage, batch, config.batch_per_device, devices, config.batch, factor),
    )
    changes: dict[str, Any] = {"batch": batch}
    for update, fields in config.optimizer.items():
        own = fields.get("learning_rate", optimizer.DEFAULTS["learning_rate"])
        changes[f"optimizer.{update}.learning_rate"] = own * factor
        for net, other in fields.get("nets", {}).items():
            if "learning_rate" in other:
                key = f"optimizer.{update}.nets.{net}.learning_rate"
                changes[key] = other["learning_rate"] * factor
    copy = config_lib.from_json(config_lib.to_json(config))
    _check_batch(config_lib.update(copy, changes), devices)
    return copy


def _check_batch(config: RunConfig, devices: int) -> None:
    batch, parts = config.batch, config.accumulate
    if (batch // parts) % devices:
        raise UserError(
            f"config.batch={batch} with accumulate={parts} gives micro-batches of "
            f"{batch // parts}, which {devices} devices cannot share: make config.batch a "
            f"multiple of {devices * parts}, or give config.batch_per_device"
        )
    if (batch // parts) % config.mesh.norm_groups:
        raise UserError(
            f"config.mesh.norm_groups={config.mesh.norm_groups}: does not divide the "
            f"{batch // parts} rows of a micro-batch; {devices} makes a group of each device's rows"
        )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch: cut along its first axis, whole in a group of "space"."""
    return NamedSharding(mesh, PartitionSpec(_ROWS))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array that is whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def state_sharding(abstract: Any, mesh: Mesh, *, min_bytes: int = 1 << 20) -> Any:
    """Returns the sharding of every leaf of a state, from its shapes (`jax.eval_shape`).

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


@dataclass(frozen=True)
class Placement:
    """What a training step asks of XLA: where its arrays lie while it works.

    Attributes:
      mesh: of the devices.
      params: the shardings of the state's parameters.
      norm_groups: of how many groups of a batch's rows batch norm takes statistics.
    """

    mesh: Mesh
    params: Any
    norm_groups: int = 1

    def cut_height(self, batch: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        """Cuts the height of a decoded batch's frames over "space".

        Raises:
          UserError: if it cannot be cut into equal parts.
        """
        parts = self.mesh.shape["space"]

        def cut(name: str, array: jax.Array) -> jax.Array:
            axes = spec.KEYS[name].axes.split()
            if "h" not in axes:
                return array
            place = axes.index("h")
            if array.shape[place] % parts:
                raise UserError(
                    f"config.mesh.space={parts}: frames of height {array.shape[place]} cannot be "
                    "cut into so many equal parts"
                )
            where = PartitionSpec(_ROWS, *[None] * (place - 1), "space")
            return jax.lax.with_sharding_constraint(array, NamedSharding(self.mesh, where))

        return {n: cut(n, array) if parts > 1 else array for n, array in batch.items()}

    def of_layers(self) -> contextlib.AbstractContextManager[None]:
        """Within it, layers are traced as these devices want them: `psrjax.nn.layers.on_devices`.

        Left to itself XLA forgets that maps are cut behind a warp, and computes them everywhere;
        and it convolves maps of a few rows wrongly where they are cut.
        """
        parts = self.mesh.shape["space"]

        def cut(maps: jax.Array) -> jax.Array:
            if maps.ndim < 4 or maps.shape[-3] % parts:
                return maps
            free = PartitionSpec.UNCONSTRAINED
            height = "space" if maps.shape[-3] >= _LEAST_ROWS * parts else None
            where = PartitionSpec(*[free] * (maps.ndim - 3), height, free, free)
            return jax.lax.with_sharding_constraint(maps, NamedSharding(self.mesh, where))

        if parts == 1:
            return layers.on_devices(norm_groups=self.norm_groups)
        return layers.on_devices(norm_groups=self.norm_groups, place_maps=cut)

    def gather(self, params: Any) -> Any:
        """Makes parameters whole on every device.

        A convolution of rows with a kernel, both cut over "fsdp", XLA otherwise computes by
        gathering the rows of all devices.
        """
        if self.mesh.shape["fsdp"] == 1:
            return params
        whole = replicated(self.mesh)
        return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, whole), params)

    def cut(self, gradients: Mapping[str, Any]) -> Mapping[str, Any]:
        """Cuts the gradients of some nets as their parameters are."""
        own = {net: self.params[net] for net in gradients}
        return jax.tree.map(jax.lax.with_sharding_constraint, gradients, own)


def to_this_process(tree: Any) -> Any:
    """Returns a tree of arrays that this process can use by itself.

    In a run of several they come to the host, whole; all of them must call it.
    """
    if jax.process_count() == 1:
        return tree
    return multihost_utils.process_allgather(tree, tiled=True)


def describe(array: jax.Array) -> jax.ShapeDtypeStruct:
    """Returns the shape, type and sharding of an array, without its values."""
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=array.sharding)


def place(abstract: Any, shardings: Any) -> Any:
    """Adds to a tree of shapes and types the shardings that its arrays are to have."""
    return jax.tree.map(
        lambda leaf, where: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where),
        abstract,
        shardings,
    )


def log_placement(abstract: Any, shardings: Any, mesh: Mesh) -> None:
    """Logs the number of devices and the bytes of the state that each holds."""
    whole = sum(map(_bytes, jax.tree.leaves(abstract)))
    pairs = zip(jax.tree.leaves(abstract), jax.tree.leaves(shardings))
    share = sum(_bytes(leaf, sharding.shard_shape(leaf.shape)) for leaf, sharding in pairs)
    logging.info(
        "mesh data=%d fsdp=%d space=%d on %s; the state has %.1f MiB, %.1f MiB on each device",
        *(mesh.shape[axis] for axis in AXES),
        jax.devices()[0].device_kind,
        whole / 2**20,
        share / 2**20,
    )


def _bytes(leaf: jax.ShapeDtypeStruct, shard: tuple[int, ...] | None = None) -> int:
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    item_bytes = 8 if is_key else leaf.dtype.itemsize
    return math.prod(leaf.shape if shard is None else shard) * item_bytes
