"""Textures of body parts: sampled at part coordinates, and unwrapped from frames.

A part's texture has its u along the columns and its v along the rows; the outermost texels' centres
lie at -1 and 1 (`align_corners=True` of PyTorch's `grid_sample`), and outside them it is 0.
"""

import functools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped, UInt8

from psrjax.errors import UserError
from psrjax.ops import correlation, geometry
from psrjax.runtime import target

_UNKNOWN = 1e-4  # weight of a texel that no frame shows
_PIXELS = 2048  # of a frame, sampled at a time on TPUs: samples and gradients fit their fast memory


def sample_texture(
    texture: Float[Array, "p s s c"],
    coordinates: Float[Array, "b h w p 2"],
    parts: Float[Array, "b h w p"],
) -> Float[Array, "b h w c"]:
    """Returns the sum over parts of a part's weight times its texture (D2G-Net, Eq. 1).

    Sums are float32, the result is of the texture's type. One part's samples exist at a time,
    backward too; on TPUs those of some pixels.

    Args:
      texture: one image for each part, at least 2 texels wide.
      coordinates: (u, v) of each pixel in each part; the texture lies in [-1, 1].
      parts: the weight of each part.

    Raises:
      UserError: if the texture is a single texel wide.
    """
    count, size, _, channels = texture.shape
    if size < 2:
        raise UserError(f"texture of {size} texels on a side: two are the fewest")
    if target.platform() == "tpu":
        return _sample_pixels(texture, coordinates, parts)
    places = jnp.moveaxis(coordinates.reshape(-1, count, 2), 1, 0).astype(jnp.float32)
    weights = parts.reshape(-1, count).T.astype(jnp.float32)

    @jax.checkpoint
    def sample(texels: Array, places: Array, weight: Array) -> Array:
        image = texels.astype(jnp.float32)[None]
        return weight[:, None] * geometry.grid_sample(image, places[None], align_corners=True)[0]

    empty = jnp.zeros((weights.shape[1], channels), jnp.float32)
    total, _ = jax.lax.scan(
        lambda total, part: (total + sample(*part), None), empty, (texture, places, weights)
    )
    return total.reshape(*parts.shape[:-1], channels).astype(texture.dtype)


def _sample_pixels(texture: Array, coordinates: Array, parts: Array) -> Array:
    """`sample_texture`, one part and some pixels at a time."""
    b, h, w, p = parts.shape
    # u and v apart, and the pixels last: TPUs pad the last axes to 8 by 128.
    given = (coordinates[..., 0], coordinates[..., 1], parts)
    given = (x.astype(jnp.float32).reshape(b, h * w, p) for x in given)
    chunks = (jnp.moveaxis(correlation.chunk_rows(x, _PIXELS), -1, 0) for x in given)
    made = jnp.moveaxis(_sum_of_parts(texture.astype(jnp.float32), *chunks), -2, -1)
    return correlation.join_rows(made, h * w).reshape(b, h, w, -1).astype(texture.dtype)


@jax.custom_vjp
def _sum_of_parts(texture: Array, u: Array, v: Array, weight: Array) -> Array:
    """Samples and adds: (p side side c), the others (p s b n), to (s b c n)."""
    return _sum_forward(texture, u, v, weight)[0]


def _rows(texels: Array) -> Array:
    """Returns a part's rows of `geometry.quads`, as many as fill whole tiles of a TPU."""
    rows = geometry.quads(texels[None]).reshape(-1, 4 * texels.shape[-1])
    return jnp.pad(rows, ((0, -len(rows) % 8), (0, 0)))


def _corners(side: int, u: Array, v: Array) -> tuple[Array, Array]:
    points = (jnp.stack([u, v], -1) + 1.0) * ((side - 1) / 2.0)
    return geometry.corners(points, height=side, width=side)


def _take(rows: Array, index: Array) -> list[Array]:
    return jnp.split(rows.at[index].get(mode="promise_in_bounds"), 4, -1)


def _at(x: Array, part: Array, chunk: Array) -> Array:
    return jax.lax.dynamic_slice(x, (part, chunk, 0, 0), (1, 1, *x.shape[2:]))[0, 0]


