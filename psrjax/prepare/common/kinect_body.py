"""Kinect skeletons: cameras, smoothing, the 26 joints in space, and depth masks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.linalg import solveh_banded
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from psrjax.errors import UserError
from psrjax.ops import pose
from psrjax.prepare.common.kinect_skeleton import KinectSkeleton
from psrjax.vision import body, raster
from psrjax.vision.camera import Camera

TRACKED, INFERRED = 2, 1
CONFIDENCE = np.array([0.1, 0.3, 1.0])  # by tracking state; 0: interpolated
NOISE = 0.02  # metres of a tracked joint
ACCELERATION = 12.0  # m/s², typical of a walking person's joints
_WEIGHT = np.array([0.0, 0.1, 1.0])  # of a joint by its tracking state, when smoothing
_FIT_POINTS = 800

# The Kinect's 25 joints with left and right exchanged.
_MIRROR = np.array(
    [0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 16, 17, 18, 19, 12, 13, 14, 15, 20, 23, 24, 21, 22]
)
_UP, _LEFT = np.array([[0.0, 0.0, 1.0]]), np.array([[0.0, 1.0, 0.0]])  # of the body at rest
_OURS, _THEIRS = np.array(list(pose.layout("ntu25").common.items())).T  # joints of both
_HEAD = (0, 15, 16, 17, 18, 25)
_FEET = {"left": (14, (19, 20, 21), 14, 15), "right": (11, (22, 23, 24), 18, 19)}


@dataclass(frozen=True)
class KinectSensor:
    """A picture sensor of the Kinect v2: its typical camera, and the spread among devices."""

    size: tuple[int, int]
    focal: float
    shift: tuple[float, float, float]  # metres from the depth camera, whose axes points have
    focal_spread: float
    centre_spread: float
    rotation_spread: float  # radians
    shift_spread: float  # metres

    @property
    def camera(self) -> Camera:
        """The typical camera."""
        height, width = self.size
        matrix = np.array(
            [[self.focal, 0, (width - 1) / 2], [0, self.focal, (height - 1) / 2], [0, 0, 1]]
        )
        return Camera(matrix, np.eye(3), np.asarray(self.shift), np.zeros(5), self.size)


COLOUR = KinectSensor((1080, 1920), 1081.0, (0.052, 0.0, 0.0), 30.0, 30.0, 0.03, 0.02)
DEPTH = KinectSensor((424, 512), 365.5, (0.0, 0.0, 0.0), 8.0, 8.0, 1e-6, 1e-6)


def with_true_sides(skeletons: Sequence[KinectSkeleton]) -> list[KinectSkeleton]:
    """Converts skeletons to camera axes (x right in the picture, y down), sides as pictured.

    The Kinect's pictures may be mirrored, and its skeletons with them: the pictured person's left
    is then the actor's right. The direction of feet and knees, which is forward, decides.
    """
    aligned = []
    for one in skeletons:
        seen = (one.state == TRACKED) & np.isfinite(one.colour).all(-1)
        if seen.sum() < 12:
            raise UserError("fewer than 12 joints are tracked in the whole clip")
        ray = one.points[seen][:, 0] / one.points[seen][:, 2]
        along = np.sum(
            (ray - ray.mean()) * (one.colour[seen][:, 0] - one.colour[seen][:, 0].mean())
        )
        axes = np.array([1.0 if along >= 0 else -1.0, -1.0, 1.0])
        aligned.append(KinectSkeleton(one.points * axes, one.colour, one.depth, one.state))
    if sum(_forward(one) for one in aligned) >= 0:
        return aligned
    return [
        KinectSkeleton(*(values[:, _MIRROR] for values in (s.points, s.colour, s.depth, s.state)))
        for s in aligned
    ]


def _forward(one: KinectSkeleton) -> float:
    """Sums, in metres, how far feet and bent knees point where a body with these sides faces."""
    known = one.state[:, [0, 4, 8, 12, 13, 14, 15, 16, 17, 18, 19, 20]].min(1) > 0
    points = one.points[known]
    left = points[:, 4] - points[:, 8] + points[:, 12] - points[:, 16]
    front = np.cross(left, points[:, 20] - points[:, 0])
    front = front / np.maximum(np.linalg.norm(front, axis=-1, keepdims=True), 1e-9)
    ways = [points[:, foot] - points[:, ankle] for ankle, foot in ((14, 15), (18, 19))]
    ways += [
        points[:, knee] - 0.5 * (points[:, hip] + points[:, ankle])
        for hip, knee, ankle in ((12, 13, 14), (16, 17, 18))
    ]
    return float(sum((way * front).sum() for way in ways))


def fit_camera(
    points: Float[np.ndarray, "n 3"], pixels: Float[np.ndarray, "n 2"], sensor: KinectSensor
) -> Camera:
    """Fits a sensor's camera to points in the axes of the depth camera and their pixels.

    Robust least squares, regularised towards the sensor's typical camera.
    """
    chosen = np.linspace(0, len(points) - 1, min(len(points), _FIT_POINTS)).round().astype(int)
    points, pixels = points[chosen], pixels[chosen]
    typical = sensor.camera
    spread = np.array(
        [sensor.focal_spread] * 2
        + [sensor.centre_spread] * 2
        + [sensor.rotation_spread] * 3
        + [sensor.shift_spread] * 3
    )

    def camera(step: np.ndarray) -> Camera:
        change = step * spread
        matrix = typical.matrix.copy()
        matrix[[0, 1], [0, 1]] += change[:2]
        matrix[:2, 2] += change[2:4]
        rotation = Rotation.from_rotvec(change[4:7]).as_matrix()
        shift = typical.translation + change[7:]
        return Camera(matrix, rotation, shift, typical.distortion, typical.size)

    def residual(step: np.ndarray) -> np.ndarray:
        off = np.nan_to_num(camera(step).project(points)["pixels"] - pixels, nan=1e3)
        return np.concatenate([off.ravel(), step])

    return camera(least_squares(residual, np.zeros(10), loss="soft_l1", max_nfev=60).x)


def fit_cameras(one: KinectSkeleton) -> dict[str, Camera]:
    """Fits the "colour" and the "depth" camera of a clip to its joints."""
    found = {}
    for name, sensor, pixels in (("colour", COLOUR, one.colour), ("depth", DEPTH, one.depth)):
        height, width = sensor.size
        seen = (one.state == TRACKED) & np.isfinite(pixels).all(-1)
        seen &= (np.abs(np.nan_to_num(pixels)) < 2 * max(height, width)).all(-1)
        found[name] = fit_camera(one.points[seen], pixels[seen], sensor)
    return found


def smooth(
    points: Float[np.ndarray, "t j 3"], state: Int[np.ndarray, "t j"], *, rate: float
) -> Float[np.ndarray, "t j 3"]:
    """Smooths joints and fills their gaps by penalised least squares (Whittaker 1923).

    Tracked joints weigh more than inferred ones; accelerations are penalised.

    Raises:
      UserError: for a joint that is missing in every frame.
    """
    count = len(points)
    weight = _WEIGHT[state] / NOISE**2
    never = np.flatnonzero(~(weight > 0).any(0))
    if len(never):
        raise UserError(f"joint {never[0] + 1} of the skeleton is missing in every frame")
    bend = (rate**2 / ACCELERATION) ** 2
    difference = np.zeros((max(count - 2, 0), count))
    for row in range(count - 2):
        difference[row, row : row + 3] = 1.0, -2.0, 1.0
    penalty = bend * difference.T @ difference
    bands = np.zeros((3, count))
    for off in range(min(3, count)):
        bands[off, : count - off] = np.diagonal(penalty, -off)
    result = np.empty_like(points)
    for joint in range(points.shape[1]):
        system = bands.copy()
        system[0] += weight[:, joint] + 1e-6
        target = weight[:, joint, None] * np.nan_to_num(points[:, joint])
        middle = np.average(points[weight[:, joint] > 0, joint], axis=0)
        result[:, joint] = solveh_banded(system, target + 1e-6 * middle, lower=True)
    return result


def body_joints(points: Float[np.ndarray, "t 25 3"]) -> Float[np.ndarray, "t 26 3"]:
    """Converts the Kinect's 25 joints to the 26 in space (right-handed axes, metres).

    Trunk and limbs are joints of both. The head's follow its centre and the neck, the feet's
    ankle and toes, by the built-in body's proportions.
    """
    rest = body.template().joints
    result = np.full((len(points), pose.COUNT, 3), np.nan)
    result[:, _OURS] = points[:, _THEIRS]
    left = points[:, 4] - points[:, 8]
    middle = 0.25 * (rest[17] + rest[18]) + 0.5 * rest[25]
    turn = _axes(points[:, 3] - points[:, 2], left) @ _axes(_UP, _LEFT).mT
    for joint in _HEAD:
        result[:, joint] = points[:, 3] + turn @ (rest[joint] - middle)
    hips = points[:, 12] - points[:, 16]
    for ankle, joints, ankle_25, foot_25 in _FEET.values():
        ahead = 0.5 * (rest[joints[0]] + rest[joints[1]]) - rest[ankle]
        now = _axes(points[:, foot_25] - points[:, ankle_25], hips)
        turn = now @ _axes(ahead[None], _LEFT).mT
        for joint in joints:
            result[:, joint] = points[:, ankle_25] + turn @ (rest[joint] - rest[ankle])
    return result


def _axes(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Orthonormalises `first`, `second` and their cross product to columns (t, 3, 3)."""
    first = first / np.maximum(np.linalg.norm(first, axis=-1, keepdims=True), 1e-9)
    second = second - (second * first).sum(-1, keepdims=True) * first
    second = second / np.maximum(np.linalg.norm(second, axis=-1, keepdims=True), 1e-9)
    return np.stack([first, second, np.cross(first, second)], -1)


