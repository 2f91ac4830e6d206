"""Finds a detector's mistakes in a clip's joints; mends what is sure and lists the rest.

Three kinds: left and right exchanged, joints outside the person's mask, limbs longer than the
person's are. Exchanged joints are put back where they are for a moment only; joints outside and at
the end of too long a limb become missing. Who is exchanged for longer is only listed: nothing says
which of both is right.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import maximum_filter1d

from psrjax.data import codec
from psrjax.ops import pose
from psrjax.prepare.common.openpose import height

MOMENT = 1.0  # seconds: the longest exchange of left and right that is put back
LEAST_RATE = 12.0  # frames a second from which on motion shows an exchange
JUMP = 0.08  # of the person's height: motion in a frame that an exchange explains, at least
BEYOND = 0.08  # of the height: how far outside the mask a joint is a mistake
TRUSTED = 0.5  # share of the trunk's and the head's joints that a good mask holds, at least
LONG = 1.6  # of the usual length of a limb, from which on it is impossible
USUAL = 90  # percentile of the lengths in a clip: that of a limb seen from the side

MENDED = {  # kinds of mistakes, and what is done
    "exchanged": "left and right were put back",
    "perhaps exchanged": "left as they are",
    "outside the person": "left out",
    "limb too long": "its end was left out",
}
_LEGS, _ARMS = "legs", "arms"
_CHAINS = {  # right and left; the pair that shows their order, from this distance on, of the height
    _LEGS: (((9, 10, 11, 22, 23, 24), (12, 13, 14, 19, 20, 21)), (9, 12), 0.035),
    _ARMS: (((2, 3, 4), (5, 6, 7)), (2, 5), 0.06),
}
_TRUNK = (0, 1, 2, 5, 8, 9, 12, 15, 16, 17, 18)
_LIMBS = (  # least usual length, of the height; right and left: from, to, what hangs on it
    (0.14, (((2, 3), ()), ((5, 6), ()))),
    (0.12, (((3, 4), ()), ((6, 7), ()))),
    (0.20, (((9, 10), ()), ((12, 13), ()))),
    (0.20, (((10, 11), (22, 23, 24)), ((13, 14), (19, 20, 21)))),
)


@dataclass(frozen=True)
class CheckedJoints:
    """Mended joints, and what was wrong with them.

    Attributes:
      joints: those kept, pixels; missing 0.
      outside: which were outside the mask, and were left out.
      long: which ended a limb of an impossible length, and were left out.
      exchanged: frames in which left and right were put back, by "legs" and "arms".
      doubtful: frames in which they may be exchanged, and were left.
    """

    joints: Float[np.ndarray, "t 26 3"]
    outside: Bool[np.ndarray, "t 26"]
    long: Bool[np.ndarray, "t 26"]
    exchanged: dict[str, Bool[np.ndarray, " t"]]
    doubtful: dict[str, Bool[np.ndarray, " t"]]

    def report(self) -> dict[str, dict[str, list[list[int]]]]:
        """Returns {kind: {what: [[first, last] frame of each run]}} of kinds that occurred."""
        runs = (
            {name: _runs(frames) for name, frames in self.exchanged.items()},
            {name: _runs(frames) for name, frames in self.doubtful.items()},
            pose.flagged_runs(self.outside),
            pose.flagged_runs(self.long),
        )
        found = dict(zip(MENDED, runs))
        found = {
            kind: {what: runs for what, runs in one.items() if runs} for kind, one in found.items()
        }
        return {kind: one for kind, one in found.items() if one}


def frames_of(report: Mapping[str, Mapping[str, Sequence[Sequence[int]]]]) -> list[int]:
    """Returns the frames that a report names."""
    runs = (run for found in report.values() for one in found.values() for run in one)
    return sorted({frame for first, last in runs for frame in range(first, last + 1)})


def check(
    joints: Float[np.ndarray, "t 26 3"], masks: Sequence[bytes], times: Float[np.ndarray, " t"]
) -> CheckedJoints:
    """Checks and mends one person's joints.

    Args:
      joints: pixels, missing 0.
      masks: PNG of the person in each frame, or none: then nothing is outside.
      times: seconds.
    """
    joints = joints.copy()
    rate = 1.0 / float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    tall = _heights(joints, rate)
    moment = round(MOMENT * rate)
    exchanged, doubtful = {}, {}
    for name, (chain, pair, wide) in _CHAINS.items():
        jumps = _jumps(joints, chain, tall) if rate >= LEAST_RATE else np.zeros(len(joints), bool)
        order = _order(joints, pair, wide * tall)
        exchanged[name], doubtful[name] = _by_jumps(jumps, order, moment)
        _exchange(joints, chain, exchanged[name])
    orders = {n: _order(joints, pair, wide * tall) for n, (_, pair, wide) in _CHAINS.items()}
    twisted, perhaps = _by_twist(orders, moment)
    for name, frames in twisted.items():
        _exchange(joints, _CHAINS[name][0], frames)
        exchanged[name] ^= frames
        doubtful[name] &= ~frames
    doubtful[_LEGS] |= perhaps
    outside = _outside(joints, masks, tall)
    joints[outside] = 0.0
    long = _long(joints, tall)
    joints[long] = 0.0
    return CheckedJoints(joints, outside, long, exchanged, doubtful)


def _heights(joints: np.ndarray, rate: float) -> Float[np.ndarray, " t"]:
    """Returns the person's height in pixels: the largest extent within a second, at least 1."""
    own = np.array([height(person) for person in joints])
    return np.maximum(maximum_filter1d(own, 2 * round(rate / 2) + 1, mode="nearest"), 1.0)


