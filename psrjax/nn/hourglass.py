"""2-D blocks of the first-order model and its relatives: units, residuals, the hourglass."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from psrjax.errors import UserError
from psrjax.nn import blocks, layers, resampling

RESAMPLES = ("none", "down", "up")


class Unit(nn.Module):
    """Convolution, norm, ReLU; upsampled by 2 before, or average-pooled behind.

    Attributes:
      width: output channels.
      kernel_size: side of the kernel; the padding keeps the size.
      resample: "none", "down" (half the size) or "up" (twice the size).
      norm: see `psrjax.nn.layers.make_norm`.
      dtype: compute type.
    """

    width: int
    kernel_size: int = 3
    resample: str = "none"
    norm: str = "batch"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h2 w2 d"]:
        """Applies the unit: (b h w c) to (b h w width), or half or twice as large.

        Raises:
          UserError: if an odd size is to be halved, or for an unknown `resample`.
        """
        if self.resample not in RESAMPLES:
            raise UserError(f"no resampling {self.resample!r}; there are {', '.join(RESAMPLES)}")
        size, options = (self.kernel_size, self.kernel_size), {"dtype": self.dtype, "name": "conv"}
        if self.resample == "up":
            x = layers.UpsampledConv(self.width, size, **options)(x)
        else:
            x = layers.Conv(self.width, size, padding=self.kernel_size // 2, **options)(x)
        x = layers.make_norm(self.norm, dtype=self.dtype, name="norm")(x, train, slope=0.0)
        return resampling.avg_pool(x) if self.resample == "down" else x


class Residual(nn.Module):
    """Twice norm - ReLU - convolution with bias, added to the input.

    Attributes:
      norm: see `psrjax.nn.layers.make_norm`.
      dtype: compute type.
      pixels: of a row that lie side by side on the channels, see `psrjax.ops.conv.packing`.
    """

    norm: str = "batch"
    dtype: DTypeLike = jnp.float32
    pixels: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w c"]:
        """Applies the block; the shape stays."""
        y, width = x, x.shape[-1] // self.pixels
        common: dict[str, Any] = {"dtype": self.dtype, "pixels": self.pixels}
        for i in (1, 2):
            y = layers.make_norm(self.norm, name=f"norm{i}", **common)(y, train, slope=0.0)
            y = layers.Conv(width, (3, 3), padding=1, name=f"conv{i}", **common)(y)
        return x + y


class Hourglass(nn.Module):
    """A U-Net of `depth` downsamples that concatenates the features of every scale on the way back.

    Attributes:
      width: channels after the last block; those in between are width times powers of two.
      depth: downsamples by 2.
      max_channels: no block has more channels.
      norm: see `psrjax.nn.layers.make_norm`.
      dtype: compute type.
      remat: see `psrjax.nn.blocks.maybe_remat`.
    """

    width: int
    depth: int = 5
    max_channels: int = 1024
    norm: str = "batch"
    dtype: DTypeLike = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w d"]:
        """Applies the U-Net: (b h w c) to (b h w width + c).

        Raises:
          UserError: if the size cannot be halved so often.
        """
        resampling.check_downsamples(x, self.depth, "depth")
        unit = blocks.maybe_remat(Unit, self.remat)
        options = {"norm": self.norm, "dtype": self.dtype}
        scales = [x]
        for i in range(self.depth):
            width = min(self.max_channels, self.width * 2 ** (i + 1))
            down = unit(width, resample="down", name=f"down{i}", **options)
            scales.append(down(scales[-1], train))
        y = scales.pop()
        for i in range(self.depth):
            width = min(self.max_channels, self.width * 2 ** (self.depth - 1 - i))
            y = unit(width, resample="up", name=f"up{i}", **options)(y, train)
            y = jnp.concatenate([y, scales.pop().astype(y.dtype)], -1)
        return y
