"""A texture of body parts: sampled under part weights and coordinates, and unwrapped from frames.

A part's texture has its u along the columns and its v along the rows; the outermost texels' centres
lie at -1 and 1 (`align_corners=True` of PyTorch's `grid_sample`), and outside them it is 0.
"""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped, UInt8

from psrjax.errors import UserError


@jax.custom_vjp
def sample_texture(
    texture: Float[Array, "p s s c"],
    coordinates: Float[Array, "b h w p 2"],
    parts: Float[Array, "b h w p"],
) -> Float[Array, "b h w c"]:
    """D2G-Net's Eq. 1: the sum over parts of a part's weight times its texture at its coordinates.

    Bilinear and exact, for the three gradients too; sums are of float32, the result is of the
    texture's type. One part is dealt with at a time, so that no more than one part's samples ever
    exist, and the way back keeps nothing but the arguments.

    Args:
      texture: one picture for each part, at least 2 texels wide.
      coordinates: (u, v) of each pixel in each part; the texture lies in [-1, 1].
      parts: the weight of each part.

    Raises:
      UserError: if the texture is a single texel wide.
    """
    return _forward(texture, coordinates, parts)


def _forward(texture: Array, coordinates: Array, parts: Array) -> Array:
    size, channels = texture.shape[1], texture.shape[-1]
    if size < 2:
        raise UserError(f"texture of {size} texels on a side: two are the fewest")

    def add(total: Array, part: tuple[Array, Array, Array]) -> tuple[Array, None]:
        texels, places, weight = part
        taps = _taps(places, size)
        rows = texels.astype(jnp.float32).reshape(-1, channels)
        weights = (weight * corner for corner in taps.weights)
        picked = (_rows(rows, index) for index in taps.indices)
        return total + sum(w[:, None] * row for w, row in zip(weights, picked)), None

    empty = jnp.zeros((parts[..., 0].size, channels), jnp.float32)
    total, _ = jax.lax.scan(add, empty, (texture, *_by_part(coordinates, parts)))
    return total.reshape(*parts.shape[:-1], channels).astype(texture.dtype)


def _backward(saved: tuple[Array, Array, Array], gradient: Array) -> tuple[Array, Array, Array]:
    texture, coordinates, parts = saved
    size, channels = texture.shape[1], texture.shape[-1]
    values = gradient.astype(jnp.float32).reshape(-1, channels)

    def part(_: None, part: tuple[Array, Array, Array]) -> tuple[None, tuple]:
        texels, places, weight = part
        taps = _taps(places, size)
        rows = texels.astype(jnp.float32).reshape(-1, channels)
        products = [_products(_rows(rows, index), values) for index in taps.indices]
        of_weight = sum(corner * product for corner, product in zip(taps.weights, products))
        slopes = (sum(s * p for s, p in zip(axis, products)) for axis in taps.slopes)
        of_places = jnp.stack([weight * slope for slope in slopes], -1)
        weights = jnp.stack([weight * corner for corner in taps.weights], -1)
        return None, (_scatter(values, weights, taps, size), of_places, of_weight)

    _, found = jax.lax.scan(part, None, (texture, *_by_part(coordinates, parts)))
    of_texture, of_places, of_weight = found
    return (
        of_texture.astype(texture.dtype),
        jnp.moveaxis(of_places, 0, 1).reshape(coordinates.shape).astype(coordinates.dtype),
        of_weight.T.reshape(parts.shape).astype(parts.dtype),
    )


sample_texture.defvjp(lambda *inputs: (_forward(*inputs), inputs), _backward)


def _by_part(coordinates: Array, parts: Array) -> tuple[Array, Array]:
    """(p n 2) and (p n), float32: bfloat16 would misplace by more than a texel."""
    count = parts.shape[-1]
    places = coordinates.astype(jnp.float32).reshape(-1, count, 2)
    return jnp.moveaxis(places, 1, 0), parts.astype(jnp.float32).reshape(-1, count).T


class _Taps(NamedTuple):
    """The four texels (00, 01, 10, 11; v first) that each of n places reads.

    `weights` are theirs, `indices` in the part's flat texels; `slopes` are the derivatives of the
    weights by u and by v; `first` (n 2) is the row and column of texel 00.
    """

    weights: tuple[Array, ...]
    indices: tuple[Array, ...]
    slopes: tuple[tuple[Array, ...], tuple[Array, ...]]
    first: Array


