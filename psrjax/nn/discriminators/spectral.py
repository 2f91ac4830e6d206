"""CoCosNet's discriminator: patches at several sizes, spectral norm, self-attention."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from psrjax.errors import UserError
from psrjax.nn import attention, layers, resampling

_MAX_CHANNELS = 8  # channels stop growing at this multiple of the first layer's


class SpectralDiscriminator(nn.Module):
    """Identical discriminators of the image at several sizes, each half the one before.

    Each has `depth` layers of 4x4, stride 2 but for the last, then the logits. All but the first
    and the logits have spectral and instance norm; self-attention precedes the last layer.

    Attributes:
      scales: how many discriminators.
      width: channels of each discriminator's first layer; they double up to 8 times as many.
      depth: layers before the logits.
      attend: whether there is self-attention.
      dtype: compute type; logits are float32.
    """

    scales: int = 2
    width: int = 64
    depth: int = 4
    attend: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> tuple[dict, ...]:
        """Returns for each scale, the full size first, float32 "logits" (b h' w' 1) and "features".

        The features are every layer's output but the last's.

        Raises:
          UserError: if the smallest images are too small for the strides.
        """
        least = 3 * 2 ** (self.depth + self.scales - 2)
        if min(x.shape[1:3]) < least:
            raise UserError(
                f"{self.scales} discriminators of {self.depth} layers need images of at least "
                f"{least}x{least}, not {x.shape[1]}x{x.shape[2]}: change config.data.crop, "
                "config.method.discriminator_layers or config.method.discriminator_scales"
            )
        judged = []
        for scale in range(self.scales):
            x = resampling.antialiased_downsample(x) if scale else x
            judged.append(self._judge(x, train, scale))
        return tuple(judged)

    def _judge(self, x: Array, train: bool, scale: int) -> dict:
        options = {"padding": 1, "init": layers.xavier_small, "dtype": self.dtype}
        features = []
        for i in range(self.depth):
            name, last = f"scale{scale}_conv{i}", i == self.depth - 1
            width, stride = self.width * min(2**i, _MAX_CHANNELS), 1 if last else 2
            if i == 0:
                conv = layers.Conv(width, (4, 4), stride=stride, name=name, **options)
                x = layers.leaky_relu(conv(x))
            else:
                if last and self.attend:
                    name_ = f"scale{scale}_attention"
                    x = attention.SelfAttention(dtype=self.dtype, name=name_)(x, train)
                conv = layers.SpectralConv(
                    width, (4, 4), stride=stride, use_bias=False, name=name, **options
                )
                norm = layers.make_norm(
                    "instance_fixed", dtype=self.dtype, name=f"scale{scale}_norm{i}"
                )
                x = norm(conv(x, train), train, slope=layers.LEAKY_SLOPE)
            features.append(x)
        logits = layers.Conv(1, (4, 4), name=f"scale{scale}_logits", **options)(x)
        return {"logits": logits.astype(jnp.float32), "features": tuple(features)}
