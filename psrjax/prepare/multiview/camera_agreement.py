"""Finds the camera of a recording that disagrees with the others, and by how much."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from psrjax.prepare.multiview.cross_view_tracking import medians, reprojection, weights
from psrjax.vision.camera import Camera, triangulate

STANDS_OUT = 2.0  # how many times worse the rest agrees without any other camera, at least
NOTABLE = 0.2  # of the bound: errors below it are no camera's fault
SURE = 4  # cameras from which on one is left out though all are within the bound
OFFSET = 2.0  # of the bound: the largest constant offset that is taken off
STEADY = 0.5  # of the error: what a constant offset leaves of it, at most


@dataclass(frozen=True)
class OddCamera:
    """A camera without which the others agree far better.

    Attributes:
      name: the camera's.
      before: median reprojection errors in pixels by camera, with it.
      after: those of the others, without it.
      distance: median distance of its joints from where the others see them, pixels.
      offset: median of these distances as vectors, x and y.
      left: median distance once the offset is taken off.
    """

    name: str
    before: dict[str, float]
    after: dict[str, float]
    distance: float
    offset: Float[np.ndarray, "2"]
    left: float

    def is_shifted(self, bound: float) -> bool:
        """Tells whether a constant offset explains the error: a cut picture, or a camera moved."""
        small = np.hypot(*self.offset) <= OFFSET * bound
        return bool(small and self.left <= STEADY * self.distance)

    def __str__(self) -> str:
        before, after = (
            ", ".join(f"{name} {error:.1f}" for name, error in errors.items())
            for errors in (self.before, self.after)
        )
        return (
            f"its joints lie {self.distance:.1f} pixels (median) from where the others see them, "
            f"{self.left:.1f} once a constant offset of ({self.offset[0]:.1f}, "
            f"{self.offset[1]:.1f}) is taken off; reprojection errors with it {before}, without it "
            f"{after} pixels"
        )


def find_odd(
    joints: Float[np.ndarray, "n t 26 3"], cameras: dict[str, Camera], *, bound: float
) -> OddCamera | None:
    """Finds the camera that disagrees with all others, if there is one.

    Each camera is left out in turn. The odd one is that without which the rest disagree less than
    half as much as without any other. Of three cameras any two agree better than all, and so one is
    only blamed where the three are not within the bound.

    Args:
      joints: of one person, pixels; 0 = missing.
      cameras: by name, in the order of `joints`.
      bound: the largest median error in pixels that a calibration may have.
    """
    names, views = list(cameras), list(cameras.values())
    if len(names) < 3:
        return None
    before = medians(joints, cameras)
    if max(before.values()) <= (NOTABLE if len(names) >= SURE else 1.0) * bound:
        return None
    rests = {name: [i for i, other in enumerate(names) if other != name] for name in names}
    rest = {
        name: _disagreement(joints[others], [views[i] for i in others])
        for name, others in rests.items()
    }
    first, second, *_ = sorted(rest, key=lambda name: rest[name])
    others = rests[first]
    after = medians(joints[others], {names[i]: views[i] for i in others})
    if max(after.values()) > bound or rest[second] < STANDS_OUT * rest[first]:
        return None
    index = names.index(first)
    points = triangulate(
        joints[others][..., :2], weights(joints[others]), [views[i] for i in others]
    )["points"]
    off = joints[index][..., :2] - cameras[first].project(points)["pixels"]
    off = off[(weights(joints[index]) > 0) & np.isfinite(off).all(-1)]
    offset = np.median(off, axis=0) if len(off) else np.zeros(2)
    distance, left = (
        float(np.median(np.linalg.norm(o, axis=-1))) if len(off) else float("inf")
        for o in (off, off - offset)
    )
    return OddCamera(first, before, after, distance, offset, left)


def _disagreement(joints: np.ndarray, views: list[Camera]) -> float:
    """Returns the median over all joints of the largest reprojection error of any view."""
    errors = np.nan_to_num(reprojection(joints, views), nan=-1.0).max(0)
    return float(np.median(errors[errors >= 0])) if (errors >= 0).any() else float("inf")


def shifted(camera: Camera, offset: Float[np.ndarray, "2"]) -> Camera:
    """Moves everything that a camera sees by `offset` pixels."""
    matrix = camera.matrix.copy()
    matrix[:2, 2] += offset
    return replace(camera, matrix=matrix)
