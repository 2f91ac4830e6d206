"""The confidence of optical flow: occlusions and motion boundaries."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from psrjax.ops import geometry


def confidence(
    flow: Float[Array, "b h w 2"],
    opposite: Float[Array, "b h w 2"],
    *,
    one_sided: bool = False,
) -> Float[Array, "b h w 1"]:
    """Returns 1 where the flow can be trusted, on its own grid, else 0.

    Sundaram, Brox, Keutzer 2010: a pixel is occluded where the way there and back does not end
    where it began, |F + F'|² > 0.01 (|F|² + |F'|²) + 0.5, and lies on a motion boundary where
    |∇u|² + |∇v|² > 0.01 |F|² + 0.002.

    Args:
      flow: F, from one frame to another on the first's grid, pixels.
      opposite: from the other frame to this one, on the other's grid.
      one_sided: whether ∇ is the difference to the next pixel, 0 in the last row and column (Lai
        et al. 2018), instead of the central difference (Ruder et al. 2016).
    """
    back = geometry.warp(opposite, flow, padding="border")
    length = jnp.square(flow).sum(-1)
    apart = jnp.square(flow + back).sum(-1)
    occluded = apart > 0.01 * (length + jnp.square(back).sum(-1)) + 0.5
    steep = sum(jnp.square(_slope(flow, axis, one_sided)).sum(-1) for axis in (1, 2))
    boundary = steep > 0.01 * length + 0.002
    return (~(occluded | boundary)).astype(jnp.float32)[..., None]


def _slope(flow: Array, axis: int, one_sided: bool) -> Array:
    if not one_sided:
        return jnp.asarray(jnp.gradient(flow, axis=axis))
    margin = [(0, int(axis == place)) for place in range(flow.ndim)]
    return jnp.pad(jnp.diff(flow, axis=axis), margin)


def agreement(
    flow: Float[Array, "b h w 2"], opposite: Float[Array, "b h w 2"]
) -> Float[Array, "b h w 1"]:
    """Returns 1 where the way there and back ends within a pixel of its start, else 0.

    Args:
      flow: from one frame to another on the first's grid, pixels.
      opposite: from the other frame to this one, on the other's grid.
    """
    apart = flow + geometry.warp(opposite, flow, padding="border")
    return (jnp.square(apart).sum(-1, keepdims=True) < 1.0).astype(jnp.float32)
