"""SPADE with positional normalization: features normalized at each pixel, and modulated by a map.

Park et al. 2019; the normalization is Li et al.'s 2019, as CoCosNet joins them (Wang et al., Eq. 6
and 7).
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from psrjax.nn import layers, resampling


def positional_norm(x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
    """Normalizes each position to mean 0 and (unbiased) variance 1 over channels; float32."""
    return layers.normalize(x, (x.ndim - 1,), 1e-5, ddof=1)[0]


class Spade(nn.Module):
    """norm(x) (1 + gamma) + beta, both maps made of a condition by two convolutions.

    Attributes:
      hidden: channels between the two.
      dtype: compute type; the normalization is float32.
    """

    hidden: int = 128
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], condition: Float[Array, "b y x d"]
    ) -> Float[Array, "b h w c"]:
        """Normalizes and modulates x; a condition of any size is resized to its nearest pixels."""
        condition = resampling.resize_nearest(condition, *x.shape[1:3])
        shared = nn.relu(self._conv(condition, self.hidden, "shared"))
        # One product for both maps: half as many passes over the wide features.
        maps = self._conv(shared, 2 * x.shape[-1], "maps")
        gamma, beta = jnp.split(maps, 2, -1)
        return positional_norm(x).astype(self.dtype) * (1.0 + gamma) + beta

    def _conv(self, x: Array, width: int, name: str) -> Array:
        conv = layers.Conv(
            width,
            (3, 3),
            padding=1,
            reflect=True,
            dtype=self.dtype,
            init=layers.xavier_small,
            name=name,
        )
        return conv(x)


class SpadeResidual(nn.Module):
    """Twice SPADE - leaky ReLU - spectral convolution, added to the input.

    Where the widths differ the input goes through SPADE and a 1x1 convolution.

    Attributes:
      width: output channels.
      hidden: see `Spade`.
      dtype: compute type.
    """

    width: int
    hidden: int = 128
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], train: bool, condition: Float[Array, "b y x d"]
    ) -> Float[Array, "b h w e"]:
        """Applies the block: (b h w c) to (b h w width)."""
        middle = min(x.shape[-1], self.width)
        y = layers.leaky_relu(self._spade("spade0")(x, condition))
        y = self._conv(middle, 3, "conv0")(y, train)
        y = layers.leaky_relu(self._spade("spade1")(y, condition))
        y = self._conv(self.width, 3, "conv1")(y, train)
        if x.shape[-1] != self.width:
            x = self._conv(self.width, 1, "skip")(self._spade("spade_skip")(x, condition), train)
        return x + y

    def _spade(self, name: str) -> Spade:
        return Spade(self.hidden, dtype=self.dtype, name=name)

    def _conv(self, width: int, kernel_size: int, name: str) -> layers.SpectralConv:
        return layers.SpectralConv(
            width,
            (kernel_size, kernel_size),
            padding=kernel_size // 2,
            reflect=True,
            use_bias=kernel_size > 1,
            dtype=self.dtype,
            init=layers.xavier_small,
            name=name,
        )
