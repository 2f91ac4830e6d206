"""Cameras between real ones, and the inputs of a method rendered for any camera."""

import json
import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation, Slerp

from psrjax import io
from psrjax.data.source import Source
from psrjax.errors import UserError
from psrjax.prepare.multiview.body_fitting import shaped
from psrjax.vision import body, guidance
from psrjax.vision.camera import Camera


def between(one: Camera, other: Camera, fraction: float, focus: Float[np.ndarray, "3"]) -> Camera:
    """Interpolates a camera at `fraction` of the way from `one` to `other`, around a point.

    The orientation is interpolated spherically, the lens linearly. `focus` (world axes) keeps its
    interpolated place in the camera's axes, so a person there keeps place and size in the picture.

    Raises:
      UserError: if the cameras' pictures differ in size.
    """
    if one.size != other.size:
        raise UserError(f"cameras of sizes {one.size} and {other.size} have none between them")
    ends = Rotation.from_matrix(np.stack([one.rotation, other.rotation]))
    rotation = Slerp([0.0, 1.0], ends)(fraction).as_matrix()
    seen, also_seen = (c.rotation @ focus + c.translation for c in (one, other))
    return Camera(
        _mix(one.matrix, other.matrix, fraction),
        rotation,
        _mix(seen, also_seen, fraction) - rotation @ focus,
        _mix(one.distortion, other.distortion, fraction),
        one.size,
    )


def _mix(one: np.ndarray, other: np.ndarray, fraction: float) -> np.ndarray:
    return (1.0 - fraction) * one + fraction * other


def write_camera(path: str | os.PathLike, name: str, camera: Camera) -> None:
    """Writes a camera as `calibration.read_calibration` reads it."""
    entry = {
        "K": camera.matrix.tolist(),
        "dist": camera.distortion.tolist(),
        "R": camera.rotation.tolist(),
        "t": camera.translation.tolist(),
        "size": list(camera.size),
    }
    io.write_text(path, json.dumps({name: entry}, indent=1) + "\n")


def stored_camera(data: Source, clip: str, view: str) -> Camera:
    """Returns the camera of a stored view, in the pixels of its stored frames.

    Raises:
      UserError: if there is no such view, or the dataset does not hold its camera.
    """
    camera = data.load(clip, view, [0]).camera
    if camera is None:
        raise UserError(f"{data.directory}, clip {clip!r}: the camera of {view!r} is not known")
    return camera


def nearest_view(data: Source, clip: str, camera: Camera) -> str:
    """Returns the stored view whose camera's axis makes the smallest angle with `camera`'s."""
    alike = {
        view: stored_camera(data, clip, view).rotation[2] @ camera.rotation[2]
        for view in data.clip(clip).views
    }
    return max(alike, key=lambda view: alike[view])


def stored_joints(data: Source, clip: str) -> Float[np.ndarray, "t 26 3"]:
    """Reads the person's joints in space, metres. Raises UserError if the dataset has none."""
    data.require("joints_3d", "which place the person in space")
    return data.read(clip, next(iter(data.clip(clip).views)), "joints_3d").astype(np.float64)


def stored_mesh(data: Source, clip: str) -> guidance.Mesh:
    """Shapes and poses the built-in body as at every frame of a stored clip.

    Raises:
      UserError: if the dataset was not made with the built-in body.
    """
    facts = next(iter(data.clip(clip).views.values())).meta
    if "body" not in facts:
        raise UserError(
            f"{data.directory}, clip {clip!r}: does not say which body it holds; `psrjax prepare` "
            "of a recording stores it"
        )
    try:
        model = shaped(facts["body"]["girths"])
    except UserError as error:
        raise UserError(f"{data.directory}, clip {clip!r}: {error}") from error
    vertices = body.pose(model, stored_joints(data, clip))
    return guidance.Mesh(
        vertices, model.faces, model.face_group, model.mirror_groups, model.vertices
    )


def guide(
    data: Source, clip: str, view: str, camera: Camera, frames: Sequence[int] | None = None
) -> dict[str, np.ndarray]:
    """Renders the inputs of a method for any camera from a stored view and the stored body.

    The camera's picture is resized to the view's size; frames default to the whole clip.

    Returns:
      The wire arrays (t, …) of `guidance.guide`.

    Raises:
      UserError: if there is no such clip or view, its body or camera is not stored, the camera's
        picture has another aspect ratio, or the camera never sees the person.
    """
    real = stored_camera(data, clip, view)
    frames = range(data.clip(clip).views[view].frames) if frames is None else frames
    mesh = stored_mesh(data, clip)
    target = camera if all(camera.size) else replace(camera, size=real.size)
    if target.size != real.size:
        if target.size[0] * real.size[1] != target.size[1] * real.size[0]:
            raise UserError(
                f"the camera's picture is {target.size[1]}x{target.size[0]}, the dataset's "
                f"{real.size[1]}x{real.size[0]}: another shape"
            )
        target = target.resized(*real.size)
    return guidance.guide(
        data.read(clip, view, "frames", frames),
        replace(mesh, vertices=mesh.vertices[list(frames)]),
        real,
        target,
        near=data.meta["near"],
        far=data.meta["far"],
        mask=data.read(clip, view, "mask", frames) if "mask" in data.streams else None,
    )
