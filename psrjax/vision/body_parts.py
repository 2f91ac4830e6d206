"""Parts of the built-in body: skinning weights, DensePose parts and charts, GTNet's parts.

All are functions of the rest pose of `vision.body_mesh` (x forward, y left, z up).
"""

import numpy as np
import scipy.sparse as sparse
from jaxtyping import Float, Int
from scipy.sparse.linalg import splu

from psrjax.vision import body_mesh

CENTRE_BONES = ("pelvis", "chest", "neck", "head")
SIDE_BONES = (
    "collar",
    "shoulder",  # the upper arm's end at the shoulder: swings, does not twist
    "upper_arm",
    "forearm",
    "hand",
    "hip",  # the thigh's end at the hip: swings, does not twist
    "thigh",
    "shin",
    "foot",
)
BONES = CENTRE_BONES + tuple(f"{side}_{bone}" for side in ("left", "right") for bone in SIDE_BONES)
_MIRROR_BONE = np.array(
    [
        BONES.index(name.replace("left", "*").replace("right", "left").replace("*", "right"))
        for name in BONES
    ]
)
_SKIN_WIDTH = 0.032  # metres over which neighbouring bones share the skin
_STEPS = 4  # of diffusion: the more, the faster a bone's influence ends

# DensePose's numbering: (back, front) halves per limb and side.
_TORSO = (1, 2)
_LIMBS = {
    ("left", "thigh"): (8, 10),
    ("right", "thigh"): (7, 9),
    ("left", "shin"): (12, 14),
    ("right", "shin"): (11, 13),
    ("left", "upper_arm"): (15, 17),
    ("right", "upper_arm"): (16, 18),
    ("left", "forearm"): (19, 21),
    ("right", "forearm"): (20, 22),
}
_ENDS = {
    ("left", "hand"): 4,
    ("right", "hand"): 3,
    ("left", "foot"): 5,
    ("right", "foot"): 6,
    ("left", "head"): 24,
    ("right", "head"): 23,
}
# GTNet's ten parts: 1-4 left upper arm, forearm and hand, thigh, shin and foot; 5-8 the same on
# the right; 9 torso; 10 head.
_GROUPS = {15: 1, 17: 1, 19: 2, 21: 2, 4: 2, 8: 3, 10: 3, 12: 4, 14: 4, 5: 4}
_GROUPS |= {16: 5, 18: 5, 20: 6, 22: 6, 3: 6, 7: 7, 9: 7, 11: 8, 13: 8, 6: 8}
_GROUPS |= {1: 9, 2: 9, 23: 10, 24: 10}
MIRROR_GROUPS = (5, 6, 7, 8, 1, 2, 3, 4, 9, 10)  # of groups 1..10
_NECK_LINE = 1.485  # below it the neck counts as torso, as in DensePose


def groups(parts: Int[np.ndarray, " f"]) -> Int[np.ndarray, " f"]:
    """Returns GTNet's part 1..10 of each face from its DensePose part 1..24."""
    table = np.zeros(25, np.int32)
    table[list(_GROUPS)] = list(_GROUPS.values())
    return table[parts]


def skinning_weights(
    vertices: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    mirror: Int[np.ndarray, " v"],
) -> Float[np.ndarray, "v b"]:
    """Computes the weight of each bone of `BONES` on each vertex; rows sum to one.

    The nearest bone's label is diffused over the surface (implicit heat steps), so that no weight
    jumps between limbs that only touch.
    """
    left = vertices * (1, -1, 1) * (vertices[:, 1:2] < 0) + vertices * (vertices[:, 1:2] >= 0)
    names = body_mesh.nearest_bones(left)
    hard = np.zeros((len(vertices), len(BONES)))
    upper = _smoothstep(left[:, 2], 0.97, 1.22)
    for side, member in (("left", vertices[:, 1] >= 0), ("right", vertices[:, 1] <= 0)):
        for name in np.unique(names):
            rows = np.flatnonzero((names == name) & member)
            for bone, share in _shares(name, side, left[rows], upper[rows]).items():
                hard[rows, BONES.index(bone)] += share
    hard /= hard.sum(1, keepdims=True)
    soft = _diffuse(hard, vertices, faces)
    soft = 0.5 * (soft + soft[mirror][:, _MIRROR_BONE])
    soft[soft < 0.01] = 0.0
    return (soft / soft.sum(1, keepdims=True)).astype(np.float32)


def _shares(name: str, side: str, points: np.ndarray, upper: np.ndarray) -> dict[str, np.ndarray]:
    if name in ("torso", "pelvis", "chest"):
        return {"pelvis": 1 - upper, "chest": upper}
    if name in ("neck", "head"):
        return {name: np.ones(len(points))}
    swing = {"upper_arm": "shoulder", "thigh": "hip"}.get(name)
    if swing is None:
        return {f"{side}_{name}": np.ones(len(points))}
    start, end = _SEGMENTS[name]
    twist = _smoothstep((points - start) @ (end - start) / ((end - start) ** 2).sum(), 0.1, 0.8)
    return {f"{side}_{swing}": 1 - twist, f"{side}_{name}": twist}


def _smoothstep(value: np.ndarray, low: float, high: float) -> np.ndarray:
    ramp = np.clip((value - low) / (high - low), 0.0, 1.0)
    return ramp * ramp * (3 - 2 * ramp)


