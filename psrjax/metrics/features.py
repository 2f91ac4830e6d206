"""Features of 8-bit frames and clips by frozen networks, for FID, IS, FVD, VFID and LPIPS.

Weights are those of `psrjax.pretrained.registry.load`: "inception", "i3d_whole", "alexnet" with
"lpips_alex", "vgg16" with "lpips_vgg", or one of these with ":random", for a metric named `rand_`.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from psrjax.ops import geometry
from psrjax.pretrained import frozen, i3d, inception, lpips

FID_SIZE, FVD_SIZE = 299, 224
CLIP_FRAMES = 16  # of FVD and Act-Recog-L1


@jax.jit
def of_frames(
    weights: frozen.Weights, frames: UInt8[Array, "b h w 3"]
) -> dict[str, Float[Array, "b _"]]:
    """Computes "features" (b 2048) for FID and "logits" (b 1008) for IS, as pytorch-fid does.

    Bilinear to 299x299 without antialiasing, then [-1, 1].
    """
    return inception.features(weights, _scaled(frames, FID_SIZE))


@jax.jit
def of_clips(
    weights: frozen.Weights, clips: UInt8[Array, "b t h w 3"]
) -> dict[str, Float[Array, "b _"]]:
    """Computes "logits" (b 400) for FVD and Act-Recog-L1, and "features" (b 1024) for VFID.

    Each frame is resized to 224x224, whatever its shape, bilinearly and without antialiasing, and
    taken to [-1, 1], as cd-fvd does. FVD is of `CLIP_FRAMES` frames; VFID of whole clips, so
    windows that a method makes one by one are to be joined first.

    Raises:
      UserError: for fewer than 9 frames.
    """
    flat = _scaled(clips.reshape(-1, *clips.shape[2:]), FVD_SIZE)
    return i3d.classify(weights, flat.reshape(*clips.shape[:2], *flat.shape[1:]))


@functools.partial(jax.jit, static_argnames="net")
def lpips_distance(
    backbone: frozen.Weights,
    heads: frozen.Weights,
    video: UInt8[Array, "b h w 3"],
    truth: UInt8[Array, "b h w 3"],
    *,
    net: str = "alex",
) -> Float[Array, " b"]:
    """Computes LPIPS of each frame at its own resolution: `lpips.distance` of 8-bit frames."""
    frames = (x.astype(jnp.float32) / 255.0 for x in (video, truth))
    return lpips.distance(backbone, heads, *frames, net=net)


def _scaled(frames: Array, size: int) -> Array:
    unit = frames.astype(jnp.float32) / 255.0
    return 2.0 * geometry.resize(unit, height=size, width=size, antialias=False) - 1.0
