"""pix2pixHD's global generator: down, residual blocks, up (Wang et al. 2018).

HPT's smoother of sequences and its face's residual are such; D2G-Net's nets are built of its parts.
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from psrjax.errors import UserError
from psrjax.nn import blocks, layers, spade


class _Residual(nn.Module):
    """Twice mirrored padding - convolution - instance norm, a ReLU between them, and the input."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w c"]:
        y = x
        for i in (0, 1):
            conv = layers.Conv(
                x.shape[-1],
                (3, 3),
                dtype=self.dtype,
                init=layers.normal_small,
                name=f"conv{i}",
            )
            y = _norm(conv(spade.reflect_pad(y, 1)), train, self.dtype, f"norm{i}")
            y = y if i else nn.relu(y)
        return x + y


class GlobalGenerator(nn.Module):
    """7x7, so many num_downsamples, residual blocks, as many doublings, 7x7, tanh; instance norms.

    Attributes:
      width: channels of the first layer, upsample_nearest with each halving.
      num_downsamples: how often the size is halved.
      blocks: residual blocks at the smallest size.
      zero_init_last: whether the last layer begins near 0, for a net whose result is a residual.
      dtype: compute type; the result is float32.
      remat: see `psrjax.nn.blocks.maybe_remat`.
    """

    width: int = 64
    num_downsamples: int = 3
    blocks: int = 6
    zero_init_last: bool = False
    dtype: DTypeLike = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w 3"]:
        """Values in [-1, 1].

        Raises:
          UserError: if the size cannot be halved so often, or is too small to be mirrored.
        """
        check_size(x.shape[1:3], self.num_downsamples)
        compute = {"dtype": self.dtype}
        widths = [self.width * 2**i for i in range(self.num_downsamples + 1)]
        x = passed(x, train, widths, self.blocks, remat=self.remat, **compute)
        init = nn.initializers.normal(1e-3) if self.zero_init_last else layers.normal_small
        return jnp.tanh(left(x, 3, init=init, **compute))


# The parts, for other nets that are built of them: each is to be called inside a compact method and
# adds its layers to that module.


def check_size(size: tuple[int, int], num_downsamples: int) -> None:
    """Raises UserError if pictures of (height, width) cannot be halved so often and mirrored."""
    if any(n % 2**num_downsamples or n < 2 ** (num_downsamples + 1) for n in size):
        raise UserError(
            f"pictures of {size[0]}x{size[1]} cannot be halved {num_downsamples} times to "
            "at least 2x2: change config.data.crop or the num_downsamples of the config's nets"
        )


def passed(
    x: Float[Array, "b h w c"],
    train: bool,
    widths: Sequence[int],
    count: int,
    *,
    remat: str,
    dtype: DTypeLike,
    join: Callable[[int, Array], Array] = lambda number, x: x,
) -> Float[Array, "b h w d"]:
    """All but the last layer: down to the last of the widths, `count` residual blocks, up again.

    Args:
      x: pictures.
      train: as everywhere.
      widths: channels at each size, the full one first.
      count: of the residual blocks.
      remat: see `psrjax.nn.blocks.maybe_remat`.
      dtype: compute type.
      join: what becomes of the features after each halving, given its number, from 0.
    """
    compute = {"dtype": dtype}
    x = entered(x, train, widths[0], **compute)
    for i, width in enumerate(widths[1:]):
        x = join(i, halved(x, train, i, width, **compute))
    x = refined(x, train, count, remat=remat, **compute)
    for i, width in enumerate(widths[-2::-1]):
        x = upsample_nearest(x, train, i, width, **compute)
    return x


def entered(
    x: Float[Array, "b h w c"], train: bool, width: int, *, dtype: DTypeLike
) -> Float[Array, "b h w d"]:
    """The first layer: 7x7, norm, ReLU."""
    options = {"dtype": dtype, "init": layers.normal_small}
    x = layers.Conv(width, (7, 7), name="first", **options)(spade.reflect_pad(x.astype(dtype), 3))
    return nn.relu(_norm(x, train, dtype, "first_norm"))


def halved(
    x: Float[Array, "b h w c"], train: bool, i: int, width: int, *, dtype: DTypeLike
) -> Float[Array, "b y x d"]:
    """Halving number `i`: 3x3 with stride 2, norm, ReLU."""
    options = {"dtype": dtype, "init": layers.normal_small}
    down = layers.Conv(width, (3, 3), stride=2, padding=1, name=f"down{i}", **options)
    return nn.relu(_norm(down(x), train, dtype, f"down{i}_norm"))


def refined(
    x: Float[Array, "b h w c"], train: bool, count: int, *, remat: str, dtype: DTypeLike
) -> Float[Array, "b h w c"]:
    """So many residual blocks."""
    block = blocks.maybe_remat(_Residual, remat)
    for i in range(count):
        x = block(dtype=dtype, name=f"block{i}")(x, train)
    return x


def upsample_nearest(
    x: Float[Array, "b h w c"], train: bool, i: int, width: int, *, dtype: DTypeLike
) -> Float[Array, "b y x d"]:
    """Doubling number `i`: transposed 3x3 with stride 2, norm, ReLU."""
    options = {"dtype": dtype, "init": layers.normal_small}
    stride = {"stride": 2, "padding": 1, "output_padding": 1}
    up = layers.ConvTranspose(width, (3, 3), name=f"up{i}", **stride, **options)
    return nn.relu(_norm(up(x), train, dtype, f"up{i}_norm"))


def left(
    x: Float[Array, "b h w c"],
    channels: int,
    *,
    dtype: DTypeLike,
    init: Callable = layers.normal_small,
    kernel_size: int = 7,
) -> Float[Array, "b h w d"]:
    """The last layer, `kernel_size` by `kernel_size`, without what follows it; float32."""
    last = layers.Conv(channels, (kernel_size, kernel_size), dtype=dtype, init=init, name="last")
    return last(spade.reflect_pad(x, kernel_size // 2)).astype(jnp.float32)


def _norm(x: Array, train: bool, dtype: DTypeLike, name: str) -> Array:
    return layers.make_norm("instance_fixed", dtype=dtype, name=name)(x, train)
