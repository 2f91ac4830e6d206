"""2-D blocks of the first-order model and its kin: convolution units, residuals, the hourglass."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from psrjax.errors import UserError
from psrjax.nn import blocks, layers

RESAMPLES = ("none", "down", "up")


class Unit(nn.Module):
    """Convolution, norm, ReLU; before it the size may be upsample_nearest, or behind it halved.

    Attributes:
      width: output channels.
      kernel_size: of the square kernel; the padding keeps the size.
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
        """(b h w c) to (b h w width), or half or twice as large.

        Raises:
          UserError: if an odd size is to be halved, or for an unknown `resample`.
        """
        if self.resample not in RESAMPLES:
            raise UserError(f"no resampling {self.resample!r}; there are {', '.join(RESAMPLES)}")
        kernel_size, options = (
            (self.kernel_size,) * 2,
            {"dtype": self.dtype, "name": "conv"},
        )
        if self.resample == "up":
            x = layers.EnlargedConv(self.width, kernel_size, **options)(x)
        else:
            x = layers.Conv(self.width, kernel_size, padding=self.kernel_size // 2, **options)(x)
        x = nn.relu(layers.make_norm(self.norm, dtype=self.dtype, name="norm")(x, train))
        return avg_pool(x) if self.resample == "down" else x


def avg_pool(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """The mean of each 2x2 pixels.

    Raises:
      UserError: for an odd size.
    """
    b, h, w, c = x.shape
    if h % 2 or w % 2:
        raise UserError(f"maps of {h}x{w} cannot be halved: change config.data.crop")
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


class Residual(nn.Module):
    """Twice norm - ReLU - convolution with bias, added to the input.

    Attributes:
      norm: see `psrjax.nn.layers.make_norm`.
      dtype: compute type.
    """

    norm: str = "batch"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w c"]:
        """Same shape out as in."""
        y = x
        for i in (1, 2):
            y = nn.relu(layers.make_norm(self.norm, dtype=self.dtype, name=f"norm{i}")(y, train))
            y = layers.Conv(
                x.shape[-1],
                (3, 3),
                padding=1,
                dtype=self.dtype,
                name=f"conv{i}",
            )(y)
        return x + y


class Hourglass(nn.Module):
    """A U-Net that halves the size `depth` times and concatenates every scale on the way back.

    Attributes:
      width: channels after the last block; those in between are width times powers of two.
      depth: how often the size is halved.
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
        """(b h w c) to (b h w width + c).

        Raises:
          UserError: if the size cannot be halved so often.
        """
        if any(size % 2**self.depth for size in x.shape[1:3]):
            raise UserError(
                f"maps of {x.shape[1]}x{x.shape[2]} cannot be halved {self.depth} times: change "
                "config.data.crop, or config.method.depth"
            )
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
