"""Feature maps made smaller, larger, or padded by reflection."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from psrjax.errors import UserError


def avg_pool(x: Float[Array, "b h w c"], pixels: int = 1) -> Float[Array, "b h2 w2 d"]:
    """Returns the mean of each 2x2 pixels.

    Args:
      x: the maps.
      pixels: 2 if two of a row lie side by side on the channels (`ops.conv.packing`), 1 if not; of
        the result one does.

    Raises:
      UserError: for an odd size.
    """
    if pixels == 2:
        return nn.avg_pool(sum(jnp.split(x, 2, -1)) / 2, (2, 1), (2, 1))
    check_downsamples(x, 1)
    return nn.avg_pool(x, (2, 2), (2, 2))


def max_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Returns the largest of each 2x2 pixels; a last odd row or column is left out."""
    return nn.max_pool(x, (2, 2), (2, 2))


def antialiased_downsample(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Returns float32 means of 3x3 pixels around every other one; pixels outside do not count."""
    around: Any = ((1, 1), (1, 1))  # flax says "str", and takes pairs
    return nn.avg_pool(x.astype(jnp.float32), (3, 3), (2, 2), around, count_include_pad=False)


def upsample_nearest(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Repeats each pixel as 2x2."""
    return jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)


def resize_nearest(
    x: Float[Array, "b h w c"], height: int, width: int
) -> Float[Array, "b height width c"]:
    """Resizes as PyTorch's "nearest": output i reads input floor(i size_in / size_out)."""
    rows = jnp.arange(height) * x.shape[1] // height
    columns = jnp.arange(width) * x.shape[2] // width
    return x[:, rows][:, :, columns]


def reflect_pad(x: Float[Array, "b h w c"], margin: int) -> Float[Array, "b y x c"]:
    """Pads `margin` pixels on all sides by reflection, the border pixel not repeated."""
    return jnp.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="reflect")


def check_downsamples(x: Float[Array, "b h w c"], times: int, field: str = "") -> None:
    """Checks that maps can be halved `times` times.

    Args:
      x: the maps.
      times: downsamples by 2 in a row.
      field: of `config.method`, which may be changed as well as the size.

    Raises:
      UserError: if the height or the width is no multiple of 2 to that power.
    """
    height, width = x.shape[1:3]
    if height % 2**times or width % 2**times:
        other = f" or config.method.{field}" if field else ""
        raise UserError(
            f"maps of {height}x{width} cannot be halved {times} times: change "
            f"config.data.crop{other}"
        )
