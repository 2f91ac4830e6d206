"""The scenes of the synthetic dataset: furnished rooms, rendered once a camera by ray casting.

World metres, z up, the floor at z = 0; the person acts around the origin, the cameras stand on the
+x side. Walls show only from inside, so that a camera may stand behind one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from psrjax.vision.camera import Camera

_HEIGHT = 2.8
_FAR = 1e6
_BLOCK = 1 << 14  # rays cast at a time
Color = tuple[float, float, float]


@dataclass(frozen=True)
class Patch:
    """A rectangle painted on a wall: x runs along the wall, y up, metres; `texture` gives colours.

    `glow` is light that the patch sends out by itself (a window, a screen).
    """

    wall: str
    left: float
    right: float
    low: float
    high: float
    texture: Callable[[np.ndarray, np.ndarray], np.ndarray]
    glow: float = 0.0


@dataclass(frozen=True)
class Box:
    """A piece of furniture: two opposite corners, metres, and its colours."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    texture: Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Scene:
    """A room: `back` and `side` are the distances of the rear and of both side walls, metres."""

    name: str
    back: float
    side: float
    light: np.ndarray  # (3,) where the lamp is
    key: np.ndarray  # (3,) its linear colour
    ambient: np.ndarray  # (3,) linear
    floor: Callable[[np.ndarray, np.ndarray], np.ndarray]
    wall: Callable[[np.ndarray, np.ndarray], np.ndarray]
    patches: tuple[Patch, ...]
    boxes: tuple[Box, ...]


