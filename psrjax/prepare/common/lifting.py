"""Lifts a body to space from its joints in one camera, or from SMPL's angles; licence-free.

The depth is precise enough for rendering IUV, that is, for which side of a limb is visible.
"""

import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import gaussian_filter1d

from psrjax.errors import UserError
from psrjax.prepare.common import kinect_body, masking
from psrjax.vision import body, mesh_features, raster, rendering, smpl
from psrjax.vision.camera import Camera

AWAY = 40.0  # metres: a distance with weak perspective
TALL = 1.75  # metres, of the built-in body
SMOOTH = 2.0  # frames, standard deviation of the smoothing of depth
# (parent, child, 1 if it bends towards the person's front, -1 to the back), in order of lifting.
_LIMBS = (
    *((8, 1, 0), (1, 2, 0), (1, 5, 0), (8, 9, 0), (8, 12, 0)),
    *((2, 3, 1), (3, 4, 1), (5, 6, 1), (6, 7, 1)),
    *((9, 10, 1), (10, 11, -1), (12, 13, 1), (13, 14, -1)),
)
_HEAD_AND_FEET = (0, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25)
# Of SMPL's 24 joints: parents, and the ones in place of the Kinect's 25.
PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
_KINECT = (
    *(0, 6, 12, 15, 16, 18, 20, 22, 17, 19, 21, 23, 1, 4, 7, 10, 2, 5, 8, 11),
    *(12, 22, 22, 23, 23),
)


def telephoto(metres_a_pixel: float, size: tuple[int, int]) -> Camera:
    """Returns a distant camera that projects (x, y, AWAY) to pixel (x, y) / metres_a_pixel."""
    focal = AWAY / metres_a_pixel
    return Camera(np.diag([focal, focal, 1.0]), np.eye(3), np.zeros(3), np.zeros(5), size)


def lift(joints: Float[np.ndarray, "t 26 3"], metres_a_pixel: float) -> Float[np.ndarray, "t 26 3"]:
    """Lifts joints of a picture to space (x right, y down, z away, metres).

    Bones have the built-in body's lengths; the part missing in the picture is depth. Its sign is
    that of the body's bending: elbows and thighs to the front, shins to the back. The front is
    where the nose is, or towards the camera if the left shoulder is on the right.

    Raises:
      UserError: if shoulders or hips are visible in no frame.
    """
    flat, known = _without_gaps(joints)
    flat = flat * metres_a_pixel
    rest = body.template().joints
    across = flat[:, 5] - flat[:, 2]
    width = np.linalg.norm(rest[5] - rest[2])
    head = flat[:, 0] - flat[:, 1] if known[0] else np.zeros_like(across)
    facing = np.sqrt(np.clip(1.0 - (across[:, 0] / width) ** 2, 0.0, 1.0))
    sideways = np.sign(head[:, 0]) * facing  # the front's x
    ahead = np.stack([sideways, -np.clip(across[:, 0] / width, -1.0, 1.0)], -1)  # x, z
    depth = np.zeros(flat.shape[:2])
    half = 0.5 * sideways[:, None] * np.linalg.norm(rest[[5, 12]] - rest[[2, 9]], axis=-1)
    for parent, child, bends in _LIMBS:
        length = np.linalg.norm(rest[child] - rest[parent])
        seen = np.linalg.norm(flat[:, child] - flat[:, parent], axis=-1)
        lacking = np.sqrt(np.maximum(length**2 - seen**2, 0.0))
        depth[:, child] = depth[:, parent] + bends * np.sign(ahead[:, 1]) * 0.7 * lacking
        if child in (2, 5, 9, 12):  # left is front rotated by 90°: its depth is the front's x
            side = 1.0 if child in (5, 12) else -1.0
            depth[:, child] = depth[:, parent] + side * half[:, 0 if child in (2, 5) else 1]
    depth = gaussian_filter1d(depth, SMOOTH, axis=0, mode="nearest")
    lifted = np.concatenate([flat, (AWAY + depth)[..., None]], -1)
    lifted[:, _HEAD_AND_FEET] = np.nan
    return _with_head(lifted, flat, ahead)


def _with_head(lifted: np.ndarray, flat: np.ndarray, ahead: np.ndarray) -> np.ndarray:
    """Adds head joints that follow the neck and face where the body does."""
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
    """Returns x, y of all joints at all times, and which are visible at all.

    Gaps are interpolated linearly; a limb that is never visible hangs at rest.
    """
    times = np.arange(len(joints))
    flat = np.zeros((*joints.shape[:2], 2))
    known = np.any(joints[..., 2] > 0, axis=0)
    if not known[[2, 5, 9, 12]].all():
        raise UserError("shoulders or hips are visible in no frame: no body can be fitted")
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
    """Renders the built-in body on joints in space: `iuv` (DensePose) and `mesh_label`."""
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
    """Lifts joints, in pixels of pictures of `size`, and returns them with their camera.

    Raises:
      UserError: if shoulders, hips or all limbs are never visible.
    """
    tall = masking.stature(joints)
    if not tall:
        raise UserError("no whole limb is visible, so that the person's height is unknown")
    metres_a_pixel = TALL / tall
    return lift(joints, metres_a_pixel), telephoto(metres_a_pixel, size)


def smpl_joints(pose: Float[np.ndarray, "t 72"]) -> Float[np.ndarray, "t 26 3"]:
    """Poses the built-in body's bones by SMPL's angles: the 26 joints, pelvis at 0.

    In the axes of the first rotation. At rest SMPL stretches its arms, x left, y up, z front; the
    lengths are the built-in body's, so that SMPL's model file is not needed.
    """
    rest = smpl_rest_joints()
    places = smpl.forward_kinematics(pose, (rest - rest[0])[None], PARENTS)["joints"]
    kinect = places[:, _KINECT]
    up = places[:, 15] - places[:, 12]
    kinect[:, 2] = places[:, 12] + 0.5 * up
    kinect[:, 3] = places[:, 15] + 0.6 * up
    return kinect_body.body_joints(kinect)


def smpl_rest_joints() -> Float[np.ndarray, "24 3"]:
    """Returns SMPL's joints at rest by the built-in body's proportions; x left, y up, z front."""
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
