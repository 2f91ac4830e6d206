"""Pictures of the poses that are detected in a user's footage."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from psrjax.errors import UserError
from psrjax.ops import geometry
from psrjax.prepare.common import clip_reader, detector
from psrjax.prepare.monocular import pipeline
from psrjax.vision import drawing

_COUNT = 2  # frames of a video that are shown
_HEIGHT = 240  # pixels
_REACH = 0.65  # of the person's length, shown on each side of their middle


def picture(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """Draws the detected pose into a picture, or frames of a video, side by side.

    Raises:
      UserError: if the file cannot be read, MediaPipe is not installed, or nobody is found.
    """
    frames = _spread(path)
    if not detector.installed():
        raise UserError(
            "Poses are not shown: MediaPipe is not installed yet (psrjax prepare installs it when "
            "it first reads a video)"
        )
    found = [detection.joints for detection in pipeline.shared_detector().detect(frames)]
    drawn = [_drawn(frame, joints) for frame, joints in zip(frames, found) if joints[:, 2].any()]
    if not drawn:
        raise UserError(
            f"{path.name}: no person found; take footage that shows one, whole and large"
        )
    return np.concatenate(drawn, 1)


def _drawn(
    frame: UInt8[np.ndarray, "h w 3"], joints: Float[np.ndarray, "26 3"]
) -> UInt8[np.ndarray, "y x 3"]:
    """Draws joints, given in pixels, into the part of a frame that holds them."""
    seen = joints[joints[:, 2] > 0, :2]
    low, high = seen.min(0), seen.max(0)
    reach = _REACH * float((high - low).max())
    middle = (low + high) / 2
    height, width = frame.shape[:2]
    left, top = np.clip(middle - reach, 0, (width - 2, height - 2)).astype(int)
    right, bottom = np.clip(middle + reach, (left + 2, top + 2), (width, height)).astype(int)
    shown = frame[top:bottom, left:right]
    height, width = shown.shape[:2]
    size = (max(1, round(width * _HEIGHT / height)), _HEIGHT)
    picture = cv2.resize(shown, size, interpolation=cv2.INTER_AREA)
    unit = joints.copy()
    unit[:, :2] = geometry.pixels_to_unit(joints[:, :2] - (left, top), height=height, width=width)
    drawing.draw_joints(picture, unit)
    return picture


def _spread(path: Path) -> Sequence[np.ndarray]:
    """Reads frames spread over a video, in memory that does not grow with it; or a picture."""
    if path.suffix.lower() in clip_reader.PICTURES:
        return [clip_reader.read_picture(path)]
    kept: list[tuple[int, np.ndarray]] = []
    every = 1
    for number, frame in enumerate(clip_reader.read_frames(path)):
        if number % every == 0:  # the length is not known yet: every second one goes
            kept.append((number, frame.image))
            if len(kept) > 2 * _COUNT:
                every *= 2
                kept = [(n, image) for n, image in kept if n % every == 0]
    places = np.unique(np.linspace(0, len(kept) - 1, _COUNT).round().astype(int))
    return [kept[place][1] for place in places]
