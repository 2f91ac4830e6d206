"""pix2pixHD's global generator: downsamples, residual blocks, upsamples (Wang et al. 2018)."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from psrjax.errors import UserError
from psrjax.nn import blocks, layers


class _ReflectResidual(nn.Module):
    """Twice reflection-padded convolution - instance norm, a ReLU between, added to the input."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w c"]:
        y = x
        for i in (0, 1):
            conv = layers.Conv(
                x.shape[-1],
                (3, 3),
                padding=1,
                reflect=True,
                dtype=self.dtype,
                init=layers.normal_small,
                name=f"conv{i}",
            )
            norm = layers.make_norm("instance_fixed", dtype=self.dtype, name=f"norm{i}")
            y = norm(conv(y), train, slope=None if i else 0.0)
        return x + y


class GlobalGenerator(nn.Module):
    """7x7, downsamples, residual blocks, as many upsamples, 7x7, tanh; instance norms.

    Subclasses are other networks made of the same layers.

    Attributes:
      width: channels of the first layer; they double with each downsample.
      num_downsamples: how often the size is halved.
      blocks: residual blocks at the smallest size.
      kernel_size: of the last layer.
      zero_init_last: whether the last layer begins near 0, for a net whose result is a residual.
      dtype: compute type; the result is float32.
      remat: see `psrjax.nn.blocks.maybe_remat`.
    """

    width: int = 64
    num_downsamples: int = 3
    blocks: int = 6
    kernel_size: int = 7
    zero_init_last: bool = False
    dtype: DTypeLike = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w 3"]:
        """Returns values in [-1, 1].

        Raises:
          UserError: if the size cannot be halved so often, or is too small for the padding.
        """
        return jnp.tanh(self._last(self._decode(self._encode(x, train), train), 3))

    @property
    def widths(self) -> list[int]:
        """Returns the channels at each size, the full one first."""
        return [self.width * 2**i for i in range(self.num_downsamples + 1)]

    def _encode(self, x: Array, train: bool) -> Array:
        return self._levels(x, train)[-1]

    def _levels(self, x: Array, train: bool) -> list[Array]:
        """Returns the first half's map at each size, the full one first."""
        found = [self._first(x, train)]
        for i in range(self.num_downsamples):
            found.append(self._down(i, found[-1], train))
        return found

    def _first(self, x: Array, train: bool) -> Array:
        height, width = x.shape[1:3]
        if any(
            n % 2**self.num_downsamples or n < 2 ** (self.num_downsamples + 1) for n in x.shape[1:3]
        ):
            raise UserError(
                f"images of {height}x{width} cannot be halved {self.num_downsamples} times to at "
                "least 2x2: change config.data.crop or the num_downsamples of the config's nets"
            )
        options = {"padding": 3, "reflect": True, "init": layers.normal_small}
        conv = layers.Conv(self.width, (7, 7), dtype=self.dtype, name="first", **options)
        return self._activate(conv(x), train, "first_norm")

    def _down(self, i: int, x: Array, train: bool) -> Array:
        options = {"stride": 2, "padding": 1, "init": layers.normal_small}
        conv = layers.Conv(self.widths[i + 1], (3, 3), dtype=self.dtype, name=f"down{i}", **options)
        return self._activate(conv(x), train, f"down{i}_norm")

    def _decode(self, x: Array, train: bool, skips: Sequence[Array] = ()) -> Array:
        """Runs the second half; `skips`, maps of each size but the smallest, are added to its."""
        block = blocks.maybe_remat(_ReflectResidual, self.remat)
        for i in range(self.blocks):
            x = block(dtype=self.dtype, name=f"block{i}")(x, train)
        options = {"stride": 2, "padding": 1, "output_padding": 1, "init": layers.normal_small}
        for i, width in enumerate(self.widths[-2::-1]):
            conv = layers.ConvTranspose(width, (3, 3), dtype=self.dtype, name=f"up{i}", **options)
            x = self._activate(conv(x), train, f"up{i}_norm")
            x = x + skips[-1 - i] if skips else x
        return x

    def _last(self, x: Array, channels: int) -> Array:
        conv = layers.Conv(
            channels,
            (self.kernel_size, self.kernel_size),
            padding=self.kernel_size // 2,
            reflect=True,
            dtype=self.dtype,
            init=nn.initializers.normal(1e-3) if self.zero_init_last else layers.normal_small,
            name="last",
        )
        return conv(x).astype(jnp.float32)

    def _activate(self, x: Array, train: bool, name: str) -> Array:
        norm = layers.make_norm("instance_fixed", dtype=self.dtype, name=name)
        return norm(x, train, slope=0.0)
