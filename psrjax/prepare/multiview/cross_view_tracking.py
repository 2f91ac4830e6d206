"""Matches people across calibrated views by geometry and tracks one of them in time."""

from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float

from psrjax.errors import UserError
from psrjax.prepare.common.openpose import SEEN, People, height
from psrjax.vision.camera import Camera, triangulate

MAX_MISFIT = 0.08  # median joint error up to which views agree, as a fraction of a person's height
MAX_STEP = 0.4  # metres that a person may move between frames and still be the same
MAX_GAP = 15  # frames without the person after which a track ends


@dataclass
class MultiviewTrack:
    """One person through a clip: joints of all n cameras in pixels, 0 where not found.

    `notes` lists the cameras that were left out of a frame, with the reason.
    """

    joints: Float[np.ndarray, "n t 26 3"]
    notes: list[str] = field(default_factory=list)


@dataclass(eq=False)
class Candidate:
    """A person in one frame, seen by two or more cameras; `members` is {camera: person's index}."""

    points: Float[np.ndarray, "26 3"]
    seen: Bool[np.ndarray, "26"]
    members: dict[int, int]
    score: float


def candidates(people: list[np.ndarray], cameras: list[Camera]) -> list[Candidate]:
    """Finds the people of one frame that two or more cameras agree on, best first.

    Args:
      people: by camera, an array (people, 26, 3) in pixels; each person is used once at most.
      cameras: the cameras, in the same order.
    """
    found = []
    for one, other in combinations(range(len(cameras)), 2):
        for first in range(len(people[one])):
            for second in range(len(people[other])):
                found.append(_candidate(people, cameras, {one: first, other: second}))
    taken: set[tuple[int, int]] = set()
    chosen = []
    for candidate in sorted(filter(None, found), key=lambda c: -c.score):
        if taken.isdisjoint(candidate.members.items()):
            taken.update(candidate.members.items())
            chosen.append(candidate)
    return chosen


def _candidate(people, cameras, members: dict[int, int]) -> Candidate | None:
    """Adds to a pair the people of the other cameras who lie where its joints project."""
    points, seen = _points(people, cameras, members)
    if seen.sum() < 5:
        return None
    misfit = {c: _misfit(people[c][p], cameras[c], points, seen) for c, p in members.items()}
    if max(misfit.values()) > MAX_MISFIT:
        return None
    members = dict(members)
    for index, camera in enumerate(cameras):
        if index in members or not len(people[index]):
            continue
        errors = [_misfit(person, camera, points, seen) for person in people[index]]
        if min(errors) < MAX_MISFIT:
            members[index] = int(np.argmin(errors))
            misfit[index] = min(errors)
    if len(members) > 2:
        points, seen = _points(people, cameras, members)
    score = sum(
        height(people[c][p]) * (people[c][p][:, 2] > SEEN).mean() * (1 - misfit[c] / MAX_MISFIT / 2)
        for c, p in members.items()
    )
    return Candidate(points, seen, members, float(score))


def _points(people, cameras, members):
    chosen = np.stack([people[c][p] for c, p in members.items()])
    result = triangulate(chosen[..., :2], weights(chosen), [cameras[c] for c in members])
    return result["points"], np.asarray(np.isfinite(result["points"]).all(-1))


def weights(joints: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, " *n"]:
    """Returns the confidences, 0 where a joint does not count as seen."""
    return np.where(joints[..., 2] > SEEN, joints[..., 2], 0.0)


def _misfit(person, camera: Camera, points, seen) -> float:
    """Median distance of a person's joints from projected ones, over the person's height."""
    both = seen & (person[:, 2] > SEEN)
    if both.sum() < 4:
        return float("inf")
    distance = np.linalg.norm(camera.project(points[both])["pixels"] - person[both, :2], axis=-1)
    median = np.median(np.nan_to_num(distance, nan=np.inf))  # behind the camera: no pixels
    return float(median / max(height(person), 1.0))


