"""A body in space from what one camera tells: from its joints alone, or from SMPL's angles.

Neither needs a licence. Depth is as good as an IUV rendering needs it: which side of a limb shows.
"""

import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from psrjax.errors import UserError
from psrjax.prepare.common import kinect_body, masking
from psrjax.vision import body, mesh_features, raster, rendering
from psrjax.vision.camera import Camera

AWAY = 40.0  # metres: from so far, perspective is weak
TALL = 1.75  # metres, the built-in body
SMOOTH = 2.0  # frames, standard deviation of what smooths lifted depth
# (parent, child, whether it bends towards the person's front): the order of lifting.
_LIMBS = (
    *((8, 1, 0), (1, 2, 0), (1, 5, 0), (8, 9, 0), (8, 12, 0)),
    *((2, 3, 1), (3, 4, 1), (5, 6, 1), (6, 7, 1)),
    *((9, 10, 1), (10, 11, -1), (12, 13, 1), (13, 14, -1)),
)
_HEAD_AND_FEET = (0, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25)
# SMPL's 24 joints: parents, and the Kinect's 25 that `raw_kinect.body_joints` reads of them.
PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
_KINECT = (
    0,
    6,
    12,
    15,
    16,
    18,
    20,
    22,
    17,
    19,
    21,
    23,
    1,
    4,
    7,
    10,
    2,
    5,
    8,
    11,
    12,
    22,
    22,
    23,
    23,
)


def telephoto(metres_a_pixel: float, size: tuple[int, int]) -> Camera:
    """A camera so far off that (x, y, AWAY) lies at pixel (x, y) / metres_a_pixel."""
    focal = AWAY / metres_a_pixel
    return Camera(np.diag([focal, focal, 1.0]), np.eye(3), np.zeros(3), np.zeros(5), size)


def lift(joints: Float[np.ndarray, "t 26 3"], metres_a_pixel: float) -> Float[np.ndarray, "t 26 3"]:
    """Joints in space (x right, y down, z away, metres) from joints in a picture.

    Bones have the built-in body's lengths: what a bone lacks in the picture, it has in depth.
    Towards or away is by how bodies bend: elbows and thighs to the front, shins to the back; and
    the front is where the nose is, or towards the camera where the left shoulder is on the right.

    Raises:
      UserError: if shoulders or hips are seen in no frame.
    """
    flat, known = _without_gaps(joints)
    flat = flat * metres_a_pixel
    rest = body.template().joints
    across = flat[:, 5] - flat[:, 2]
    width = np.linalg.norm(rest[5] - rest[2])
    head = flat[:, 0] - flat[:, 1] if known[0] else np.zeros_like(across)
    turned = np.sqrt(np.clip(1.0 - (across[:, 0] / width) ** 2, 0.0, 1.0))
    sideways = np.sign(head[:, 0]) * turned  # the front's x
    ahead = np.stack([sideways, -np.clip(across[:, 0] / width, -1.0, 1.0)], -1)  # x, z
    depth = np.zeros(flat.shape[:2])
    half = 0.5 * sideways[:, None] * np.linalg.norm(rest[[5, 12]] - rest[[2, 9]], axis=-1)
    for parent, child, bends in _LIMBS:
        length = np.linalg.norm(rest[child] - rest[parent])
        seen = np.linalg.norm(flat[:, child] - flat[:, parent], axis=-1)
        lacking = np.sqrt(np.maximum(length**2 - seen**2, 0.0))
        depth[:, child] = depth[:, parent] + bends * np.sign(ahead[:, 1]) * 0.7 * lacking
        if child in (2, 5, 9, 12):  # left = front turned by a quarter: its depth is the front's x
            side = 1.0 if child in (5, 12) else -1.0
            depth[:, child] = depth[:, parent] + side * half[:, 0 if child in (2, 5) else 1]
    depth = gaussian_filter1d(depth, SMOOTH, axis=0, mode="nearest")
    lifted = np.concatenate([flat, (AWAY + depth)[..., None]], -1)
    lifted[:, _HEAD_AND_FEET] = np.nan
    return _with_head(lifted, flat, ahead)


def _with_head(lifted: np.ndarray, flat: np.ndarray, ahead: np.ndarray) -> np.ndarray:
    """Head joints carried by the neck, looking where the body does; feet follow the shins."""
    rest = body.template().joints
    up = lifted[:, 1] - lifted[:, 8]
    up = up / np.maximum(np.linalg.norm(up, axis=-1, keepdims=True), 1e-6)
    front = np.stack([ahead[:, 0], np.zeros(len(ahead)), ahead[:, 1]], -1)
    front = front - (front * up).sum(-1, keepdims=True) * up
    front = front / np.maximum(np.linalg.norm(front, axis=-1, keepdims=True), 1e-6)
    axes = np.stack([front, np.cross(up, front), up], -1)
    for joint in (0, 15, 16, 17, 18, 25):
        lifted[:, joint] = lifted[:, 1] + axes @ (rest[joint] - rest[1])
    return lifted


