"""Finds the camera of a recording that disagrees with the others, and by how much."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from psrjax.prepare.multiview.cross_view_tracking import medians, reprojection, weights
from psrjax.vision.camera import Camera, triangulate

STANDS_OUT = 2.5  # times the median error of the others, from which on one of four is blamed
NOTABLE = 0.2  # of the bound: errors below it are no camera's fault
TWICE = 2.0  # how many times worse two of three agree than the other two, at least
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

    It is the one without which the rest disagree least. Of four or more it must also have a median
    error `STANDS_OUT` times that of the others, which hold together against it; a detector's
    errors differ from view to view too, by half as much. Of three cameras any two agree better than
    all, and so one is only blamed where the three are not within the bound, and the rest disagree
    less than half as much as without any other.

    Args:
      joints: of one person, pixels; 0 = missing.
      cameras: by name, in the order of `joints`.
      bound: the largest median error in pixels that a calibration may have.
    """
    names, views = list(cameras), list(cameras.values())
    if len(names) < 3:
        return None
    before = medians(joints, cameras)
    worst, *others = sorted(names, key=lambda name: -before[name])
    several = len(names) > 3
    usual = STANDS_OUT * float(np.median([before[name] for name in others]))
    if before[worst] <= (max(usual, NOTABLE * bound) if several else bound):
        return None
    rests = {name: [i for i, other in enumerate(names) if other != name] for name in names}
    apart = {
        name: _disagreement(joints[rest], [views[i] for i in rest]) for name, rest in rests.items()
    }
    odd, second, *_ = sorted(names, key=lambda name: apart[name])
    others = rests[odd]
    after = medians(joints[others], {names[i]: views[i] for i in others})
    sure = odd == worst if several else apart[second] > TWICE * apart[odd]
    if not sure or max(after.values()) > bound:
        return None
    off = _distances(joints, views, names.index(odd))
    offset = np.median(off, axis=0)
    distance, left = (float(np.median(np.linalg.norm(o, axis=-1))) for o in (off, off - offset))
    return OddCamera(odd, before, after, distance, offset, left)


def _distances(joints: np.ndarray, views: list[Camera], index: int) -> Float[np.ndarray, "m 2"]:
    """Returns how far a view's joints lie from where the others see them; inf if nobody does."""
    others = [i for i in range(len(views)) if i != index]
    seen = joints[others]
    points = triangulate(seen[..., :2], weights(seen), [views[i] for i in others])["points"]
    off = joints[index][..., :2] - views[index].project(points)["pixels"]
    off = off[(weights(joints[index]) > 0) & np.isfinite(off).all(-1)]
    return off if len(off) else np.full((1, 2), np.inf)


def _disagreement(joints: np.ndarray, views: list[Camera]) -> float:
    """Returns the median over all joints of the largest reprojection error of any view."""
    errors = np.nan_to_num(reprojection(joints, views), nan=-1.0).max(0)
    return float(np.median(errors[errors >= 0])) if (errors >= 0).any() else float("inf")


def shifted(camera: Camera, offset: Float[np.ndarray, "2"]) -> Camera:
    """Moves everything that a camera sees by `offset` pixels."""
    matrix = camera.matrix.copy()
    matrix[:2, 2] += offset
    return replace(camera, matrix=matrix)
