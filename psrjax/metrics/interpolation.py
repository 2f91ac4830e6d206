"""Interp-PSNR of INTERnet: PSNR of frames interpolated between the made frames beside them."""

from collections.abc import Callable

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from psrjax.errors import UserError
from psrjax.metrics import image
from psrjax.ops import geometry
from psrjax.pretrained import frozen, super_slomo

_DIS_SIDE = 16  # pixels that DIS needs at least

Frame = UInt8[np.ndarray, "h w 3"]


def interp_psnr(
    video: UInt8[np.ndarray, "t h w 3"],
    truth: UInt8[np.ndarray, "t h w 3"],
    interpolate: Callable[[Frame, Frame], Frame] | None = None,
) -> Float[np.ndarray, " s"]:
    """Computes PSNR in dB of true frame t against the one between made frames t-1 and t+1.

    Yang et al., Sec. 4.1, for t = 1..T-2. They interpolate by Super SloMo, `learned_halfway` (name
    `interp_psnr[slomo]`). `Departs from:` them, the default is `halfway` (`interp_psnr[dis]`),
    which needs no weights: compare it within psrjax only.

    Args:
      video: made frames.
      truth: true frames.
      interpolate: (before, after) -> the frame between; None is `halfway`.

    Raises:
      UserError: for fewer than three frames, or unequal shapes.
    """
    if video.shape != truth.shape or len(video) < 3:
        raise UserError(
            f"Interp-PSNR needs two videos of one shape and at least 3 frames, these have shapes "
            f"{video.shape} and {truth.shape}"
        )
    between = interpolate or halfway
    made = np.stack([between(*pair) for pair in zip(video[:-2], video[2:])])
    frames = (jnp.asarray(f, jnp.float32) / 255.0 for f in (made, truth[1:-1]))
    return np.asarray(jax.jit(image.psnr)(*frames))


def halfway(before: Frame, after: Frame) -> Frame:
    """Interpolates the frame halfway: the mean of both, each warped half way along DIS flow.

    The motion is taken to be straight and, at a pixel of the middle frame, that of the same pixel
    of either neighbour. DIS (Kroeger et al. 2016) is OpenCV's.
    """
    forward, backward = dis_flow(before, after), dis_flow(after, before)
    # What the middle shows was half a step back in `before`: half of the flow from after to before.
    pictures = jnp.asarray(np.stack([before, after]), jnp.float32)
    mean = _blended(pictures, jnp.asarray(np.stack([backward, forward]) / 2.0))
    return np.asarray(mean).round().clip(0, 255).astype(np.uint8)


def learned_halfway(weights: frozen.Weights, before: Frame, after: Frame) -> Frame:
    """Interpolates the frame halfway by Super SloMo; see `psrjax.pretrained.super_slomo`."""
    pair = (jnp.asarray(frame, jnp.float32)[None] / 255.0 for frame in (before, after))
    made = np.asarray(_learned(weights, *pair)[0])
    return (made * 255.0).round().clip(0, 255).astype(np.uint8)


_learned = jax.jit(super_slomo.halfway)


def dis_flow(first: Frame, second: Frame) -> Float[np.ndarray, "h w 2"]:
    """Computes where each pixel of `first` is in `second`, relative to itself: DIS, medium preset.

    Raises:
      UserError: for frames of less than 16 pixels a side.
    """
    if min(first.shape[:2]) < _DIS_SIDE:
        raise UserError(
            f"DIS flow needs frames of at least {_DIS_SIDE} pixels a side, these are "
            f"{first.shape[1]}x{first.shape[0]}"
        )
    engine = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    one, other = (cv2.cvtColor(x, cv2.COLOR_RGB2GRAY) for x in (first, second))
    # None is no initial flow, which OpenCV's stub does not know.
    return engine.calc(one, other, None)  # pyright: ignore[reportCallIssue, reportArgumentType]


@jax.jit
def _blended(pictures: jax.Array, steps: jax.Array) -> jax.Array:
    return geometry.warp(pictures, steps, padding="border").mean(0)