def _diffuse(values: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    edges = np.unique(np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1), axis=0)
    ends = np.concatenate([edges, edges[:, ::-1]])
    squared = ((vertices[ends[:, 0]] - vertices[ends[:, 1]]) ** 2).sum(-1)
    count = len(vertices)
    pull = sparse.coo_matrix((1.0 / (squared + 1e-5), (ends[:, 0], ends[:, 1])), (count, count))
    degree = np.bincount(ends[:, 0], minlength=count)
    pull = sparse.diags(4.0 / degree) @ pull.tocsr()
    laplacian = sparse.diags(np.asarray(pull.sum(1))[:, 0]) - pull
    system = sparse.identity(count) + _SKIN_WIDTH**2 / _STEPS * laplacian
    solver = splu(system.tocsc())
    for _ in range(_STEPS):
        values = solver.solve(values)
    return values


def _rest_segments() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    joints = body_mesh.rest_joints()
    pairs = {"upper_arm": (5, 6), "forearm": (6, 7), "thigh": (12, 13), "shin": (13, 14)}
    segments = {name: (joints[a], joints[b]) for name, (a, b) in pairs.items()}
    arm = joints[7] - joints[6]
    segments["hand"] = (joints[7], joints[7] + 0.185 * arm / np.linalg.norm(arm))
    segments["foot"] = (joints[21] - (0.02, 0, 0), joints[19] + (0.03, 0, 0))
    return segments


_SEGMENTS = _rest_segments()


def densepose(
    vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]
) -> dict[str, np.ndarray]:
    """Assigns each face its DensePose part and chart.

    Returns `part` (f,) int32 in 1..24 and `uv` (f, 3, 2) float32 in [0, 1], u and v at each
    corner. A limb's chart has v along the bone and u around its half; the torso's v points up and
    its u to the person's left; the head's u runs from the face to the back and its v up; hands and
    feet have one side in u < 0.5 (palm, sole) and the other in u >= 0.5.
    """
    half = len(faces) // 2  # the second half of the faces mirrors the first
    corners = vertices[faces[:half]]
    middle = corners.mean(1)
    names = body_mesh.nearest_bones(middle)
    neck = np.isin(names, ("neck", "head"))
    names[neck & (middle[:, 2] <= _NECK_LINE)] = "torso"
    names[neck & (middle[:, 2] > _NECK_LINE)] = "head"
    names[np.isin(names, ("pelvis", "chest", "collar"))] = "torso"
    part = np.zeros(len(faces), np.int32)
    uv = np.zeros((len(faces), 3, 2), np.float32)
    for name in np.unique(names):
        rows = np.flatnonzero(names == name)
        front, chart = _chart(name, corners[rows], middle[rows])
        uv[rows], uv[half + rows] = chart, chart[:, ::-1]
        if name == "torso":
            uv[half + rows, :, 0] = 1 - uv[half + rows, :, 0]
        for side, offset in (("left", 0), ("right", half)):
            part[offset + rows] = _numbers(name, side, front)
    return {"part": part, "uv": np.clip(uv, 0.0, 1.0)}


def _numbers(name: str, side: str, front: np.ndarray) -> np.ndarray:
    if (side, name) in _ENDS:
        return np.full(len(front), _ENDS[side, name])
    back, ahead = _TORSO if name == "torso" else _LIMBS[side, name]
    return np.where(front, ahead, back)


def _chart(name: str, corners: np.ndarray, middle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns (in front (n,), uv (n, 3, 2)) of left-half faces that belong to one kind of part."""
    if name == "torso":
        u, v = 0.5 + corners[..., 1] / 0.38, (corners[..., 2] - 0.79) / (1.50 - 0.79)
        return middle[:, 0] > -0.006, np.stack([u, v], -1)
    if name == "head":
        around = np.arctan2(np.abs(corners[..., 1]), corners[..., 0]) / np.pi
        return middle[:, 0] > 0, np.stack([around, (corners[..., 2] - 1.48) / 0.28], -1)
    start, end = _SEGMENTS[name]
    axis = (end - start) / np.linalg.norm(end - start)
    along = (corners - start) @ axis / np.linalg.norm(end - start)
    if name == "hand":
        upper = np.cross(np.cross(axis, (0, 0, 1.0)), axis)
        over = (middle - start) @ upper > -0.06 * np.clip(along.mean(1) - 0.5, 0, None)
        across = (corners[..., 0] - start[0] + 0.045) / 0.115
        return over, np.stack([0.5 * np.clip(across, 0, 1) + 0.5 * over[:, None], along], -1)
    if name == "foot":
        over = middle[:, 2] > 0.02
        across = (corners[..., 1] - 0.095) / 0.105
        return over, np.stack([0.5 * np.clip(across, 0, 1) + 0.5 * over[:, None], along], -1)
    ahead = np.array([1.0, 0.0, 0.0]) - axis[0] * axis
    side = np.cross(axis, ahead)
    offset, centre = corners - start, middle - start
    front = centre @ ahead > 0
    forward = (offset @ ahead) * np.where(front, 1.0, -1.0)[:, None]
    around = np.arctan2(offset @ side, forward) / np.pi + 0.5
    return front, np.stack([around, along], -1)
