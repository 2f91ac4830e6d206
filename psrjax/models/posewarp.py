"""The single-frame model: a person in a new pose from one image, limb by limb.

Balakrishnan, Zhao, Dalca, Durand, Guttag: "Synthesizing Images of Humans in Unseen Poses", with the
layers of its official code, on which Cheng et al. (MFCI) build. Pictures are in [-1, 1]. What
depends on the source alone is computed apart from what depends on the target pose.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from psrjax.nn import layers, resampling
from psrjax.ops import limb

_GLOROT = nn.initializers.glorot_uniform()


class _Conv(nn.Module):
    """A convolution with Keras' "same" padding: with stride 2 on even sizes only behind."""

    features: int
    kernel_size: int = 3
    stride: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        around = self.kernel_size // 2
        if self.stride == 2:
            x = jnp.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
            around = 0
        return layers.Conv(
            self.features,
            (self.kernel_size, self.kernel_size),
            stride=self.stride,
            padding=around,
            dtype=self.dtype,
            init=_GLOROT,
            name="conv",
        )(x)


def double_size(x: Float[Array, "b h w c"]) -> Float[Array, "b h2 w2 c"]:
    """Doubles the size: out[2i] = in[i], out[2i+1] the mean of its neighbours, reflected at ends.

    The official code's upsampling, which is not the usual one between pixel edges.
    """
    for axis in (1, 2):
        last = jax.lax.slice_in_dim(x, x.shape[axis] - 2, x.shape[axis] - 1, axis=axis)
        last = last if x.shape[axis] > 1 else x
        after = jax.lax.slice_in_dim(x, 1, x.shape[axis], axis=axis)
        between = (x + jnp.concatenate([after, last], axis)) / 2
        shape = list(x.shape)
        shape[axis] *= 2
        x = jnp.stack([x, between], axis + 1).reshape(shape)
    return x


class PoseUNet(nn.Module):
    """A U-Net into which joint maps enter at half the size.

    Attributes:
      width: channels of the first two layers; the others have twice as many.
      features: channels of the last layer.
      num_downsamples: how often the size is halved.
      dtype: compute type.
    """

    width: int = 64
    features: int = 64
    num_downsamples: int = 5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], maps: Float[Array, "b h2 w2 j"]
    ) -> Float[Array, "b h w f"]:
        """Returns the features of the last layer, behind its leaky ReLU.

        Raises:
          UserError: if the size cannot be halved so often.
        """
        resampling.check_downsamples(x, self.num_downsamples, "num_downsamples")
        wide = 2 * self.width
        x = self._layer(x, "encode0", self.width, kernel_size=7)
        skips = [x]
        x = self._layer(x, "down0", self.width, stride=2)
        x = jnp.concatenate([x, maps.astype(x.dtype)], -1)
        for i in range(1, self.num_downsamples):
            x = self._layer(x, f"encode{i}", wide)
            skips.append(x)
            x = self._layer(x, f"down{i}", wide, stride=2)
        x = self._layer(x, f"encode{self.num_downsamples}", wide)
        for i in reversed(range(self.num_downsamples)):
            x = jnp.concatenate([double_size(x), skips[i]], -1)
            x = self._layer(x, f"decode{i}", wide if i else self.features)
        return x

    def _layer(self, x: Array, name: str, features: int, **window: Any) -> Array:
        conv = _Conv(features, dtype=self.dtype, name=name, **window)
        return layers.leaky_relu(conv(x))


