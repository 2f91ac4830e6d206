"""Renders a posed body: face maps, depth, flow and parts of a view, and transfer between views."""

import functools
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8

from psrjax.ops import geometry
from psrjax.vision import raster, visibility
from psrjax.vision.backgrounds import grow
from psrjax.vision.body import BodySurface
from psrjax.vision.camera import Camera


@functools.lru_cache(maxsize=2)
def neighbours(model: BodySurface) -> Int[np.ndarray, "f k"]:
    """Computes `visibility.face_neighbours` of the body at rest; cached, since it takes seconds."""
    count = visibility.neighbour_count(len(model.faces))
    return visibility.face_neighbours(model.vertices, model.faces, count)


def render_view(
    model: BodySurface, vertices: Float[np.ndarray, "t v 3"], camera: Camera
) -> dict[str, np.ndarray]:
    """Renders a posed body in one camera.

    Returns:
      `face` (t, h, w) int32, -1 off the body; `metres` (t, h, w) float32 depth, inf off it;
      `mesh_flow` (t, h, w, 2) float16, pixels to where a surface point was one frame earlier, zero
      at the first frame; `iuv` (t, h, w, 3) uint8, DensePose part, u and v times 255.
    """
    pictures = [raster.render(now, model.faces, camera) for now in vertices]
    return {
        "face": np.stack([picture.face for picture in pictures]),
        "metres": np.stack([picture.depth for picture in pictures]),
        "mesh_flow": raster.backward_flow(pictures, vertices, model.faces, camera),
        "iuv": np.stack([iuv(model, picture) for picture in pictures]),
    }


def iuv(model: BodySurface, picture: raster.Raster) -> UInt8[np.ndarray, "h w 3"]:
    """Renders DensePose part 0..24, and u and v times 255, of a rasterised body."""
    off = picture.face < 0
    part = np.where(off, 0, model.face_part[picture.face])
    charts = raster.interpolate(picture, model.faces, model.corner_uv)
    rounded = np.round(255 * np.clip(np.where(off[..., None], 0.0, charts), 0.0, 1.0))
    return np.concatenate([part[..., None], rounded], -1).astype(np.uint8)


def depth_range(metres: list[Float[np.ndarray, "t h w"]], margin: float = 0.25) -> dict[str, float]:
    """Returns `near` and `far` in metres that enclose every finite depth with a margin."""
    low = min(float(depth.min()) for depth in metres)
    high = max(float(depth[np.isfinite(depth)].max(initial=low)) for depth in metres)
    return {"near": round(max(low - margin, 0.01), 3), "far": round(high + margin, 3)}


def encode_depth(
    metres: Float[np.ndarray, "*n"], *, near: float, far: float
) -> Float[np.ndarray, "*n"]:
    """Encodes depth as float16 (far - z)/(far - near) in [0, 1], 0 where z is infinite."""
    finite = np.isfinite(metres)
    coded = (far - np.where(finite, metres, far)) / (far - near)
    return np.clip(coded, 0.0, 1.0).astype(np.float16)


def stored_joints(
    points: Float[np.ndarray, "t 26 3"], confidence: Float[np.ndarray, "t 26"], camera: Camera
) -> Float[np.ndarray, "t 26 3"]:
    """Projects joints in space into a view: x, y in [-1, 1] of its picture, and their confidence.

    Joints behind the camera are missing.
    """
    seen = camera.project(points)
    height, width = camera.size
    places = geometry.pixels_to_unit(seen["pixels"], height=height, width=width)
    held = (confidence > 0) & (seen["depth"] > 0) & (np.abs(places) <= 2.0).all(-1)
    joints = np.concatenate([places, confidence[..., None]], -1)
    return np.where(held[..., None], joints, 0.0).astype(np.float32)


def transfer(
    frames: UInt8[np.ndarray, "t h w 3"],
    source: Int[np.ndarray, "t h w"],
    target: Int[np.ndarray, "t h2 w2"],
    near_faces: Int[np.ndarray, "f n"],
    parts: Int[np.ndarray, " f"],
    mirror_parts: Sequence[int],
    *,
    mask: UInt8[np.ndarray, "t h w"] | None = None,
) -> dict[str, np.ndarray]:
    """Computes visibility and transferred texture of a target view (PSR-Net, Alg. 1 and §4).

    Args:
      frames: the source view's frames, over the whole clip.
      source: the source view's face maps.
      target: the target view's face maps.
      near_faces: of `visibility.face_neighbours`.
      parts: part 1.. of each face.
      mirror_parts: `mirror_parts[p - 1]` is the mirror part of p.
      mask: the person in the source's frames, for fitted bodies, which are not exact: colours are
        taken from inside it only.

    Returns:
      `visibility` (t, h2, w2) uint8 0 background, 1 visible, 2 occluded; `prior` (t, h2, w2, 3)
      uint8.
    """
    own = _inside(source, mask)
    return {
        "visibility": visibility.visibility_map(
            source, target, near_faces, near_faces.shape[1] - 1
        ),
        "prior": visibility.texture_transfer(frames, own, target, near_faces, parts, mirror_parts),
    }


def _inside(
    face: Int[np.ndarray, "t h w"], mask: UInt8[np.ndarray, "t h w"] | None
) -> Int[np.ndarray, "t h w"]:
    """Keeps face maps only inside a person's mask, a pixel or more from its edge."""
    return face if mask is None else np.where(grow(mask > 250, -1), face, np.int32(-1))


def all_pairs(
    frames: Mapping[str, np.ndarray],
    faces: Mapping[str, np.ndarray],
    model: BodySurface,
    near: Int[np.ndarray, "f k"],
    *,
    masks: Mapping[str, np.ndarray] | None = None,
    targets: Mapping[str, np.ndarray] | None = None,
) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """Applies `transfer` to every ordered pair of views.

    `targets` are the target face maps if their size differs from the sources'.

    Returns:
      {target: {"visibility" | "prior": {source: (t, …)}}}.
    """
    targets = faces if targets is None else targets
    result: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for target in targets:
        result[target] = {"visibility": {}, "prior": {}}
        for source in faces:
            if source == target:
                continue
            transferred = transfer(
                frames[source],
                faces[source],
                targets[target],
                near,
                model.face_group,
                model.mirror_groups,
                mask=masks[source] if masks else None,
            )
            for stream, values in transferred.items():
                result[target][stream][source] = values
    return result
