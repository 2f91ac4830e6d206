"""The built-in body's surface: a smooth union of capsules and ellipsoids, meshed and mirrored.

Body axes, metres: x forward, y to the person's left, z up, the floor at z = 0. Only the left half
(y >= 0) is modelled; the right half is its mirror image, vertex for vertex. The rest pose is an
"A": the arms point 40 degrees below the horizontal, the legs stand slightly apart.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.interpolate import PchipInterpolator
from skimage.measure import marching_cubes

ARM_SLOPE = np.tan(np.radians(40.0))  # of the arms below the horizontal, in the rest pose
_ARM = np.array([0.0, np.cos(np.radians(40.0)), -np.sin(np.radians(40.0))])
_SHOULDER = np.array([-0.012, 0.176, 1.428])
_ELBOW = _SHOULDER + 0.285 * _ARM
_WRIST = _ELBOW + 0.250 * _ARM
_HIP = np.array([0.0, 0.093, 0.920])
_KNEE = np.array([0.010, 0.118, 0.500])
_ANKLE = np.array([-0.012, 0.140, 0.085])
_BACK_OF_HAND = np.array([0.0, np.sin(np.radians(40.0)), np.cos(np.radians(40.0))])
_FORWARD, _LEFT, _UP = np.eye(3)

# The left half's joints, in the order of BODY_25 where a side has one; the centre stands on y = 0.
_CENTRE_JOINTS = {0: (0.122, 0, 1.607), 1: (-0.012, 0, 1.440), 8: (0, 0, 0.920), 25: (0, 0, 1.756)}
_SIDE_JOINTS = {  # (left, right): position of the left one
    (5, 2): _SHOULDER,
    (6, 3): _ELBOW,
    (7, 4): _WRIST,
    (12, 9): _HIP,
    (13, 10): _KNEE,
    (14, 11): _ANKLE,
    (16, 15): (0.086, 0.033, 1.648),
    (18, 17): (-0.004, 0.080, 1.632),
    (19, 22): (0.178, 0.128, 0.020),
    (20, 23): (0.140, 0.182, 0.016),
    (21, 24): (-0.060, 0.138, 0.030),
}


def rest_joints() -> Float[np.ndarray, "26 3"]:
    """Returns the 26 joints of the rest pose (see `psrjax.ops.pose`), metres."""
    joints = np.zeros((26, 3))
    for index, position in _CENTRE_JOINTS.items():
        joints[index] = position
    for (left, right), position in _SIDE_JOINTS.items():
        joints[left] = position
        joints[right] = np.multiply(position, (1, -1, 1))
    return joints


@dataclass(frozen=True)
class Capsule:
    """An elliptic capsule from `start` to `end` whose radii follow a profile.

    `profile` rows are (position along the axis 0..1, half width along `side`, extent towards
    `front`, extent towards its opposite); `bone` is the bone that carries it.
    """

    bone: str
    start: np.ndarray
    end: np.ndarray
    side: np.ndarray
    front: np.ndarray
    profile: tuple[tuple[float, float, float, float], ...]

    def distance(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """Approximates the signed distance (n,): negative inside, exact on the surface."""
        axis = self.end - self.start
        length = np.linalg.norm(axis)
        axis = axis / length
        offset = points - self.start
        along = offset @ axis
        place = np.clip(along / length, 0.0, 1.0)
        table = np.asarray(self.profile)
        width, ahead, behind = PchipInterpolator(table[:, 0], table[:, 1:])(place).T
        beyond = along - place * length
        sideways, forward = offset @ self.side, offset @ self.front
        depth = np.where(forward > 0, ahead, behind)
        squares = (sideways / width) ** 2 + (forward / depth) ** 2
        squares += (beyond / np.minimum(width, np.minimum(ahead, behind))) ** 2
        reach = np.sqrt(sideways**2 + forward**2 + beyond**2)
        ratio = np.sqrt(squares) + 1e-9
        inside = -np.minimum(width, depth) * (1.0 - ratio)
        return np.where(ratio < 0.5, inside, reach * (1.0 - 1.0 / ratio))


@dataclass(frozen=True)
class Ellipsoid:
    """An axis-aligned ellipsoid; `bone` is the bone that carries it."""

    bone: str
    centre: tuple[float, float, float]
    radii: tuple[float, float, float]

    def distance(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
        """Approximates the signed distance (n,): negative inside, exact on the surface."""
        offset = points - self.centre
        ratio = np.sqrt(((offset / self.radii) ** 2).sum(-1)) + 1e-9
        inside = min(self.radii) * (ratio - 1.0)
        reach = np.sqrt((offset**2).sum(-1))
        return np.where(ratio < 0.5, inside, reach * (1.0 - 1.0 / ratio))


def _capsule(bone, start, end, radius, radius_end) -> Capsule:
    start, end = np.asarray(start, float), np.asarray(end, float)
    axis = (end - start) / np.linalg.norm(end - start)
    side = np.cross(axis, _FORWARD if abs(axis[0]) < 0.8 else _UP)
    side /= np.linalg.norm(side)
    rows = ((0.0, radius, radius, radius), (1.0, radius_end, radius_end, radius_end))
    return Capsule(bone, start, end, side, np.cross(side, axis), rows)


def _torso() -> list[Capsule | Ellipsoid]:
    heights = (  # z, half width, front, back
        (0.80, 0.080, 0.050, 0.070),
        (0.84, 0.140, 0.080, 0.095),
        (0.90, 0.168, 0.094, 0.108),
        (0.95, 0.168, 0.100, 0.104),
        (1.01, 0.154, 0.102, 0.092),
        (1.08, 0.138, 0.100, 0.082),
        (1.15, 0.138, 0.102, 0.084),
        (1.24, 0.152, 0.110, 0.098),
        (1.32, 0.164, 0.112, 0.110),
        (1.38, 0.160, 0.100, 0.112),
        (1.43, 0.130, 0.074, 0.096),
        (1.465, 0.070, 0.056, 0.074),
    )
    low, high = heights[0][0], heights[-1][0]
    rows = tuple(((z - low) / (high - low), w, ahead, back) for z, w, ahead, back in heights)
    return [
        Capsule(
            "torso", np.array([0.0, 0.0, low]), np.array([-0.012, 0.0, high]), _LEFT, _FORWARD, rows
        ),
        Ellipsoid("pelvis", (-0.062, 0.074, 0.890), (0.062, 0.070, 0.080)),
        Ellipsoid("chest", (0.072, 0.074, 1.325), (0.034, 0.066, 0.056)),
        _capsule("collar", (-0.016, 0.045, 1.462), (-0.014, 0.160, 1.440), 0.040, 0.048),
        Ellipsoid("chest", (-0.072, 0.085, 1.350), (0.040, 0.060, 0.090)),
    ]


def _head() -> list[Capsule | Ellipsoid]:
    neck = ((0.0, 0.064, 0.060, 0.066), (0.5, 0.055, 0.056, 0.058), (1.0, 0.054, 0.056, 0.058))
    return [
        Capsule(
            "neck",
            np.array([-0.022, 0.0, 1.425]),
            np.array([0.000, 0.0, 1.570]),
            _LEFT,
            _FORWARD,
            neck,
        ),
        Ellipsoid("head", (-0.008, 0.0, 1.664), (0.096, 0.075, 0.092)),
        Ellipsoid("head", (0.030, 0.0, 1.606), (0.062, 0.058, 0.088)),
        Ellipsoid("head", (0.066, 0.0, 1.532), (0.024, 0.030, 0.020)),
        Ellipsoid("head", (0.052, 0.036, 1.606), (0.032, 0.024, 0.030)),
        Ellipsoid("head", (0.066, 0.026, 1.672), (0.024, 0.036, 0.014)),
        _capsule("head", (0.086, 0.0, 1.652), (0.106, 0.0, 1.606), 0.009, 0.0135),
        Ellipsoid("head", (0.092, 0.012, 1.602), (0.012, 0.009, 0.009)),
        Ellipsoid("head", (0.083, 0.0, 1.565), (0.014, 0.026, 0.013)),
        Ellipsoid("head", (-0.010, 0.076, 1.630), (0.020, 0.012, 0.032)),
    ]


def _arm() -> list[Capsule | Ellipsoid]:
    upper = ((0.0, 0.056, 0.058, 0.058), (0.35, 0.050, 0.054, 0.052), (1.0, 0.039, 0.042, 0.042))
    lower = ((0.0, 0.040, 0.042, 0.042), (0.28, 0.041, 0.046, 0.044), (1.0, 0.024, 0.031, 0.031))
    palm = ((0.0, 0.022, 0.030, 0.030), (0.5, 0.019, 0.042, 0.040), (1.0, 0.017, 0.043, 0.042))
    fingers = ((0.0, 0.016, 0.042, 0.041), (0.7, 0.013, 0.037, 0.037), (1.0, 0.010, 0.026, 0.026))
    knuckles = _WRIST + 0.088 * _ARM
    curl = 0.075 * _ARM - 0.022 * _BACK_OF_HAND
    thumb = _WRIST + 0.030 * _ARM + 0.028 * _FORWARD
    thumb_tip = _WRIST + 0.088 * _ARM + 0.066 * _FORWARD - 0.012 * _BACK_OF_HAND
    sides = (_BACK_OF_HAND, _FORWARD)
    return [
        Capsule("upper_arm", _SHOULDER, _ELBOW, *sides, upper),
        Capsule("forearm", _ELBOW, _WRIST, *sides, lower),
        Capsule("hand", _WRIST + 0.012 * _ARM, knuckles, *sides, palm),
        Capsule("hand", knuckles, knuckles + curl, *sides, fingers),
        _capsule("hand", thumb, thumb_tip, 0.016, 0.012),
    ]


def _leg() -> list[Capsule | Ellipsoid]:
    thigh = (
        (0.0, 0.080, 0.086, 0.088),
        (0.25, 0.077, 0.084, 0.080),
        (0.6, 0.064, 0.070, 0.066),
        (1.0, 0.045, 0.050, 0.048),
    )
    shin = (
        (0.0, 0.044, 0.048, 0.046),
        (0.12, 0.046, 0.044, 0.055),
        (0.30, 0.054, 0.045, 0.070),
        (0.55, 0.046, 0.041, 0.056),
        (0.85, 0.032, 0.033, 0.037),
        (1.0, 0.032, 0.035, 0.038),
    )
    foot = (  # the `front` of the foot's blob points up
        (0.0, 0.031, 0.038, 0.040),
        (0.35, 0.035, 0.044, 0.040),
        (0.65, 0.044, 0.028, 0.034),
        (0.85, 0.045, 0.020, 0.026),
        (1.0, 0.036, 0.016, 0.022),
    )
    heel, toe = np.array([-0.034, 0.138, 0.040]), np.array([0.168, 0.152, 0.024])
    along = (toe - heel) / np.linalg.norm(toe - heel)
    up = np.cross(along, np.cross(_UP, along))
    up /= np.linalg.norm(up)
    return [
        Capsule("thigh", _HIP, _KNEE, _LEFT, _FORWARD, thigh),
        Capsule("shin", _KNEE, _ANKLE, _LEFT, _FORWARD, shin),
        Capsule("foot", heel, toe, np.cross(up, along), up, foot),
    ]


# Width in metres of the smooth union of a bone's primitives.
_BLEND = {"head": 0.011, "hand": 0.008, "pelvis": 0.03, "chest": 0.03, "collar": 0.03}
_DENTS = ((0.100, 0.032, 1.644, 0.013, 0.007), (0.100, 0.0, 1.584, 0.010, 0.003))  # x y z r depth


def primitives() -> list[Capsule | Ellipsoid]:
    """Returns the primitives of the left half."""
    return _torso() + _head() + _arm() + _leg()


def implicit_surface(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    """Evaluates the body's implicit function: negative inside, about metres near the surface.

    Primitives of one bone are united tightly, then the bones with the width of the skin.
    """
    by_bone: dict[str, list[np.ndarray]] = {}
    for primitive in primitives():
        by_bone.setdefault(primitive.bone, []).append(primitive.distance(points))
    united = [_smooth_min(parts, _BLEND.get(bone, 0.014)) for bone, parts in by_bone.items()]
    value = _smooth_min(united, 0.022)
    for x, y, z, radius, depth in _DENTS:
        square = ((points - (x, y, z)) ** 2).sum(-1)
        value = value + depth * np.exp(-square / (2 * radius**2))
    return np.maximum(value, 0.003 - points[:, 2])  # flat soles


def _smooth_min(distances: list[np.ndarray], width: float) -> np.ndarray:
    """Returns the smooth minimum: quadratic within `width`, the plain minimum elsewhere."""
    value = distances[0]
    for other in distances[1:]:
        overlap = np.maximum(2 * width - np.abs(value - other), 0.0)
        value = np.minimum(value, other) - overlap**2 / (8 * width)
    return value


def _grid() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns grid lines, finer where the body has detail: face, hands and feet."""

    def lines(*pieces):  # (start, end, step)
        joined = [np.linspace(a, b, round((b - a) / s), endpoint=False) for a, b, s in pieces]
        return np.concatenate([*joined, [pieces[-1][1]]])

    forward = lines((-0.185, 0.075, 0.024), (0.075, 0.255, 0.018))
    left = lines((0.0, 0.09, 0.015), (0.09, 0.23, 0.028), (0.23, 0.58, 0.040), (0.58, 0.76, 0.018))
    up = lines((-0.02, 0.08, 0.022), (0.08, 1.32, 0.042), (1.32, 1.50, 0.022), (1.50, 1.80, 0.015))
    return forward, left, up