def _order(joints: np.ndarray, pair: tuple[int, int], least: np.ndarray) -> Float[np.ndarray, " t"]:
    """Returns 1 where the right joint is to the right of the left one, -1 to its left, else 0.

    It is 0 where they are less than `least` pixels apart.
    """
    right, left = joints[:, pair[0]], joints[:, pair[1]]
    apart = right[:, 0] - left[:, 0]
    known = (right[:, 2] > 0) & (left[:, 2] > 0) & (np.abs(apart) > least)
    return np.where(known, np.sign(apart), 0.0)


def _jumps(
    joints: np.ndarray, chain: tuple[tuple[int, ...], tuple[int, ...]], tall: np.ndarray
) -> Bool[np.ndarray, " t"]:
    """Tells before which frames left and right change places.

    There the joints jump, and exchanged they do not: neither from where they were, nor from where
    they would be by their motion so far, by which quick legs pass one another.
    """
    sides = joints[:, [list(side) for side in chain]]  # (t, 2, joints, 3)
    jumps = np.zeros(len(joints), bool)
    for time in range(1, len(joints)):
        now, before, older = sides[time], sides[time - 1], sides[max(0, time - 2)]
        seen = ((now[..., 2] > 0) & (before[..., 2] > 0)).all(0)
        if seen.sum() < 2:
            continue
        moving = seen & (older[..., 2] > 0).all(0) & ~jumps[time - 1]
        expected = before + np.where(moving[:, None], before - older, 0.0)
        kept, crossed = (
            [
                np.linalg.norm(here[:, seen, :2] - there[:, seen, :2], axis=-1).mean()
                for there in (before, expected)
            ]
            for here in (now, now[::-1])
        )
        far = kept[0] > JUMP * tall[time]
        jumps[time] = far and all(one < 0.5 * other for one, other in zip(crossed, kept))
    return jumps


def _by_jumps(
    jumps: np.ndarray, order: np.ndarray, moment: int
) -> tuple[Bool[np.ndarray, " t"], Bool[np.ndarray, " t"]]:
    """Tells in which frames sides are surely exchanged, and where they perhaps begin to be.

    Sure is a moment between two jumps in which no order is seen, and one of the contrary order that
    begins or ends with a jump.
    """
    sure, left = np.zeros(len(jumps), bool), jumps.copy()
    places = np.flatnonzero(jumps)
    for first, stop in zip(places[:-1], places[1:]):
        if left[first] and stop - first <= moment and not order[first:stop].any():
            sure[first:stop] = True
            left[[first, stop]] = False
    while True:
        for before, (first, last), after in _contrary(np.where(sure, -order, order), moment):
            begins = np.flatnonzero(left[before + 1 : first + 1]) + before + 1
            ends = np.flatnonzero(left[last + 1 : after + 1]) + last + 1
            if len(begins) or len(ends):
                start = begins[0] if len(begins) else first
                sure[start : ends[-1] if len(ends) else last + 1] ^= True
                left[[*begins, *ends]] = False
                break
        else:
            return sure, left & ~sure


