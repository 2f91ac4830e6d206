"""The data contract: every key of a batch, its axes, its wire type, its decoded range, its meaning.

A batch is a dict of arrays. The loader sends wire batches to the devices, frames as uint8; inside
the jitted step `decode` turns them into the floats that methods read. `check` holds a wire batch
against the contract.

Axes: `b` batch, `k` source frames, `t` target frames, `h w` image rows and columns; 26 joints in
BODY_25's order and the head top. Flow and joints are (x, y). Flow is in pixels of the image; joints
are in [-1, 1], where -1 and +1 are the outer edges of the image (see `psrjax.ops.geometry`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from psrjax.errors import UserError

JOINTS = 26
# Codings: wire type -> what `decode` makes of it.
COLORS = "colors"  # uint8 0..255 -> float32 in [-1, 1]
FRACTION = "fraction"  # uint8 0..255 -> float32 in [0, 1]
IUV = "iuv"  # uint8 -> float32: body part 0..24, and u, v in [0, 1]
LABEL = "label"  # uint8 -> int32
FLOAT = "float"  # float16 or float32 -> float32
EXACT = "exact"  # unchanged

WireArray = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Key:
    """One key of the contract.

    Attributes:
      axes: names of the axes, or their sizes where these are fixed.
      wire: dtype of wire batches.
      coding: one of the codings above, by which `decode` reads it.
      meaning: what the values are.
    """

    axes: str
    wire: str
    coding: str
    meaning: str


KEYS: dict[str, Key] = {
    "source": Key("b k h w 3", "uint8", COLORS, "appearance frames"),
    "target": Key("b t h w 3", "uint8", COLORS, "consecutive frames to reproduce"),
    "source_joints": Key("b k 26 3", "float32", FLOAT, "x, y in [-1, 1], confidence; 0 = missing"),
    "target_joints": Key("b t 26 3", "float32", FLOAT, "as source_joints, of the target"),
    "source_iuv": Key("b k h w 3", "uint8", IUV, "body part 0..24 and its u, v"),
    "target_iuv": Key("b t h w 3", "uint8", IUV, "as source_iuv, of the target"),
    "source_mask": Key("b k h w 1", "uint8", FRACTION, "person; may be soft"),
    "target_mask": Key("b t h w 1", "uint8", FRACTION, "as source_mask, of the target"),
    "target_flow": Key("b t h w 2", "float16", FLOAT, "pixels, frame t to t-1, on t's grid"),
    "target_flow_forward": Key("b t h w 2", "float16", FLOAT, "pixels, t-1 to t, on t-1's grid"),
    "target_flow_confidence": Key("b t h w 1", "uint8", FRACTION, "forward-backward agreement"),
    "target_mesh_flow": Key("b t h w 2", "float16", FLOAT, "pixels, mesh, t to t-1; 0 off it"),
    "target_mesh_label": Key("b t h w 3", "uint8", COLORS, "rendered Laplacian features"),
    "target_depth": Key("b t h w 1", "float16", FLOAT, "(far - z)/(far - near); 0 off the person"),
    "target_visibility": Key("b t h w 1", "uint8", LABEL, "0 background, 1 visible, 2 occluded"),
    "target_prior": Key("b t h w 3", "uint8", COLORS, "initial estimate by texture transfer"),
    "target_mean": Key("b h w 3", "uint8", COLORS, "mean training frame of the target camera"),
    "background": Key("b h w 3", "uint8", COLORS, "the target's background without the person"),
    "index": Key("b", "int32", EXACT, "row of the manifest: clip, views and frames"),
    "valid": Key("b", "bool", EXACT, "False on the padding of the last evaluation batch"),
}
_WIRE_RANGES = {"target_visibility": (0, 2), "target_depth": (0.0, 1.0)}


def shape(key: str, sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Returns the shape of `key` where axis `a` has size `sizes[a]`."""
    return tuple(int(axis) if axis.isdigit() else sizes[axis] for axis in KEYS[key].axes.split())


def zeros(keys: Iterable[str], sizes: Mapping[str, int]) -> dict[str, WireArray]:
    """Returns a wire batch of zeros, for shape inference and initialisation."""
    return {key: np.zeros(shape(key, sizes), KEYS[key].wire) for key in keys}