def _sum_forward(texture: Array, u: Array, v: Array, weight: Array) -> tuple:
    (parts, side, _, channels), (chunks, b, n) = texture.shape, u.shape[1:]

    def add_part(totals: Array, part: Array) -> tuple[Array, None]:
        rows = _rows(texture[part])

        def add(totals: Array, chunk: Array) -> tuple[Array, None]:
            # Slices of the whole arrays: XLA would fetch all chunks of a part for each.
            corners, index = _corners(side, *(_at(x, part, chunk) for x in (u, v)))
            corners *= _at(weight, part, chunk)
            shares = [x[..., None] * y for x, y in zip(corners, _take(rows, index))]
            made = jnp.moveaxis(sum(shares[1:], shares[0]), -1, -2).reshape(b, channels * n)
            return totals.at[chunk].add(made), None

        return jax.lax.scan(add, totals, jnp.arange(chunks))[0], None

    empty = jnp.zeros((chunks, b, channels * n))  # flat, or channels would be padded to 128
    totals, _ = jax.lax.scan(add_part, empty, jnp.arange(parts))
    return totals.reshape(chunks, b, channels, n), (texture, u, v, weight)


def _sum_backward(saved: tuple[Array, ...], g: Array) -> tuple[Array, ...]:
    texture, u, v, weights = saved
    (parts, side, _, channels), (chunks, batch, n) = texture.shape, u.shape[1:]
    flat = g.reshape(1, chunks, batch, channels * n)

    def of_part(part: Array) -> tuple[Array, ...]:
        rows, back_to_texels = jax.vjp(_rows, texture[part])

        def add(total: Array, chunk: Array) -> tuple[Array, tuple[Array, ...]]:
            g = _at(flat, jnp.zeros_like(part), chunk).reshape(batch, channels, n)
            g, weight = jnp.moveaxis(g, -2, -1), _at(weights, part, chunk)
            places = (_at(x, part, chunk) for x in (u, v))
            corners, back, index = jax.vjp(functools.partial(_corners, side), *places, has_aux=True)
            found = jnp.stack([(x * g).sum(-1) for x in _take(rows, index)])
            new = jnp.concatenate([x[..., None] * g for x in weight * corners], -1)
            put = jax.vmap(lambda total, i, new: total.at[i].add(new, mode="promise_in_bounds"))
            return put(total, index, new), (*back(found * weight), (found * corners).sum(0))

        # Of each of the batch by itself: devices that share it would exchange every chunk.
        empty = jnp.zeros((batch, *rows.shape))
        total, gradients = jax.lax.scan(add, empty, jnp.arange(chunks))
        return (*back_to_texels(total.sum(0)), *gradients)

    return jax.lax.map(of_part, jnp.arange(parts))


_sum_of_parts.defvjp(_sum_forward, _sum_backward)


def static_texture(
    frames: Float[Array, "n h w 3"], iuv: Float[Array, "n h w 3"], *, size: int, parts: int = 24
) -> Float[Array, "p s s 4"]:
    """Returns the mean colour at each texel times a weight, and the weight, as `unwrap` within jax.

    The weight is 1 where a frame shows the texel. Elsewhere it is next to nothing and the colour
    the part's mean: a sample of the colours over the same sample of the weights is made of known
    texels wherever one is near.

    Args:
      frames: in any range.
      iuv: the part 0 (background) to `parts`, and u, v in [0, 1].
      size: texels on a part's side.
      parts: how many.
    """
    part, places = iuv[..., 0].astype(jnp.int32), jnp.rint(iuv[..., 1:] * (size - 1))
    column, row = jnp.moveaxis(places.astype(jnp.int32), -1, 0)
    # Pixels of the background go beyond the last texel, where they are dropped.
    texel = jnp.where(part > 0, ((part - 1) * size + row) * size + column, parts * size * size)
    values = jnp.concatenate([frames, jnp.ones((*frames.shape[:-1], 1))], -1)
    sums = jnp.zeros((parts * size * size, 4)).at[texel].add(values, mode="drop")
    sums = sums.reshape(parts, size * size, 4)
    whole = sums.sum(1, keepdims=True)
    mean, own = (each / jnp.maximum(each[..., 3:], 1.0) for each in (whole, sums))
    found = jnp.where(own[..., 3:] > 0, own, _UNKNOWN * mean)
    return found.reshape(parts, size, size, 4)


def unwrap(
    clips: Iterable[tuple[Shaped[np.ndarray, "t h w 3"], UInt8[np.ndarray, "t h w 3"]]],
    *,
    size: int,
    parts: int = 24,
) -> Float[np.ndarray, "p s s 3"]:
    """Returns the mean of the frames' colours at each texel (D2G-Net, Sec. 3.2).

    Args:
      clips: frames and their IUV, of any number of frames at a time: of each pixel part 0
        (background) to `parts`, and u, v times 255. A pixel goes to the texel nearest to its u, v.
      size: texels on a part's side.
      parts: how many.

    Returns:
      Colours in the range of the frames; 0 at texels that no frame shows.

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
