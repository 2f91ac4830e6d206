"""Discriminators of n frames in a row with the flow between them, for several n at once (D_V^n).

Cheng et al. (MFCI), Eq. 2; inputs as vid2vid's (Wang et al. 2018). Any method may have them: they
see frames and flow only.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from psrjax.errors import UserError
from psrjax.nn import layers, resampling
from psrjax.nn.discriminators import multiscale
from psrjax.ops.conv import packing

KINDS = ("res6", "patch")
_FULL_FLOW = 20.0 / 256.0  # vid2vid divides pixels by 20; here of 256, whatever the size
_WIDTHS = (1, 2, 4, 8, 8, 8)
_POOLED = 4  # the first blocks halve the size
# Kernels that keep the size of what they see, through leaky ReLUs, skips and branches: with
# PyTorch's default, whose outputs are a third of it each time, the logits of a fresh discriminator
# hardly depend on its input, and after 400 steps it still could not tell blurred frames from real
# ones.
_THROUGH_RELU = nn.initializers.variance_scaling(
    2 / (1 + layers.LEAKY_SLOPE**2), "fan_in", "normal"
)
_STRAIGHT = nn.initializers.variance_scaling(1.0, "fan_in", "normal")
_BRANCH = nn.initializers.variance_scaling(0.2, "fan_in", "normal")  # little beside the skip


class ResidualDiscriminator(nn.Module):
    """A convolution, six residual blocks, and a map of logits: 16x16 for 256x256.

    Cheng et al. (section 4) give "six residual blocks" and nothing more; widths and pooling are
    ours: blocks of LReLU - conv - LReLU - conv beside a 1x1, average pools after the first four.

    Attributes:
      width: channels of the first layer and block; they grow to eight times as many.
      scaled: whether kernels begin so that they keep the size of what they see. `Departs from:`
        Cheng et al., who are silent: with the layers' default a fresh discriminator hardly sees its
        input.
      dtype: compute type; logits are float32.
    """

    width: int = 64
    scaled: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> tuple[dict, ...]:
        """Returns one scale: "logits" (b h' w' 1) float32, and "features", every block's output.

        Raises:
          UserError: if the frames cannot be halved four times.
        """
        del train
        resampling.check_downsamples(x, _POOLED)
        pixels = packing.pixels_in_a_tile(x.shape[2], self.width)
        x = self._conv(packing.pack(x, pixels), self.width, 3, "stem", _STRAIGHT, pixels)
        features = []
        for i, times in enumerate(_WIDTHS):
            wide = times * self.width
            y = self._conv(layers.leaky_relu(x), wide, 3, f"block{i}_conv0", _THROUGH_RELU, pixels)
            y = self._conv(layers.leaky_relu(y), wide, 3, f"block{i}_conv1", _BRANCH, pixels)
            x = y + self._conv(x, wide, 1, f"block{i}_skip", _STRAIGHT, pixels)
            x = resampling.avg_pool(x, pixels) if i < _POOLED else x
            features.append(x)
            pixels = 1  # the first pool leaves one of two
        logits = self._conv(layers.leaky_relu(x), 1, 3, "logits", _THROUGH_RELU)
        return ({"logits": logits.astype(jnp.float32), "features": tuple(features)},)

    def _conv(
        self,
        x: Array,
        features: int,
        kernel_size: int,
        name: str,
        init: Callable,
        pixels: int = 1,
    ) -> Array:
        scaled: dict[str, Any] = {"init": init} if self.scaled else {}
        conv = layers.Conv(
            features,
            (kernel_size, kernel_size),
            padding=kernel_size // 2,
            pixels=pixels,
            dtype=self.dtype,
            name=name,
            **scaled,
        )
        return conv(x)


class FrameRangeDiscriminators(nn.Module):
    """A discriminator for each range n of frames, on every window of n frames.

    Attributes:
      ranges: the n; each at least 2.
      kind: "res6" (`ResidualDiscriminator`) or "patch" (vid2vid's `MultiScaleDiscriminator`).
      width: channels of each discriminator's first layer.
      strided: strided layers of the "patch" discriminators.
      scaled: of "res6", see `ResidualDiscriminator`.
      dtype: compute type; logits are float32.
    """

    ranges: tuple[int, ...] = (3, 5, 7)
    kind: str = "res6"
    width: int = 64
    strided: int = 3
    scaled: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, video: Float[Array, "b t h w 3"], flow: Float[Array, "b t h w 2"], train: bool
    ) -> dict[str, tuple[dict, ...]]:
        """Returns {"range3": what the discriminator of 3 frames gives for all windows, …}.

        Args:
          video: in [-1, 1].
          flow: of the real video, for real and fake alike: pixels, from frame t to t-1.
          train: passed to the discriminators.

        Raises:
          UserError: for a range that is longer than the video, or an unknown kind.
        """
        options = {"strided": self.strided, "scaled": self.scaled, "dtype": self.dtype}
        return {
            f"range{n}": make_discriminator(self.kind, self.width, name=f"range{n}", **options)(
                windows(video, flow, n), train
            )
            for n in self.ranges
        }


def make_discriminator(
    kind: str, width: int, *, strided: int, scaled: bool, dtype: DTypeLike, name: str
) -> ResidualDiscriminator | multiscale.MultiScaleDiscriminator:
    """Makes a discriminator of frames, or of frames side by side, called with (x, train).

    Raises:
      UserError: for an unknown kind.
    """
    if kind == "res6":
        return ResidualDiscriminator(width, scaled, dtype=dtype, name=name)
    if kind == "patch":
        return multiscale.MultiScaleDiscriminator(
            scales=2, width=width, strided=strided, dtype=dtype, name=name
        )
    raise UserError(f"config.method.discriminator_kind: no {kind!r}; there are {', '.join(KINDS)}")


def windows(
    video: Float[Array, "b t h w 3"], flow: Float[Array, "b t h w 2"], n: int
) -> Float[Array, "m h w c"]:
    """Returns all windows of n frames with the n - 1 flows between them, side by side as channels.

    m is b (t - n + 1), c is 3 n + 2 (n - 1). Flow is divided by 20 pixels of a width of 256.

    Raises:
      UserError: if the video is shorter than n, or n than 2.
    """
    t, width = video.shape[1], video.shape[3]
    if not 2 <= n <= t:
        raise UserError(
            f"a discriminator of {n} frames and windows of {t} (config.data.sampling.t): ranges "
            "are from 2 to the window's length"
        )
    flow = (flow / (_FULL_FLOW * width)).astype(video.dtype)
    last = t - n + 1
    shifted = [video[:, i : i + last] for i in range(n)]
    shifted += [flow[:, i : i + last] for i in range(1, n)]
    beside = jnp.concatenate(shifted, -1)
    return beside.reshape(-1, *beside.shape[2:])
