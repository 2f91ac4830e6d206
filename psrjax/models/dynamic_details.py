"""D2G-Net's learned pictures: hybrid texture, background, and the net of dynamic details."""

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

    It begins gray, with 0 in the learned channels; the method fills in the colours
    (`Method.warm_start`).

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
        """Eq. 1: the sum over parts of probability times texture at the coordinates.

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
    """One picture that stands behind the person in every frame (D2G-Net, Sec. 3.3)."""

    @nn.compact
    def __call__(self, height: int, width: int) -> Float[Array, "1 h w 3"]:
        """The picture, [-1, 1] at first.

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


class _PoseEncoder(nn.Module):
    """The pose label at the size at which it joins the texture: 7x7, then num_downsamples."""

    width: int
    num_downsamples: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, label: Float[Array, "b h w c"], train: bool) -> Float[Array, "b y x d"]:
        compute = {"dtype": self.dtype}
        x = global_generator.entered(label, train, self.width, **compute)
        for i in range(self.num_downsamples):
            x = global_generator.halved(x, train, i, self.width * 2 ** (i + 1), **compute)
        return x


class _Joining(nn.Module):
    """A 3x3 layer over two maps, with as many channels as the first has."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array, other: Array, train: bool) -> Array:
        options = {"dtype": self.dtype, "init": layers.normal_small}
        both = jnp.concatenate([x, other], -1)
        y = layers.Conv(x.shape[-1], (3, 3), padding=1, name="conv", **options)(both)
        return nn.relu(layers.make_norm("instance_fixed", dtype=self.dtype, name="norm")(y, train))


class DynamicDetails(nn.Module):
    """D2G (Eq. 2, Fig. 3): from the texture on the screen, under the pose, to the person's picture.

    pix2pixHD's generator. At which level the pose joins is not in the paper's text ("the
    intermediate level"): here at 1/8 of the size.

    Attributes:
      width: channels of the first layer, upsample_nearest with each halving.
      max_channels: no layer has more channels.
      num_downsamples: how often the size is halved.
      blocks: residual blocks at the smallest size.
      pose_width: channels of the pose encoder's first layer.
      pose_level: by what the size is divided where the pose joins; 0: it does not.
      zero_init_last: whether the last layer begins near 0, for a net whose result is a residual.
      dtype: compute type; the result is float32.
      remat: see `psrjax.nn.blocks.maybe_remat`.
    """

    width: int = 64
    max_channels: int = 1024
    num_downsamples: int = 4
    blocks: int = 9
    pose_width: int = 32
    pose_level: int = 8
    zero_init_last: bool = False
    dtype: DTypeLike = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(
        self, mapped: Float[Array, "b h w c"], label: Float[Array, "b h w d"], train: bool
    ) -> Float[Array, "b h w 3"]:
        """A picture in [-1, 1].

        Raises:
          UserError: if the size cannot be halved so often, or no level has `pose_level`.
        """
        global_generator.check_size(mapped.shape[1:3], self.num_downsamples)
        levels = [2**i for i in range(1, self.num_downsamples + 1)]
        if self.pose_level not in (0, *levels):
            raise UserError(
                f"config.method.pose_level={self.pose_level}: with "
                f"{self.num_downsamples} downsamples one of "
                f"{', '.join(map(str, levels))}, or 0 for none"
            )
        compute = {"dtype": self.dtype}
        widths = [
            min(self.max_channels, self.width * 2**i) for i in range(self.num_downsamples + 1)
        ]

        def join(number: int, x: Array) -> Array:
            if self.pose_level != 2 ** (number + 1):
                return x
            encoder = _PoseEncoder(self.pose_width, number + 1, name="pose", **compute)
            return _Joining(name="joining", **compute)(x, encoder(label, train), train)

        x = global_generator.passed(
            mapped, train, widths, self.blocks, remat=self.remat, join=join, **compute
        )
        init = nn.initializers.normal(1e-3) if self.zero_init_last else layers.normal_small
        return jnp.tanh(global_generator.left(x, 3, init=init, **compute))
