"""Integration of K frames: attention over source frames, in space and over both.

Cheng, Huang, Yuan, Zhou, Liu: "Multi-Frame Content Integration with a Spatio-Temporal Attention
Mechanism for Person Video Motion Transfer", 3.2 and 3.3. The details are ours: the supplement that
has them was never published.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from psrjax.errors import UserError
from psrjax.models import posewarp
from psrjax.nn import attention, blocks, hourglass, layers
from psrjax.ops import geometry
from psrjax.ops.conv import packing

ANY_NUMBER = ("avg", "max")  # of source frames
FUSIONS = ("avg", "max", "rb6", "sa3d_rb6", "rb6_sa2d")


class Fusion(nn.Module):
    """A fusion of K feature maps to one.

    "avg" and "max" over the source frames; "rb6": residual blocks give a map of weights for each
    source frame, a softmax over these; "sa3d_rb6": first each map attends to all
    positions of all maps; "rb6_sa2d": the result attends to its own positions.

    Attention over positions is on maps `attention_stride` times smaller, and what it adds is
    resized: for 256x256 and stride 8 the scores of K frames are (1024 K) x (256 K), of which
    `chunk` rows exist at a time. Peak memory of a sample for K = 4, forward and backward, by XLA's
    count: 6.8 MiB with 512 rows, 48.5 MiB with all; the full size's dense square has 256 GiB.

    Attributes:
      kind: which of `FUSIONS`.
      blocks: residual blocks of "rb6".
      attention_stride: a power of two.
      chunk: see `psrjax.nn.attention.attend`.
      small_scores: whether fusion by "rb6" begins as almost the average.
      dtype: compute type; the weights of source frames are float32.
      remat: see `psrjax.nn.blocks.maybe_remat`.
    """

    kind: str = "rb6_sa2d"
    blocks: int = 6
    attention_stride: int = 8
    chunk: int = 512
    small_scores: bool = True
    dtype: DTypeLike = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(
        self,
        features: Float[Array, "b s k h w c"],
        source_maps: Float[Array, "b k h w j"],
        target_maps: Float[Array, "b t h w j"],
        train: bool,
    ) -> dict[str, Array]:
        """Returns "features" (b t h w c), and "weights" (b t k h w) of the source frames, float32.

        Args:
          features: of each source frame; s is t, or 1 for features that do not depend on the target
            (the background's).
          source_maps: the joints of the source frames.
          target_maps: the joints of the target frames.
          train: whether spectral norms take a power iteration.

        Raises:
          UserError: for an unknown kind, or maps that the strides do not divide.
        """
        b, s, k, h, w, c = features.shape
        t = target_maps.shape[1]
        if self.kind == "avg":
            fused = jnp.broadcast_to(features.mean(2), (b, t, h, w, c))
            return {"features": fused, "weights": jnp.full((b, t, k, h, w), 1.0 / k)}
        if self.kind == "max":
            fused = jnp.broadcast_to(features.max(2), (b, t, h, w, c))
            first = jax.nn.one_hot(features.argmax(2), k, axis=2).mean(-1)
            return {"features": fused, "weights": jnp.broadcast_to(first, (b, t, k, h, w))}
        if self.kind not in FUSIONS:
            raise UserError(
                f"config.method.fusion: no {self.kind!r}; there are {', '.join(FUSIONS)}"
            )
        if self.kind == "sa3d_rb6":
            features = self._exchange(features, source_maps, target_maps, train)
        weights = jax.nn.softmax(self._scores(features, source_maps, target_maps, train), 2)
        fused = (features * weights[..., None].astype(features.dtype)).sum(2)
        if self.kind == "rb6_sa2d":
            change = self._attend(fused.reshape(b * t, h, w, c), train)
            fused = fused + change.reshape(fused.shape)
        return {"features": fused, "weights": weights}

    def _scores(self, features: Array, source_maps: Array, target_maps: Array, train: bool):
        """Scores source frames, (b t k h w), by "rb6" on all features and joints side by side.

        A convolution of concatenated maps is the sum of convolutions of the maps, so what does not
        depend on the target is convolved once for all targets: the same function, less work.
        """
        b, s, k, h, w, c = features.shape
        t = target_maps.shape[1]
        beside = jnp.moveaxis(features, 2, -2).reshape(b * s, h, w, k * c)
        x = self._conv(beside, c, "features", use_bias=False).reshape(b, s, h, w, c)
        poses = jnp.moveaxis(source_maps, 1, -2).reshape(b, h, w, -1)
        x = x + self._conv(poses, c, "source_maps", use_bias=False)[:, None]
        flat = target_maps.reshape(b * t, h, w, -1)
        x = x + self._conv(flat, c, "target_maps").reshape(b, t, h, w, c)
        pixels = packing.pixels_in_a_tile(w, c)
        x = packing.pack(x.reshape(b * t, h, w, c), pixels)
        block = blocks.maybe_remat(hourglass.Residual, self.remat)
        for i in range(self.blocks):
            x = block("instance", self.dtype, pixels, name=f"block{i}")(x, train)
        small: dict[str, Any] = {"init": layers.xavier_small} if self.small_scores else {}
        scores = self._conv(x, k, "scores", pixels=pixels, **small).astype(jnp.float32)
        scores = packing.unpack(scores, pixels)
        return jnp.moveaxis(scores.reshape(b, t, h, w, k), -1, 2)

    def _exchange(self, features: Array, source_maps: Array, target_maps: Array, train: bool):
        """Adds to each map (b t k h w c) what attention over all of them finds ("SA3D")."""
        b, s, k, h, w, c = features.shape
        t = target_maps.shape[1]
        parts = (features, source_maps[:, None], target_maps[:, :, None])
        wide = [jnp.broadcast_to(x, (b, t, k, h, w, x.shape[-1])) for x in parts]
        tokens = jnp.concatenate([x.astype(self.dtype) for x in wide], -1)
        tokens = self._conv(tokens.reshape(b * t * k, h, w, -1), c, "tokens", kernel_size=1)
        change = self._attend(tokens.reshape(b * t, k, h, w, c), train)
        return wide[0] + change.reshape(b, t, k, h, w, c).astype(features.dtype)

    def _attend(self, x: Float[Array, "b *k h w c"], train: bool) -> Array:
        """Returns what self-attention on smaller maps adds, resized to the full size."""
        *lead, h, w, c = x.shape
        if any(size % (2 * self.attention_stride) for size in (h, w)):
            raise UserError(
                f"config.method.attention_stride={self.attention_stride}: twice this must divide "
                f"the {h}x{w} of config.data.crop"
            )
        x = x.reshape(-1, h, w, c)
        for i in range(self.attention_stride.bit_length() - 1):
            x = layers.leaky_relu(self._conv(x, c, f"down{i}", stride=2))
        small = x.reshape(*lead, *x.shape[1:])
        change = attention.SelfAttention(
            self.chunk, residual=False, dtype=self.dtype, name="attention"
        )(small, train)
        return geometry.resize(change.reshape(x.shape), height=h, width=w).reshape(*lead, h, w, c)

    def _conv(
        self, x: Array, features: int, name: str, *, kernel_size: int = 3, **options: Any
    ) -> Array:
        conv = layers.Conv(
            features,
            (kernel_size, kernel_size),
            padding=kernel_size // 2,
            dtype=self.dtype,
            name=name,
            **options,
        )
        return conv(x)


class Integration(nn.Module):
    """Fusion of foregrounds, fusion of backgrounds, and the last layers.

    Attributes:
      kind: see `Fusion`, likewise the others.
    """

    kind: str = "rb6_sa2d"
    blocks: int = 6
    attention_stride: int = 8
    chunk: int = 512
    small_scores: bool = True
    dtype: DTypeLike = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(
        self,
        ahead: Float[Array, "b t k h w c"],
        behind: Float[Array, "b 1 k h w c"],
        source_maps: Float[Array, "b k h w j"],
        behind_maps: Float[Array, "b k h w j"],
        target_maps: Float[Array, "b t h w j"],
        train: bool,
    ) -> dict[str, Array]:
        """Returns the result of `posewarp.Heads`, and weights (b t k h w) of the source frames.

        Args:
          ahead: foreground features of every target pose from every source frame.
          behind: background features of every source frame, or of as many frames of other footage.
          source_maps: the joints of the source frames.
          behind_maps: the joints of the frames that `behind` is of.
          target_maps: the joints of the target frames.
          train: see `Fusion`.
        """
        fused = {}
        of_frames = {"foreground": (ahead, source_maps), "background": (behind, behind_maps)}
        for name, (features, maps) in of_frames.items():
            fuse = Fusion(
                self.kind,
                self.blocks,
                self.attention_stride,
                self.chunk,
                self.small_scores,
                self.dtype,
                self.remat,
                name=name,
            )
            fused[name] = fuse(features, maps, target_maps, train)
        heads = posewarp.Heads(self.dtype, name="heads")
        made = heads(fused["foreground"]["features"], fused["background"]["features"])
        weights = {f"{name}_weights": found["weights"] for name, found in fused.items()}
        return {**made, **weights}
