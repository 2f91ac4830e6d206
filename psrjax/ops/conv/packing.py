"""Pixels of a row side by side on the channels, where channels alone would not fill a TPU's lanes.

A TPU stores maps in tiles of 128 channels: of maps of 64, half of each tile is empty, and half of
the traffic is of nothing. The same maps with two pixels in a tile have half as many tiles. A
convolution of them takes a kernel that is half zeros: twice the products, of which the matrix unit,
128 wide as well, makes twice as many at a time.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from psrjax.runtime import target

_LANES = 128


def pixels_in_a_tile(width: int, channels: int) -> int:
    """Returns how many pixels of a row to pack: 2 on TPUs if these fill a tile, elsewhere 1."""
    fits = 2 * channels == _LANES and width % 2 == 0
    return 2 if fits and target.platform() == "tpu" else 1


def pack(x: Float[Array, "b h w c"], pixels: int) -> Float[Array, "b h x d"]:
    """Lays `pixels` neighbours of a row, which must divide its width, on the channels."""
    b, h, w, c = x.shape
    return x.reshape(b, h, w // pixels, pixels * c)


def unpack(x: Float[Array, "b h x d"], pixels: int) -> Float[Array, "b h w c"]:
    """Inverts `pack`."""
    b, h, w, c = x.shape
    return x.reshape(b, h, w * pixels, c // pixels)


def pack_kernel(kernel: Float[Array, "r s i o"], pixels: int) -> Float[Array, "r x j p"]:
    """Returns the kernel that does to packed maps what this one, of odd size, does to maps.

    Its width is odd too; padded by half of its own size, it keeps the packed maps' size.
    """
    rows, columns, inputs, outputs = kernel.shape
    reach = -(-(columns // 2) // pixels)  # packed neighbours on either side
    width = (2 * reach + 1) * pixels
    shifted = []
    for pixel in range(pixels):
        left = reach * pixels + pixel - columns // 2
        placed = jnp.pad(kernel, ((0, 0), (left, width - columns - left), (0, 0), (0, 0)))
        shifted.append(placed.reshape(rows, 2 * reach + 1, pixels * inputs, outputs))
    return jnp.stack(shifted, -2).reshape(rows, 2 * reach + 1, pixels * inputs, -1)