def linear(color: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """Turns display values 0..1 into linear light."""
    return np.clip(color, 0.0, 1.0) ** 2.2


def display(light: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """Turns linear light into display values 0..1, with a soft shoulder above white."""
    light = np.maximum(light, 0.0)
    light = np.where(light > 0.8, 0.8 + 0.2 * np.tanh((light - 0.8) / 0.2), light)
    return light ** (1 / 2.2)


def lamp(scene: Scene, points: np.ndarray, normals: np.ndarray) -> Float[np.ndarray, "*n 1"]:
    """Returns the strength of the lamp's light on a surface (*n, 1), shadows aside."""
    towards = scene.light - points
    distance = np.sqrt(np.einsum("...i,...i->...", towards, towards))[..., None]
    facing = np.einsum("...i,...i->...", normals, towards)[..., None] / distance
    return np.maximum(facing, 0.0) * (3.0 / np.maximum(distance, 0.5)) ** 1.2


def render_background(scene: Scene, camera: Camera, samples: int) -> dict[str, np.ndarray]:
    """Renders the empty scene for a camera.

    Returns, for an image of the camera's size: `lit` (h, w, 3) linear light from the lamp alone,
    `unlit` (h, w, 3) linear light from all else, both the mean of `samples`^2 rays a pixel, and
    `points` (h, w, 3): the place that the middle of each pixel shows, world metres.
    """
    fine = camera.resized(samples * camera.size[0], samples * camera.size[1])
    rows = max(1, _BLOCK // (samples * fine.size[1]))  # of pixels at a time: what a cache holds
    strips = []
    for top in range(0, camera.size[0], rows):
        height = samples * min(rows, camera.size[0] - top)
        part = fine.cropped(samples * top, 0, height=height, width=fine.size[1])
        strips.append(_strip(scene, part, samples))
    return {name: np.concatenate([strip[name] for strip in strips]) for name in strips[0]}


def _strip(scene: Scene, fine: Camera, samples: int) -> dict[str, np.ndarray]:
    """Renders a strip of the background, which `fine` sees `samples` times finer each way."""
    height, width = fine.size[0] // samples, fine.size[1] // samples
    hits = _cast(scene, fine)
    albedo, glow = _colors(scene, hits)
    shade = lamp(scene, hits["points"], hits["normals"]) * _clear(scene, hits)[:, None]
    lit = linear(albedo) * scene.key * shade
    unlit = linear(albedo) * (scene.ambient * _nook(scene, hits)[:, None] + glow[:, None])

    def pooled(values):
        return values.reshape(height, samples, width, samples, 3).mean((1, 3))

    middle = samples // 2
    points = hits["points"].reshape(height, samples, width, samples, 3)[:, middle, :, middle]
    return {"lit": pooled(lit), "unlit": pooled(unlit), "points": points}


def _rays(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    height, width = camera.size
    rows, columns = np.mgrid[:height, :width]
    slopes = camera.undistort(np.stack([columns, rows], -1).reshape(-1, 2).astype(float))
    rays = np.concatenate([slopes, np.ones((len(slopes), 1))], -1) @ camera.rotation
    return camera.centre, rays / np.linalg.norm(rays, axis=-1, keepdims=True)


def _planes(scene: Scene) -> dict[str, tuple[int, float, float]]:
    """Returns {surface: (axis, coordinate on it, sign of its normal)}."""
    return {
        "floor": (2, 0.0, 1.0),
        "ceiling": (2, _HEIGHT, -1.0),
        "back": (0, -scene.back, 1.0),
        "left": (1, scene.side, -1.0),
        "right": (1, -scene.side, 1.0),
    }


def _cast(scene: Scene, camera: Camera) -> dict[str, np.ndarray]:
    """Finds first hits: points (n, 3), normals (n, 3), surface (n,): 0..4 planes, 5.. boxes."""
    start, rays = _rays(camera)
    best = np.full(len(rays), _FAR)
    surface = np.zeros(len(rays), np.int32)
    normals = np.zeros_like(rays)
    with np.errstate(divide="ignore", invalid="ignore"):
        for number, (axis, place, sign) in enumerate(_planes(scene).values()):
            reach = (place - start[axis]) / rays[:, axis]
            nearer = (rays[:, axis] * sign < 0) & (reach > 0) & (reach < best)
            best[nearer], surface[nearer] = reach[nearer], number
            normals[nearer] = sign * np.eye(3)[axis]
        for number, box in enumerate(scene.boxes, start=5):
            reach, leave = _slab(box, np.broadcast_to(start, rays.shape), rays)
            nearer = (reach > 0) & (reach < leave) & (reach < best)
            best[nearer], surface[nearer] = reach[nearer], number
            hit = rays[nearer]
            near = np.where(hit > 0, box.low, box.high)
            axis = ((near - start) / hit).argmax(-1)
            sign = -np.sign(np.take_along_axis(hit, axis[:, None], 1))
            normals[nearer] = np.eye(3)[axis] * sign
    return {"points": start + best[:, None] * rays, "normals": normals, "surface": surface}


def _slab(box: Box, start: np.ndarray, rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finds where rays (n, 3) enter and leave a box, in ray lengths; enter >= leave is a miss."""
    enter, leave = np.full(len(rays), -np.inf), np.full(len(rays), np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        for axis in range(3):
            pace = 1.0 / rays[:, axis]
            one = (box.low[axis] - start[:, axis]) * pace
            other = (box.high[axis] - start[:, axis]) * pace
            enter = np.fmax(enter, np.fmin(one, other))
            leave = np.fmin(leave, np.fmax(one, other))
    return enter, leave


def _colors(scene: Scene, hits: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns albedo (n, 3) as display values, and own light (n,)."""
    points, surface = hits["points"], hits["surface"]
    albedo, glow = np.zeros_like(points), np.zeros(len(points))
    for number, name in enumerate(_planes(scene)):
        rows = np.flatnonzero(surface == number)
        if name == "floor":
            albedo[rows] = scene.floor(points[rows, 0], points[rows, 1])
        elif name == "ceiling":
            albedo[rows] = 0.92
        else:
            along = points[rows, 1] if name == "back" else points[rows, 0]
            up = points[rows, 2]
            albedo[rows] = scene.wall(along, up)
            albedo[rows[up < 0.09]] = 0.85 * albedo[rows[up < 0.09]] + 0.12  # skirting board
            for patch in (p for p in scene.patches if p.wall == name):
                inside = (along > patch.left) & (along < patch.right)
                inside &= (up > patch.low) & (up < patch.high)
                chosen = rows[inside]
                albedo[chosen] = patch.texture(along[inside] - patch.left, up[inside] - patch.low)
                glow[chosen] = patch.glow
    for number, box in enumerate(scene.boxes, start=5):
        rows = np.flatnonzero(surface == number)
        normal = np.abs(hits["normals"][rows])
        across = np.where(normal[:, 1] > 0.5, points[rows, 0], points[rows, 1])
        up = np.where(normal[:, 2] > 0.5, points[rows, 0], points[rows, 2])
        albedo[rows] = box.texture(
            across - box.low[1], up - np.where(normal[:, 2] > 0.5, 0, box.low[2])
        )
    return albedo, glow


def _clear(scene: Scene, hits: dict[str, np.ndarray]) -> np.ndarray:
    """Returns 1 where the lamp is seen, 0 where furniture stands before it, softly."""
    start = hits["points"] + 0.01 * hits["normals"]
    jitter = 0.22 * np.array([(0, 0, 0), (1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0)])
    lamps = scene.light + jitter
    blocked = np.zeros((len(lamps), len(start)), bool)
    low, high = np.minimum(start, lamps.min(0)), np.maximum(start, lamps.max(0))
    for box in scene.boxes:
        # Most rays lie wholly to one side of the box, and need no exact test.
        rows = np.flatnonzero(_overlap(low, high, box))
        for place, shadow in zip(lamps, blocked):
            enter, leave = _slab(box, start[rows], place - start[rows])
            shadow[rows] |= (enter < np.minimum(leave, 1)) & (leave > 0)
    clear = np.zeros(len(start))
    for shadow in blocked:
        clear += ~shadow / len(lamps)
    return clear


def _overlap(low: np.ndarray, high: np.ndarray, box: Box) -> np.ndarray:
    """Tells which cuboids (n, 3) share points with a box."""
    found = np.ones(len(low), bool)
    for axis in range(3):
        found &= (low[:, axis] <= box.high[axis]) & (high[:, axis] >= box.low[axis])
    return found


def _nook(scene: Scene, hits: dict[str, np.ndarray]) -> np.ndarray:
    """Returns the share of diffuse light at a place: less in corners and beside furniture."""
    points, surface = hits["points"], hits["surface"]
    open_ = np.ones(len(points))
    for number, (axis, place, _) in enumerate(_planes(scene).values()):
        distance = np.abs(points[:, axis] - place)
        open_ *= np.where(surface == number, 1.0, 1 - 0.38 * np.exp(-distance / 0.35))
    for number, box in enumerate(scene.boxes, start=5):
        outside = np.maximum(np.array(box.low) - points, points - np.array(box.high))
        x, y, z = np.maximum(outside, 0.0).T
        distance = np.sqrt(x * x + y * y + z * z)
        open_ *= np.where(surface == number, 1.0, 1 - 0.45 * np.exp(-distance / 0.16))
    return open_
