"""INTERnet's generator: the source's features, warped by a motion field at one scale or at all.

Images are in [0, 1]; fields as in `psrjax.models.motion`.
"""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from psrjax.errors import UserError
from psrjax.models import motion
from psrjax.nn import blocks, hourglass, layers
from psrjax.ops import geometry

GENERATORS = ("ms", "ss4x")


class MotionGenerator(nn.Module):
    """INTERnet's generator: encodes the source once, generates any number of driving frames.

    "ss4x" warps the features of the smallest scale only, and is the first-order model's generator;
    "ms" also joins warped features of every other scale to the decoder (deformable skips).

    Attributes:
      generator_kind: "ms" or "ss4x".
      width: channels of the finest scale; they double with each downsample.
      levels: downsamples by 2.
      max_channels: no layer has more channels.
      blocks: residual blocks at the smallest scale.
      align_corners: as of `motion.DenseMotion`.
      norm: see `psrjax.nn.layers.make_norm`.
      dtype: compute type.
      remat: see `psrjax.nn.blocks.maybe_remat`.
    """

    generator_kind: str = "ms"
    width: int = 64
    levels: int = 2
    max_channels: int = 512
    blocks: int = 9
    align_corners: bool = True
    norm: str = "batch"
    dtype: DTypeLike = jnp.float32
    remat: str = "none"

    def setup(self):
        """Names every layer after its place."""
        if self.generator_kind not in GENERATORS:
            raise UserError(
                f"config.method.generator_kind: no {self.generator_kind!r}; "
                f"there are {', '.join(GENERATORS)}"
            )
        options = {"norm": self.norm, "dtype": self.dtype}
        unit = blocks.maybe_remat(hourglass.Unit, self.remat)
        residual = blocks.maybe_remat(hourglass.Residual, self.remat)
        self.first = unit(self.width, 7, **options)
        for i in range(self.levels):
            setattr(self, f"down{i}", unit(self._width(i + 1), resample="down", **options))
            width = self._width(self.levels - 1 - i)
            setattr(self, f"up{i}", unit(width, resample="up", **options))
            if self.generator_kind == "ms":
                setattr(self, f"fuse{i}", unit(width, **options))
                setattr(self, f"refine{i}", residual(**options))
        for i in range(self.blocks):
            setattr(self, f"block{i}", residual(**options))
        self.final = layers.Conv(3, (7, 7), padding=3, dtype=self.dtype)

    def _width(self, level: int) -> int:
        return min(self.max_channels, self.width * 2**level)

    def encode(self, source: Float[Array, "b h w 3"], train: bool) -> tuple[Array, ...]:
        """Encodes the source to features, finest first; "ss4x" keeps the smallest scale's only."""
        features = [self.first(source.astype(self.dtype), train)]
        for i in range(self.levels):
            features.append(getattr(self, f"down{i}")(features[-1], train))
        return tuple(features if self.generator_kind == "ms" else features[-1:])

    def decode(
        self,
        features: Sequence[Array],
        deformation: Float[Array, "b t y x 2"],
        confidence: Float[Array, "b t y x 1"],
        train: bool,
    ) -> Float[Array, "b t h w 3"]:
        """Generates t frames from encoded features: Eq. 6 at every scale that the generator warps.

        Raises:
          UserError: if the motion is not of the size of the smallest features.
        """
        if features[-1].shape[1:3] != deformation.shape[2:4]:
            raise UserError(
                f"the motion field is {deformation.shape[2]}x{deformation.shape[3]}, the smallest "
                f"features {features[-1].shape[1]}x{features[-1].shape[2]}: set "
                "config.method.factor to 2 to the power of config.method.levels"
            )
        b, t = deformation.shape[:2]
        levels = len(features) - 1
        fields = motion.pyramid(deformation, levels=levels)
        gates = motion.pyramid(confidence, levels=levels)
        sample = functools.partial(geometry.grid_sample, align_corners=self.align_corners)
        warped = [
            gate.astype(self.dtype) * sample(feature, field)
            for feature, field, gate in zip(reversed(features), fields, gates, strict=True)
        ]
        warped = [x.reshape(b * t, *x.shape[2:]) for x in warped]
        x = warped[0]
        for i in range(self.blocks):
            x = getattr(self, f"block{i}")(x, train)
        for i in range(self.levels):
            x = getattr(self, f"up{i}")(x, train)
            if self.generator_kind == "ms":
                x = getattr(self, f"fuse{i}")(jnp.concatenate([x, warped[i + 1]], -1), train)
                x = getattr(self, f"refine{i}")(x, train)
        image = jax.nn.sigmoid(self.final(x).astype(jnp.float32))
        return image.reshape(b, t, *image.shape[1:])

    def __call__(
        self,
        source: Float[Array, "b h w 3"],
        deformation: Float[Array, "b t y x 2"],
        confidence: Float[Array, "b t y x 1"],
        train: bool,
    ) -> Float[Array, "b t h w 3"]:
        """Decodes what `encode` gives."""
        return self.decode(self.encode(source, train), deformation, confidence, train)


def keep_source(
    generated: Float[Array, "b t h w 3"],
    source: Float[Array, "b h w 3"],
    deformation: Float[Array, "b t y x 2"],
    confidence: Float[Array, "b t y x 1"],
    *,
    levels: int,
) -> Float[Array, "b t h w 3"]:
    """Returns M S' + (1 - M) P: the warped source S' where the confidence M is high.

    `Departs from:` Yang et al., Eq. 6, which gates features only: there a generator has to learn to
    copy before any motion can show its worth. Here an untrained one copies, and only what moves has
    to be learned.

    Args:
      generated: P.
      source: the source image.
      deformation: where each pixel comes from, 2^levels times smaller than the image.
      confidence: likewise.
      levels: see above.
    """
    field = motion.pyramid(deformation, levels=levels)[-1]
    gate = motion.pyramid(confidence, levels=levels)[-1]
    return gate * geometry.grid_sample(source, field, align_corners=True) + (1.0 - gate) * generated