class PoseWarp(nn.Module):
    """Segmentation, background and foreground branches, and the heads that compose them.

    Attributes:
      width: channels of the branches' features, C of Cheng et al.
      num_downsamples: of every U-Net.
      dtype: compute type; images and masks are float32.
    """

    width: int = 64
    num_downsamples: int = 5
    dtype: DTypeLike = jnp.float32

    def setup(self):
        """Builds the three U-Nets and their heads."""
        half = max(self.width // 2, 1)
        for name, features in (
            ("segmentation", half),
            ("background", self.width),
            ("foreground", self.width),
        ):
            setattr(self, name, PoseUNet(self.width, features, self.num_downsamples, self.dtype))
        self.parts = _Conv(limb.PARTS, dtype=self.dtype)
        self.heads = Heads(self.dtype)

    def encode(
        self, source: Float[Array, "b k h w 3"], joints: Float[Array, "b k 26 3"]
    ) -> dict[str, Array]:
        """Computes what depends on the source frames alone.

        Returns:
          "parts" (b k h w 11), the soft segmentation; "limbs" (b k 10 h w 3), the limbs cut out;
          "still" (b k h w 3), the background cut out; "features" (b k h w c), F_bg.
        """
        b, k, h, w, _ = source.shape
        flat, joints = source.reshape(b * k, h, w, 3), joints.reshape(b * k, *joints.shape[2:])
        maps = limb.joint_maps(joints, height=h // 2, width=w // 2)
        logits = self.parts(self.segmentation(flat, maps)).astype(jnp.float32)
        parts = jax.nn.softmax(logits + limb.limb_prior(joints, height=h, width=w), -1)
        still = flat * parts[..., :1]
        features = self.background(jnp.concatenate([still, parts[..., :1]], -1), maps)
        limbs = flat[:, None] * jnp.moveaxis(parts[..., 1:], -1, 1)[..., None]
        found = {"parts": parts, "limbs": limbs, "still": still, "features": features}
        return {name: value.reshape(b, k, *value.shape[1:]) for name, value in found.items()}

    def foreground_features(
        self,
        encoded: dict[str, Array],
        joints: Float[Array, "b k 26 3"],
        target_joints: Float[Array, "b t 26 3"],
    ) -> Float[Array, "b t k h w c"]:
        """Returns F_fg of every target pose from every source frame.

        Args:
          encoded: what `encode` gave.
          joints: of the source frames.
          target_joints: the poses to take.
        """
        limbs = encoded["limbs"].astype(self.dtype)
        b, k, p, h, w, _ = limbs.shape
        t = target_joints.shape[1]
        pairs = jnp.broadcast_arrays(joints[:, :, None], target_joints[:, None])
        moved = limb.limb_transforms(*pairs, height=h, width=w)
        matrix = moved["matrix"].reshape(b * k, t, p, 2, 3)
        stack = limb.warp_limbs(limbs.reshape(b * k, p, h, w, 3), matrix)
        seen = jnp.repeat(moved["present"].reshape(b * k, t, p), 3, -1)
        stack = (stack * seen[:, :, None, None]).reshape(b, k, t, h, w, 3 * p)
        maps = limb.joint_maps(target_joints, height=h // 2, width=w // 2)
        maps = jnp.broadcast_to(maps[:, :, None], (b, t, k, *maps.shape[2:]))
        stack = stack.swapaxes(1, 2).reshape(b * t * k, h, w, 3 * p)
        features = self.foreground(stack, maps.reshape(b * t * k, *maps.shape[3:]))
        return features.reshape(b, t, k, *features.shape[1:])

    def __call__(
        self,
        source: Float[Array, "b h w 3"],
        joints: Float[Array, "b 26 3"],
        target_joints: Float[Array, "b t 26 3"],
    ) -> dict[str, Array]:
        """Returns images of t poses from one source frame, see `Heads`, and "parts" (b h w 11)."""
        encoded = self.encode(source[:, None], joints[:, None])
        ahead = self.foreground_features(encoded, joints[:, None], target_joints)[:, :, 0]
        behind = jnp.broadcast_to(encoded["features"], ahead.shape)
        return {**self.heads(ahead, behind), "parts": encoded["parts"][:, 0]}


class Heads(nn.Module):
    """The last layers: a foreground with its mask, a background, and their composition.

    `Departs from:` Cheng et al. (3.2), who put tanh on the mask too: a matte is in [0, 1], so it is
    a sigmoid, as in the single-frame model.

    Attributes:
      dtype: compute type; the results are float32.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, ahead: Float[Array, "b t h w c"], behind: Float[Array, "b t h w c"]
    ) -> dict[str, Array]:
        """Returns "video" (b t h w 3), "mask" (b t h w 1), "foreground" and "background".

        O = O_fg M + O_bg (1 - M) (Cheng et al., 3.4).
        """
        shape = ahead.shape[:-1]
        ahead, behind = (x.reshape(-1, *x.shape[2:]) for x in (ahead, behind))
        foreground = jnp.tanh(self._conv(ahead, 3, "foreground"))
        mask = jax.nn.sigmoid(self._conv(ahead, 1, "mask"))
        background = jnp.tanh(self._conv(behind, 3, "background"))
        made = {
            "video": foreground * mask + background * (1.0 - mask),
            "mask": mask,
            "foreground": foreground,
            "background": background,
        }
        return {name: value.reshape(*shape, -1) for name, value in made.items()}

    def _conv(self, x: Array, features: int, name: str) -> Array:
        return _Conv(features, dtype=self.dtype, name=name)(x).astype(jnp.float32)


class PairDiscriminator(nn.Module):
    """The official discriminator of one image with its two poses: a single logit.

    Attributes:
      width: channels of its first layer.
      num_downsamples: how often the size is halved.
      dtype: compute type; logits are float32.
    """

    width: int = 64
    num_downsamples: int = 5
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w 3"], maps: Float[Array, "b h2 w2 j"]
    ) -> Float[Array, "b 1"]:
        """Returns logits; `maps` are the joint maps of source and target at half the size."""
        x = resampling.max_pool(self._layer(image, "layer0", self.width, 5))
        x = resampling.max_pool(
            self._layer(jnp.concatenate([x, maps], -1), "layer1", 2 * self.width, 5)
        )
        for i in range(2, self.num_downsamples):
            x = resampling.max_pool(self._layer(x, f"layer{i}", 4 * self.width, 3))
        x = self._layer(x, "last", 4 * self.width, 3)
        x = x.reshape(len(x), -1)
        for i in range(2):
            dense = nn.Dense(4 * self.width, dtype=self.dtype, name=f"dense{i}")
            x = layers.leaky_relu(dense(x))
        return nn.Dense(1, dtype=self.dtype, name="logit")(x).astype(jnp.float32)

    def _layer(self, x: Array, name: str, features: int, kernel_size: int) -> Array:
        conv = _Conv(features, kernel_size, dtype=self.dtype, name=name)
        return layers.leaky_relu(conv(x))
