"""Tracks a clip's main person among several and interpolates short gaps of their joints."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from psrjax.prepare.common.openpose import SEEN, height

STEP = 0.5  # of a person's height: largest motion between frames within a track
PATIENCE = 15  # frames without a person after which a track ends
ALIKE = (0.6, 1.6)  # relative heights of tracks that may be of the same person
OTHER = 0.4  # of the person's height: smaller people do not count
GAP_SECONDS = 0.25  # the longest gap of a joint that is interpolated
FILLED = 0.3  # the highest confidence of an interpolated joint

_NECK, _TOP = 1, 25
# Distance of the top of the head from the neck (at 0.82 of the height), relative to that of ears,
# eyes and nose, by an adult's proportions.
_BEYOND_HEAD = {(17, 18): 1.6, (15, 16): 1.5, (0,): 1.8}


@dataclass(frozen=True)
class TrackedPerson:
    """One person's joints (t, 26, 3) in pixels of the pictures; missing ones are zero.

    `others` counts the frames that show somebody else at least `OTHER` times as tall, `pieces` the
    uninterrupted tracks.
    """

    joints: Float[np.ndarray, "t 26 3"]
    others: int
    pieces: int


def follow(people: Sequence[Float[np.ndarray, "n 26 3"]]) -> TrackedPerson:
    """Tracks the largest and most steadily visible person; the order of people does not matter.

    People of neighbouring frames are linked by the distance of their joints. The track with the
    greatest sum of heights wins. Earlier and later tracks of somebody as tall that do not overlap
    it belong to the same person, who left the picture and came back.
    """
    tracks: list[dict[int, int]] = []
    for time, here in enumerate(people):
        free = set(range(len(here)))
        for track in sorted(tracks, key=len, reverse=True):
            last = max(track)
            if time - last > PATIENCE or not free:
                continue
            before = people[last][track[last]]
            apart = {one: _distance(before, here[one]) for one in free}
            nearest = min(apart, key=apart.__getitem__)
            if apart[nearest] < STEP * (1 + 0.1 * (time - last)):
                track[time] = nearest
                free.remove(nearest)
        tracks += [{time: one} for one in sorted(free)]
    joints = np.zeros((len(people), 26, 3), np.float32)
    chosen: dict[int, int] = {}
    pieces = 0
    tall = 0.0
    for track in sorted(tracks, key=lambda track: -_weight(people, track)):
        own = float(np.median([height(people[time][one]) for time, one in track.items()]))
        same = not chosen or (ALIKE[0] < own / max(tall, 1.0) < ALIKE[1])
        if own and same and not chosen.keys() & track.keys():
            tall = tall or own
            chosen |= track
            pieces += 1
    for time, one in chosen.items():
        joints[time] = people[time][one]
    others = sum(
        any(height(person) > OTHER * tall for one, person in enumerate(here) if one != at)
        for here, at in ((here, chosen.get(time)) for time, here in enumerate(people))
    )
    return TrackedPerson(joints, int(others) if tall else 0, pieces)


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the median distance of shared joints in heights of the taller; inf if too few."""
    both = (one[:, 2] > SEEN) & (other[:, 2] > SEEN)
    if both.sum() < 3:
        return float("inf")
    apart = np.linalg.norm(one[both, :2] - other[both, :2], axis=-1)
    return float(np.median(apart) / max(height(one), height(other), 1.0))


def _weight(people: Sequence[np.ndarray], track: dict[int, int]) -> float:
    persons = (people[time][one] for time, one in track.items())
    return sum(height(person) * float((person[:, 2] > SEEN).mean()) for person in persons)


def drop_outside(
    joints: Float[np.ndarray, "*n 26 3"], size: tuple[int, int]
) -> Float[np.ndarray, "*n 26 3"]:
    """Marks joints outside a picture of `size` (height, width), or not finite, as missing."""
    x, y = joints[..., 0], joints[..., 1]
    kept = (x >= -0.5) & (x <= size[1] - 0.5) & (y >= -0.5) & (y <= size[0] - 0.5)
    kept &= np.isfinite(joints).all(-1) & (joints[..., 2] > 0)
    return np.where(kept[..., None], joints, 0.0).astype(np.float32)


@dataclass(frozen=True)
class FilledJoints:
    """Joints with short gaps interpolated, and which ones were."""

    joints: Float[np.ndarray, "t 26 3"]
    filled: Bool[np.ndarray, "t 26"]


def close_gaps(joints: Float[np.ndarray, "t 26 3"], times: Float[np.ndarray, " t"]) -> FilledJoints:
    """Interpolates joints missing for `GAP_SECONDS` at most, linearly in time.

    Their confidence is `FILLED` times the lower of both ends'; longer gaps stay missing.
    """
    joints = joints.copy()
    filled = np.zeros(joints.shape[:2], bool)
    for joint in range(joints.shape[1]):
        seen = np.flatnonzero(joints[:, joint, 2] > 0)
        for before, after in zip(seen[:-1], seen[1:]):
            gap = times[after - 1] - times[before]
            if after == before + 1 or gap > GAP_SECONDS:
                continue
            inner = np.arange(before + 1, after)
            share = (times[inner] - times[before]) / (times[after] - times[before])
            ends = joints[[before, after], joint]
            joints[inner, joint, :2] = ends[0, :2] + share[:, None] * (ends[1] - ends[0])[:2]
            joints[inner, joint, 2] = FILLED * ends[:, 2].min()
            filled[inner, joint] = True
    return FilledJoints(joints, filled)


def guess_head_top(found: FilledJoints) -> FilledJoints:
    """Extrapolates the top of the head, for sources without it (COCO, MediaPipe).

    It lies on the line from the neck through the visible parts of the head, by an adult's
    proportions (`_BEYOND_HEAD`). Layouts with a head top and no ears would lack the head without
    it. It is marked as interpolated.
    """
    joints, filled = found.joints.copy(), found.filled.copy()
    neck = joints[:, _NECK]
    for parts, ratio in _BEYOND_HEAD.items():
        seen = (joints[:, parts, 2] > 0).all(1) & (neck[:, 2] > 0)
        wanted = seen & (joints[:, _TOP, 2] == 0)
        middle = joints[wanted][:, parts].mean(1)
        joints[wanted, _TOP, :2] = neck[wanted, :2] + ratio * (middle - neck[wanted])[:, :2]
        joints[wanted, _TOP, 2] = FILLED * np.minimum(middle[:, 2], neck[wanted, 2])
        filled[wanted, _TOP] = True
    return FilledJoints(joints, filled)
