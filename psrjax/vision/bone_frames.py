"""Bones from 3-D joints: an orthonormal frame, an origin and lengths for every bone.

A frame's columns are (front, left, up); up runs along the bone from its origin for limbs and along
the spine for pelvis and chest. A bone's motion is the map from its rest frame to its posed frame.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from psrjax.vision.body_parts import BONES

_HEAD = (0, 15, 16, 17, 18, 25)
_ARMS = {"left": (5, 6, 7), "right": (2, 3, 4)}
_LEGS = {"left": (12, 13, 14, 19, 20, 21), "right": (9, 10, 11, 22, 23, 24)}
_ARM_AT_REST = np.array([0.0, np.cos(np.radians(40.0)), -np.sin(np.radians(40.0))])


@dataclass(frozen=True)
class BoneFrames:
    """Bones over time: `rotation` (t, b, 3, 3), `origin` (t, b, 3) and `lengths` (t, b, 3)."""

    rotation: np.ndarray
    origin: np.ndarray
    lengths: np.ndarray


def bone_frames(joints: Float[np.ndarray, "t 26 3"], rest: Float[np.ndarray, "26 3"]) -> BoneFrames:
    """Computes the bones' frames for world joints in metres; `rest` are those of the rest pose.

    Joints of the head and the feet may be NaN (missing): the head then follows its other joints,
    or the chest, and the foot follows the shin. All others must be finite. `lengths` are those
    along (front, left, up) which scale the bone, 1 where the bone keeps its own.
    """
    found: dict[str, tuple] = {}
    neck, hips = joints[:, 1], 0.5 * (joints[:, 9] + joints[:, 12])
    spine = neck - hips
    height = _norm(spine)
    for name, origin, across in (
        ("pelvis", hips, joints[:, 12] - joints[:, 9]),
        ("chest", neck, joints[:, 5] - joints[:, 2]),
    ):
        left = _unit(across)
        up = _unit(_without(spine, left))
        rotation = np.stack([np.cross(left, up), left, up], -1)
        found[name] = (rotation, origin, (None, _norm(across), height))
    chest = found["chest"][0]
    found |= _head_and_neck(joints, rest, chest)
    for side in ("left", "right"):
        found |= _arm(joints, side, chest)
        found |= _leg(joints, side, found["pelvis"][0])
    one = np.ones(len(joints))
    lengths = [[one if x is None else x for x in found[name][2]] for name in BONES]
    return BoneFrames(
        np.stack([found[name][0] for name in BONES], 1),
        np.stack([found[name][1] for name in BONES], 1),
        np.moveaxis(np.array(lengths), -1, 0),
    )


def _norm(vectors: np.ndarray) -> np.ndarray:
    return np.sqrt((vectors**2).sum(-1))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(_norm(vectors), 1e-9)[..., None]


def _without(vectors: np.ndarray, axis: np.ndarray) -> np.ndarray:
    """Removes from `vectors` their part along the unit `axis`."""
    return vectors - (vectors * axis).sum(-1, keepdims=True) * axis


def _along(axis: np.ndarray, front: np.ndarray) -> np.ndarray:
    """Returns the frame whose up is the unit `axis` and whose front is nearest to `front`."""
    front = _unit(_without(front, axis))
    return np.stack([front, np.cross(axis, front), axis], -1)


def swing(
    vector: Float[np.ndarray, "*t 3"],
    start: Float[np.ndarray, "*t 3"],
    end: Float[np.ndarray, "*t 3"],
) -> Float[np.ndarray, "*t 3"]:
    """Rotates `vector` by the smallest rotation from the unit `start` to the unit `end`."""
    cross = np.cross(start, end)
    cosine = (start * end).sum(-1, keepdims=True)
    dot = (cross * vector).sum(-1, keepdims=True)
    turned = cosine * vector + np.cross(cross, vector)
    return turned + cross * dot / np.maximum(1.0 + cosine, 1e-3)


def _bend(hinge: np.ndarray) -> np.ndarray:
    """Rises from 0 for a straight limb to 1 for one bent by more than 20 degrees."""
    ramp = np.clip((_norm(hinge) - 0.08) / 0.26, 0.0, 1.0)[..., None]
    return ramp * ramp * (3 - 2 * ramp)


def _head_and_neck(joints: np.ndarray, rest: np.ndarray, chest: np.ndarray) -> dict:
    """Fits the head rigidly to its joints (Kabsch); the neck reaches up to its base."""
    present = np.isfinite(joints[:, _HEAD]).all(-1, keepdims=True)
    weights = np.concatenate([present * 1.0, np.full((len(joints), 1, 1), 1e-3)], 1)
    points = np.concatenate([np.where(present, joints[:, _HEAD], 0.0), joints[:, 1:2]], 1)
    model = np.broadcast_to(rest[[*_HEAD, 1]], points.shape)
    weights = weights / weights.sum(1, keepdims=True)
    centre, model_centre = (weights * points).sum(1), (weights * model).sum(1)
    across = np.einsum(
        "tni,tnj->tij", weights * (points - centre[:, None]), model - model_centre[:, None]
    )
    across += 1e-6 * chest  # decides what the joints leave open
    left, _, right = np.linalg.svd(across)
    left[:, :, 2] *= np.sign(np.linalg.det(left @ right))[:, None]
    rotation = left @ right
    ears = rest[[17, 18]].mean(0)
    base_rest = ears + 0.35 * (rest[1] - ears)
    middle = rest[list(_HEAD)].mean(0) - model_centre
    middle = centre + np.einsum("tij,tj->ti", rotation, middle)
    base = centre + np.einsum("tij,tj->ti", rotation, base_rest - model_centre)
    axis = base - joints[:, 1]
    front = chest[:, :, 0] + rotation[:, :, 0]
    return {
        "head": (rotation, middle, (None, None, None)),
        "neck": (_along(_unit(axis), front), joints[:, 1], (None, None, _norm(axis))),
    }


def _arm(joints: np.ndarray, side: str, chest: np.ndarray) -> dict:
    shoulder, elbow, wrist = (joints[:, index] for index in _ARMS[side])
    collar = shoulder - joints[:, 1]
    upper, lower = elbow - shoulder, wrist - elbow
    first, second = _unit(upper), _unit(lower)
    start = np.einsum("tij,j->ti", chest, _ARM_AT_REST * (1, 1 if side == "left" else -1, 1))
    swung = swing(chest[:, :, 0], start, first)
    hinge = np.cross(first, second)  # an elbow flexes towards its front
    bent = _bend(hinge)
    front = _unit(bent * np.cross(_unit(hinge), first) + (1 - bent) * swung)
    forearm = _along(second, swing(front, first, second))
    return {
        f"{side}_collar": (
            _along(_unit(collar), chest[:, :, 0]),
            joints[:, 1],
            (None, None, _norm(collar)),
        ),
        f"{side}_shoulder": (_along(first, swung), shoulder, (None, None, _norm(upper))),
        f"{side}_upper_arm": (_along(first, front), shoulder, (None, None, _norm(upper))),
        f"{side}_forearm": (forearm, elbow, (None, None, _norm(lower))),
        f"{side}_hand": (forearm, wrist, (None, None, None)),
    }


def _leg(joints: np.ndarray, side: str, pelvis: np.ndarray) -> dict:
    hip, knee, ankle, big, small, heel = (joints[:, index] for index in _LEGS[side])
    upper, lower = knee - hip, ankle - knee
    first, second = _unit(upper), _unit(lower)
    swung = swing(pelvis[:, :, 0], -pelvis[:, :, 2], first)
    toes = 0.5 * (big + small) - heel
    outward = (small - big) * (1 if side == "left" else -1)
    known = np.isfinite(toes + outward).all(-1, keepdims=True)
    ahead = _unit(np.where(known, toes, swing(swung, first, second)))
    hint = _unit(_without(swing(swung, first, second) + ahead, second))
    hinge = np.cross(first, second)  # a knee flexes away from its front
    bent = _bend(hinge)
    front = _unit(bent * np.cross(first, _unit(hinge)) + (1 - bent) * swing(hint, second, first))
    shin = _along(second, swing(front, first, second))
    level = np.where(known, outward, np.cross(-second, ahead))
    level = _unit(_without(level, ahead))
    foot = np.stack([ahead, level, np.cross(ahead, level)], -1)
    length = np.where(np.squeeze(known, -1), _norm(np.where(known, toes, 0.0)), np.nan)
    return {
        f"{side}_hip": (_along(first, swung), hip, (None, None, _norm(upper))),
        f"{side}_thigh": (_along(first, front), hip, (None, None, _norm(upper))),
        f"{side}_shin": (shin, knee, (None, None, _norm(lower))),
        f"{side}_foot": (foot, ankle, (length, None, None)),
    }
