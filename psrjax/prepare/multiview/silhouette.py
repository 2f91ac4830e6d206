"""Moves joints so that a posed body's outline meets a mask."""

from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import Bool, Float

from psrjax.vision import body, body_parts, raster
from psrjax.vision.camera import Camera

CLOSE = 3.0  # pixels: an outline pixel farther from the mask's edge counts less
FACING = 0.3  # cosine of both outlines' normals below which they are not of the same limb
STAY = 6.0  # weight, in outline pixels, that holds a joint in place

_HEAD = (0, 15, 16, 17, 18, 25)
_CENTRE: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "pelvis": ((9, 12), (2, 5)),
    "chest": ((9, 12), (2, 5)),
    "neck": ((2, 5), _HEAD),
    "head": (_HEAD, _HEAD),
}
_SIDES = {
    "left": {"shoulder": 5, "elbow": 6, "wrist": 7, "hip": 12, "knee": 13, "ankle": 14},
    "right": {"shoulder": 2, "elbow": 3, "wrist": 4, "hip": 9, "knee": 10, "ankle": 11},
}
_TOES = {"left": (19, 20), "right": (22, 23)}
_SPANS = {
    "collar": ("shoulder", "shoulder"),
    "shoulder": ("shoulder", "elbow"),
    "upper_arm": ("shoulder", "elbow"),
    "forearm": ("elbow", "wrist"),
    "hand": ("elbow", "wrist"),  # beyond the wrist, on the same line
    "hip": ("hip", "knee"),
    "thigh": ("hip", "knee"),
    "shin": ("knee", "ankle"),
}


def _ends(bone: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Joints at the two ends of a bone; an end is the mean of several."""
    if bone in _CENTRE:
        return _CENTRE[bone]
    side, name = bone.split("_", 1)
    if name == "foot":
        return (_SIDES[side]["ankle"],), _TOES[side]
    first, last = _SPANS[name]
    return (_SIDES[side][first],), (_SIDES[side][last],)


def influence(model: body.BodyModel) -> Float[np.ndarray, "f 26"]:
    """Weights by which each face moves with each joint: linear along bones, rows sum to one."""
    shares = np.zeros((len(model.vertices), 26))
    for index, bone in enumerate(body_parts.BONES):
        start, end = _ends(bone)
        first, last = model.joints[list(start)].mean(0), model.joints[list(end)].mean(0)
        axis = last - first
        along = (model.vertices - first) @ axis / max(axis @ axis, 1e-9)
        along = np.clip(along, 0.0, 1.5 if bone.endswith("hand") else 1.0)
        for joints, part in ((start, 1.0 - along), (end, along)):
            for joint in joints:
                shares[:, joint] += model.weights[:, index] * part / len(joints)
    return shares[model.faces].mean(1)


def moved_joints(
    model: body.BodyModel,
    vertices: Float[np.ndarray, "t v 3"],
    joints: Float[np.ndarray, "t 26 3"],
    masks: Bool[np.ndarray, "t h w"],
    camera: Camera,
) -> Float[np.ndarray, "t 26 3"]:
    """Moves joints so that the body's outline in a view meets the mask.

    Every pixel of the drawn outline is pulled along its normal to the mask's nearest edge; the
    joints' shifts are the least squares of these pulls. So the two sides of a limb centre it, and
    one that is too thin or thick does not move. Joints without an outline stay, with weight 0.

    Returns:
      x and y in the view's pixels, and a weight from 0 to 1.
    """
    shares = influence(model)
    places = camera.project(joints)["pixels"]
    result = np.zeros((*places.shape[:2], 3))
    for time, now in enumerate(vertices):
        picture = raster.render(now, model.faces, camera)
        shift, weight = _shifts(picture.face, masks[time], shares)
        found = np.isfinite(places[time]).all(-1)
        result[time, :, :2] = np.where(found[:, None], np.nan_to_num(places[time]) + shift, 0.0)
        result[time, :, 2] = np.where(found, weight, 0.0)
    return result


def _shifts(
    face: np.ndarray, mask: np.ndarray, shares: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Shifts (26, 2) in pixels and their weights (26,), of one picture."""
    drawn = (face >= 0).astype(np.uint8)
    edge = (drawn > 0) & (cv2.erode(drawn, np.ones((3, 3), np.uint8)) == 0)
    edge[[0, -1]] = edge[:, [0, -1]] = False  # the picture's border is no outline
    own, other = _distance(drawn > 0), _distance(mask)
    rows, columns = np.nonzero(edge)
    normal, towards = _slope(own, rows, columns), _slope(other, rows, columns)
    facing = (normal * towards).sum(-1)
    pull = -(other - own)[rows, columns] * facing
    trust = np.where(facing > FACING, 1.0 / (1.0 + (pull / CLOSE) ** 2), 0.0)
    lever = shares[face[rows, columns]]
    system = (lever[:, :, None] * normal[:, None, :]).reshape(len(rows), -1)
    matrix = np.einsum("mi,m,mj->ij", system, trust, system)
    target = system.T @ (trust * pull)
    shift = np.linalg.solve(matrix + STAY * np.eye(len(matrix)), target).reshape(-1, 2)
    known = np.diag(matrix).reshape(-1, 2).min(-1)
    return shift, known / (known + STAY)


def _distance(mask: np.ndarray) -> np.ndarray:
    """Signed distance in pixels to a mask's edge, negative inside."""
    inside = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5)
    outside = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    return outside - inside


def _slope(distance: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Unit gradients (m, 2), as (x, y)."""
    smooth = cv2.GaussianBlur(distance, (5, 5), 0)
    down, right = np.gradient(smooth)
    slope = np.stack([right[rows, columns], down[rows, columns]], -1)
    return slope / np.maximum(np.linalg.norm(slope, axis=-1, keepdims=True), 1e-6)
