"""The skeleton text of the Kinect v2, as NTU RGB+D stores it (Shahroudy et al., CVPR 2016)."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from psrjax.errors import UserError

JOINTS = 25
_BODY_WORDS = 10  # of a body before its number of joints
_JOINT_WORDS = 12
_SAME = 0.8  # metres that a tracked body may be from where it was lost
_NOT_WHOLE = (OSError, UnicodeDecodeError, StopIteration, RuntimeError, ValueError)


@dataclass(frozen=True)
class Skeleton:
    """One person as the Kinect saw him.

    Attributes:
      points: (t, 25, 3) metres: x as in the pictures' columns, y up, z away from the camera.
      colour: (t, 25, 2) x, y in the 1920 x 1080 picture; NaN where it says none.
      depth: (t, 25, 2) x, y in the 512 x 424 depth picture.
      state: (t, 25) 0 not tracked, 1 inferred, 2 tracked; 0 in frames without him.
    """

    points: Float[np.ndarray, "t 25 3"]
    colour: Float[np.ndarray, "t 25 2"]
    depth: Float[np.ndarray, "t 25 2"]
    state: Int[np.ndarray, "t 25"]

    def cut(self, frames: int) -> "Skeleton":
        """The first frames."""
        return Skeleton(
            self.points[:frames], self.colour[:frames], self.depth[:frames], self.state[:frames]
        )


def read_skeleton(path: Path) -> Skeleton:
    """The person of a `.skeleton` file.

    Of several bodies the one counts that is seen longest and stands tallest; others, which the
    Kinect sees in furniture, do not. When it is lost and found again under another number, close
    to where it was, it is the same.

    Raises:
      UserError: if the file is cut off, no such text, or holds nobody.
    """
    try:
        words = iter(path.read_text().split())
        frames = int(next(words))
        bodies: dict[int, dict[int, np.ndarray]] = defaultdict(dict)
        for frame in range(frames):
            for identity, joints in _bodies(words):
                bodies[identity][frame] = joints
    except _NOT_WHOLE as error:
        raise UserError(
            f"{path}: not a whole .skeleton file ({type(error).__name__}); get it again"
        ) from error
    if not bodies:
        raise UserError(f"{path}: nobody in any frame; add it to the list of missing skeletons")
    person = _person(list(bodies.values()))
    values = np.full((frames, JOINTS, _JOINT_WORDS), np.nan)
    for frame, joints in person.items():
        values[frame] = joints
    state = np.nan_to_num(values[..., 11]).astype(np.int64)
    state[~np.isfinite(values[..., :3]).all(-1) | (values[..., 2] <= 0)] = 0
    return Skeleton(values[..., :3], values[..., 5:7], values[..., 3:5], state)


def _bodies(words: Iterator[str]) -> Iterator[tuple[int, np.ndarray]]:
    for _ in range(int(next(words))):
        head = [next(words) for _ in range(_BODY_WORDS)]
        count = int(next(words))
        if count != JOINTS:
            raise ValueError(f"{count} joints")
        rows = [[float(next(words)) for _ in range(_JOINT_WORDS)] for _ in range(count)]
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
    """Seconds times metres that somebody is tall; what is wider than tall is nobody."""
    total = 0.0
    for joints in track.values():
        extent = np.ptp(joints[:, :2], axis=0)
        total += extent[1] if extent[1] > 0.5 * extent[0] else 0.0
    return total


def _apart(one: dict[int, np.ndarray], other: dict[int, np.ndarray]) -> float:
    """How far the base of the spine is between the nearest frames of two tracks."""
    mine, theirs = min(
        ((a, b) for a in one for b in (min(other), max(other))), key=lambda ab: abs(ab[0] - ab[1])
    )
    return float(np.linalg.norm(one[mine][0, :3] - other[theirs][0, :3]))