def track(people: dict[str, People], cameras: dict[str, Camera]) -> MultiviewTrack:
    """Tracks the largest and most steadily seen person that the cameras agree on.

    Each frame's people are matched across views by reprojection, whatever their order in the files;
    matches are linked in time by distance in space. A camera none of whose people fit in a frame is
    left out of that frame.

    Raises:
      UserError: if no person is seen by two cameras in at least half of the frames.
    """
    names = list(people)
    views = [cameras[name] for name in names]
    frames = len(people[names[0]].frames)
    tracks: list[dict[int, Candidate]] = []
    for time in range(frames):
        free = candidates([people[name].frames[time] for name in names], views)
        for one in sorted(tracks, key=lambda t: -sum(c.score for c in t.values())):
            last = max(one)
            reach = MAX_STEP * (1 + 0.1 * (time - last))
            near = [c for c in free if _distance(one[last], c) < reach]
            if near and time - last <= MAX_GAP:
                one[time] = near[0]
                free.remove(near[0])
        tracks += [{time: candidate} for candidate in free]
    best = max(tracks, key=lambda t: sum(c.score for c in t.values()), default={})
    if len(best) < frames / 2:
        raise UserError(
            f"{', '.join(names)}: no person is seen alike by two cameras in more than {len(best)} "
            f"of {frames} frames; check the calibration, that the videos start together, and the "
            "joints"
        )
    return _collect(best, people, frames)


def _distance(one: Candidate, other: Candidate) -> float:
    both = one.seen & other.seen
    if both.sum() < 3:
        return float("inf")
    return float(np.median(np.linalg.norm(one.points[both] - other.points[both], axis=-1)))


def _collect(track: dict[int, Candidate], people: dict[str, People], frames: int) -> MultiviewTrack:
    joints = np.zeros((len(people), frames, 26, 3), np.float32)
    notes = []
    for index, (name, clip) in enumerate(people.items()):
        for time in range(frames):
            member = track[time].members.get(index) if time in track else None
            if member is not None:
                joints[index, time] = clip.frames[time][member]
            elif time not in clip.lost:
                count = len(clip.frames[time])
                what = f"{count} people, none of whom is the tracked one" if count else "nobody"
                notes.append(f"{name} frame {time} ({clip.file(time)}): {what}; left out")
    return MultiviewTrack(joints, notes)


def reprojection(
    joints: Float[np.ndarray, "n t 26 3"], cameras: list[Camera]
) -> Float[np.ndarray, "n t 26"]:
    """Distances in pixels of joints from their triangulation; NaN where fewer than two views."""
    return triangulate(joints[..., :2], weights(joints), cameras)["error"]


def reject_outliers(
    joints: Float[np.ndarray, "n t 26 3"], cameras: list[Camera], *, bound: float
) -> Float[np.ndarray, "n t 26 3"]:
    """Sets joints to missing that lie farther than `bound` pixels from their triangulation.

    Of three or more views the worst is dropped first and the others are tried again; of two that
    disagree both are dropped.
    """
    joints = joints.copy()
    for _ in cameras:
        errors = np.nan_to_num(reprojection(joints, cameras))
        bad = errors > bound
        if not bad.any():
            break
        pair = (joints[..., 2] > SEEN).sum(0) <= 2
        joints[bad & (pair | (errors == errors.max(0)))] = 0.0
    return joints


def check_calibration(
    joints: Float[np.ndarray, "n t 26 3"], cameras: dict[str, Camera], *, bound: float, source: str
) -> dict[str, float]:
    """Returns the median reprojection error in pixels by camera.

    Raises:
      UserError: if a camera's is above `bound`; names the cameras without which the rest agree.
    """
    names, views = list(cameras), list(cameras.values())
    found = medians(joints, cameras)
    if max(found.values()) <= bound:
        return found
    blame = ""
    if len(names) > 2:
        rest = {}
        for index, name in enumerate(names):
            others = [i for i in range(len(names)) if i != index]
            rest[name] = _median(reprojection(joints[others], [views[i] for i in others]))
        mended = [f"without {name}" for name in names if rest[name] <= bound]
        blame = f"; the others agree {' or '.join(mended)}" if mended else ""
    listed = ", ".join(f"{name} {error:.1f}" for name, error in found.items())
    raise UserError(
        f"{source}: the joints do not triangulate: median reprojection error {listed} pixels, "
        f"bound {bound:.1f}{blame}: calibrate again, leave one out (--cameras) or raise --max_error"
    )


def medians(joints: Float[np.ndarray, "n t 26 3"], cameras: dict[str, Camera]) -> dict[str, float]:
    """Returns the median reprojection error in pixels by camera; inf where there is none."""
    errors = reprojection(joints, list(cameras.values()))
    return {name: _median(error) for name, error in zip(cameras, errors)}


def _median(errors: np.ndarray) -> float:
    return float(np.nanmedian(errors)) if np.isfinite(errors).any() else float("inf")


def tallest(people: dict[str, People]) -> Float[np.ndarray, "n t 26 3"]:
    """Returns each camera's tallest person in each frame, whether or not the views agree."""
    return np.stack([
        np.stack([max(f, key=height) if len(f) else np.zeros((26, 3), np.float32)
                  for f in clip.frames])
        for clip in people.values()
    ])  # fmt: skip
