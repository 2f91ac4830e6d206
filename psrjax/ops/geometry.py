"""Pixels, unit coordinates, and sampling of images at them: the one coordinate convention.

Pixel (0, 0) is the centre of the top-left pixel. Unit coordinates run from -1 to 1 between the
outer edges of the image: x_unit = (2 x_pixel + 1) / width - 1. Points are (x, y). Coordinates are
always float32: bfloat16 misplaces a position in a 600-pixel frame by more than a pixel.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from psrjax.errors import UserError
from psrjax.runtime import target

PADDINGS = ("zeros", "border", "reflection")
_CORNERS = ((0, 0), (1, 0), (0, 1), (1, 1))  # (x, y) of the pixels around a point
_LANES = 128  # of a row of a TPU's tile


def pixels_to_unit(points: Any, *, height: int, width: int) -> Any:
    """Converts pixel coordinates (... 2) to unit coordinates; NumPy or JAX, as given."""
    return (2.0 * points + 1.0) / np.asarray((width, height), np.float32) - 1.0


def unit_to_pixels(points: Any, *, height: int, width: int) -> Any:
    """Converts unit coordinates (... 2) to pixel coordinates: the inverse of `pixels_to_unit`."""
    return ((points + 1.0) * np.asarray((width, height), np.float32) - 1.0) / 2.0


def grid_sample(
    image: Float[Array, "b h w c"],
    grid: Float[Array, "b *out 2"],
    *,
    padding: str = "zeros",
    align_corners: bool = False,
) -> Float[Array, "b *out c"]:
    """Samples an image bilinearly at unit coordinates, as PyTorch's `grid_sample`.

    Args:
      image: the frames to read.
      grid: where to read, (x, y).
      padding: the values outside: "zeros", "border" (the nearest pixel) or "reflection".
      align_corners: whether -1 and 1 are the centres of the corner pixels (the geometry of
        published networks that use it) instead of the image's outer edges.

    Raises:
      UserError: for an unknown padding.
    """
    height, width = image.shape[1:3]
    grid = grid.astype(jnp.float32)
    if align_corners:
        points = (grid + 1.0) * (np.asarray((width, height), np.float32) - 1.0) / 2.0
    else:
        points = unit_to_pixels(grid, height=height, width=width)
    edge = 0.0 if align_corners else 0.5  # where reflection folds, in pixels beyond the centres
    return _sample(image, points, padding, edge)


def warp(
    image: Float[Array, "b h w c"], flow: Float[Array, "b h w 2"], *, padding: str = "zeros"
) -> Float[Array, "b h w c"]:
    """Warps backward: out(p) = image(p + flow(p)), flow in pixels, (x, y).

    To bring frame t-1 onto frame t, give the flow from t to t-1 on t's grid.

    Raises:
      UserError: for an unknown padding.
    """
    height, width = image.shape[1:3]
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
    return _sample(image, pixels + flow.astype(jnp.float32), padding, 0.5)


def sample_parts(
    images: Float[Array, "b p h w c"], points: Float[Array, "b *out p 2"], *, padding: str = "zeros"
) -> Float[Array, "b *out p c"]:
    """Samples p images bilinearly, each at pixel coordinates (x, y) of its own.

    The images' samples lie side by side. On CPUs they are taken in this order, which is twice as
    fast as sampling image by image and moving the axis. TPUs store the last axes in tiles, which a
    few parts would fill with little but padding: there each image is one of the batch.

    Raises:
      UserError: for an unknown padding.
    """
    points = points.astype(jnp.float32)
    if target.platform() != "tpu":
        return _sample(images, points, padding, 0.5)
    b, p = images.shape[:2]
    points = jnp.moveaxis(points, -2, 1)
    found = _sample(
        images.reshape(b * p, *images.shape[2:]),
        points.reshape(b * p, *points.shape[2:]),
        padding,
        0.5,
    )
    return jnp.moveaxis(found.reshape(b, p, *found.shape[1:]), 1, -2)


def resize(
    image: Float[Array, "b h w c"], *, height: int, width: int, antialias: bool = True
) -> Float[Array, "b height width c"]:
    """Resizes bilinearly between outer edges (half-pixel centres), by default without aliasing."""
    shape = (image.shape[0], height, width, image.shape[3])
    return jax.image.resize(image, shape, "linear", antialias=antialias)


@functools.partial(jax.jit, static_argnames=("padding", "edge"), inline=True)
def _sample(image: Array, points: Array, padding: str, edge: float) -> Array:
    """Samples bilinearly at pixel coordinates; `edge` is the half-pixel where reflection folds.

    (b h w c) and (b *out 2), or (b p h w c) and (b *out p 2): each of the p at its own points.
    One program, so that a call outside of any is not compiled operation by operation.
    """
    if padding not in PADDINGS:
        raise UserError(f"sampling: no padding {padding!r}; there are {', '.join(PADDINGS)}")
    *lead, height, width, channels = image.shape
    limits = np.asarray((width - 1, height - 1), np.float32)
    if padding == "reflection":
        points = _reflected(points, limits, edge)
    if padding != "zeros":
        points = jnp.clip(points, 0.0, limits)
    weights, x, y = _corners(points, height, width, image.dtype)
    # Whole rows of channels are gathered from a flat image: many times faster on CPUs than
    # interpolating channel by channel. Each of the batch is flat by itself, so that devices which
    # share a batch read their own rows only.
    if target.platform() == "tpu" and len(_CORNERS) * channels <= _LANES and len(lead) == 1:
        rows = quads(jnp.asarray(image)).reshape(lead[0], -1, len(_CORNERS) * channels)
        index = _quad_index(x, y, height, width)
        return _blend(rows.shape[1], rows, jnp.stack(weights)[None], index[None])
    rows = jnp.asarray(image).reshape(lead[0], -1, channels)
    first = np.arange(0, rows.shape[1], height * width, dtype=np.int32).reshape(lead[1:])
    indices = [
        first + jnp.clip(y + dy, 0, height - 1) * width + jnp.clip(x + dx, 0, width - 1)
        for dx, dy in _CORNERS
    ]
    each = jnp.stack([weight[None] for weight in weights])
    return _blend(rows.shape[1], rows, each, jnp.stack(indices))


def corners(
    points: Float[Array, "*n 2"], *, height: int, width: int
) -> tuple[Array, Int[Array, " *n"]]:
    """Returns four weights of a bilinear sample (4 *n), zeros outside, and its row of `quads`.

    Args:
      points: pixel coordinates (x, y).
      height: of the image.
      width: of the image.
    """
    weights, x, y = _corners(points, height, width, jnp.float32)
    return jnp.stack(weights), _quad_index(x, y, height, width)


def _corners(
    points: Array, height: int, width: int, dtype: DTypeLike
) -> tuple[list[Array], Array, Array]:
    """Returns the weights of the four pixels around points, and the first one's x and y."""
    low = jnp.floor(points)
    fraction = (points - low).astype(dtype)
    x, y = low[..., 0].astype(jnp.int32), low[..., 1].astype(jnp.int32)
    weights = []
    for dx, dy in _CORNERS:
        inside = (x + dx >= 0) & (x + dx < width) & (y + dy >= 0) & (y + dy < height)
        weight = (fraction[..., 0] if dx else 1.0 - fraction[..., 0]) * (
            fraction[..., 1] if dy else 1.0 - fraction[..., 1]
        )
        weights.append(jnp.where(inside, weight, 0.0))
    return weights, x, y


