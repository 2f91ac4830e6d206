"""Background subtraction for static cameras: clean background and person masks."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from psrjax.errors import UserError

RIM = 2  # pixels over which a person's edge may be smeared
LEAST = 3  # frames that must show a pixel uncovered for its median to be trusted


def clean_background(
    frames: UInt8[np.ndarray, "t h w 3"], person: Bool[np.ndarray, "t h w"]
) -> dict[str, np.ndarray]:
    """Computes each pixel's median over the frames in which the person does not cover it.

    Args:
      frames: a static camera's frames.
      person: where the person may be; too large is better than too small.

    Returns:
      `background` (h, w, 3) uint8; `hole` (h, w) bool, pixels that fewer than `LEAST` frames show
      and that are inpainted (Telea's fast marching).

    Raises:
      UserError: if the person covers every pixel in every frame.
    """
    count = (~person).sum(0)
    hole = count < LEAST
    if hole.all():
        raise UserError("the person covers the whole picture in every frame: no clean background")
    values = np.sort(np.where(person[..., None], np.int16(999), frames), axis=0)
    middle = np.stack([np.maximum(count - 1, 0) // 2, count // 2])[..., None]
    chosen = np.take_along_axis(values, np.minimum(middle, len(frames) - 1), axis=0)
    background = np.clip(chosen.mean(0) + 0.5, 0, 255).astype(np.uint8)
    if hole.any():
        background = cv2.inpaint(background, hole.astype(np.uint8), 5, cv2.INPAINT_TELEA)
    return {"background": background, "hole": hole}


def grow(mask: Bool[np.ndarray, "*t h w"], radius: float | int) -> Bool[np.ndarray, "*t h w"]:
    """Dilates (radius > 0) or erodes (radius < 0) masks by a disc of that many pixels."""
    size = 2 * int(np.ceil(abs(radius))) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    change = cv2.dilate if radius > 0 else cv2.erode
    flat = mask.reshape(-1, *mask.shape[-2:]).astype(np.uint8)
    return np.stack([change(m, kernel) > 0 for m in flat]).reshape(mask.shape)


def person_masks(
    frames: UInt8[np.ndarray, "t h w 3"], drawn: Bool[np.ndarray, "t h w"], *, reach: float | int
) -> Bool[np.ndarray, "t h w"]:
    """Masks the person by background subtraction near a roughly posed body.

    Args:
      frames: a static camera's frames.
      drawn: the posed body's silhouettes.
      reach: distance from the body, in pixels, beyond which nothing counts as the person.
    """
    return BackgroundModel.fit(frames, drawn, reach=float(reach)).masks(frames, drawn)


@dataclass(frozen=True)
class BackgroundModel:
    """A static camera's background and the threshold above which a pixel differs from it.

    Differences are taken in CIE Lab with lightness at half weight, because a shadow darkens and
    hardly tints. The threshold is six times the camera's noise, measured where the body never is.
    Only pixels within `reach` pixels of the body count, so that other moving people do not.
    `unknown` marks pixels that no frame shows; there the silhouette decides.
    """

    background: UInt8[np.ndarray, "h w 3"]
    unknown: Bool[np.ndarray, "h w"]
    threshold: float
    reach: float

    @classmethod
    def fit(
        cls, frames: UInt8[np.ndarray, "t h w 3"], drawn: Bool[np.ndarray, "t h w"], *, reach: float
    ) -> "BackgroundModel":
        """Fits the model in two passes to frames that together show what the person covers.

        The first background leaves out all that is near the body, the second only what the first
        masks found.
        """
        covered = near = grow(drawn, reach)
        first = cls._outside(frames, covered, near, reach)
        covered = grow(first.masks(frames, drawn) | grow(drawn, -2), 3)
        return cls._outside(frames, covered, near, reach)

    @classmethod
    def _outside(cls, frames, covered, near, reach: float) -> "BackgroundModel":
        found = clean_background(frames, covered)
        unknown = grow(found["hole"], 1)
        difference = _differences(frames, found["background"])
        away = ~near.any(0) & ~unknown
        noise = np.median(difference[:, away]) / 0.67 if away.any() else 1.0
        return cls(found["background"], unknown, float(np.clip(6.0 * noise, 5.0, 20.0)), reach)

    def masks(
        self, frames: UInt8[np.ndarray, "t h w 3"], drawn: Bool[np.ndarray, "t h w"]
    ) -> Bool[np.ndarray, "t h w"]:
        """Returns the person's masks in frames of the same camera."""
        difference = _differences(frames, self.background)
        near = grow(drawn, self.reach)
        seeds = np.where(self.unknown, drawn, (difference > self.threshold) & near)
        solid = (_solid(seed) for seed in seeds)
        return np.stack([_sharp(mask, one) for mask, one in zip(solid, difference)])


def _differences(frames: np.ndarray, background: np.ndarray) -> np.ndarray:
    weight = np.asarray([0.5, 1.0, 1.0], np.float32)
    still = _lab(background)
    blurred = (cv2.GaussianBlur((_lab(frame) - still) * weight, (3, 3), 0) for frame in frames)
    return np.stack([np.linalg.norm(difference, axis=-1) for difference in blurred])


def _lab(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB)


def _sharp(mask: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """Removes a mask's blurred rim, where the difference is less than half of that inside.

    Lenses, resizing and video codecs (which keep colour at half resolution) smear a person's edge
    over a pixel or two of background.
    """
    rim = mask & ~grow(mask, -RIM)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * RIM + 3, 2 * RIM + 3))
    inside = cv2.dilate(np.where(mask, difference, 0.0).astype(np.float32), kernel)
    return mask & ~(rim & (difference < 0.5 * inside))


def _solid(seed: np.ndarray) -> np.ndarray:
    """Keeps the largest component and those at least a tenth of it; closes cracks and holes."""
    size = max(3, 2 * (min(seed.shape) // 96) + 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    closed = cv2.morphologyEx(seed.astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(closed)
    if count < 2:
        return closed > 0
    areas = stats[1:, cv2.CC_STAT_AREA]
    kept = np.isin(labels, 1 + np.flatnonzero(areas >= 0.1 * areas.max()))
    count, labels, stats, _ = cv2.connectedComponentsWithStats((~kept).astype(np.uint8))
    small = 1 + np.flatnonzero(stats[1:, cv2.CC_STAT_AREA] < 0.002 * seed.size)
    return kept | np.isin(labels, small)


def overlap(one: Bool[np.ndarray, "..."], other: Bool[np.ndarray, "..."]) -> float:
    """Returns the intersection over union of two masks; 1 if both are empty."""
    union = (one | other).sum()
    return float((one & other).sum() / union) if union else 1.0
