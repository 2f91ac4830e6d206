"""The coarse-to-fine generator: an image grown from 8x8 under its condition at every size."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from psrjax.nn import attention, blocks, layers, resampling, spade

_MAX_CHANNELS = 4  # the width doubles with each downsample, so many times


class SpadeGenerator(nn.Module):
    """G of Wang et al., Eq. 7: the condition is the coarse image beside the pose label.

    `Departs from:` the text of Eq. 6, which conditions on the exemplar y_I itself: it is at another
    pose than the result, and in training often the result; CoCosNet conditions on the warp.

    Attributes:
      width: channels at full size.
      levels: how often the size is doubled.
      hidden: see `psrjax.nn.spade.Spade`.
      attend: whether there is self-attention at half the size.
      channels: of the image.
      dtype: compute type; the image is float32.
      remat: see `psrjax.nn.blocks.maybe_remat`.
    """

    width: int = 64
    levels: int = 5
    hidden: int = 128
    attend: bool = True
    channels: int = 3
    dtype: DTypeLike = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(self, condition: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w d"]:
        """Returns an image in [-1, 1].

        Raises:
          UserError: if the size cannot be halved `levels` times.
        """
        resampling.check_downsamples(condition, self.levels, "levels")
        height, width = condition.shape[1:3]
        conv = {"padding": 1, "init": layers.xavier_small, "dtype": self.dtype}
        block = blocks.maybe_remat(spade.SpadeResidual, self.remat)
        condition = condition.astype(self.dtype)
        x = resampling.resize_nearest(condition, height >> self.levels, width >> self.levels)
        x = layers.Conv(self._channels(0), (3, 3), name="seed", **conv)(x)
        for level in range(self.levels + 1):
            if level:
                x = resampling.upsample_nearest(x)
            if self.attend and level == self.levels - 1:
                x = attention.SelfAttention(dtype=self.dtype, name="attention")(x, train)
            for part in "ab" if level == 1 else "a":
                name = f"block{level}{part}"
                make = block(self._channels(level), self.hidden, dtype=self.dtype, name=name)
                x = make(x, train, condition)
        x = layers.Conv(self.channels, (3, 3), name="picture", **conv)(layers.leaky_relu(x))
        return jnp.tanh(x.astype(jnp.float32))

    def _channels(self, level: int) -> int:
        return self.width * 2 ** min(_MAX_CHANNELS, self.levels - level)
