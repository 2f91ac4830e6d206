"""A picture of detected skeletons with the error of their joints, as Fig. 11 of PSR-Net.

The joints are found by one detector in true and made frames alike.
"""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from psrjax.data import video
from psrjax.inference import intermediate_results
from psrjax.inference.synthesizer import TRUTH
from psrjax.metrics import keypoints
from psrjax.ops import geometry
from psrjax.prepare.common import detector
from psrjax.vision import drawing

FRAMES = 3  # of a clip, spread over it

Frames = UInt8[np.ndarray, "t h w 3"]
Detect = Callable[[Frames], Float[np.ndarray, "t 26 3"]]


def write(output: str | os.PathLike, videos: Mapping[str, Frames]) -> Path:
    """Writes `<stem>.skeletons.png`, by MediaPipe; see `picture`.

    Args:
      output: the result that it belongs to.
      videos: see `picture`.

    Returns:
      The path of the picture.

    Raises:
      UserError: if MediaPipe cannot be installed or started, or the place not be written to.
    """
    path = Path(output)
    path = path.with_name(f"{path.stem}.skeletons.png")
    with detector.PoseDetector() as engine:

        def detect(frames: Iterable[np.ndarray]) -> np.ndarray:
            return np.stack([found.joints for found in engine.detect(frames)])

        image = picture(videos, detect)
    intermediate_results.write_picture(path, image)
    return path


def picture(videos: Mapping[str, Frames], detect: Detect) -> UInt8[np.ndarray, "height width 3"]:
    """Draws the skeletons found in some frames: a row for each frame, a column for each video.

    Above each made frame stands its L2 error: the mean distance, in pixels of the frame, of the
    joints that are found in it from those of the true frame ("none" without a joint found in both).

    Args:
      videos: {label: frames}, "truth" among them.
      detect: finds the joints of a clip: x, y in pixels and a confidence, 0 where there is none.
    """
    joints = {label: np.asarray(detect(frames), np.float32) for label, frames in videos.items()}
    length = len(videos[TRUTH])
    chosen = np.unique(np.linspace(0, length - 1, FRAMES + 2).round().astype(int)[1:-1])
    rows = []
    for number in chosen.tolist():
        row = {}
        for label, frames in videos.items():
            found, true = joints[label][number], joints[TRUTH][number]
            said = label if label == TRUTH else f"{label}: {_error(found, true)}"
            row[said] = _drawn(frames[number], found)[None]
        rows.append(video.beside(row)[0])
    return np.concatenate(rows)


def _error(found: Float[np.ndarray, "26 3"], true: Float[np.ndarray, "26 3"]) -> str:
    counts = keypoints.counts(jnp.asarray(found[None]), jnp.asarray(true[None]))
    error = keypoints.scores({name: value.sum() for name, value in counts.items()})["kp_l2"]
    return "none" if np.isnan(error) else f"{error:.2f}"


def _drawn(frame: UInt8[np.ndarray, "h w 3"], joints: Float[np.ndarray, "26 3"]) -> np.ndarray:
    height, width = frame.shape[:2]
    times = max(1, -(-intermediate_results.SMALLEST // width))
    large = np.ascontiguousarray(frame.repeat(times, 0).repeat(times, 1))
    places = geometry.pixels_to_unit(joints[:, :2], height=height, width=width)
    drawing.draw_joints(large, np.concatenate([places, joints[:, 2:]], -1))
    return large
