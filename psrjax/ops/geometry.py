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
from jaxtyping import Array, Float

from psrjax.errors import UserError
from psrjax.runtime import target

PADDINGS = ("zeros", "border", "reflection")


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

    The images' samples lie side by side: at once in the order of channels, which is twice as fast
    on CPUs as sampling image by image and moving the axis.

    Raises:
      UserError: for an unknown padding.
    """
    return _sample(images, points.astype(jnp.float32), padding, 0.5)


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
    low = jnp.floor(points)
    fraction = (points - low).astype(image.dtype)
    x, y = low[..., 0].astype(jnp.int32), low[..., 1].astype(jnp.int32)
    # Whole rows of channels are gathered from a flat image: many times faster on CPUs than
    # interpolating channel by channel. Each of the batch is flat by itself, so that devices which
    # share a batch read their own rows only.
    rows = jnp.asarray(image).reshape(lead[0], -1, channels)
    first = np.arange(0, rows.shape[1], height * width, dtype=np.int32).reshape(lead[1:])
    weights, indices = [], []
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        inside = (x + dx >= 0) & (x + dx < width) & (y + dy >= 0) & (y + dy < height)
        weight = (fraction[..., 0] if dx else 1.0 - fraction[..., 0]) * (
            fraction[..., 1] if dy else 1.0 - fraction[..., 1]
        )
        weights.append(jnp.where(inside, weight, 0.0))
        index = jnp.clip(y + dy, 0, height - 1) * width + jnp.clip(x + dx, 0, width - 1)
        indices.append(first + index)
    return _blend(rows.shape[1], rows, jnp.stack(weights), jnp.stack(indices))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _blend(count: int, rows: Array, weights: Array, indices: Array) -> Array:
    """Returns sum_k weights[k] rows[indices[k]]: (b count c), (k b *n), (k b *n) -> (b *n c)."""
    del count
    pairs = zip(weights, indices, strict=True)
    return jnp.asarray(sum(weight[..., None] * _take(rows, index) for weight, index in pairs))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scatter(count: int, values: Array, weights: Array, indices: Array) -> Array:
    """Applies the adjoint of `_blend` in the rows: (b *n c), (k b *n), (k b *n) -> (b count c).

    XLA's scatter on CPUs, which is what autodiff makes of a gather, takes a microsecond per row; a
    plain loop over the rows takes a tenth of it. Devices cannot share a loop, so one only.
    """
    batch, channels = len(values), values.shape[-1]
    rows = jnp.zeros((batch, count, channels), values.dtype)
    if target.platform() != "cpu" or jax.device_count() > 1:
        add_rows = jax.vmap(lambda rows, i, new: rows.at[i].add(new, mode="promise_in_bounds"))
        for weight, index in zip(weights, indices, strict=True):
            rows = add_rows(rows, index, weight[..., None] * values)
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
    """Multiplies each weight's row and value: (b count c), (b *n c), (k b *n) -> (k b *n).

    The sum over channels is a matrix product: on CPUs XLA's sum takes five times as long at 64.
    """
    ones = jnp.ones((rows.shape[-1],), rows.dtype)
    products = (values * _take(rows, index) for index in indices)
    exact = jax.lax.Precision.HIGHEST
    return jnp.stack([jnp.matmul(product, ones, precision=exact) for product in products])


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
