"""Checksums of the arrays of a state, by which a checkpoint that changed on its disk is known."""

import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from psrjax.runtime import cluster

# {name of the array: {part of it, as "0:4,0:8": CRC-32 of its bytes}}
Checksums = dict[str, dict[str, int]]


def of_state(state: Any) -> Checksums:
    """Computes the checksums of every array; where it is spread over processes, of its parts.

    Every process of a run calls it.
    """
    found: Checksums = {}
    for own in cluster.gather({name: dict(_parts(leaf)) for name, leaf in _named(state)}):
        for name, parts in own.items():
            found.setdefault(name, {}).update(parts)
    return found


def changed(state: Any, saved: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Lists the arrays of a state, or of a part of one, that are not those that were saved.

    Of an array that is spread over processes the parts that lie here are compared.
    """
    return [name for name, leaf in _named(state) if not _is_same(leaf, saved.get(name, {}))]


def _is_same(leaf: Any, saved: Mapping[str, int]) -> bool:
    if not saved:
        return False
    leaf = _plain(leaf)
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        own = dict(_parts(leaf))
        return all(own[part] == saved[part] for part in own.keys() & saved.keys())
    values = np.asarray(leaf)
    return all(_crc(values[_slices(part)]) == number for part, number in saved.items())


def _parts(leaf: Any) -> Iterator[tuple[str, int]]:
    leaf = _plain(leaf)
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        for shard in leaf.addressable_shards:
            if shard.replica_id == 0:
                ends = (each.indices(side)[:2] for each, side in zip(shard.index, leaf.shape))
                part = ",".join(f"{start}:{stop}" for start, stop in ends)
                yield part, _crc(np.asarray(shard.data))
    elif jax.process_index() == 0:
        yield ",".join(f"0:{side}" for side in leaf.shape), _crc(np.asarray(leaf))


def _slices(part: str) -> tuple[slice, ...]:
    ends = (each.split(":") for each in part.split(",") if each)
    return tuple(slice(int(start), int(stop)) for start, stop in ends)


def _crc(values: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(values).tobytes())


def _plain(leaf: Any) -> Any:
    is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(leaf) if is_key else leaf


def _named(state: Any) -> Iterator[tuple[str, Any]]:
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        yield jax.tree_util.keystr(path, simple=True, separator="/"), leaf
