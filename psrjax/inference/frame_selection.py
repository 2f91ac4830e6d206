"""Selection of a transfer's source frames, and of the driving frame that stands for their pose."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from psrjax.errors import UserError
from psrjax.inference.footage import Footage
from psrjax.vision import hull

RULES = ("first", "random", "even", "spread")
_CANDIDATES = 200  # frames, evenly over the source, among which "spread" chooses
_EXCHANGES = 20  # rounds; it rarely takes more than three


def frame_range(frames: tuple[int, int], length: int, name: str) -> tuple[int, int]:
    """Returns (first, end) of the frames asked for; an end of 0 is the clip's.

    Raises:
      UserError: if the clip, called `name`, does not have them.
    """
    first, end = frames[0], frames[1] or length
    if not 0 <= first < end <= length:
        raise UserError(f"{name} has frames 0 to {length - 1}; {first}:{end} was asked for")
    return first, end


def source_frames(source: Footage, rule: str, *, k: int, seed: int = 0) -> tuple[int, ...]:
    """Chooses k frames of the source, in order; all of them where it has fewer.

    Args:
      source: the footage.
      rule: "first" k; k "random" ones by the seed; "even" over the clip; "spread" over the poses
        that it holds (it needs joints); or numbers, such as "0,40", whatever k.
      k: the number of frames.
      seed: of "random".

    Raises:
      UserError: for another rule, or a frame that the source does not have.
    """
    k = min(k, source.frames)
    if rule == "first":
        return tuple(range(k))
    if rule == "random":
        drawn = np.random.default_rng(seed).choice(source.frames, k, replace=False)
        return tuple(np.sort(drawn).tolist())
    if rule == "even":
        return tuple(np.linspace(0, source.frames - 1, k).round().astype(int).tolist())
    if rule == "spread":
        source.require(("source_joints",))
        candidates = np.unique(
            np.linspace(0, source.frames - 1, max(k, _CANDIDATES)).round().astype(int)
        )
        joints = source.read(("source_joints",), candidates.tolist())["source_joints"]
        return tuple(candidates[list(spread(joints, k))].tolist())
    numbers = [number.strip() for number in rule.split(",")]
    if not all(number.isdigit() for number in numbers):
        raise UserError(f"--source_frames={rule}: it is {', '.join(RULES)} or numbers such as 0,40")
    frames = tuple(int(number) for number in numbers)
    if max(frames) >= source.frames:
        raise UserError(
            f"--source_frames={rule}: {source.name} has frames 0 to {source.frames - 1}"
        )
    return frames


def require_joints(name: str, frames: Sequence[int], joints: Float[np.ndarray, "k j 3"]) -> None:
    """Raises UserError if one of the chosen source frames shows no joint."""
    for frame, pose in zip(frames, joints, strict=True):
        if not (pose[..., 2] > 0).any():
            raise UserError(
                f"{name}: frame {frame} has no valid joint, and this method finds the person by "
                "them: choose other frames (--source_frames=spread, or numbers), or annotate it"
            )


def spread(joints: Float[np.ndarray, "t j 3"], k: int) -> tuple[int, ...]:
    """Chooses the k frames that stand best for all poses of a clip, in order.

    They are k medoids: the mean distance from a pose to the nearest chosen one is least, chosen
    greedily and then exchanged while that helps (Kaufman and Rousseeuw 1990). The distance of two
    poses is the root mean square over the joints that both show. Farthest-point search would take
    the outliers, which are like no other frame.
    """
    seen = (joints[..., 2] > 0).astype(np.float64)
    points = joints[..., :2].astype(np.float64) * seen[..., None]
    squares = np.square(points).sum(-1)
    apart = squares @ seen.T + seen @ squares.T - 2 * np.einsum("tjc,sjc->ts", points, points)
    distance = np.sqrt(np.maximum(apart / np.maximum(seen @ seen.T, 1.0), 0.0))
    distance = np.where(seen @ seen.T > 0, distance, distance.max(initial=0.0))
    taken: list[int] = []
    while len(taken) < k:
        taken.append(_best(distance, taken))
    for _ in range(_EXCHANGES):
        before = tuple(taken)
        for place in range(k):
            rest = taken[:place] + taken[place + 1 :]
            if len(rest):
                taken[place] = _best(distance, rest, taken[place])
        if tuple(taken) == before:
            break
    return tuple(sorted(taken))


def _best(distance: np.ndarray, others: list[int], now: int | None = None) -> int:
    """The best frame beside the others; `now`, where it is given, unless another is better."""
    away = distance[others].min(0) if others else np.full(len(distance), np.inf)
    cost = np.minimum(distance, away).sum(1)
    cost[others] = np.inf
    best = int(cost.argmin())
    return best if now is None or cost[best] < cost[now] - 1e-9 else now


@dataclass(frozen=True)
class Anchor:
    """The driving frame that stands for the source's pose, and how much larger the source is."""

    frame: int
    scale: float


def anchor(
    source: Float[np.ndarray, "j 2"],
    poses: Callable[[int], Float[np.ndarray, "t j 2"]],
    starts: range,
    *,
    search: bool,
) -> Anchor:
    """Takes the first driving frame, or with `search` the one whose pose is most like the source's.

    Args:
      source: the source's points.
      poses: the points of the driving frames of the window that starts at a frame; one window is
        held at a time.
      starts: the first frames of the windows.
      search: whether to look through all windows.
    """
    best, least, scale = 0, np.inf, 1.0
    for start in starts:
        for number, points in enumerate(poses(start) if search else poses(start)[:1], start):
            distance = hull.pose_distance(source, points)
            if distance < least:
                best, least, scale = number, distance, hull.scale(source, points)
        if not search:
            break
    return Anchor(best, scale)