def _without_gaps(joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x, y of all joints at all times, and which are seen at all.

    Between sightings a joint is on the straight way; a limb that is never seen hangs at rest.
    """
    times = np.arange(len(joints))
    flat = np.zeros((*joints.shape[:2], 2))
    known = (joints[..., 2] > 0).any(0)
    if not known[[2, 5, 9, 12]].all():
        raise UserError("shoulders or hips are seen in no frame: no body can be put there")
    for joint in np.flatnonzero(known):
        seen = joints[:, joint, 2] > 0
        for axis in range(2):
            flat[:, joint, axis] = np.interp(times, times[seen], joints[seen, joint, axis])
    for joint, ends in ((1, (2, 5)), (8, (9, 12))):
        if not known[joint]:
            flat[:, joint] = flat[:, ends].mean(1)
    scale = masking.stature(joints) / TALL
    rest = body.template().joints
    for parent, child, _ in _LIMBS:
        if not known[child] and child not in (1, 8):
            down = np.array([0.0, rest[parent, 2] - rest[child, 2]])
            flat[:, child] = flat[:, parent] + scale * down
    return flat, known


def render_streams(
    joints: Float[np.ndarray, "t 26 3"], camera: Camera
) -> dict[str, UInt8[np.ndarray, "t h w 3"]]:
    """`iuv`, DensePose's parts and u, v, and `mesh_label` (see `vision.mesh_features`) of the
    built-in body on joints in space, as a camera sees it."""
    model = body.template()
    found: dict[str, list[np.ndarray]] = {"iuv": [], "mesh_label": []}
    for vertices in body.pose(model, joints):
        picture = raster.render(vertices, model.faces, camera)
        found["iuv"].append(rendering.iuv(model, picture))
        found["mesh_label"].append(mesh_features.label(picture, vertices, model.faces, camera))
    return {name: np.stack(pictures) for name, pictures in found.items()}


def lift_clip(
    joints: Float[np.ndarray, "t 26 3"], size: tuple[int, int]
) -> tuple[Float[np.ndarray, "t 26 3"], Camera]:
    """Joints in a picture of `size`, pixels, by `lift`, and the camera that sees them there.

    Raises:
      UserError: if shoulders, hips, or no limb at its whole length are seen.
    """
    tall = masking.stature(joints)
    if not tall:
        raise UserError("no limb is seen at its whole length: how tall the person is stays unknown")
    metres_a_pixel = TALL / tall
    return lift(joints, metres_a_pixel), telephoto(metres_a_pixel, size)


def smpl_joints(pose: Float[np.ndarray, "t 72"]) -> Float[np.ndarray, "t 26 3"]:
    """The 26 joints that SMPL's angles give a body of the built-in one's bones, pelvis at 0.

    In the axes of the first rotation. SMPL rests with its arms stretched out, x to its left, y up,
    z to its front; the lengths are the built-in body's, so its model file is not needed.
    """
    rest = smpl_rest_joints()
    rotation = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    whole = rotation.copy()
    places = np.zeros((len(pose), 24, 3))
    for joint, parent in enumerate(PARENTS[1:], 1):
        bone = rest[joint] - rest[parent]
        places[:, joint] = places[:, parent] + whole[:, parent] @ bone
        whole[:, joint] = whole[:, parent] @ rotation[:, joint]
    kinect = places[:, _KINECT]
    up = places[:, 15] - places[:, 12]
    kinect[:, 2] = places[:, 12] + 0.5 * up
    kinect[:, 3] = places[:, 15] + 0.6 * up
    return kinect_body.body_joints(kinect)


def smpl_rest_joints() -> Float[np.ndarray, "24 3"]:
    """SMPL's joints at rest, by the built-in body's measures; x left, y up, z front."""
    own = body.template().joints
    at = {name: own[index][[1, 2, 0]] for name, index in _OWN.items()}  # x left, y up, z front
    result = np.zeros((24, 3))
    hips = 0.5 * (at["left hip"] + at["right hip"])
    result[0] = hips + (0, 0.06, 0)
    spine = at["neck"] - result[0]
    for joint, share in ((3, 0.25), (6, 0.5), (9, 0.65), (12, 1.0)):
        result[joint] = result[0] + share * spine
    head = 0.5 * (at["left ear"] + at["right ear"])
    result[15] = at["neck"] + 0.6 * (head - at["neck"])
    for side, sign, places in (("left", 1, (1, 4, 7, 10, 13, 16, 18, 20, 22)),
                               ("right", -1, (2, 5, 8, 11, 14, 17, 19, 21, 23))):  # fmt: skip
        hip, knee, ankle, foot, collar, shoulder, elbow, wrist, hand = places
        leg = [np.linalg.norm(at[f"{side} {b}"] - at[f"{side} {a}"])
               for a, b in (("hip", "knee"), ("knee", "ankle"))]  # fmt: skip
        result[hip] = at[f"{side} hip"]
        result[knee] = result[hip] - (0, leg[0], 0)
        result[ankle] = result[knee] - (0, leg[1], 0)
        result[foot] = result[ankle] + (0, -0.05, 0.14)
        result[shoulder] = at[f"{side} shoulder"]
        result[collar] = 0.4 * result[shoulder] + 0.6 * result[12]
        arm = [np.linalg.norm(at[f"{side} {b}"] - at[f"{side} {a}"])
               for a, b in (("shoulder", "elbow"), ("elbow", "wrist"))]  # fmt: skip
        result[elbow] = result[shoulder] + (sign * arm[0], 0, 0)
        result[wrist] = result[elbow] + (sign * arm[1], 0, 0)
        result[hand] = result[wrist] + (sign * 0.09, 0, 0)
    return result


_OWN = {
    "neck": 1, "right shoulder": 2, "right elbow": 3, "right wrist": 4, "left shoulder": 5,
    "left elbow": 6, "left wrist": 7, "right hip": 9, "right knee": 10, "right ankle": 11,
    "left hip": 12, "left knee": 13, "left ankle": 14, "right ear": 17, "left ear": 18,
}  # fmt: skip
