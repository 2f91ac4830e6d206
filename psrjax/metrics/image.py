"""PSNR and SSIM of single frames, of the whole frame and of the person alone.

Frames are floats in [0, 1] (data range 1) made from the saved 8-bit frames; scores are per frame.
The windows of SSIM are separable and symmetric: a window mean is two sums of shifted copies, and
its gradient is the same mean of the padded cotangent. On a CPU that is twice as fast as products
with band matrices and ten times as fast as a depthwise convolution, and it loses nothing to the
short products of matrix units, which variances cannot afford.
"""

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from psrjax.errors import UserError

PSNR_CAP = 100.0  # dB, of identical frames, whose PSNR is infinite
GAUSSIAN_SIZE = 11
GAUSSIAN_SIGMA = 1.5
UNIFORM_SIZE = 7

_C1 = 0.01**2
_C2 = 0.03**2

Frames = Float[Array, "*n h w c"]
Masks = Float[Array, "*n h w 1"]
Scores = Float[Array, "*n"]


def psnr(video: Frames, truth: Frames) -> Scores:
    """Computes the peak signal-to-noise ratio in dB over all pixels and channels, at most 100.

    10 log10(1 / MSE) of each frame; a mean is one of decibels, not that of the mean error. Equal to
    scikit-image's `peak_signal_noise_ratio` and torchmetrics' within 1e-4 dB.
    """
    return _decibel(jnp.mean(jnp.square(video - truth), axis=(-3, -2, -1)))


def ssim(video: Frames, truth: Frames) -> Scores:
    """Computes the canonical SSIM (Wang et al. 2004): Gaussian window of 11 pixels, sigma 1.5.

    Population covariance, windows wholly inside the frame, each channel by itself, then the mean.
    Equal to scikit-image's with `gaussian_weights`, sigma 1.5 and no sample covariance, and to
    pytorch-msssim's, within 1e-5; torchmetrics also scores windows that reflect the border.

    Raises:
      UserError: if a side is shorter than the window.
    """
    return _ssim_map(video, truth, gaussian_window(), sample=False).mean((-3, -2, -1))


def ssim_uniform7(video: Frames, truth: Frames) -> Scores:
    """Computes SSIM with a uniform 7x7 window and sample covariance: scikit-image's, within 1e-5.

    Most scores of pose transfer printed before 2021 are of this kind. Raises UserError as `ssim`.
    """
    return _ssim_map(video, truth, _uniform(), sample=True).mean((-3, -2, -1))


def m_ssim_zero(video: Frames, truth: Frames, mask: Masks) -> Scores:
    """Computes `ssim_uniform7` of the whole frames after both were multiplied by the mask.

    M-SSIM of PSR-Net's tables, by the script of PG2 (Ma et al. 2017, `score_mask.py`). The equal
    black surroundings count as perfect, so small people score high. NaN without a person.
    """
    score = ssim_uniform7(*_blackened(video, truth, mask))
    return _without_empty(score, mask)


def m_psnr_zero(video: Frames, truth: Frames, mask: Masks) -> Scores:
    """Computes `psnr` over the whole frame after both were multiplied by the mask.

    M-PSNR of PSR-Net's tables, by the script of PG2; above `m_psnr_in` by -10 log10 of the person's
    share of the frame. NaN without a person.
    """
    return _without_empty(psnr(*_blackened(video, truth, mask)), mask)


def m_ssim_in(video: Frames, truth: Frames, mask: Masks) -> Scores:
    """Computes the mean of the canonical SSIM map over the windows centred on the person.

    NaN without a person in the part of the frame where windows fit.
    """
    scores = _ssim_map(video, truth, gaussian_window(), sample=False).mean(-1)
    margin = GAUSSIAN_SIZE // 2
    inside = mask[..., margin:-margin, margin:-margin, 0]
    area = inside.sum((-2, -1))
    score = (scores * inside).sum((-2, -1)) / jnp.maximum(area, 1e-6)
    return jnp.where(area > 0, score, jnp.nan)


def m_psnr_in(video: Frames, truth: Frames, mask: Masks) -> Scores:
    """Computes PSNR of the mean squared error over the person's pixels. NaN without a person."""
    error = jnp.square(video - truth).mean(-1) * mask[..., 0]
    area = mask.sum((-3, -2, -1))
    score = _decibel(error.sum((-2, -1)) / jnp.maximum(area, 1e-6))
    return jnp.where(area > 0, score, jnp.nan)


@jax.jit
def frame_scores(
    video: UInt8[Array, "*n h w c"], truth: UInt8[Array, "*n h w c"], mask: UInt8[Array, "*n h w 1"]
) -> Mapping[str, Scores]:
    """Computes the metrics of `registry.BASIC` of 8-bit frames, by name.

    A mask pixel of at least half is the person: the masked metrics are of a set of pixels. They are
    NaN in a frame without a person, which is to be left out of means, and counted.
    """
    video, truth = video.astype(jnp.float32) / 255.0, truth.astype(jnp.float32) / 255.0
    person = (mask >= 128).astype(jnp.float32)
    return {
        "ssim": ssim(video, truth),
        "ssim_uniform7": ssim_uniform7(video, truth),
        "psnr": psnr(video, truth),
        "m_ssim_zero": m_ssim_zero(video, truth, person),
        "m_psnr_zero": m_psnr_zero(video, truth, person),
        "m_ssim_in": m_ssim_in(video, truth, person),
        "m_psnr_in": m_psnr_in(video, truth, person),
    }


