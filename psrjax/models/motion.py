"""Motion of a person between two images: key points with Jacobians, and their dense field.

Siarohin, Lathuilière, Tulyakov, Ricci, Sebe: "First Order Motion Model for Image Animation", whose
official layers these are. Pictures are in [0, 1]. Coordinates are those of
`psrjax.ops.local_affine`; they never leave the models but through `corners_to_unit`.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from psrjax.nn import hourglass, layers
from psrjax.ops import geometry, local_affine

NEAR = 0.02  # variance of what a key point moves at first: a std of a 14th of the image
FAR = 0.01  # its weight elsewhere, beside the background's 1


class KeypointDetector(nn.Module):
    """Key points of an image, with the local affine map at each; learned without labels.

    Attributes:
      points: how many key points.
      width: see `psrjax.nn.hourglass.Hourglass`.
      depth: likewise.
      max_channels: likewise.
      factor: the image is first made so many times smaller.
      temperature: of the softmax over positions.
      jacobians: "each" key point has a map of its Jacobian, all share "one", or "none": identity.
      padding: of the heads' 7x7 convolutions.
      norm: see `psrjax.nn.layers.make_norm`.
      dtype: compute type; key points are float32.
      remat: see `psrjax.nn.blocks.maybe_remat`.
    """

    points: int = 10
    width: int = 32
    depth: int = 5
    max_channels: int = 1024
    factor: int = 4
    temperature: float = 0.1
    jacobians: str = "each"
    padding: int = 0
    norm: str = "batch"
    dtype: DTypeLike = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(self, image: Float[Array, "b h w 3"], train: bool) -> dict[str, Array]:
        """Returns "value" (b j 2), the positions, "jacobian" (b j 2 2), "heat" (b y x j), float32.

        "heat" is the share of each position in a key point; it sums to 1.

        Raises:
          UserError: if the image's size does not fit the hourglass.
        """
        x = local_affine.downsample(image, self.factor)
        x = hourglass.Hourglass(
            self.width,
            self.depth,
            self.max_channels,
            norm=self.norm,
            dtype=self.dtype,
            remat=self.remat,
            name="hourglass",
        )(x, train)
        options = {"padding": self.padding, "dtype": self.dtype}
        logits = layers.Conv(self.points, (7, 7), name="heatmap", **options)(x)
        b, h, w, j = logits.shape
        logits = logits.astype(jnp.float32).reshape(b, h * w, j) / self.temperature
        weights = jax.nn.softmax(logits, 1).reshape(b, h, w, j)
        value = local_affine.soft_argmax(weights)
        if self.jacobians == "none":
            still = jnp.broadcast_to(jnp.eye(2), (b, j, 2, 2))
            return {"value": value, "jacobian": still, "heat": weights}
        maps = 1 if self.jacobians == "one" else j
        matrix = layers.Conv(
            4 * maps,
            (7, 7),
            init=nn.initializers.zeros,
            bias_init=_identity_bias,
            name="jacobian",
            **options,
        )(x)
        matrix = matrix.astype(jnp.float32).reshape(b, h, w, maps, 4)
        equation = "bhwj,bhwjn->bjn" if maps == j else "bhwj,bhwkn->bjn"
        mean = jnp.einsum(equation, weights, matrix, precision=jax.lax.Precision.HIGHEST)
        return {"value": value, "jacobian": mean.reshape(b, j, 2, 2), "heat": weights}


def _identity_bias(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
    del key
    return jnp.tile(jnp.eye(2, dtype=dtype).reshape(-1), shape[0] // 4)


class DenseMotion(nn.Module):
    """The source position of every pixel of a driving frame, and its confidence.

    F = sum_i w_i T_i (Yang et al., Eq. 5): the local maps of the key points, and the background's
    identity, composed by weights that are a softmax, all at a fraction of the image's size.

    Attributes:
      variance: of the Gaussians that show the key points to the network.
      locality: before anything is learned, a key point's local map weighs up to so many times as
        much as the background at its place in the driving frame, and next to nothing far from it;
        0 is the official network, where nothing says that a point moves what is near it.
        `Departs from:` the papers. There all weights begin equal, points that follow nobody yet
        tear the background, and the quickest way out is to give the background all weight for good.
      align_corners: see `geometry.grid_sample`. The network's coordinates are those of True;
        PyTorch has taken the source by False since 1.3, if it is not told.
      (the others are those of `KeypointDetector`)
    """

    width: int = 64
    depth: int = 5
    max_channels: int = 1024
    factor: int = 4
    variance: float = 0.01
    locality: float = 0.0
    align_corners: bool = True
    norm: str = "batch"
    dtype: DTypeLike = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(
        self,
        source: Float[Array, "b h w 3"],
        source_points: Mapping[str, Array],
        driving_points: Mapping[str, Array],
        train: bool,
    ) -> dict[str, Array]:
        """Returns the motion of t driving frames.

        Args:
          source: the source image, full size.
          source_points: as `KeypointDetector` gives them.
          driving_points: of t frames: (b t j 2) and (b t j 2 2).
          train: whether batch statistics are taken and kept.

        Returns:
          float32, all 1/factor of the image's size: "deformation" (b t h w 2) where each pixel
          comes from, "confidence" (b t h w 1) in (0, 1), "weights" (b t h w p), the background's
          first.
        """
        small = local_affine.downsample(source, self.factor)
        b, h, w, _ = small.shape
        t = driving_points["value"].shape[1]
        size = {"height": h, "width": w}
        motions = local_affine.local_motions(source_points, driving_points, **size)
        moved = geometry.grid_sample(small, motions, align_corners=self.align_corners)
        moved = jnp.moveaxis(moved, 2, -2)  # b t h w p 3
        at_driving = local_affine.gaussians(driving_points["value"], variance=self.variance, **size)
        at_source = local_affine.gaussians(source_points["value"], variance=self.variance, **size)
        change = at_driving - at_source[:, None]
        change = jnp.pad(change, ((0, 0),) * 4 + ((1, 0),))  # the background has none
        x = jnp.concatenate([change[..., None], moved], -1).reshape(b * t, h, w, -1)
        x = hourglass.Hourglass(
            self.width,
            self.depth,
            self.max_channels,
            norm=self.norm,
            dtype=self.dtype,
            remat=self.remat,
            name="hourglass",
        )(x.astype(self.dtype), train)
        options = {"padding": 3, "dtype": self.dtype}
        logits = layers.Conv(motions.shape[2], (7, 7), name="weights", **options)(x)
        logits = logits.astype(jnp.float32).reshape(b, t, h, w, -1)
        if self.locality:
            logits = logits + _nearness(driving_points["value"], self.locality, h, w)
        weights = jax.nn.softmax(logits, -1)
        confidence = layers.Conv(1, (7, 7), name="confidence", **options)(x)
        confidence = jax.nn.sigmoid(confidence.astype(jnp.float32)).reshape(b, t, h, w, 1)
        # No matrix product: on accelerators it would round the coordinates.
        deformation = (jnp.moveaxis(weights, -1, 2)[..., None] * motions).sum(2)
        return {"deformation": deformation, "confidence": confidence, "weights": weights}


def _nearness(
    points: Float[Array, "b t j 2"], locality: float, height: int, width: int
) -> Float[Array, "b t h w p"]:
    """Returns logits: 0 for the background, maps that fall off with distance for key points."""
    size = {"height": height, "width": width, "variance": NEAR}
    near = jnp.log(locality * local_affine.gaussians(points, **size) + FAR)
    return jnp.pad(near, ((0, 0),) * 4 + ((1, 0),))


def pyramid(base: Float[Array, "b t h w c"], *, levels: int) -> tuple[Array, ...]:
    """Resizes the base field to `levels` more, each twice as large (§3.3 of the paper).

    Corner pixels stay on corner pixels, so an identity grid is one at every scale.

    Returns:
      (b t h w c), (b t 2h 2w c), …
    """
    b, t = base.shape[:2]
    fields = [base.reshape(b * t, *base.shape[2:])]
    for _ in range(levels):
        fields.append(local_affine.upsample(fields[-1], 2))
    return tuple(field.reshape(b, t, *field.shape[1:]) for field in fields)
