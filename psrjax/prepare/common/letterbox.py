"""The calibrated picture inside a video that was scaled and padded: where it lies."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from psrjax.vision.camera import Camera


@dataclass(frozen=True)
class Placement:
    """How a calibrated picture lies in a video's: scaled, then shifted (corners, not centres)."""

    scale: float
    shift: tuple[float, float]  # x, y in the video's pixels

    def camera(self, camera: Camera, size: tuple[int, int]) -> Camera:
        """The camera of the video's pixels."""
        matrix = camera.matrix.copy()
        matrix[:2] *= self.scale
        matrix[:2, 2] += np.asarray(self.shift) + 0.5 * (self.scale - 1.0)
        return replace(camera, matrix=matrix, size=size)

    def joints(self, joints: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """Joints of the calibrated picture in the video's pixels; missing ones stay zero."""
        moved = joints[..., :2] * self.scale + np.asarray(self.shift) + 0.5 * (self.scale - 1.0)
        both = np.concatenate([moved, joints[..., 2:]], -1)
        return np.where(joints[..., 2:] > 0, both, 0.0).astype(np.float32)


def fit(calibrated: tuple[int, int], filmed: tuple[int, int]) -> Placement:
    """The largest upright copy of a calibrated picture inside a video's, centred between bars.

    A video of another size than the calibration's was scaled, and padded where the shapes differ:
    so are the videos of 1080 x 1920 that were exported from a sensor of 1088 x 1920.
    """
    scale = min(filmed[0] / calibrated[0], filmed[1] / calibrated[1])
    shift = tuple((filmed[axis] - scale * calibrated[axis]) / 2 for axis in (1, 0))
    return Placement(scale, shift)
