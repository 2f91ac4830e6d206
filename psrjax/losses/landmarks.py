"""Losses that place learned key points on what moves, and apart from one another.

`Departs from:` INTERnet and the first-order model, whose key points learn their places from the
image's error alone. That takes tens of thousands of steps; these two terms, of the kind of Zhang,
Guo, Jin, Luo, He and Lee 2018 ("Unsupervised Discovery of Object Landmarks as Structural
Representations"), take a hundred. They need no labels.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from psrjax.errors import UserError

_MOVES = 0.15  # pixels a frame; what moves less counts as still
_APART = 0.15  # std, in half sides of the image


def moving(heat: Float[Array, "b y x j"], flow: Float[Array, "b h w 2"]) -> Float[Array, ""]:
    """Returns the mean -log of the share of each point's heat that lies where anything moves.

    The camera has to stand still. Where nothing moves at all, the term is constant.

    Args:
      heat: of each key point, its sum 1, at the image's size or a whole fraction of it.
      flow: between the image and its neighbour in time, pixels.

    Raises:
      UserError: if the heat's size is no whole fraction of the flow's.
    """
    b, h, w, _ = heat.shape
    if flow.shape[1] % h or flow.shape[2] % w:
        raise UserError(
            f"heat maps of {h}x{w} do not cover an image of {flow.shape[1]}x{flow.shape[2]}: set "
            "config.method.points_padding to 3"
        )
    moves = (jnp.square(flow).sum(-1) > _MOVES**2).astype(jnp.float32)
    moves = moves.reshape(b, h, flow.shape[1] // h, w, flow.shape[2] // w).max((2, 4))
    share = (heat * moves[..., None]).sum((1, 2))
    return -jnp.log(share + 1e-3).mean()


def apart(points: Float[Array, "b j 2"]) -> Float[Array, ""]:
    """Counts the other points near each point: the mean of sum_k exp(-|p - p_k|² / 2 s²).

    Args:
      points: (x, y), -1 and 1 being the image's sides.
    """
    gap = jnp.square(points[:, :, None] - points[:, None]).sum(-1)
    near = jnp.exp(-gap / (2.0 * _APART**2)).sum((1, 2)) / points.shape[1]
    return near.mean() - 1.0  # a point is no other point