def check(batch: Mapping[str, WireArray], reads: Iterable[str]) -> dict[str, int]:
    """Checks a wire batch against the contract and returns the sizes of its axes.

    Raises:
      UserError: if a key of `reads` is missing, a key is unknown, or its type, shape or values are
        not as in `KEYS`.
    """
    missing = sorted(set(reads) - set(batch))
    if missing:
        raise UserError(
            f"the dataset gives no {missing[0]!r} ({KEYS[missing[0]].meaning}), which this method "
            "reads: make it with `psrjax prepare`, or use the synthetic dataset "
            "(--config.data.path=synthetic)"
        )
    sizes: dict[str, int] = {}
    for name, array in batch.items():
        if name not in KEYS:
            raise UserError(f"batch key {name!r} is not in the contract (psrjax.data.spec.KEYS)")
        _check_shape(name, array, sizes)
        _check_values(name, np.asarray(array))
    return sizes


def _check_shape(name: str, array: WireArray, sizes: dict[str, int]) -> None:
    key = KEYS[name]
    axes = key.axes.split()
    if str(array.dtype) != key.wire:
        raise UserError(f"batch key {name!r}: type {array.dtype}, the contract says {key.wire}")
    expected = [int(axis) if axis.isdigit() else sizes.get(axis) for axis in axes]
    fits = len(array.shape) == len(axes) and all(
        want in (None, have) for want, have in zip(expected, array.shape, strict=True)
    )
    if not fits:
        raise UserError(
            f"batch key {name!r}: shape {tuple(array.shape)}, the contract says ({key.axes}) "
            f"with {sizes}"
        )
    sizes.update((a, n) for a, n in zip(axes, array.shape, strict=True) if not a.isdigit())


def _check_values(name: str, array: WireArray) -> None:
    coding = KEYS[name].coding
    if coding == FLOAT and not np.isfinite(array).all():
        raise UserError(f"batch key {name!r}: holds values that are not finite")
    low, high = _WIRE_RANGES.get(name, (-np.inf, np.inf))
    if array.size and not low <= array.min() <= array.max() <= high:
        raise UserError(
            f"batch key {name!r}: values {array.min()}..{array.max()}, the contract says "
            f"{low}..{high}"
        )


def decode(batch: Mapping[str, jax.Array | WireArray]) -> dict[str, jax.Array]:
    """Turns a wire batch into the arrays that methods read, by each key's coding."""
    decoded: dict[str, jax.Array] = {}
    for name, array in batch.items():
        on_device = jnp.asarray(array)  # pyright: ignore[reportUnknownMemberType] (JAX's stub)
        decoded[name] = _decode(on_device, KEYS[name].coding)
    return decoded


def _decode(array: jax.Array, coding: str) -> jax.Array:
    if coding == COLORS:
        return array.astype(jnp.float32) / 127.5 - 1.0
    if coding == FRACTION:
        return array.astype(jnp.float32) / 255.0
    if coding == IUV:
        return array.astype(jnp.float32) / np.array([1.0, 255.0, 255.0], np.float32)
    if coding == LABEL:
        return array.astype(jnp.int32)
    if coding == FLOAT:
        return array.astype(jnp.float32)
    return array


def halve(batch: Mapping[str, jax.Array | WireArray]) -> dict[str, jax.Array]:
    """Returns a wire batch at half the height and width, under the same contract.

    Colours and fractions are averaged over 2x2 pixels. Of labels, depth and flow, which have no
    mean at an edge, the upper left pixel stays; flow is then half as long.

    Raises:
      UserError: for frames of an odd height or width.
    """
    return {name: _halve(KEYS[name], array) for name, array in batch.items()}


def _halve(key: Key, given: jax.Array | WireArray) -> jax.Array:
    array = jnp.asarray(given)  # pyright: ignore[reportUnknownMemberType] (JAX's stub)
    axes = key.axes.split()
    if "h" not in axes:
        return array
    row = axes.index("h")
    height, width = array.shape[row : row + 2]
    if height % 2 or width % 2:
        raise UserError(f"config.grow: frames of {height}x{width} cannot be halved")
    cells = array.reshape(*array.shape[:row], height // 2, 2, width // 2, 2, -1)
    if key.coding in (COLORS, FRACTION):
        return jnp.round(cells.astype(jnp.float32).mean((-4, -2))).astype(array.dtype)
    first = cells[..., 0, :, 0, :]
    return first / 2 if key.axes.endswith("h w 2") else first


def encode_colors(video: jax.Array) -> jax.Array:
    """Turns floats in [-1, 1] into uint8 frames, rounding to nearest: the inverse of COLORS."""
    return jnp.clip(jnp.round((video + 1.0) * 127.5), 0, 255).astype(jnp.uint8)