def body_confidence(state: Int[np.ndarray, "t 25"]) -> Float[np.ndarray, "t 26"]:
    """Returns the confidences of `body_joints`, by tracking state; half on head and feet."""
    own = CONFIDENCE[state]
    result = np.zeros((len(state), pose.COUNT), np.float32)
    result[:, _OURS] = own[:, _THEIRS]
    result[:, list(_HEAD)] = 0.5 * own[:, 3:4]
    for _, joints, _, foot in _FEET.values():
        result[:, list(joints)] = 0.5 * own[:, foot, None]
    return result


def align(
    points: Float[np.ndarray, "t j 3"],
    world: Float[np.ndarray, "t j 3"],
    known: Bool[np.ndarray, "t j"],
) -> tuple[Float[np.ndarray, "3 3"], Float[np.ndarray, "3"]]:
    """Fits rotation R and translation s of world = points @ R.T + s (Kabsch 1976).

    Raises:
      UserError: if fewer than four joints are known in both.
    """
    if known.sum() < 4:
        raise UserError("two cameras share no tracked joints: they cannot be aligned")
    mine, theirs = points[known], world[known]
    rotation = Rotation.align_vectors(theirs - theirs.mean(0), mine - mine.mean(0))[0].as_matrix()
    return rotation, theirs.mean(0) - rotation @ mine.mean(0)


def depth_mask(
    metres: Float[np.ndarray, "h w"], depth: Camera, target: Camera
) -> Bool[np.ndarray, "hh ww"]:
    """Projects a masked depth picture (0 off the person) into another camera as a mask.

    Every depth pixel is drawn as a square at its distance, so that the mask has no holes however
    large the target's picture is.
    """
    rows, columns = np.nonzero(metres > 0)
    if not len(rows):
        return np.zeros(target.size, bool)
    corners = np.array([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]])
    rays = depth.undistort(np.stack([columns, rows], -1)[:, None] + corners)
    distance = np.broadcast_to(metres[rows, columns][:, None, None], (len(rows), 4, 1))
    seen = np.concatenate([rays * distance, distance], -1).reshape(-1, 3)
    points = (seen - depth.translation) @ depth.rotation
    first = 4 * np.arange(len(rows), dtype=np.int32)[:, None]
    faces = np.concatenate([first + (0, 1, 2), first + (0, 2, 3)]).astype(np.int32)
    return raster.render(points, faces, target).face >= 0
