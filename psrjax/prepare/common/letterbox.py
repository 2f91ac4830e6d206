"""Placement of a calibrated picture inside a video that was scaled and padded."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from psrjax.vision.camera import Camera


@dataclass(frozen=True)
class Placement:
    """The map of a calibrated picture into a video: scaled, then shifted (of pixel corners)."""

    scale: float
    shift: tuple[float, float]  # x, y in the video's pixels

    def camera(self, camera: Camera, size: tuple[int, int]) -> Camera:
        """Converts a camera of the calibrated picture to the video's pixels."""
        matrix = camera.matrix.copy()
        matrix[:2] *= self.scale
        matrix[:2, 2] += np.asarray(self.shift) + 0.5 * (self.scale - 1.0)
        return replace(camera, matrix=matrix, size=size)

    def joints(self, joints: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """Converts joints to the video's pixels; missing ones stay zero."""
        moved = joints[..., :2] * self.scale + np.asarray(self.shift) + 0.5 * (self.scale - 1.0)
        both = np.concatenate([moved, joints[..., 2:]], -1)
        return np.where(joints[..., 2:] > 0, both, 0.0).astype(np.float32)


def fit(calibrated: tuple[int, int], video: tuple[int, int]) -> Placement:
    """Places the largest centred copy of a calibrated picture inside a video, between bars.

    A video of another size than the calibration's was scaled, and padded where the shapes differ,
    as are videos of 1080 x 1920 exported from a sensor of 1088 x 1920.
    """
    scale = min(video[0] / calibrated[0], video[1] / calibrated[1])
    down, right = ((there - scale * own) / 2 for there, own in zip(video, calibrated))
    return Placement(scale, (right, down))
