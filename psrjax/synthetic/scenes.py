"""The rooms of the embedded world: walls, floor and furniture, seen by ray casting, once a camera.

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
    """A rectangle painted on a wall: x runs along the wall, y up, metres; `paint` gives colours.

    `glow` is light that the patch sends out by itself (a window, a screen).
    """

    wall: str
    left: float
    right: float
    low: float
    high: float
    paint: Callable[[np.ndarray, np.ndarray], np.ndarray]
    glow: float = 0.0


@dataclass(frozen=True)
class Box:
    """A piece of furniture: two opposite corners, metres, and its colours."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]
    paint: Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Room:
    """A room: `back` is how far the rear wall is, `side` the walls at both sides, metres."""

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
    """Display values 0..1 to linear light."""
    return np.clip(color, 0.0, 1.0) ** 2.2


def display(light: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """Linear light to display values 0..1, with a soft shoulder for what is brighter than white."""
    light = np.maximum(light, 0.0)
    light = np.where(light > 0.8, 0.8 + 0.2 * np.tanh((light - 0.8) / 0.2), light)
    return light ** (1 / 2.2)


def lamp(room: Room, points: np.ndarray, normals: np.ndarray) -> Float[np.ndarray, "*n 1"]:
    """How strongly the lamp lights a surface (*n, 1), shadows aside."""
    towards = room.light - points
    distance = np.sqrt(np.einsum("...i,...i->...", towards, towards))[..., None]
    facing = np.einsum("...i,...i->...", normals, towards)[..., None] / distance
    return np.maximum(facing, 0.0) * (3.0 / np.maximum(distance, 0.5)) ** 1.2


def view(room: Room, camera: Camera, samples: int) -> dict[str, np.ndarray]:
    """What the empty room looks like from a camera.

    Returns, for an image of the camera's size: `lit` (h, w, 3) linear light from the lamp alone,
    `unlit` (h, w, 3) linear light from all else, both the mean of `samples`^2 rays a pixel, and
    `points` (h, w, 3): what the middle of each pixel shows, world metres.
    """
    fine = camera.resized(samples * camera.size[0], samples * camera.size[1])
    rows = max(1, _BLOCK // (samples * fine.size[1]))  # of pixels at a time: what a cache holds
    strips = [
        _strip(
            room,
            fine.cropped(
                samples * top,
                0,
                height=samples * min(rows, camera.size[0] - top),
                width=fine.size[1],
            ),
            samples,
        )
        for top in range(0, camera.size[0], rows)
    ]
    return {name: np.concatenate([strip[name] for strip in strips]) for name in strips[0]}


def _strip(room: Room, fine: Camera, samples: int) -> dict[str, np.ndarray]:
    """As `view`, for the pixels that the camera `fine` sees `samples` times finer each way."""
    height, width = fine.size[0] // samples, fine.size[1] // samples
    hits = _cast(room, fine)
    albedo, glow = _colors(room, hits)
    shade = lamp(room, hits["points"], hits["normals"]) * _clear(room, hits)[:, None]
    lit = linear(albedo) * room.key * shade
    unlit = linear(albedo) * (room.ambient * _nook(room, hits)[:, None] + glow[:, None])

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


def _planes(room: Room) -> dict[str, tuple[int, float, float]]:
    """{surface: (axis, where it is, sign of its normal)}."""
    return {
        "floor": (2, 0.0, 1.0),
        "ceiling": (2, _HEIGHT, -1.0),
        "back": (0, -room.back, 1.0),
        "left": (1, room.side, -1.0),
        "right": (1, -room.side, 1.0),
    }


def _cast(room: Room, camera: Camera) -> dict[str, np.ndarray]:
    """First hits: points (n, 3), normals (n, 3), surface (n,): 0..4 planes, 5.. boxes."""
    start, rays = _rays(camera)
    best = np.full(len(rays), _FAR)
    surface = np.zeros(len(rays), np.int32)
    normals = np.zeros_like(rays)
    with np.errstate(divide="ignore", invalid="ignore"):
        for number, (axis, place, sign) in enumerate(_planes(room).values()):
            reach = (place - start[axis]) / rays[:, axis]
            nearer = (rays[:, axis] * sign < 0) & (reach > 0) & (reach < best)
            best[nearer], surface[nearer] = reach[nearer], number
            normals[nearer] = sign * np.eye(3)[axis]
        for number, box in enumerate(room.boxes, start=5):
            slab = _slab(box, np.broadcast_to(start, rays.shape), rays)
            reach = slab["enter"]
            nearer = (reach > 0) & (reach < slab["leave"]) & (reach < best)
            best[nearer], surface[nearer] = reach[nearer], number
            hit = rays[nearer]
            near = np.where(hit > 0, box.low, box.high)
            axis = ((near - start) / hit).argmax(-1)
            sign = -np.sign(np.take_along_axis(hit, axis[:, None], 1))
            normals[nearer] = np.eye(3)[axis] * sign
    return {"points": start + best[:, None] * rays, "normals": normals, "surface": surface}


def _slab(box: Box, start: np.ndarray, rays: np.ndarray) -> dict[str, np.ndarray]:
    """Where rays (n, 3) enter and leave a box, in ray lengths; enter >= leave: they miss it."""
    enter, leave = np.full(len(rays), -np.inf), np.full(len(rays), np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):
        for axis in range(3):
            pace = 1.0 / rays[:, axis]
            one = (box.low[axis] - start[:, axis]) * pace
            other = (box.high[axis] - start[:, axis]) * pace
            enter = np.fmax(enter, np.fmin(one, other))
            leave = np.fmin(leave, np.fmax(one, other))
    return {"enter": enter, "leave": leave}


def _colors(room: Room, hits: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Albedo (n, 3) as display values, and own light (n,)."""
    points, surface = hits["points"], hits["surface"]
    albedo, glow = np.zeros_like(points), np.zeros(len(points))
    for number, name in enumerate(_planes(room)):
        rows = np.flatnonzero(surface == number)
        if name == "floor":
            albedo[rows] = room.floor(points[rows, 0], points[rows, 1])
        elif name == "ceiling":
            albedo[rows] = 0.92
        else:
            along = points[rows, 1] if name == "back" else points[rows, 0]
            up = points[rows, 2]
            albedo[rows] = room.wall(along, up)
            albedo[rows[up < 0.09]] = 0.85 * albedo[rows[up < 0.09]] + 0.12  # skirting board
            for patch in (p for p in room.patches if p.wall == name):
                inside = (along > patch.left) & (along < patch.right)
                inside &= (up > patch.low) & (up < patch.high)
                chosen = rows[inside]
                albedo[chosen] = patch.paint(along[inside] - patch.left, up[inside] - patch.low)
                glow[chosen] = patch.glow
    for number, box in enumerate(room.boxes, start=5):
        rows = np.flatnonzero(surface == number)
        normal = np.abs(hits["normals"][rows])
        across = np.where(normal[:, 1] > 0.5, points[rows, 0], points[rows, 1])
        up = np.where(normal[:, 2] > 0.5, points[rows, 0], points[rows, 2])
        albedo[rows] = box.paint(
            across - box.low[1], up - np.where(normal[:, 2] > 0.5, 0, box.low[2])
        )
    return albedo, glow


def _clear(room: Room, hits: dict[str, np.ndarray]) -> np.ndarray:
    """1 where the lamp is seen, 0 where furniture stands before it, softly."""
    start = hits["points"] + 0.01 * hits["normals"]
    clear = np.zeros(len(start))
    jitter = 0.22 * np.array([(0, 0, 0), (1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0)])
    for offset in jitter:
        towards = room.light + offset - start
        blocked = np.zeros(len(start), bool)
        for box in room.boxes:
            slab = _slab(box, start, towards)
            blocked |= (slab["enter"] < np.minimum(slab["leave"], 1)) & (slab["leave"] > 0)
        clear += ~blocked / len(jitter)
    return clear


def _nook(room: Room, hits: dict[str, np.ndarray]) -> np.ndarray:
    """How much of the diffuse light reaches a place: less in corners and beside furniture."""
    points, surface = hits["points"], hits["surface"]
    open_ = np.ones(len(points))
    for number, (axis, place, _) in enumerate(_planes(room).values()):
        distance = np.abs(points[:, axis] - place)
        open_ *= np.where(surface == number, 1.0, 1 - 0.38 * np.exp(-distance / 0.35))
    for number, box in enumerate(room.boxes, start=5):
        outside = np.maximum(np.array(box.low) - points, points - np.array(box.high))
        x, y, z = np.maximum(outside, 0.0).T
        distance = np.sqrt(x * x + y * y + z * z)
        open_ *= np.where(surface == number, 1.0, 1 - 0.45 * np.exp(-distance / 0.16))
    return open_
