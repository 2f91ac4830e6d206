"""Reads the Kinect v2's skeleton text, as in NTU RGB+D (Shahroudy et al., CVPR 2016)."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from psrjax.errors import UserError
from psrjax.io import foreign

JOINTS = 25
_BODY_FIELDS = 10  # before a body's number of joints
_JOINT_FIELDS = 12
_SAME = 0.8  # metres within which a lost body may reappear as another


@dataclass(frozen=True)
class KinectSkeleton:
    """One person as tracked by the Kinect.

    Attributes:
      points: (t, 25, 3) metres: x as in the pictures' columns, y up, z away from the camera.
      colour: (t, 25, 2) x, y in the 1920 x 1080 picture; NaN where unknown.
      depth: (t, 25, 2) x, y in the 512 x 424 depth picture.
      state: (t, 25) 0 not tracked, 1 inferred, 2 tracked; 0 in frames without the person.
    """

    points: Float[np.ndarray, "t 25 3"]
    colour: Float[np.ndarray, "t 25 2"]
    depth: Float[np.ndarray, "t 25 2"]
    state: Int[np.ndarray, "t 25"]

    def cut(self, frames: int) -> "KinectSkeleton":
        """Returns the first `frames` frames."""
        return KinectSkeleton(
            self.points[:frames], self.colour[:frames], self.depth[:frames], self.state[:frames]
        )


def read_skeleton(path: Path) -> KinectSkeleton:
    """Reads the person of a `.skeleton` file.

    Of several bodies the longest visible and tallest is taken; the Kinect sees others in furniture.
    A body that reappears under another number close to where it was lost is the same.

    Raises:
      UserError: if the file is truncated, of another kind, or holds nobody.
    """
    with foreign.parsing(path, "not a whole .skeleton file; get it again"):
        words = iter(path.read_text().split())
        frames = int(next(words))
        bodies: dict[int, dict[int, np.ndarray]] = defaultdict(dict)
        for frame in range(frames):
            for identity, joints in _bodies(words):
                bodies[identity][frame] = joints
    if not bodies:
        raise UserError(f"{path}: nobody in any frame; add it to the list of missing skeletons")
    person = _person(list(bodies.values()))
    values = np.full((frames, JOINTS, _JOINT_FIELDS), np.nan)
    for frame, joints in person.items():
        values[frame] = joints
    state = np.nan_to_num(values[..., 11]).astype(np.int64)
    state[~np.isfinite(values[..., :3]).all(-1) | (values[..., 2] <= 0)] = 0
    return KinectSkeleton(values[..., :3], values[..., 5:7], values[..., 3:5], state)


def _bodies(words: Iterator[str]) -> Iterator[tuple[int, np.ndarray]]:
    for _ in range(int(next(words))):
        head = [next(words) for _ in range(_BODY_FIELDS)]
        count = int(next(words))
        if count != JOINTS:
            raise ValueError(f"{count} joints")
        rows = [[float(next(words)) for _ in range(_JOINT_FIELDS)] for _ in range(count)]
        yield int(head[0]), np.asarray(rows)


def _person(tracks: list[dict[int, np.ndarray]]) -> dict[int, np.ndarray]:
    chosen: dict[int, np.ndarray] = {}
    for track in sorted(tracks, key=_weight, reverse=True):
        if not chosen:
            chosen = dict(track)
        elif not chosen.keys() & track.keys() and _apart(chosen, track) < _SAME:
            chosen |= track
    return chosen


def _weight(track: dict[int, np.ndarray]) -> float:
    """Sums a body's height over its frames; frames in which it is wide, not tall, do not count."""
    total = 0.0
    for joints in track.values():
        extent = np.ptp(joints[:, :2], axis=0)
        total += extent[1] if extent[1] > 0.5 * extent[0] else 0.0
    return total


def _apart(one: dict[int, np.ndarray], other: dict[int, np.ndarray]) -> float:
    """Measures the distance of the spine's base between the nearest frames of two tracks."""
    mine, theirs = min(
        ((a, b) for a in one for b in (min(other), max(other))), key=lambda ab: abs(ab[0] - ab[1])
    )
    return float(np.linalg.norm(one[mine][0, :3] - other[theirs][0, :3]))
