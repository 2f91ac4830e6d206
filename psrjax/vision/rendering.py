"""A posed body seen by cameras: faces, depth, flow and parts of a view, and what views share."""

import functools
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int, UInt8

from psrjax.ops import geometry
from psrjax.vision import body, raster, visibility
from psrjax.vision.backgrounds import grow
from psrjax.vision.camera import Camera


@functools.lru_cache(maxsize=2)
def neighbours(model: body.BodyModel) -> Int[np.ndarray, "f k"]:
    """Each face and its nearest ones on the surface at rest; seconds of work, so it is kept."""
    count = visibility.neighbour_count(len(model.faces))
    return visibility.face_neighbours(model.vertices, model.faces, count)


def render_view(
    model: body.BodyModel, vertices: Float[np.ndarray, "t v 3"], camera: Camera
) -> dict[str, np.ndarray]:
    """What one camera sees of a posed body.

    Returns:
      `face` (t, h, w) int32, -1 off the body; `metres` (t, h, w) float32 depth, inf off it;
      `mesh_flow` (t, h, w, 2) float16, pixels to where a surface point was one frame earlier, zero
      at the first frame; `iuv` (t, h, w, 3) uint8, DensePose part, u and v times 255.
    """
    streams: dict[str, list[np.ndarray]] = {"face": [], "metres": [], "mesh_flow": [], "iuv": []}
    for time, now in enumerate(vertices):
        picture = raster.render(now, model.faces, camera)
        streams["face"].append(picture.face)
        streams["metres"].append(picture.depth)
        before = vertices[max(time - 1, 0)]
        flow = raster.mesh_flow(picture, model.faces, before, camera)
        streams["mesh_flow"].append((flow if time else 0 * flow).astype(np.float16))
        streams["iuv"].append(iuv(model, picture))
    return {name: np.stack(values) for name, values in streams.items()}


def iuv(model: body.BodyModel, picture: raster.Raster) -> UInt8[np.ndarray, "h w 3"]:
    """DensePose part 0..24, and u and v times 255, of what a picture sees of the body."""
    off = picture.face < 0
    part = np.where(off, 0, model.face_part[picture.face])
    charts = raster.interpolate(picture, model.faces, model.corner_uv)
    rounded = np.round(255 * np.clip(np.where(off[..., None], 0.0, charts), 0.0, 1.0))
    return np.concatenate([part[..., None], rounded], -1).astype(np.uint8)


def depth_range(metres: list[Float[np.ndarray, "t h w"]], margin: float = 0.25) -> dict[str, float]:
    """`near` and `far` in metres that hold every finite depth with `margin` to spare."""
    low = min(float(depth.min()) for depth in metres)
    high = max(float(depth[np.isfinite(depth)].max(initial=low)) for depth in metres)
    return {"near": round(max(low - margin, 0.01), 3), "far": round(high + margin, 3)}


def encode_depth(
    metres: Float[np.ndarray, "*n"], *, near: float, far: float
) -> Float[np.ndarray, "*n"]:
    """The contract's depth: (far - z)/(far - near) in [0, 1], 0 where z is infinite; float16."""
    finite = np.isfinite(metres)
    coded = (far - np.where(finite, metres, far)) / (far - near)
    return np.clip(coded, 0.0, 1.0).astype(np.float16)


def stored_joints(
    points: Float[np.ndarray, "t 26 3"], confidence: Float[np.ndarray, "t 26"], camera: Camera
) -> Float[np.ndarray, "t 26 3"]:
    """Joints in space as a view's joints: x, y in [-1, 1] of its picture, and their confidence.

    Joints behind the camera are missing.
    """
    seen = camera.project(points)
    height, width = camera.size
    places = geometry.pixels_to_unit(seen["pixels"], height=height, width=width)
    held = (confidence > 0) & (seen["depth"] > 0) & (np.abs(places) <= 2.0).all(-1)
    joints = np.concatenate([places, confidence[..., None]], -1)
    return np.where(held[..., None], joints, 0.0).astype(np.float32)


def from_source(
    frames: UInt8[np.ndarray, "t h w 3"],
    source: Int[np.ndarray, "t h w"],
    target: Int[np.ndarray, "t h w"],
    model: body.BodyModel,
    near: Int[np.ndarray, "f k"],
    *,
    mask: UInt8[np.ndarray, "t h w"] | None = None,
) -> dict[str, np.ndarray]:
    """What a source view tells about a target view, over a whole clip (PSR-Net, Alg. 1 and §4).

    Args:
      frames: the source view's frames.
      source: the source view's face maps.
      target: the target view's face maps.
      model: the body.
      near: faces' neighbours, from `neighbours`.
      mask: the person in the source's frames: where the body is fitted, and not exact, colours are
        taken from inside it only.

    Returns:
      `visibility` (t, h, w) uint8 0 background, 1 visible, 2 occluded; `prior` (t, h, w, 3) uint8.
    """
    count = near.shape[1] - 1
    return {
        "visibility": visibility.visibility_map(source, target, near, count),
        "prior": visibility.texture_transfer(
            frames, inside(source, mask), target, near, model.face_group, model.mirror_groups
        ),
    }


def inside(
    face: Int[np.ndarray, "t h w"], mask: UInt8[np.ndarray, "t h w"] | None
) -> Int[np.ndarray, "t h w"]:
    """Face maps without what is not well inside a person's mask, a pixel from its edge or more."""
    return face if mask is None else np.where(grow(mask > 250, -1), face, np.int32(-1))


def all_pairs(
    frames: Mapping[str, np.ndarray],
    faces: Mapping[str, np.ndarray],
    model: body.BodyModel,
    near: Int[np.ndarray, "f k"],
    *,
    masks: Mapping[str, np.ndarray] | None = None,
    targets: Mapping[str, np.ndarray] | None = None,
) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """`from_source` of every ordered pair: {target: {"visibility" | "prior": {source: (t, …)}}}.

    `targets` are the face maps to tell about where they are of another size than the sources'.
    """
    targets = faces if targets is None else targets
    result: dict[str, dict[str, dict[str, np.ndarray]]] = {}
    for target in targets:
        result[target] = {"visibility": {}, "prior": {}}
        for source in faces:
            if source == target:
                continue
            told = from_source(
                frames[source],
                faces[source],
                targets[target],
                model,
                near,
                mask=masks[source] if masks else None,
            )
            for stream, values in told.items():
                result[target][stream][source] = values
    return result