def half_surface() -> tuple[Float[np.ndarray, "v 3"], Int[np.ndarray, "f 3"]]:
    """Meshes the left half, open only along y = 0, wound counter-clockwise."""
    axes = _grid()
    shape = tuple(len(axis) for axis in axes)
    lattice = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    values = implicit_surface(_shear(lattice)).reshape(shape)
    values[np.abs(values) < 1e-5] = 1e-5  # a vertex on a grid corner would be met twice
    corners, faces, _, _ = marching_cubes(values, 0.0, allow_degenerate=False)
    corners = corners.astype(np.float64)
    vertices = np.stack(
        [np.interp(corners[:, i], np.arange(shape[i]), axes[i]) for i in range(3)], -1
    )
    vertices = _shear(vertices)
    seam = corners[:, 1] == 0
    vertices[seam, 1] = 0.0
    return _relax(vertices, faces, seam), _outward(vertices, faces)


def _shear(points: np.ndarray) -> np.ndarray:
    """Lowers the arms of a grid in which they are horizontal, so that grid lines follow them."""
    ramp = 0.5 * (points[:, 1] - 0.17 + np.sqrt((points[:, 1] - 0.17) ** 2 + 0.02**2))
    return points - np.stack([0 * ramp, 0 * ramp, ARM_SLOPE * ramp], -1)


