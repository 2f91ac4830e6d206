"""Critics: patches of frames, and clips. All return their logits and their features."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from psrjax.errors import UserError
from psrjax.nn import layers

_SLOPE = 0.2
_WIDEST = 8  # channels stop growing at this multiple of the first layer's


class PatchCritic(nn.Module):
    """PatchGAN over single images (pix2pix): 70x70 pixels per logit with three strided layers.

    Attributes:
      width: channels of the first layer.
      strided: layers of stride 2; one layer of stride 1 and the logits follow.
      norm: see `psrjax.nn.layers.make_norm`; the first layer and the logits have none.
      dtype: compute type; logits are float32.
    """

    width: int = 64
    strided: int = 3
    norm: str = "batch"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> dict:
        """{"logits": (b h' w' 1) float32, "features": every layer's output but the last's}.

        Raises:
          UserError: if the frames are too small for the strides.
        """
        least = 3 * 2**self.strided
        if min(x.shape[1:3]) < least:
            raise UserError(
                f"the frame critic with {self.strided} strided layers needs frames of at least "
                f"{least}x{least} pixels, not {x.shape[1]}x{x.shape[2]}: give larger frames "
                "(config.data.crop) or a smaller config.method.critic_layers"
            )
        features = []
        for i in range(self.strided + 1):
            width = self.width * min(2**i, _WIDEST)
            x = _critic_layer(
                self, x, train, i, width, (4, 4), 2 if i < self.strided else 1, first_bias=True
            )
            features.append(x)
        last = self.strided + 1
        logits = _critic_conv(self, x, last, 1, (4, 4), 1, 1, True)
        return {"logits": logits.astype(jnp.float32), "features": tuple(features)}


class VideoCritic(nn.Module):
    """MoCoGAN's critic of whole clips: strides over space only, a final product over time.

    `Departs from:` MoCoGAN, which pads no time and so needs 16 frames: with `time_padding` 1 each
    strided layer consumes one frame instead of three, and four layers take clips of 8.

    Attributes:
      width: channels of the first layer.
      depth: strided layers.
      time_padding: zeros on both ends of time in each strided layer.
      norm: see `psrjax.nn.layers.make_norm`; the first layer and the logits have none.
      dtype: compute type; logits are float32.
      impl: see `psrjax.ops.conv`.
    """

    width: int = 64
    depth: int = 4
    time_padding: int = 1
    norm: str = "batch"
    dtype: DTypeLike = jnp.float32
    impl: str = "auto"

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"], train: bool) -> dict:
        """{"logits": (b t' h' w' 1) float32, "features": every layer's output but the last's}.

        Raises:
          UserError: if the clip is too short or its frames are too small.
        """
        frames = 4 + self.depth * (3 - 2 * self.time_padding)
        pixels = 4 * 2**self.depth
        if x.shape[1] < frames or min(x.shape[2:4]) < pixels:
            raise UserError(
                f"the video critic of depth {self.depth} needs at least {frames} frames of "
                f"{pixels}x{pixels} pixels, not {x.shape[1]} of {x.shape[2]}x{x.shape[3]}: give "
                "longer clips (config.data.sampling.t) or larger frames (config.data.crop), or a "
                "smaller config.method.video_depth"
            )
        features = []
        for i in range(self.depth):
            width = self.width * min(2**i, _WIDEST)
            padding = (self.time_padding, 1, 1)
            x = _critic_layer(self, x, train, i, width, (4, 4, 4), (1, 2, 2), padding=padding)
            features.append(x)
        logits = _critic_conv(self, x, self.depth, 1, (4, 4, 4), 1, 0, False)
        return {"logits": logits.astype(jnp.float32), "features": tuple(features)}


def _critic_layer(
    critic: PatchCritic | VideoCritic,
    x: Array,
    train: bool,
    index: int,
    width: int,
    taps: tuple[int, ...],
    stride: int | tuple[int, ...],
    *,
    padding: int | tuple[int, ...] = 1,
    first_bias: bool = False,
) -> Array:
    """conv - norm (not on the first) - leaky ReLU."""
    x = _critic_conv(critic, x, index, width, taps, stride, padding, first_bias and index == 0)
    if index:
        x = layers.make_norm(critic.norm, dtype=critic.dtype, name=f"norm{index}")(x, train)
    return nn.leaky_relu(x, _SLOPE)


def _critic_conv(
    critic: PatchCritic | VideoCritic,
    x: Array,
    index: int,
    width: int,
    taps: tuple[int, ...],
    stride: int | tuple[int, ...],
    padding: int | tuple[int, ...],
    bias: bool,
) -> Array:
    return layers.Conv(
        width,
        taps,
        stride=stride,
        padding=padding,
        use_bias=bias,
        dtype=critic.dtype,
        impl=getattr(critic, "impl", "auto"),
        init=layers.normal_small,
        name=f"conv{index}",
    )(x)
