"""MS-SSIM and sharpness differences of frames in [0, 1], one score a frame."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from psrjax.errors import UserError
from psrjax.metrics import image

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def ms_ssim(
    video: image.Frames, truth: image.Frames, *, weights: Sequence[float] = MS_SSIM_WEIGHTS
) -> image.Scores:
    """Computes multi-scale SSIM (Wang, Simoncelli, Bovik 2003), as pytorch-msssim computes it.

    The product of powers of the contrast terms of all scales but the last and of the last scale's
    SSIM, each clipped at 0, of each channel by itself, then the mean. Between scales 2x2 means;
    an odd side gets a row of zeros on both ends first, as the reference does. Within 1e-5 of it.

    Args:
      video: the made frames.
      truth: the true ones.
      weights: the powers, finest scale first; their number is the number of scales.

    Raises:
      UserError: if the coarsest scale is smaller than the window of 11 pixels.
    """
    factor = 2 ** (len(weights) - 1)
    needed = (image.GAUSSIAN_SIZE - 1) * factor
    if min(video.shape[-3:-1]) <= needed:
        raise UserError(
            f"MS-SSIM of {len(weights)} scales needs frames of more than {needed} pixels a side, "
            f"these are {video.shape[-3]}x{video.shape[-2]}: use larger frames or ssim"
        )
    score = jnp.ones(())
    for scale, power in enumerate(weights):
        light, shape = image.ssim_parts(video, truth, image.gaussian_window())
        last = scale == len(weights) - 1
        term = (light * shape if last else shape).mean((-3, -2))
        score = score * jnp.maximum(term, 0.0) ** power
        if not last:
            video, truth = _halved(video), _halved(truth)
    return score.mean(-1)


def sd_lua(video: image.Frames, truth: image.Frames) -> image.Scores:
    """Computes the sharpness difference in dB as the script of Mathieu et al. 2016, on [0, 1].

    10 log10(255² / max(E, 1e-4)), E = 128² / (c h w) sum | |dx x| - |dx y| | + | |dy x| - |dy y| |
    over all pixels but a border of 1, dx and dy differences to the pixel before. HPT's values
    (about 21) are of this kind.
    """
    height, width, channels = video.shape[-3:]
    both = jnp.stack([video, truth])  # rounded alike: equal frames have no difference at all
    apart = 0.0
    for axis in (-3, -2):
        slopes = jnp.abs(jnp.diff(both, axis=axis))
        rows = slice(0, height - 2) if axis == -3 else slice(1, height - 1)
        columns = slice(0, width - 2) if axis == -2 else slice(1, width - 1)
        gap = jnp.abs(slopes[0] - slopes[1])[..., rows, columns, :]
        apart = apart + gap.sum((-3, -2, -1))
    error = 128.0**2 / (channels * height * width) * apart
    return 10.0 * jnp.log10(255.0**2 / jnp.maximum(error, 1e-4))


def sd_eq(video: image.Frames, truth: image.Frames) -> image.Scores:
    """Computes the sharpness difference in dB as Mathieu et al. 2016 print it (Eq. 15), to 100.

    10 log10(1 / mean |(|dx y| + |dy y|) - (|dx x| + |dy x|)|), differences to the pixel before, of
    the pixels that have both.
    """
    made, true = _steepness(jnp.stack([video, truth]))  # rounded alike, as in `sd_lua`
    error = jnp.abs(true - made).mean((-3, -2, -1))
    return -10.0 * jnp.log10(jnp.maximum(error, 10.0 ** (-image.PSNR_CAP / 10.0)))


def _steepness(frames: image.Frames) -> Float[Array, "*n y x c"]:
    down = jnp.abs(jnp.diff(frames, axis=-3))[..., :, 1:, :]
    across = jnp.abs(jnp.diff(frames, axis=-2))[..., 1:, :, :]
    return down + across


def _halved(frames: image.Frames) -> Float[Array, "*n y x c"]:
    """Takes 2x2 means; odd sides are padded with a zero on both ends."""
    height, width, channels = frames.shape[-3:]
    margin = [(size % 2, size % 2) for size in (height, width)]
    padded = jnp.pad(frames, [(0, 0)] * (frames.ndim - 3) + [*margin, (0, 0)])
    rows, columns = np.array(padded.shape[-3:-1]) // 2
    cut = padded[..., : 2 * rows, : 2 * columns, :]
    return cut.reshape(*frames.shape[:-3], rows, 2, columns, 2, channels).mean((-4, -2))