def _contrary(order: np.ndarray, moment: int) -> list[tuple[int, tuple[int, int], int]]:
    """Lists the moments of the contrary order, the shortest first.

    Each is the last frame of the order before, (first, last) frame, the first of the order after.
    """
    known = np.flatnonzero(order)
    ends = np.flatnonzero(np.diff(order[known]))  # of runs of one order, among the known
    found = [
        (int(known[a]), (int(known[a + 1]), int(known[b])), int(known[b + 1]))
        for a, b in zip(ends[:-1], ends[1:])
    ]
    short = [one for one in found if one[1][1] - one[1][0] < moment]
    return sorted(short, key=lambda one: one[1][1] - one[1][0])


def _by_twist(
    orders: dict[str, np.ndarray], moment: int
) -> tuple[dict[str, Bool[np.ndarray, " t"]], Bool[np.ndarray, " t"]]:
    """Finds frames in which hips and shoulders are in contrary orders from left to right.

    Nobody is twisted so far. Of the two, that which has the contrary order for a moment only is
    wrong; where that cannot be told, the frames are doubtful. Frames between such ones that show no
    order, since the person is seen from the side, belong to them.
    """
    sure = {name: np.zeros(len(order), bool) for name, order in orders.items()}
    contrary = -np.prod(list(orders.values()), axis=0)
    doubtful = np.zeros(len(contrary), bool)
    known = np.flatnonzero(contrary)
    for before, after in zip(known[:-1], known[1:]):
        contrary[before + 1 : after] = min(contrary[before], contrary[after])
    for first, last in _runs(contrary > 0):
        frames = slice(first, last + 1)
        turned = [
            name
            for name, order in orders.items()
            if (_last(order[max(0, first - moment) : first]) == -order[first])
            and (_last(order[last + 1 : last + 1 + moment][::-1]) == -order[first])
        ]
        if len(turned) == 1 and last - first < moment:
            sure[turned[0]][frames] = True
        else:
            doubtful[frames] = True
    return sure, doubtful


def _last(orders: np.ndarray) -> float:
    """Returns the last order that is known; 0 if none is."""
    known = orders[orders != 0]
    return float(known[-1]) if len(known) else 0.0


def _exchange(
    joints: np.ndarray, chain: tuple[tuple[int, ...], tuple[int, ...]], frames: np.ndarray
) -> None:
    right, left = (list(side) for side in chain)
    here = np.flatnonzero(frames)[:, None]
    joints[here, right + left] = joints[here, left + right]


def _outside(
    joints: np.ndarray, masks: Sequence[bytes], tall: np.ndarray
) -> Bool[np.ndarray, "t 26"]:
    """Tells which joints are far outside the mask, where that holds most of head and trunk."""
    outside = np.zeros(joints.shape[:2], bool)
    for time, packed in enumerate(masks):
        off = (codec.decode_png(packed) <= 127).astype(np.uint8)
        seen = pose.present(joints[time])
        if off.all() or not seen.any():
            continue
        away = cv2.distanceTransform(off, cv2.DIST_L2, cv2.DIST_MASK_5)
        rows, columns = (
            np.clip(np.round(joints[time, :, axis]).astype(int), 0, off.shape[1 - axis] - 1)
            for axis in (1, 0)
        )
        far = seen & (away[rows, columns] > BEYOND * tall[time])
        trunk = [joint for joint in _TRUNK if seen[joint]]
        if trunk and 1.0 - far[trunk].mean() >= TRUSTED:
            outside[time] = far
    return outside


def _long(joints: np.ndarray, tall: np.ndarray) -> Bool[np.ndarray, "t 26"]:
    """Tells which joints end a limb that is longer than this person's, of either side."""
    long = np.zeros(joints.shape[:2], bool)
    for least, pair in _LIMBS:
        lengths = []
        for (start, end), _ in pair:
            length = np.linalg.norm(joints[:, start, :2] - joints[:, end, :2], axis=-1) / tall
            seen = (joints[:, start, 2] > 0) & (joints[:, end, 2] > 0)
            lengths.append(np.where(seen, length, np.nan))
        if np.isnan(lengths).all():
            continue
        usual = max(least, float(np.nanpercentile(lengths, USUAL)))
        for ((_, end), beyond), length in zip(pair, lengths):
            wrong = np.nan_to_num(length) > LONG * usual
            for joint in (end, *beyond):
                long[:, joint] |= wrong & (joints[:, joint, 2] > 0)
    return long


def _runs(frames: Bool[np.ndarray, " t"]) -> list[list[int]]:
    edges = np.diff(np.concatenate([[0], frames.astype(int), [0]]))
    return np.stack([np.flatnonzero(edges > 0), np.flatnonzero(edges < 0) - 1], -1).tolist()
