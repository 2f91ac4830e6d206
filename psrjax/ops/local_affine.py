"""Motion as local affine maps around key points, in the corner geometry of the first-order model.

Points are (x, y), -1 and 1 being the centres of the image's corner pixels (`align_corners`). Such
coordinates stay inside the models that use them; `corners_to_unit` brings points out.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_LEAST_DETERMINANT = 1e-4  # a singular Jacobian would poison a whole run with infinities


def corner_grid(height: int, width: int) -> Float[np.ndarray, "h w 2"]:
    """Returns the coordinates of every pixel."""
    x, y = (np.linspace(-1.0, 1.0, size, dtype=np.float32) for size in (width, height))
    return np.stack(np.meshgrid(x, y), -1)


def corners_to_unit(
    points: Float[Array, "*n 2"], *, height: int, width: int
) -> Float[Array, "*n 2"]:
    """Converts corner coordinates of an image to the unit coordinates of `psrjax.ops.geometry`."""
    size = np.asarray((width, height), np.float32)
    return points * (size - 1.0) / size


def inverse(matrix: Float[Array, "*n 2 2"]) -> Float[Array, "*n 2 2"]:
    """Inverts in closed form; a determinant nearer to 0 than 1e-4 counts as 1e-4, its sign kept.

    `Departs from:` the official code, which inverts as it stands and fails where it is singular.
    """
    (a, b), (c, d) = (matrix[..., 0, 0], matrix[..., 0, 1]), (matrix[..., 1, 0], matrix[..., 1, 1])
    value = a * d - b * c
    sign = jnp.where(value < 0, -1.0, 1.0)
    value = sign * jnp.maximum(jnp.abs(value), _LEAST_DETERMINANT)
    adjugate = jnp.stack([jnp.stack([d, -b], -1), jnp.stack([-c, a], -1)], -2)
    return adjugate / value[..., None, None]


def determinant(matrix: Float[Array, "*n 2 2"]) -> Float[Array, "*n"]:
    """Determinants of 2x2 matrices."""
    return matrix[..., 0, 0] * matrix[..., 1, 1] - matrix[..., 0, 1] * matrix[..., 1, 0]


def soft_argmax(weights: Float[Array, "b h w j"]) -> Float[Array, "b j 2"]:
    """Returns the mean position of each map, whose weights sum to 1."""
    return jnp.einsum(
        "bhwj,hwc->bjc",
        weights,
        corner_grid(*weights.shape[1:3]),
        precision=jax.lax.Precision.HIGHEST,
    )


def gaussians(
    points: Float[Array, "*b j 2"], *, height: int, width: int, variance: float = 0.01
) -> Float[Array, "*b h w j"]:
    """Draws exp(-|z - point|² / (2 variance)) around every point."""
    x, y = (np.linspace(-1.0, 1.0, size, dtype=np.float32) for size in (width, height))
    # A Gaussian is the product of two: far fewer exponentials.
    across = jnp.exp(-((x[:, None] - points[..., None, :, 0]) ** 2) / (2.0 * variance))
    down = jnp.exp(-((y[:, None] - points[..., None, :, 1]) ** 2) / (2.0 * variance))
    return down[..., :, None, :] * across[..., None, :, :]


def local_motions(
    source: Mapping[str, Array], driving: Mapping[str, Array], *, height: int, width: int
) -> Float[Array, "b t p h w 2"]:
    """Returns the source position of each pixel of a driving frame by each local map.

    T_0(z) = z is the background's; T_k(z) = k_S + J_S J_D⁻¹ (z - k_D) for the k-th key point
    (Siarohin et al. 2019, Eq. 4).

    Args:
      source: "value" (b j 2) and "jacobian" (b j 2 2) of the source's key points.
      driving: the same of t driving frames: (b t j 2) and (b t j 2 2).
      height: of the grid.
      width: of the grid.
    """
    turn = jnp.einsum(
        "bjmn,btjno->btjmo",
        source["jacobian"],
        inverse(driving["jacobian"]),
        precision=jax.lax.Precision.HIGHEST,
    )
    grid = corner_grid(height, width)
    offset = grid - driving["value"][:, :, :, None, None]
    # Two products by hand: a matrix product of bfloat16 or TF32 would misplace the pixels.
    moved = (
        turn[:, :, :, None, None, :, 0] * offset[..., :1]
        + turn[:, :, :, None, None, :, 1] * offset[..., 1:]
        + source["value"][:, None, :, None, None]
    )
    still = jnp.broadcast_to(grid, (*moved.shape[:2], 1, *grid.shape))
    return jnp.concatenate([still, moved], 2)


def relative(
    source: Mapping[str, Array],
    driving: Mapping[str, Array],
    first: Mapping[str, Array],
    *,
    scale: float | Array = 1.0,
) -> dict[str, Array]:
    """Moves the source's key points as the driving ones have moved since their first frame.

    k = k_S + scale (k_D - k_D0) and J = J_D J_D0⁻¹ J_S, as in the official animation.

    Args:
      source: "value" (b j 2) and "jacobian" (b j 2 2).
      driving: of t frames.
      first: as `source`, of the frame whose pose is the source's.
      scale: how much larger the source's body is.
    """
    value = source["value"][:, None] + scale * (driving["value"] - first["value"][:, None])
    jacobian = jnp.einsum(
        "btjmn,bjno,bjop->btjmp",
        driving["jacobian"],
        inverse(first["jacobian"]),
        source["jacobian"],
        precision=jax.lax.Precision.HIGHEST,
    )
    return {"value": value, "jacobian": jacobian}


def downsample(image: Float[Array, "b h w c"], factor: int) -> Float[Array, "b h2 w2 c"]:
    """Takes every factor-th pixel behind a Gaussian, zeros outside (official code).

    The Gaussian's std is (factor - 1) / 2, its size 2 round(4 std) + 1.
    """
    if factor == 1:
        return image
    sizes = image.shape[1:3]
    return _by_rows(image, *(_gaussian_rows(size, factor) for size in sizes))


def upsample(image: Float[Array, "b h w c"], factor: int) -> Float[Array, "b h2 w2 c"]:
    """Resizes bilinearly, corner pixels on corner pixels: an identity grid stays the identity."""
    sizes = image.shape[1:3]
    return _by_rows(image, *(_corner_rows(size, size * factor) for size in sizes))


def gaussian_kernel(factor: int) -> Float[np.ndarray, " n"]:
    """Returns `downsample`'s Gaussian along one axis; its weights sum to 1."""
    std = (factor - 1) / 2
    reach = round(4 * std)
    weights = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * std**2))
    return (weights / weights.sum()).astype(np.float32)


def _gaussian_rows(size: int, factor: int) -> np.ndarray:
    kernel = gaussian_kernel(factor)
    rows = np.zeros((-(-size // factor), size), np.float32)
    for row, values in enumerate(rows):
        for tap, weight in enumerate(kernel, row * factor - len(kernel) // 2):
            if 0 <= tap < size:
                values[tap] = weight
    return rows


def _corner_rows(size: int, target: int) -> np.ndarray:
    places = np.linspace(0, size - 1, target)
    low = np.minimum(places.astype(int), max(size - 2, 0))
    rows = np.zeros((target, size))
    np.add.at(rows, (np.arange(target), low), 1 - (places - low))
    np.add.at(rows, (np.arange(target), np.minimum(low + 1, size - 1)), places - low)
    return rows.astype(np.float32)


def _by_rows(image: Array, rows: np.ndarray, columns: np.ndarray) -> Array:
    """Resamples separably: each output row and column is a weighted sum of the image's."""
    highest = jax.lax.Precision.HIGHEST  # these are coordinates: TF32 would misplace pixels
    image = jnp.einsum("oh,bhwc->bowc", rows, image.astype(jnp.float32), precision=highest)
    return jnp.einsum("ow,bhwc->bhoc", columns, image, precision=highest)
