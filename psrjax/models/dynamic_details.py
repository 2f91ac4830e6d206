"""D2G-Net's learned images: hybrid texture, background, and the net of dynamic details."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from psrjax.errors import UserError
from psrjax.models import global_generator
from psrjax.models.uv_generator import PARTS
from psrjax.nn import layers
from psrjax.ops import texture


class HybridTexture(nn.Module):
    """An atlas of the body's parts: three channels of colour in [0, 1], and learned ones.

    It begins gray, with 0 in the learned channels; `Method.warm_start` fills in the colours.

    Attributes:
      size: texels on a part's side.
      channels: of each texel.
    """

    size: int = 200
    channels: int = 18

    @nn.compact
    def __call__(
        self,
        coordinates: Float[Array, "b h w p 2"],
        parts: Float[Array, "b h w p"],
        *,
        colors_only: bool = False,
    ) -> Float[Array, "b h w c"]:
        """Returns the sum over parts of probability times texture at the coordinates (Eq. 1).

        Args:
          coordinates: (u, v) in [-1, 1].
          parts: probabilities of the parts; those of a pixel and the background's sum to 1.
          colors_only: all other channels are taken as 0 ("MaskTex" of Sec. 4.3).
        """
        atlas = self.param("atlas", _gray, (PARTS, self.size, self.size, self.channels))
        if colors_only:
            atlas = atlas * (jnp.arange(self.channels) < 3)
        return texture.sample_texture(atlas, coordinates, parts)


def _gray(key: Array, shape: tuple[int, ...]) -> Array:
    del key
    return jnp.zeros(shape).at[..., :3].set(0.5)


class Background(nn.Module):
    """The image behind the person in every frame (D2G-Net, Sec. 3.3)."""

    @nn.compact
    def __call__(self, height: int, width: int) -> Float[Array, "1 h w 3"]:
        """Returns the image; before training it is 0, the gray of [-1, 1].

        Raises:
          UserError: if it was learned at another size.
        """
        if self.has_variable("params", "picture"):
            have = self.get_variable("params", "picture").shape[1:3]
            if have != (height, width):
                raise UserError(
                    f"frames of {height}x{width}: the background was learned at "
                    f"{have[0]}x{have[1]}, and fits no other size: set config.data.crop to that, "
                    "or train again"
                )
        return self.param("picture", nn.initializers.zeros, (1, height, width, 3))


class _PoseEncoder(global_generator.GlobalGenerator):
    """The generator's first half: the pose label at the size at which it joins the texture."""

    @nn.compact
    def __call__(self, label: Float[Array, "b h w c"], train: bool) -> Float[Array, "b y x d"]:
        return self._encode(label, train)


class _Joining(nn.Module):
    """A 3x3 layer over two maps, with as many channels as the first has."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array, other: Array, train: bool) -> Array:
        options = {"padding": 1, "dtype": self.dtype, "init": layers.normal_small}
        y = layers.Conv(x.shape[-1], (3, 3), name="conv", **options)(
            jnp.concatenate([x, other], -1)
        )
        norm = layers.make_norm("instance_fixed", dtype=self.dtype, name="norm")
        return norm(y, train, slope=0.0)


class DynamicDetails(global_generator.GlobalGenerator):
    """D2G (Eq. 2, Fig. 3): from the texture on the screen, under the pose, to the person's image.

    The paper does not say at which level the pose joins ("the intermediate level"): here at 1/8 of
    the size.

    Attributes:
      max_channels: no layer has more channels.
      pose_width: channels of the pose encoder's first layer.
      pose_level: by what the size is divided where the pose joins; 0: it does not.
      (the others are those of `GlobalGenerator`)
    """

    num_downsamples: int = 4
    blocks: int = 9
    max_channels: int = 1024
    pose_width: int = 32
    pose_level: int = 8

    @nn.compact
    def __call__(
        self, mapped: Float[Array, "b h w c"], label: Float[Array, "b h w d"], train: bool
    ) -> Float[Array, "b h w 3"]:
        """Returns an image in [-1, 1].

        Raises:
          UserError: if the size cannot be halved so often, or no level has `pose_level`.
        """
        levels = [2**i for i in range(1, self.num_downsamples + 1)]
        if self.pose_level not in (0, *levels):
            raise UserError(
                f"config.method.pose_level={self.pose_level}: with {self.num_downsamples} "
                f"downsamples one of {', '.join(map(str, levels))}, or 0 for none"
            )
        x = self._first(mapped, train)
        for i, level in enumerate(levels):
            x = self._down(i, x, train)
            if level == self.pose_level:
                encoder = _PoseEncoder(self.pose_width, i + 1, dtype=self.dtype, name="pose")
                x = _Joining(self.dtype, name="joining")(x, encoder(label, train), train)
        return jnp.tanh(self._last(self._decode(x, train), 3))

    @property
    def widths(self) -> list[int]:
        """Returns the channels at each size, the full one first."""
        return [min(self.max_channels, width) for width in super().widths]