def _decibel(error: Scores) -> Scores:
    smallest = 10.0 ** (-PSNR_CAP / 10.0)
    return -10.0 * jnp.log10(jnp.maximum(error, smallest))


def _blackened(video: Frames, truth: Frames, mask: Masks) -> tuple[Frames, Frames]:
    """Multiplies both frames by the mask, cut to 8 bits as the scripts of PG2 do."""
    made, true = (jnp.floor(frames * mask * 255.0 + 1e-3) / 255.0 for frames in (video, truth))
    return made, true


def _without_empty(score: Scores, mask: Masks) -> Scores:
    return jnp.where(mask.sum((-3, -2, -1)) > 0, score, jnp.nan)


def _ssim_map(
    video: Frames, truth: Frames, window: tuple, *, sample: bool
) -> Float[Array, "*n y x c"]:
    """Computes SSIM wherever the window fits; `sample` divides covariances by n - 1."""
    light, shape = ssim_parts(video, truth, window, sample=sample)
    return light * shape


def ssim_parts(
    video: Frames, truth: Frames, window: tuple, *, sample: bool = False
) -> tuple[Float[Array, "*n y x c"], Float[Array, "*n y x c"]]:
    """Computes the factors of SSIM wherever the window fits: luminance; contrast with structure.

    Arguments and errors as `ssim`; `sample` divides covariances by n - 1.
    """
    size = len(window)
    if min(video.shape[-3:-1]) < size:
        raise UserError(
            f"SSIM with a window of {size} pixels needs frames of at least {size}x{size}, these "
            f"are {video.shape[-3]}x{video.shape[-2]}"
        )
    scale = size**2 / (size**2 - 1) if sample else 1.0
    # In p = x + y and m = x - y four window means do, not five: 4 cov(x, y) = var p - var m and
    # 2 (var x + var y) = var p + var m. p is taken about 1, so float32 keeps small variances.
    total, change = video + truth - 1.0, video - truth
    means: Any = _window_mean(jnp.stack([total, change, total * total, change * change]), window)
    total, change, total_square, change_square = means
    total_variance = scale * (total_square - total * total)
    change_variance = scale * (change_square - change * change)
    total = total + 1.0
    light = (total * total - change * change) / 2 + _C1
    light = light / ((total * total + change * change) / 2 + _C1)
    shape = (total_variance - change_variance) / 2 + _C2
    return light, shape / ((total_variance + change_variance) / 2 + _C2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _window_mean(maps: Float[Array, "*n h w c"], window: tuple) -> Float[Array, "*n y x c"]:
    """Computes the separable mean under a symmetric window of odd size, wherever it fits."""
    height, width, channels = maps.shape[-3:]
    rows = _slide(maps.reshape(-1, height, width * channels), window, axis=1, stride=1)
    means = _slide(rows, window, axis=2, stride=channels)
    margin = len(window) - 1
    return means.reshape(*maps.shape[:-3], height - margin, width - margin, channels)


def _window_mean_forward(maps: jax.Array, window: tuple) -> tuple[jax.Array, None]:
    return _window_mean(maps, window), None


def _window_mean_backward(window: tuple, _: None, cotangent: jax.Array) -> tuple[jax.Array]:
    """The adjoint: the same mean of the zero-padded cotangent, as the window is symmetric."""
    margin = [(len(window) - 1, len(window) - 1)]
    padded = jnp.pad(cotangent, [(0, 0)] * (cotangent.ndim - 3) + margin * 2 + [(0, 0)])
    return (_window_mean(padded, window),)


_window_mean.defvjp(_window_mean_forward, _window_mean_backward)


def _slide(maps: jax.Array, window: tuple, *, axis: int, stride: int) -> jax.Array:
    """Sums weighted shifted copies; the two copies of one weight are added first."""
    last = len(window) - 1
    length = maps.shape[axis] - last * stride

    def shifted(offset: int) -> jax.Array:
        return jax.lax.slice_in_dim(maps, offset * stride, offset * stride + length, axis=axis)

    total = window[last // 2] * shifted(last // 2)
    for offset in range(last // 2):
        total = total + window[offset] * (shifted(offset) + shifted(last - offset))
    return total


def gaussian_window() -> tuple[float, ...]:
    """Returns the weights of one axis of the canonical window; they sum to 1."""
    places = np.arange(GAUSSIAN_SIZE) - GAUSSIAN_SIZE // 2
    weights = np.exp(-(places**2) / (2 * GAUSSIAN_SIGMA**2))
    return tuple((weights / weights.sum()).tolist())


def _uniform() -> tuple[float, ...]:
    return (1 / UNIFORM_SIZE,) * UNIFORM_SIZE
