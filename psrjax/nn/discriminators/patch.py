"""Discriminators of patches of frames, and of clips: they return logits and features."""

from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from psrjax.errors import UserError
from psrjax.nn import layers

_MAX_CHANNELS = 8  # channels stop growing at this multiple of the first layer's


class _Discriminator(nn.Module):
    """Layers that the discriminators share: kernels of 4, norms on all but the ends, leaky ReLUs.

    Attributes:
      width: channels of the first layer.
      norm: see `psrjax.nn.layers.make_norm`; the first layer and the logits have none.
      dtype: compute type; logits are float32.
    """

    width: int = 64
    norm: str = "batch"
    dtype: DTypeLike = jnp.float32

    _init: ClassVar[Callable] = staticmethod(layers.normal_small)
    _end_bias: ClassVar[bool] = True  # whether the layers without a norm have a bias

    def _layer(self, x: Array, train: bool, index: int, **window: Any) -> Array:
        """Applies a convolution, a norm (not on the first) and a leaky ReLU."""
        x = self._conv(x, index, self.width * min(2**index, _MAX_CHANNELS), index == 0, **window)
        if index:
            norm = layers.make_norm(self.norm, dtype=self.dtype, name=f"norm{index}")
            return norm(x, train, slope=layers.LEAKY_SLOPE)
        return layers.leaky_relu(x)

    def _logits(self, x: Array, index: int, **window: Any) -> Array:
        return self._conv(x, index, 1, True, **window).astype(jnp.float32)

    def _conv(self, x: Array, index: int, width: int, end: bool, **window: Any) -> Array:
        conv = layers.Conv(
            width,
            (4,) * (x.ndim - 2),
            use_bias=end and self._end_bias,
            dtype=self.dtype,
            init=self._init,
            name=f"conv{index}",
            **window,
        )
        return conv(x)


class PatchDiscriminator(_Discriminator):
    """PatchGAN over single images (pix2pix): 70x70 pixels per logit with three strided layers.

    Attributes:
      strided: layers of stride 2; one layer of stride 1 and the logits follow.
      padding: zeros on both sides of each layer; pix2pixHD has 2.
      (the others are those of all discriminators: width, norm, dtype)
    """

    strided: int = 3
    padding: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> dict[str, Any]:
        """Returns "logits" (b h' w' 1) float32, and "features", all other layers' outputs.

        Raises:
          UserError: if the frames are too small for the strides.
        """
        least = 3 * 2**self.strided
        if min(x.shape[1:3]) < least:
            raise UserError(
                f"a frame discriminator of {self.strided} strided layers needs frames of at least "
                f"{least}x{least} pixels, not {x.shape[1]}x{x.shape[2]}: give larger frames "
                "(config.data.crop) or a smaller config.method.discriminator_layers"
            )
        features = []
        for i in range(self.strided + 1):
            x = self._layer(x, train, i, stride=2 if i < self.strided else 1, padding=self.padding)
            features.append(x)
        logits = self._logits(x, self.strided + 1, stride=1, padding=self.padding)
        return {"logits": logits, "features": tuple(features)}


class VideoDiscriminator(_Discriminator):
    """MoCoGAN's discriminator of whole clips: strides over space only, a final product over time.

    `Departs from:` MoCoGAN, which pads no time and so needs 16 frames: with `time_padding` 1 each
    strided layer consumes one frame instead of three, and four layers take clips of 8.

    Attributes:
      depth: strided layers.
      time_padding: zeros on both ends of time in each strided layer.
      (the others are those of all discriminators: width, norm, dtype)
    """

    depth: int = 4
    time_padding: int = 1

    _init: ClassVar[Callable] = staticmethod(layers.uniform_fan_in)
    _end_bias: ClassVar[bool] = False

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"], train: bool) -> dict[str, Any]:
        """Returns "logits" (b t' h' w' 1) float32, and "features", all other layers' outputs.

        Raises:
          UserError: if the clip is too short or its frames are too small.
        """
        frames = 4 + self.depth * (3 - 2 * self.time_padding)
        pixels = 4 * 2**self.depth
        if x.shape[1] < frames or min(x.shape[2:4]) < pixels:
            raise UserError(
                f"the video discriminator of depth {self.depth} needs at least {frames} frames of "
                f"{pixels}x{pixels} pixels, not {x.shape[1]} of {x.shape[2]}x{x.shape[3]}: give "
                "longer clips (config.data.sampling.t) or larger frames (config.data.crop), or a "
                "smaller config.method.video_depth"
            )
        features = []
        for i in range(self.depth):
            x = self._layer(x, train, i, stride=(1, 2, 2), padding=(self.time_padding, 1, 1))
            features.append(x)
        logits = self._logits(x, self.depth, stride=1, padding=0)
        return {"logits": logits, "features": tuple(features)}