def _quad_index(x: Array, y: Array, height: int, width: int) -> Array:
    return (jnp.clip(y, -1, height - 1) + 1) * (width + 1) + jnp.clip(x, -1, width - 1) + 1


def quads(image: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 d"]:
    """Lays each pixel beside those behind, below and both: (b h w c) to (b h+1 w+1 4c).

    The first row and column are those before the image. Where few channels fill a row of a TPU's
    tile, all corners of a point are one row to gather, and to scatter.
    """
    height, width = image.shape[1:3]
    image = jnp.pad(image, ((0, 0), (1, 1), (1, 1), (0, 0)))
    shifted = [image[:, dy : dy + height + 1, dx : dx + width + 1] for dx, dy in _CORNERS]
    return jnp.concatenate(shifted, -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _blend(count: int, rows: Array, weights: Array, indices: Array) -> Array:
    """Returns sum_kg weights[k, g] rows[indices[k]][g], g being parts of a row side by side.

    (b count gc), (k g b *n), (k b *n) -> (b *n c).
    """
    del count
    shares = [
        weight[..., None] * part
        for each, index in zip(weights, indices, strict=True)
        for weight, part in zip(each, jnp.split(_take(rows, index), len(each), -1), strict=True)
    ]
    return jnp.asarray(sum(shares[1:], shares[0]))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scatter(count: int, values: Array, weights: Array, indices: Array) -> Array:
    """Applies the adjoint of `_blend` in the rows: (b *n c), (k g b *n), (k b *n) -> (b count gc).

    XLA's scatter on CPUs, which is what autodiff makes of a gather, takes a microsecond per row; a
    plain loop over the rows takes a tenth of it. Devices cannot share a loop, so one only.
    """
    batch, channels = len(values), values.shape[-1]
    rows = jnp.zeros((batch, count, weights.shape[1] * channels), values.dtype)
    if target.platform() != "cpu" or jax.device_count() > 1:
        add_rows = jax.vmap(lambda rows, i, new: rows.at[i].add(new, mode="promise_in_bounds"))
        for each, index in zip(weights, indices, strict=True):
            new = jnp.concatenate([weight[..., None] * values for weight in each], -1)
            rows = add_rows(rows, index, new)
        return rows
    first = np.arange(0, batch * count, count, dtype=np.int32)
    indices = (indices + first.reshape(-1, *(1,) * (indices.ndim - 2))).ravel()
    values, weights = values.reshape(-1, channels), weights.ravel()

    def add(i: Array, rows: Array) -> Array:
        here = jax.lax.dynamic_slice(rows, (indices[i], 0), (1, channels))
        new = here + weights[i] * values[i % len(values)]
        return jax.lax.dynamic_update_slice(rows, new, (indices[i], 0))

    rows = rows.reshape(-1, channels)
    return jax.lax.fori_loop(0, len(indices), add, rows).reshape(batch, count, channels)


def _weight_gradient(rows: Array, values: Array, indices: Array) -> Array:
    """Multiplies each weight's part of a row and value.

    (b count gc), (b *n c), (k b *n) -> (k g b *n).
    """
    groups = rows.shape[-1] // values.shape[-1]
    sums = [
        _sum(values * part)
        for index in indices
        for part in jnp.split(_take(rows, index), groups, -1)
    ]
    return jnp.stack(sums).reshape(len(indices), groups, *values.shape[:-1])


def _sum(x: Array) -> Array:
    """Sums over the last axis; on CPUs, where XLA's sum takes five times as long, by a product."""
    if target.platform() != "cpu":
        return x.sum(-1)
    return jnp.matmul(x, jnp.ones(x.shape[-1:], x.dtype), precision=jax.lax.Precision.HIGHEST)


def _take(rows: Array, index: Array) -> Array:
    """Takes rows of each of the batch: (b count c), (b *n) -> (b *n c)."""
    return jax.vmap(lambda rows, index: rows.at[index].get(mode="promise_in_bounds"))(rows, index)


_blend.defvjp(
    lambda count, rows, weights, indices: (
        _blend(count, rows, weights, indices),
        (rows, weights, indices),
    ),
    lambda count, saved, g: (
        _scatter(count, g, saved[1], saved[2]),
        _weight_gradient(saved[0], g, saved[2]),
        None,
    ),
)
_scatter.defvjp(
    lambda count, values, weights, indices: (
        _scatter(count, values, weights, indices),
        (values, weights, indices),
    ),
    lambda count, saved, g: (
        _blend(count, g, saved[1], saved[2]),
        _weight_gradient(g, saved[0], saved[2]),
        None,
    ),
)


def _reflected(points: Array, limits: np.ndarray, edge: float) -> Array:
    """Folds coordinates back into [-edge, limit + edge], as often as needed."""
    span = np.maximum(limits + 2.0 * edge, 1e-6)
    offset = jnp.mod(points + edge, 2.0 * span)
    return jnp.minimum(offset, 2.0 * span - offset) - edge