def _taps(places: Float[Array, "n 2"], size: int) -> _Taps:
    scale = (size - 1) / 2
    points = (places + 1.0) * scale
    # Of a place outside the nearest texels are read, with the weights of its tent: 0, or, within a
    # texel of the edge, as if a texel of 0 lay beyond.
    first = jnp.clip(jnp.floor(points), 0, size - 2)
    distances = [points - first, points - first - 1]
    (x0, y0), (x1, y1) = (jnp.maximum(1.0 - jnp.abs(d), 0.0).T for d in distances)
    (dx0, dy0), (dx1, dy1) = (_slope(d).T * scale for d in distances)
    first = first.astype(jnp.int32)
    start = first[:, 1] * size + first[:, 0]
    return _Taps(
        weights=(y0 * x0, y0 * x1, y1 * x0, y1 * x1),
        indices=(start, start + 1, start + size, start + size + 1),
        slopes=((y0 * dx0, y0 * dx1, y1 * dx0, y1 * dx1), (dy0 * x0, dy0 * x1, dy1 * x0, dy1 * x1)),
        first=first[:, ::-1],
    )


def _slope(distance: Array) -> Array:
    """The derivative of a tent; on its edges and its tip the one to the right, as PyTorch's."""
    rising, falling = (-1 <= distance) & (distance < 0), (0 <= distance) & (distance < 1)
    return jnp.where(rising, 1.0, jnp.where(falling, -1.0, 0.0))


def _rows(rows: Float[Array, "m c"], index: Array) -> Float[Array, "n c"]:
    return rows.at[index].get(mode="promise_in_bounds")


def _products(rows: Float[Array, "n c"], values: Float[Array, "n c"]) -> Float[Array, " n"]:
    """Rows times rows, written out: XLA's own sum over a short axis is slower on CPUs."""
    return sum(rows[:, c] * values[:, c] for c in range(rows.shape[1]))


def _scatter(
    values: Float[Array, "n c"], weights: Float[Array, "n 4"], taps: _Taps, size: int
) -> Float[Array, "s s c"]:
    """The texture's gradient: every pixel's value, weighted, added to its four texels.

    On CPUs a plain loop over pixels is many times faster than XLA's scatter; devices cannot share a
    loop, so one only.
    """
    count, channels = values.shape
    if jax.default_backend() != "cpu" or jax.device_count() > 1:
        texels = jnp.zeros((size * size, channels), jnp.float32)
        for corner, index in enumerate(taps.indices):
            texels = texels.at[index].add(
                weights[:, corner, None] * values, mode="promise_in_bounds"
            )
        return texels.reshape(size, size, channels)
    corners, first = weights.reshape(count, 2, 2, 1), taps.first

    def add(i: Array, texels: Array) -> Array:
        start = (first[i, 0], first[i, 1], 0)
        here = jax.lax.dynamic_slice(texels, start, (2, 2, channels))
        return jax.lax.dynamic_update_slice(texels, here + corners[i] * values[i], start)

    return jax.lax.fori_loop(0, count, add, jnp.zeros((size, size, channels), jnp.float32))


def unwrap(
    clips: Iterable[tuple[Shaped[np.ndarray, "t h w 3"], UInt8[np.ndarray, "t h w 3"]]],
    *,
    size: int,
    parts: int = 24,
) -> Float[np.ndarray, "p s s 3"]:
    """The mean of the frames' colours at each texel; 0 where none shows it (D2G-Net, Sec. 3.2).

    Args:
      clips: frames and their IUV, of any number of frames at a time: of each pixel part 0
        (background) to `parts`, and u, v times 255. A pixel goes to the texel nearest to its u, v.
      size: texels on a part's side.
      parts: how many.

    Returns:
      Colours in the range of the frames.

    Raises:
      UserError: if a part is beyond `parts`.
    """
    sums, counts = np.zeros((3, parts * size * size)), np.zeros(parts * size * size)
    for frames, iuv in clips:
        if iuv[..., 0].max(initial=0) > parts:
            raise UserError(f"IUV with a part {iuv[..., 0].max()}: there are {parts}")
        person = iuv[..., 0] > 0
        part, u, v = iuv[person].T.astype(np.int64)
        column, row = (np.rint(place * ((size - 1) / 255)).astype(np.int64) for place in (u, v))
        texel = ((part - 1) * size + row) * size + column
        counts += np.bincount(texel, minlength=len(counts))
        for total, channel in zip(sums, frames[person].T):
            total += np.bincount(texel, channel, minlength=len(counts))
    mean = sums / np.maximum(counts, 1)
    return np.moveaxis(mean.reshape(3, parts, size, size), 0, -1).astype(np.float32)
