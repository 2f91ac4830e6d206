"""The head's square in a frame: where the joints put it, cutting it out, adding to it in place."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from psrjax.ops import geometry, pose

_NOSE, _RIGHT_EAR, _LEFT_EAR = (pose.NAMES.index(n) for n in ("nose", "right ear", "left ear"))


def locate(
    joints: Float[Array, "b 26 3"], *, height: int, width: int, size: int
) -> tuple[Int[Array, "b 2"], Bool[Array, " b"]]:
    """Returns top and left of a square of `size` pixels around the head, and whether there is one.

    Its centre is the nose, else the middle of both ears, else the ear that is seen (Chan et al.'s
    rule, which Wang et al. build on); the square is moved to lie inside the frame. Without any of
    the three it is the frame's centre.
    """
    there = joints[..., 2] > 0
    ears, both = joints[:, (_RIGHT_EAR, _LEFT_EAR), :2], there[:, (_RIGHT_EAR, _LEFT_EAR)]
    count = both.sum(-1, keepdims=True)
    middle = jnp.where(both[..., None], ears, 0.0).sum(1) / jnp.maximum(count, 1)
    centre = jnp.where(there[:, _NOSE, None], joints[:, _NOSE, :2], middle)
    present = there[:, _NOSE] | both.any(-1)
    centre = jnp.where(present[:, None], centre, 0.0)
    pixels = geometry.unit_to_pixels(centre, height=height, width=width)
    corner = jnp.round(pixels - (size - 1) / 2.0)[:, ::-1]
    limits = np.asarray((height - size, width - size), np.float32)
    return jnp.clip(corner, 0.0, limits).astype(jnp.int32), present


def crop(
    image: Float[Array, "b h w c"], corner: Int[Array, "b 2"], *, size: int
) -> Float[Array, "b size size c"]:
    """Cuts the squares out."""

    def cut(image: Array, corner: Array) -> Array:
        return jax.lax.dynamic_slice(image, (*corner, 0), (size, size, image.shape[-1]))

    return jax.vmap(cut)(image, corner)


def paste(
    image: Float[Array, "b h w c"], corner: Int[Array, "b 2"], patch: Float[Array, "b y x c"]
) -> Float[Array, "b h w c"]:
    """Puts the squares back; pixels outside them stay as they are, bit by bit."""

    def put(image: Array, corner: Array, patch: Array) -> Array:
        return jax.lax.dynamic_update_slice(image, patch, (*corner, 0))

    return jax.vmap(put)(image, corner, patch)


def fading(size: int, *, rim: float = 0.25) -> Float[np.ndarray, "size size 1"]:
    """Returns weights of 1 inside, falling smoothly to 0 at the square's edge.

    Args:
      size: side of the square, pixels.
      rim: the fraction of the side, on each of its ends, over which it falls.
    """
    inwards = np.minimum(np.arange(size), np.arange(size)[::-1]) / max(rim * size, 1.0)
    rise = 0.5 - 0.5 * np.cos(np.pi * np.minimum(inwards, 1.0))
    return np.outer(rise, rise).astype(np.float32)[..., None]
