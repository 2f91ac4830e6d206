"""The 26 joints: their names, mirror images, limbs, and every other joint layout as a view of them.

A set of joints is (..., j, 3): x, y and a confidence, 0 meaning missing (x and y are then 0 too).
The 26 are BODY_25's in its order and the top of the head. Every other layout is one row of
`LAYOUTS`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from psrjax.errors import UserError

NAMES = (
    "nose",
    "neck",
    "right shoulder",
    "right elbow",
    "right wrist",
    "left shoulder",
    "left elbow",
    "left wrist",
    "middle hip",
    "right hip",
    "right knee",
    "right ankle",
    "left hip",
    "left knee",
    "left ankle",
    "right eye",
    "left eye",
    "right ear",
    "left ear",
    "left big toe",
    "left small toe",
    "left heel",
    "right big toe",
    "right small toe",
    "right heel",
    "head top",
)
COUNT = len(NAMES)
LIMBS = (  # pairs of the 26 to draw as sticks
    *((1, 8), (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7)),
    *((8, 9), (9, 10), (10, 11), (8, 12), (12, 13), (13, 14)),
    *((1, 0), (0, 15), (15, 17), (0, 16), (16, 18), (0, 25)),
    *((14, 19), (19, 20), (14, 21), (11, 22), (22, 23), (11, 24)),
)
MIRROR = tuple(  # MIRROR[i] is the joint that joint i becomes in a mirror
    NAMES.index(name.replace("left", "*").replace("right", "left").replace("*", "right"))
    for name in NAMES
)
SWAPS = tuple((i, j) for i, j in enumerate(MIRROR) if i < j)

_Row = int | Mapping[int, float]  # one joint, or a weighted mean of several


@dataclass(frozen=True)
class Layout:
    """A joint layout as a view of the 26 and back.

    Attributes:
      view: per joint of the layout, which of the 26 it is (or a weighted mean of them).
      common: per joint of the 26 that the layout knows, which of its own joints gives it.
      limbs: pairs of its own joints to draw as sticks.
    """

    view: tuple[_Row, ...]
    common: Mapping[int, _Row]
    limbs: tuple[tuple[int, int], ...] = ()

    @property
    def count(self) -> int:
        """Returns the number of joints."""
        return len(self.view)

    @property
    def mirror(self) -> tuple[int, ...]:
        """Returns the joint that each joint of the layout becomes in a mirror."""
        places = {_key(row): index for index, row in enumerate(self.view)}
        return tuple(places[_key(_mirrored(row))] for row in self.view)


def _key(row: _Row) -> tuple:
    weights = {row: 1.0} if isinstance(row, int) else row
    return tuple(sorted(weights.items()))


def _mirrored(row: _Row) -> _Row:
    if isinstance(row, int):
        return MIRROR[row]
    return {MIRROR[index]: weight for index, weight in row.items()}


def _plain(view: Sequence[int], limbs: tuple) -> Layout:
    """Makes a layout whose joints are some of the 26."""
    return Layout(tuple(view), {joint: index for index, joint in enumerate(view)}, limbs)


_COCO_17 = (0, 16, 15, 18, 17, 5, 2, 6, 3, 7, 4, 12, 9, 13, 10, 14, 11)
_FEET = (19, 20, 21, 22, 23, 24)
_COCO_17_LIMBS = (
    *((0, 1), (0, 2), (1, 3), (2, 4), (5, 6), (5, 7), (7, 9), (6, 8), (8, 10)),
    *((5, 11), (6, 12), (11, 12), (11, 13), (13, 15), (12, 14), (14, 16)),
)
_BODY_25B_FEET = ((15, 19), (19, 20), (15, 21), (16, 22), (22, 23), (16, 24))
_UPPER_NECK = {1: 0.5, 17: 0.25, 18: 0.25}
_HEAD_MIDDLE = {17: 0.25, 18: 0.25, 25: 0.5}
COCO_18 = (*range(8), *range(9, 15), 15, 16, 17, 18)


def _beyond(wrist: int, elbow: int, ratio: float) -> Mapping[int, float]:
    """Returns a point of the hand: the forearm continued by `ratio` of its length."""
    return {wrist: 1.0 + ratio, elbow: -ratio}


LAYOUTS: dict[str, Layout] = {
    "body26": _plain(range(26), LIMBS),
    "body25": _plain(range(25), tuple(limb for limb in LIMBS if 25 not in limb)),
    "body25b": Layout(  # COCO's 17, then upper neck, head top and the feet
        (*_COCO_17, _UPPER_NECK, 25, *_FEET),
        {joint: index for index, joint in enumerate(_COCO_17)}
        | {25: 18, 1: {5: 0.5, 6: 0.5}, 8: {11: 0.5, 12: 0.5}}
        | {joint: 19 + index for index, joint in enumerate(_FEET)},
        (*_COCO_17_LIMBS, (17, 18), (0, 17), *_BODY_25B_FEET),
    ),
    "coco17": Layout(
        _COCO_17,
        {joint: index for index, joint in enumerate(_COCO_17)}
        | {1: {5: 0.5, 6: 0.5}, 8: {11: 0.5, 12: 0.5}},
        _COCO_17_LIMBS,
    ),
    "coco18": Layout(
        COCO_18,
        {joint: index for index, joint in enumerate(COCO_18)} | {8: {8: 0.5, 11: 0.5}},
        (
            *((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11)),
            *((11, 12), (12, 13), (1, 0), (0, 14), (14, 16), (0, 15), (15, 17)),
        ),
    ),
    "coco23": Layout(  # COCO's 17 and the feet: the first 23 of COCO-WholeBody's 133
        (*_COCO_17, *_FEET),
        {joint: index for index, joint in enumerate((*_COCO_17, *_FEET))}
        | {1: {5: 0.5, 6: 0.5}, 8: {11: 0.5, 12: 0.5}},
        (*_COCO_17_LIMBS, *((15, 17), (17, 18), (15, 19), (16, 20), (20, 21), (16, 22))),
    ),
    "halpe26": _plain(  # COCO's 17, head top, neck, hip, then big toes, small toes, heels
        (*_COCO_17, 25, 1, 8, 19, 22, 20, 23, 21, 24),
        (
            *(_COCO_17_LIMBS + ((17, 18), (18, 19), (15, 20), (20, 22), (15, 24))),
            *((16, 21), (21, 23), (16, 25)),
        ),
    ),
    "mediapipe33": Layout(  # eye corners, mouth and fingers are guessed
        (
            *(0, {16: 0.75, 0: 0.25}, 16, {16: 0.75, 18: 0.25}),
            *({15: 0.75, 0: 0.25}, 15, {15: 0.75, 17: 0.25}, 18, 17),
            *({0: 1.4, 16: -0.2, 15: -0.1, 18: -0.1}, {0: 1.4, 15: -0.2, 16: -0.1, 17: -0.1}),
            *(5, 2, 6, 3, 7, 4, _beyond(7, 6, 0.35), _beyond(4, 3, 0.35)),
            *(_beyond(7, 6, 0.40), _beyond(4, 3, 0.40), _beyond(7, 6, 0.25), _beyond(4, 3, 0.25)),
            *(12, 9, 13, 10, 14, 11, 21, 24, 19, 22),
        ),
        {0: 0, 16: 2, 15: 5, 18: 7, 17: 8, 5: 11, 2: 12, 6: 13, 3: 14, 7: 15, 4: 16}
        | {12: 23, 9: 24, 13: 25, 10: 26, 14: 27, 11: 28, 21: 29, 24: 30, 19: 31, 22: 32}
        | {1: {11: 0.5, 12: 0.5}, 8: {23: 0.5, 24: 0.5}},
        (
            *((0, 2), (2, 7), (0, 5), (5, 8), (9, 10), (11, 12), (11, 13), (13, 15)),
            *((12, 14), (14, 16), (11, 23), (12, 24), (23, 24), (23, 25), (25, 27)),
            *((24, 26), (26, 28), (27, 29), (27, 31), (28, 30), (28, 32)),
        ),
    ),
    "mpii14": _plain(  # Balakrishnan et al.: head top, neck, then COCO-18's 2..13
        (25, 1, *range(2, 8), *range(9, 15)),
        (
            *((0, 1), (2, 3), (3, 4), (5, 6), (6, 7), (8, 9), (9, 10), (11, 12), (12, 13)),
            *((2, 5), (5, 11), (11, 8), (8, 2)),
        ),
    ),
    "ntu25": Layout(  # Kinect v2; the 26 have no hands, so the forearm is continued
        (
            *(8, {1: 0.5, 8: 0.5}, _UPPER_NECK, _HEAD_MIDDLE, 5, 6, 7, _beyond(7, 6, 0.35)),
            *(2, 3, 4, _beyond(4, 3, 0.35), 12, 13, 14, {19: 0.5, 20: 0.5}),
            *(9, 10, 11, {22: 0.5, 23: 0.5}, 1),
            *(_beyond(7, 6, 0.70), _beyond(7, 6, 0.30), _beyond(4, 3, 0.70), _beyond(4, 3, 0.30)),
        ),
        {0: 3, 1: 20, 8: 0, 5: 4, 6: 5, 7: 6, 2: 8, 3: 9, 4: 10}
        | {12: 12, 13: 13, 14: 14, 9: 16, 10: 17, 11: 18},
        (
            *((0, 1), (1, 20), (20, 2), (2, 3), (20, 4), (4, 5), (5, 6), (6, 7), (7, 21), (7, 22)),
            *((20, 8), (8, 9), (9, 10), (10, 11), (11, 23), (11, 24)),
            *((0, 12), (12, 13), (13, 14), (14, 15), (0, 16), (16, 17), (17, 18), (18, 19)),
        ),
    ),
}
_DOUBTFUL = {"ntu25": {0: 0.5}}  # joints of the 26 that a layout gives only roughly


def layout(name: str) -> Layout:
    """Returns the layout of that name.

    Raises:
      UserError: if there is none.
    """
    if name not in LAYOUTS:
        raise UserError(f"unknown joint layout {name!r}: one of {', '.join(LAYOUTS)}")
    return LAYOUTS[name]


def convert(
    joints: Float[np.ndarray, "*n j 3"], source: str, target: str
) -> Float[np.ndarray, "*n k 3"]:
    """Converts joints of layout `source` to those of layout `target`, by way of the 26.

    A mean of several joints has the lowest of their confidences and is missing if one of them is;
    joints that the source does not know are missing.

    Raises:
      UserError: if a layout does not exist or `joints` has another number of joints.
    """
    rows = layout(source).common
    if joints.shape[-2] != layout(source).count:
        raise UserError(
            f"joint layout {source!r} has {layout(source).count} joints, not {joints.shape[-2]}"
        )
    common = np.zeros((*joints.shape[:-2], COUNT, 3), joints.dtype)
    common[..., list(rows), :] = _mix(joints, tuple(rows.values()))
    for joint, factor in _DOUBTFUL.get(source, {}).items():
        common[..., joint, 2] *= factor
    return _mix(common, layout(target).view)


def convert_points(points: Float[np.ndarray, "*n 26 c"], name: str) -> Float[np.ndarray, "*n j c"]:
    """Converts bare coordinates of the 26 (such as 3-D joints) to layout `name`; NaN stays NaN."""
    weights = [{row: 1.0} if isinstance(row, int) else row for row in layout(name).view]
    return np.stack(
        [sum(w * points[..., index, :] for index, w in row.items()) for row in weights], -2
    )


def _mix(joints: np.ndarray, rows: Sequence[_Row]) -> np.ndarray:
    mixed = []
    for row in rows:
        if isinstance(row, int):
            mixed.append(joints[..., row, :])
            continue
        confidence = joints[..., list(row), 2].min(-1)
        place = sum(weight * joints[..., index, :2] for index, weight in row.items())
        mixed.append(np.concatenate([place, confidence[..., None]], -1))
    stacked = np.stack(mixed, -2)
    return np.where(stacked[..., 2:] > 0, stacked, np.zeros_like(stacked))


def present(joints: Float[np.ndarray, "*n j 3"]) -> Bool[np.ndarray, "*n j"]:
    """Returns whether each joint is there."""
    return joints[..., 2] > 0


def flagged_runs(flags: Bool[np.ndarray, "t 26"]) -> dict[str, list[list[int]]]:
    """Returns {joint: [[first, last] frame of each run]} of joints with a flag in some frame."""
    result = {}
    for joint in np.flatnonzero(flags.any(0)):
        edges = np.diff(np.concatenate([[0], flags[:, joint].astype(int), [0]]))
        starts, ends = np.flatnonzero(edges > 0), np.flatnonzero(edges < 0) - 1
        result[NAMES[joint]] = np.stack([starts, ends], -1).tolist()
    return result


def flip(joints: Float[np.ndarray, "*n j 3"], name: str = "body26"):
    """Mirrors joints: x in [-1, 1] changes sign, left and right change places."""
    swapped = joints[..., list(layout(name).mirror), :]
    return swapped * np.array([-1.0, 1.0, 1.0], np.float32)
