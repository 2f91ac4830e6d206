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
_PIXELS = 1024  # sampled at a time on TPUs


def sample_texture(
    texture: Float[Array, "p s s c"],
    coordinates: Float[Array, "b h w p 2"],
    parts: Float[Array, "b h w p"],
) -> Float[Array, "b h w c"]:
    """Returns the sum over parts of a part's weight times its texture (D2G-Net, Eq. 1).

    Sums are float32, the result is of the texture's type. One part's samples exist at a time,
    backward too; on TPUs some pixels' samples of all parts, few enough for their fast memory.

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
    """`sample_texture`, a few pixels of all parts at a time."""
    b, h, w, p = parts.shape
    side, channels = texture.shape[1], texture.shape[-1]
    rows = geometry.quads(texture.astype(jnp.float32)).reshape(-1, 4 * channels)
    # u and v apart: a last axis of 2 would be padded to 128 in a TPU's tiles.
    given = (coordinates[..., 0], coordinates[..., 1], parts)
    given = (x.astype(jnp.float32).reshape(b, h * w, p) for x in given)
    chunks = tuple(correlation.chunk_rows(x, _PIXELS) for x in given)
    made = correlation.join_rows(_chunks(side, rows, *chunks), h * w)
    return made.reshape(b, h, w, channels).astype(texture.dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _chunks(side: int, rows: Array, u: Array, v: Array, parts: Array) -> Array:
    """Samples chunks of pixels: rows (p side+1 side+1) by 4c, the others (s b n p), to (s b n c).

    The gradient of the texture is added up in place, of each of the batch by itself: devices that
    share a batch would else exchange it for each chunk.
    """
    return _chunks_forward(side, rows, u, v, parts)[0]


def _chunk_corners(side: int, u: Array, v: Array) -> tuple[Array, Array]:
    """Returns the corners' weights (4 b n p), and the rows that hold them (b n p)."""
    points = (jnp.stack([u, v], -1) + 1.0) * ((side - 1) / 2.0)
    weights, index = geometry.corners(points, height=side, width=side)
    return weights, index + np.arange(u.shape[-1], dtype=np.int32) * (side + 1) ** 2


def _chunks_forward(side: int, rows: Array, u: Array, v: Array, parts: Array) -> tuple:
    def sample(chunk: tuple[Array, ...]) -> Array:
        u, v, parts = chunk
        weights, index = _chunk_corners(side, u, v)
        taken = jnp.split(rows.at[index].get(mode="promise_in_bounds"), 4, -1)
        shares = [(parts * x)[..., None] * y for x, y in zip(weights, taken)]
        return sum(shares[1:], shares[0]).sum(-2)

    return jax.lax.map(sample, (u, v, parts)), (rows, u, v, parts)


def _chunks_backward(side: int, saved: tuple, g: Array) -> tuple[Array, ...]:
    rows, *chunks = saved

    def step(total: Array, chunk: tuple[Array, ...]) -> tuple[Array, tuple]:
        u, v, parts, g = chunk
        weights, back, index = jax.vjp(functools.partial(_chunk_corners, side), u, v, has_aux=True)
        g = g[..., None, :]
        taken = jnp.split(rows.at[index].get(mode="promise_in_bounds"), 4, -1)
        found = jnp.stack([(x * g).sum(-1) for x in taken])
        new = jnp.concatenate([(parts * x)[..., None] * g for x in weights], -1)
        add = jax.vmap(lambda total, i, new: total.at[i].add(new, mode="promise_in_bounds"))
        return add(total, index, new), (*back(found * parts), (found * weights).sum(0))

    empty = jnp.zeros((g.shape[1], *rows.shape))
    total, gradients = jax.lax.scan(step, empty, (*chunks, g))
    return (total.sum(0), *gradients)


_chunks.defvjp(_chunks_forward, _chunks_backward)


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
