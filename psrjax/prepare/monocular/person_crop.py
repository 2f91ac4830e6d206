"""Computes crop windows: one for the whole clip, or one that follows the person."""

import numpy as np
from jaxtyping import Float, Int
from scipy.ndimage import gaussian_filter1d

from psrjax.data import codec
from psrjax.errors import UserError
from psrjax.ops import pose

SMOOTH_SECONDS = 0.4  # standard deviation of the smoothing of a window's path
BEYOND_JOINTS = 0.06  # of the person's height: reach of head, hands and feet beyond joints
OUTLIERS = 2.0  # percent of the frames that a window may ignore


def boxes(
    joints: Float[np.ndarray, "t 26 3"],
    masks: list[bytes],
    times: Float[np.ndarray, " t"],
    picture: tuple[int, int],
    *,
    size: tuple[int, int],
    crop: str,
    margin: float,
) -> Int[np.ndarray, "t 4"]:
    """Computes the window (top, left, height, width) of every frame, in pixels of the picture.

    All windows of a clip have one size, of the shape of `size`. A fixed or following window may
    reach beyond the picture where the person needs it (`clip_reader.crop` fills in black).

    Args:
      joints: in pixels, missing 0.
      masks: PNG of the person in each frame, or none.
      times: seconds.
      picture: height and width of the video.
      size: height and width of the stored frames.
      crop: "fixed", "follow" or "whole".
      margin: space around the person, as a fraction of their extent.
    """
    if crop == "whole":
        scale = min(picture[0] / size[0], picture[1] / size[1])
        height, width = (max(1, round(side * scale)) for side in size)
        whole = ((picture[0] - height) // 2, (picture[1] - width) // 2, height, width)
        return np.tile(np.asarray(whole), (len(joints), 1))
    extents = _extents(joints, masks, picture)
    known = np.all(np.isfinite(extents), axis=1)
    extents = _filled(extents, known)
    if crop == "fixed":
        low = np.percentile(extents[known, :2], OUTLIERS / 2, axis=0)
        high = np.percentile(extents[known, 2:], 100 - OUTLIERS / 2, axis=0)
        centres = np.tile((low + high) / 2, (len(joints), 1))
        span = high - low
    else:
        span = np.percentile((extents[:, 2:] - extents[:, :2])[known], 100 - OUTLIERS, axis=0)
        centres = _smooth((extents[:, 2:] + extents[:, :2]) / 2, times)
    shape = size[0] / size[1]
    tight, loose = (max(wide * shape, high) for wide, high in (span, span * (1.0 + 2.0 * margin)))
    most = min(picture[0], picture[1] * shape)
    high = max(tight, min(loose, most), 2.0)  # a margin is no reason to leave the picture
    height, width = max(2, round(high)), max(2, round(high * size[1] / size[0]))
    left = np.round(centres[:, 0] - width / 2).astype(int)
    top = np.round(centres[:, 1] - height / 2).astype(int)
    top, left = _shifted(top, height, picture[0]), _shifted(left, width, picture[1])
    return np.stack([top, left, np.full_like(top, height), np.full_like(left, width)], 1)


def _extents(
    joints: np.ndarray, masks: list[bytes], picture: tuple[int, int]
) -> Float[np.ndarray, "t 4"]:
    """Measures left, top, right, bottom of the person (pixel edges); NaN where unknown."""
    found = np.full((len(joints), 4), np.nan)
    for time, person in enumerate(joints):
        seen = person[pose.present(person), :2]
        if len(seen) < 2:
            continue
        low, high = seen.min(0), seen.max(0)
        reach = BEYOND_JOINTS * float(np.hypot(*(high - low)))
        low, high = low - reach, high + reach
        if masks:
            rows, columns = np.nonzero(codec.decode_png(masks[time]) > 127)
            near = (rows > low[1] - 2 * reach) & (rows < high[1] + 2 * reach)
            near &= (columns > low[0] - 2 * reach) & (columns < high[0] + 2 * reach)
            if near.any():  # pixels elsewhere are not the person
                low = np.minimum(low, (columns[near].min(), rows[near].min()))
                high = np.maximum(high, (columns[near].max() + 1, rows[near].max() + 1))
        edge = np.asarray(picture[::-1], float)
        found[time] = *np.clip(low, 0, edge), *np.clip(high, 0, edge)
    if not np.isfinite(found).any():
        raise UserError("no frame shows two joints of the person")
    return found


def _filled(extents: np.ndarray, known: np.ndarray) -> np.ndarray:
    times = np.arange(len(extents))
    return np.stack([np.interp(times, times[known], e[known]) for e in extents.T], 1)


def _smooth(path: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Smooths a path through the picture, extrapolated at both ends by odd reflection."""
    if len(path) < 3:
        return path
    spread = max(1.0, SMOOTH_SECONDS / float(np.median(np.diff(times))))
    beyond = min(len(path) - 1, int(np.ceil(3 * spread)))
    longer = np.pad(path, ((beyond, beyond), (0, 0)), mode="reflect", reflect_type="odd")
    return gaussian_filter1d(longer, spread, axis=0, mode="nearest")[beyond:-beyond]


def _shifted(start: np.ndarray, length: int, picture: int) -> np.ndarray:
    """Moves windows into the picture, or centres them if they are larger."""
    if length >= picture:
        return np.full_like(start, (picture - length) // 2)
    return np.clip(start, 0, picture - length)


def to_windows(
    joints: Float[np.ndarray, "t 26 3"], windows: Int[np.ndarray, "t 4"], size: tuple[int, int]
) -> Float[np.ndarray, "t 26 3"]:
    """Maps joints of the picture to pixels of its windows resized to `size`."""
    scale = np.asarray([size[1], size[0]]) / windows[:, None, [3, 2]]
    places = (joints[..., :2] + 0.5 - windows[:, None, [1, 0]]) * scale - 0.5
    moved = np.concatenate([places, joints[..., 2:]], -1)
    return np.where(joints[..., 2:] > 0, moved, 0.0).astype(np.float32)
