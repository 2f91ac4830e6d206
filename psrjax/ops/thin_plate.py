"""Random smooth deformations of the plane: an affine map plus thin-plate splines, with Jacobians.

Points are (x, y) with -1 and 1 at the centres of an image's corner pixels (`align_corners`), the
geometry of the first-order model's key points, for which these deformations are made.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from psrjax.ops import geometry, local_affine


class ThinPlate(NamedTuple):
    """T(z) = affine [z, 1] + sum_k c_k r_k² log(r_k), r_k the L1 distance to control point k.

    Attributes:
      affine: (b 2 3).
      coefficients: (b k*k), the same offset for x and y; the k*k control points stand on a regular
        grid over [-1, 1]².
    """

    affine: Float[Array, "b 2 3"]
    coefficients: Float[Array, "b n"]


def sample(
    key: Array,
    batch: int,
    *,
    sigma_affine: float = 0.05,
    sigma_spline: float = 0.005,
    side: int = 5,
) -> ThinPlate:
    """Draws random deformations near the identity (Siarohin et al. 2019, §3.3).

    Args:
      key: a typed random key.
      batch: how many.
      sigma_affine: std of each entry of the affine map from the identity's.
      sigma_spline: std of the coefficients.
      side: control points along one side.
    """
    affine_key, spline_key = jax.random.split(key)
    affine = jnp.eye(2, 3) + sigma_affine * jax.random.normal(affine_key, (batch, 2, 3))
    return ThinPlate(affine, sigma_spline * jax.random.normal(spline_key, (batch, side * side)))


def apply(transform: ThinPlate, points: Float[Array, "b *n 2"]) -> Float[Array, "b *n 2"]:
    """Applies T to every point, each row of the batch by its own T."""
    each = _over_points(_one_point, points.ndim - 2)
    return jax.vmap(each)(transform, points)


def jacobian(transform: ThinPlate, points: Float[Array, "b *n 2"]) -> Float[Array, "b *n 2 2"]:
    """Returns dT/dz at every point; [..., i, j] is T's i-th coordinate's derivative by the j-th."""
    each = _over_points(jax.jacfwd(_one_point, argnums=1), points.ndim - 2)
    return jax.vmap(each)(transform, points)


def warp(transform: ThinPlate, image: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
    """Samples the image at T of each of its pixels, reflected beyond its borders."""
    height, width = image.shape[1:3]
    pixels = local_affine.corner_grid(height, width)
    grid = apply(transform, jnp.broadcast_to(pixels, (image.shape[0], *pixels.shape)))
    return geometry.grid_sample(image, grid, padding="reflection", align_corners=True)


def _over_points(function, axes: int):
    for _ in range(axes):
        function = jax.vmap(function, in_axes=(None, 0))
    return function


def _one_point(transform: ThinPlate, point: Array) -> Array:
    affine, coefficients = transform
    side = round(len(coefficients) ** 0.5)
    controls = local_affine.corner_grid(side, side).reshape(-1, 2)
    distance = jnp.abs(point - controls).sum(-1)
    # The published code's 1e-6 keeps the logarithm finite at a control point.
    bend = (coefficients * distance**2 * jnp.log(distance + 1e-6)).sum()
    return affine[:, :2] @ point + affine[:, 2] + bend
