"""Renders the clips of the synthetic dataset: a posed body in a scene, as its cameras see it.

Pictures are rendered `SAMPLES` times finer each way and averaged, so edges are smooth; the middle
sample of a pixel is its centre, and gives the exact maps (face, depth, flow).
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from psrjax.synthetic import cloth_folds, scenes
from psrjax.synthetic.characters import Character
from psrjax.synthetic.scenes import Scene
from psrjax.vision import body, raster
from psrjax.vision.camera import Camera

SAMPLES = 3  # odd, so that one sample is the pixel's centre
NEAR, FAR = 2.4, 5.8  # metres that the coded depth spans
_LAMP_PIXELS = 160
_CONTACT = 0.6  # metres from a sole beyond which it takes no light from the floor, in float32
_BIAS = 0.035  # metres; a body does not shade the very skin that the lamp hits


@dataclass(frozen=True)
class RenderedView:
    """One camera's view of a clip.

    Attributes:
      frames: (t, h, w, 3) uint8.
      mask: (t, h, w) uint8, the share of each pixel that the person covers, times 255.
      rasters: one per frame, of the body at the pixel centres.
    """

    frames: np.ndarray
    mask: np.ndarray
    rasters: tuple[raster.Raster, ...]


def rig(number: int, seed: int, cameras: int, size: tuple[int, int]) -> dict[str, Camera]:
    """Draws the cameras of scene `number`: {"cam1": …}, at equal height and distance, undistorted.

    Several stand at equal steps from -45 to +45 degrees about the origin (NTU RGB+D's three at
    -45, 0 and 45), a single one at 0. A person of 1.75 m takes two thirds of the picture's height.
    """
    generator = np.random.default_rng((seed, 7002, number))
    turn, height = np.radians(generator.uniform(-4, 4)), generator.uniform(1.20, 1.45)
    distance = generator.uniform(3.9, 4.1)
    angles = np.radians(np.linspace(-45, 45, cameras) if cameras > 1 else np.zeros(1))
    target = np.array([0.0, 0.0, generator.uniform(0.92, 0.98)])
    focal = 0.66 * size[0] * distance / 1.75
    found = {}
    for index, angle in enumerate(angles + turn, start=1):
        centre = np.array([distance * np.cos(angle), distance * np.sin(angle), height])
        found[f"cam{index}"] = _looking(centre, target, focal, size)
    return found


def _looking(centre: np.ndarray, target: np.ndarray, focal: float, size: tuple[int, int]) -> Camera:
    ahead = (target - centre) / np.linalg.norm(target - centre)
    right = np.cross(ahead, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(ahead, right), ahead])
    matrix = np.array([[focal, 0, (size[1] - 1) / 2], [0, focal, (size[0] - 1) / 2], [0, 0, 1.0]])
    return Camera(matrix, rotation, -rotation @ centre, np.zeros(5), size)


def render_views(
    person: Character,
    vertices: Float[np.ndarray, "t v 3"],
    scene: Scene,
    cameras: Mapping[str, Camera],
    backgrounds: Mapping[str, Mapping[str, np.ndarray]],
    bends: Float[np.ndarray, "t 8"],
) -> dict[str, RenderedView]:
    """Renders a person who moves through a scene, for every camera.

    Args:
      person: who it is.
      vertices: the posed body, world metres.
      scene: with its light.
      cameras: by view.
      backgrounds: by view, the empty scene as `scenes.render_background` gives it.
      bends: how far the joints fold the clothes, see `cloth_folds.bends`; zeros: no folds.
    """
    rendered: dict[str, list[tuple]] = {view: [] for view in cameras}
    for posed, bend in zip(vertices, bends, strict=True):
        normals = body.vertex_normals(posed, person.model.faces)
        shadow = _Shadow(scene, posed, person.model.faces)
        light = functools.partial(_body_light, person, posed, normals, scene, shadow, bend)
        for view, camera in cameras.items():
            frame = _render_frame(person, posed, camera, backgrounds[view], shadow, light)
            rendered[view].append(frame)
    views = {}
    for view, frames in rendered.items():
        pictures, masks, rasters = zip(*frames)
        views[view] = RenderedView(np.stack(pictures), np.stack(masks), rasters)
    return views


def background_image(background: Mapping[str, np.ndarray]) -> UInt8[np.ndarray, "h w 3"]:
    """Returns the empty scene as an image."""
    return _to_uint8(background["lit"] + background["unlit"])


def _to_uint8(light: np.ndarray) -> np.ndarray:
    return np.round(255 * scenes.display(light)).astype(np.uint8)


def visible_raster(
    vertices: Float[np.ndarray, "v 3"], faces: np.ndarray, camera: Camera
) -> raster.Raster:
    """Rasterises a closed surface at half the cost of `raster.render`: what faces the camera."""
    corners = vertices[faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    towards = np.flatnonzero(np.einsum("fi,fi->f", camera.centre - corners[:, 0], normals) > 0)
    seen = raster.render(vertices, faces[towards], camera)
    index = np.append(towards, -1).astype(np.int32)
    return raster.Raster(index[seen.face], seen.barycentric, seen.depth)


class _Shadow:
    """The body's shadow: its depth as the lamp sees it, and soft silhouettes for the scene."""

    def __init__(self, scene: Scene, vertices: np.ndarray, faces: np.ndarray):
        middle = 0.5 * (vertices.min(0) + vertices.max(0))
        distance = float(np.linalg.norm(scene.light - middle))
        size = (_LAMP_PIXELS, _LAMP_PIXELS)
        focal = 0.46 * _LAMP_PIXELS * distance / 1.15
        self._camera = _looking(scene.light, middle, focal, size)
        seen = visible_raster(vertices, faces, self._camera)
        self._depth = np.where(seen.face >= 0, seen.depth, np.float32(1e3))
        self._far = float(seen.depth[seen.face >= 0].max(initial=0.0))
        covered = (seen.face >= 0).astype(np.float32)
        self._soft = [cv2.GaussianBlur(covered, (0, 0), sigma) for sigma in (1.5, 6.0)]

    def on_scene(self, points: Float[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 1"]:
        """Returns 0 in full shadow, 1 in the light; the farther behind the body, the softer."""
        at = self._camera.project(points)
        place = np.nan_to_num(at["pixels"], nan=-9.0).astype(np.float32)
        x, y = place[..., 0], place[..., 1]
        near, far = (cv2.remap(soft, x, y, cv2.INTER_LINEAR) for soft in self._soft)
        gap = np.clip((at["depth"] - self._far) / 1.5, 0.0, 1.0)
        return 1 - ((1 - gap) * near + 0.75 * gap * far)[..., None]

    def on_body(self, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 1"]:
        """Returns the same as `on_scene`, for points of the body itself."""
        at = self._camera.project(points)
        lit = np.zeros(len(points), np.float32)
        for offset in ((-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5), (0.5, 0.5)):
            place = np.round(at["pixels"] + offset).astype(int).clip(0, _LAMP_PIXELS - 1)
            lit += at["depth"] < self._depth[place[:, 1], place[:, 0]] + _BIAS
        return lit[:, None] / 4


def _render_frame(
    person: Character,
    vertices: np.ndarray,
    camera: Camera,
    background: Mapping[str, np.ndarray],
    shadow: _Shadow,
    body_light: Callable[[raster.Raster], np.ndarray],
) -> tuple[np.ndarray, np.ndarray, raster.Raster]:
    """Returns the frame, the mask, and the raster at the pixel centres."""
    height, width = camera.size
    faces = person.model.faces
    fine = visible_raster(vertices, faces, camera.resized(SAMPLES * height, SAMPLES * width))
    on = fine.face >= 0
    light = np.zeros((*on.shape, 3), np.float32)
    light[on] = body_light(fine)

    def pooled(values):  # the mean over each pixel's samples
        return cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA)

    cover = pooled(on.astype(np.float32))[..., None]
    empty = background["lit"] * shadow.on_scene(background["points"]) + background[
        "unlit"
    ] * _contact(vertices, background["points"])
    frame = _to_uint8(pooled(light) + (1 - cover) * empty)
    centre = slice(SAMPLES // 2, None, SAMPLES)
    maps = (fine.face, fine.barycentric, fine.depth)
    exact = raster.Raster(*(values[centre, centre] for values in maps))
    return frame, np.round(255 * cover[..., 0]).astype(np.uint8), exact


def _body_light(
    person: Character,
    vertices: np.ndarray,
    normals: np.ndarray,
    scene: Scene,
    shadow: _Shadow,
    bend: np.ndarray,
    seen: raster.Raster,
) -> Float[np.ndarray, "n 3"]:
    on = seen.face >= 0
    face = seen.face[on]
    model = person.model
    values = np.concatenate([model.canonical, vertices, normals], -1)[model.faces[face]]
    values = np.einsum("pi,pic->pc", seen.barycentric[on], values, optimize=True)
    canonical, points, normal = values[:, :3], values[:, 3:6], values[:, 6:]
    normal = normal / np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-6)
    part = model.face_part[face]
    albedo = scenes.linear(person.texture(canonical, part))
    if bend.any():
        folds = person.clothed(canonical, part) * cloth_folds.shade(canonical, bend)
        albedo = albedo * (1 + folds[:, None])
    key = scenes.lamp(scene, points, normal) * shadow.on_body(points)
    bounce = np.clip(1 - points[:, 2:] / 1.2, 0, 1) * (1 - normal[:, 2:]) * 0.10
    diffuse = scene.ambient * (0.80 + 0.28 * normal[:, 2:]) + bounce
    return albedo * (scene.key * key + diffuse)


def _contact(vertices: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Returns the share of diffuse light that reaches the floor beside the soles."""
    low = vertices[(vertices[:, 2] < 0.05) & (vertices[:, 2] > -1)][::12, :2]
    light = np.ones((*points.shape[:2], 1), np.float32)
    if not len(low):
        return light
    x, y, height = np.moveaxis(points, -1, 0)
    (left, front), (right, back) = low.min(0) - _CONTACT, low.max(0) + _CONTACT
    beside = (height < 0.02) & (x > left) & (x < right) & (y > front) & (y < back)
    apart = points[beside][:, None, :2] - low
    square = (apart[..., 0] ** 2 + apart[..., 1] ** 2).min(1, initial=9.0)
    light[beside, 0] = 1 - 0.55 * np.exp(-square / (2 * 0.09**2))
    return light


def agreement(
    backward: Float[np.ndarray, "h w 2"],
    forward: Float[np.ndarray, "h w 2"],
    moving: np.ndarray,
    moving_before: np.ndarray,
) -> UInt8[np.ndarray, "h w"]:
    """Scores the agreement of flow there and back, 0..255: low where a pixel was hidden before.

    Args:
      backward: flow t to t-1, on t's grid.
      forward: flow t-1 to t, on (t-1)'s grid.
      moving: (h, w) bool, the person at t.
      moving_before: (h, w) bool, the person at t-1.
    """
    height, width = backward.shape[:2]
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    x, y = columns + backward[..., 0], rows + backward[..., 1]
    back = cv2.remap(
        forward.astype(np.float32), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    error = np.linalg.norm(backward + back, axis=-1)
    allowed = 0.5 + 0.05 * np.linalg.norm(backward, axis=-1)
    trust = np.exp(-0.5 * (error / allowed) ** 2)
    trust[(x < -0.5) | (y < -0.5) | (x > width - 0.5) | (y > height - 0.5)] = 0.0
    trust[~moving & moving_before] = 0.0  # the person stood before this piece of the scene
    return np.round(255 * trust).astype(np.uint8)


def joint_confidence(
    depth: Iterable[np.ndarray], pixels: np.ndarray, joint_depth: np.ndarray
) -> Float[np.ndarray, "t 26"]:
    """Returns 1 for a joint in sight, 0.5 for one behind the body, 0 for one outside the frame."""
    confidence = np.zeros(joint_depth.shape, np.float32)
    for time, surface in enumerate(depth):
        height, width = surface.shape
        column, row = np.round(np.nan_to_num(pixels[time], nan=-9.0)).astype(int).T
        inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
        front = surface[row.clip(0, height - 1), column.clip(0, width - 1)]
        hidden = joint_depth[time] - front > 0.22  # joints lie up to 0.2 m below the skin
        confidence[time] = np.where(inside, np.where(hidden, 0.5, 1.0), 0.0)
    return confidence
