"""Discriminators of single images: at several sizes (pix2pixHD), and the first-order model's."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from psrjax.errors import UserError
from psrjax.nn import layers, resampling
from psrjax.nn.discriminators import patch


class MultiScaleDiscriminator(nn.Module):
    """Patch discriminators of the image at several sizes, each half the one before (pix2pixHD).

    `Departs from:` pix2pixHD, whose convolutions before a norm have a bias, which the norm removes.

    Attributes:
      scales: how many discriminators.
      width: channels of each discriminator's first layer.
      strided: layers of stride 2 of each.
      norm: see `psrjax.nn.layers.make_norm`.
      dtype: compute type; logits are float32.
    """

    scales: int = 3
    width: int = 64
    strided: int = 3
    norm: str = "instance_fixed"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> tuple[dict, ...]:
        """Returns what `PatchDiscriminator` gives for each scale, the full size first.

        Raises:
          UserError: if the smallest images are too small for the strides.
        """
        judged = []
        for i in range(self.scales):
            x = resampling.antialiased_downsample(x) if i else x
            discriminator = patch.PatchDiscriminator(
                self.width,
                self.norm,
                strided=self.strided,
                padding=2,
                dtype=self.dtype,
                name=f"scale{i}",
            )
            judged.append(discriminator(x, train))
        return tuple(judged)


class ValidDiscriminator(nn.Module):
    """The first-order model's discriminator: unpadded convolutions with average pools between.

    Attributes:
      width: half of the first layer's channels, as the official code counts.
      depth: layers before the logits.
      max_channels: no layer has more channels.
      spectral: whether convolutions are divided by their spectral norm.
      dtype: compute type; logits are float32.
    """

    width: int = 32
    depth: int = 4
    max_channels: int = 512
    spectral: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> tuple[dict, ...]:
        """Returns of one scale "logits" (b h' w' 1) float32 and all other layers' "features".

        Raises:
          UserError: if the image is too small.
        """
        least = 4
        for _ in range(self.depth - 1):
            least = 2 * least + 3
        if min(x.shape[1:3]) < least:
            raise UserError(
                f"the unpadded discriminator of depth {self.depth} needs images of at least "
                f"{least}x{least}, not {x.shape[1]}x{x.shape[2]}: change config.data.crop or "
                "config.method.discriminator_layers"
            )
        features = []
        for i in range(self.depth):
            width = min(self.max_channels, self.width * 2 ** (i + 1))
            x = self._conv(x, train, f"conv{i}", width, 4)
            if i:
                norm = layers.make_norm("instance", dtype=self.dtype, name=f"norm{i}")
                x = norm(x, train, slope=layers.LEAKY_SLOPE)
            else:
                x = layers.leaky_relu(x)
            if i < self.depth - 1:
                x = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
                x = resampling.avg_pool(x)
            features.append(x)
        logits = self._conv(x, train, "logits", 1, 1)
        return ({"logits": logits.astype(jnp.float32), "features": tuple(features)},)

    def _conv(self, x: Array, train: bool, name: str, width: int, kernel_size: int) -> Array:
        options = {"dtype": self.dtype, "name": name}
        if self.spectral:
            return layers.SpectralConv(width, (kernel_size, kernel_size), **options)(x, train)
        return layers.Conv(width, (kernel_size, kernel_size), **options)(x)