def _outward(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    corners = vertices[faces]
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    volume = np.einsum("fi,fi->", cross, corners.mean(1))
    return faces if volume > 0 else faces[:, ::-1]


def _relax(vertices: np.ndarray, faces: np.ndarray, seam: np.ndarray) -> np.ndarray:
    """Evens out the triangles with every vertex on the surface and the seam on y = 0."""
    edges = np.unique(np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1), axis=0)
    edges = np.concatenate([edges, edges[:, ::-1]])
    edges = edges[~seam[edges[:, 0]] | seam[edges[:, 1]]]  # the seam slides along itself only
    degree = np.maximum(np.bincount(edges[:, 0], minlength=len(vertices)), 1)[:, None]
    for _ in range(4):
        total = np.zeros_like(vertices)
        np.add.at(total, edges[:, 0], vertices[edges[:, 1]])
        vertices = 0.6 * vertices + 0.4 * total / degree
        vertices[seam, 1] = 0.0
        vertices = _project(vertices, seam)
    return vertices


def _project(vertices: np.ndarray, seam: np.ndarray) -> np.ndarray:
    """Takes one damped Newton step towards the zero of `implicit_surface`."""
    step = 1e-4
    field = implicit_surface
    value = field(vertices)
    slope = [field(vertices + step * axis) - field(vertices - step * axis) for axis in np.eye(3)]
    gradient = np.stack(slope, -1) / (2 * step)
    gradient[seam, 1] = 0.0
    size = np.maximum((gradient**2).sum(-1), 0.04)
    return vertices - np.clip(value / size, -0.01, 0.01)[:, None] * gradient


def mirrored(
    vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]
) -> dict[str, np.ndarray]:
    """Completes the surface from its left half.

    Returns `vertices` (v', 3), `faces` (f', 3) with the mirror image of face i at i + f'/2,
    `mirror` (v',): the index of every vertex's mirror image (its own on the seam).
    """
    seam = vertices[:, 1] == 0.0
    count = len(vertices)
    image = np.arange(count)
    image[~seam] = count + np.arange((~seam).sum())
    mirror = np.concatenate([image, np.flatnonzero(~seam)])
    right = vertices[~seam] * (1, -1, 1)
    return {
        "vertices": np.concatenate([vertices, right]),
        "faces": np.concatenate([faces, image[faces][:, ::-1]]).astype(np.int32),
        "mirror": mirror.astype(np.int32),
    }


def nearest_bones(points: Float[np.ndarray, "n 3"]) -> np.ndarray:
    """Names the bone (n,) whose primitive is nearest to each point of the left half."""
    listed = primitives()
    distances = np.stack([primitive.distance(points) for primitive in listed])
    return np.array([primitive.bone for primitive in listed])[distances.argmin(0)]
