"""Computes the inputs of novel view synthesis from a captured clip and the person's mesh."""

import dataclasses
import functools
import os
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Int, UInt8

from psrjax.errors import UserError
from psrjax.io import foreign
from psrjax.vision import body, raster, rendering, visibility
from psrjax.vision.camera import Camera


@dataclass(frozen=True, eq=False)
class Mesh:
    """A person's mesh over time, in world metres.

    Attributes:
      vertices: (t, v, 3) float.
      faces: (f, 3) int32, the same at all times.
      groups: (f,) body part of each face, from 1; texture is only transferred within a part.
      mirror_groups: the mirror part of part g stands at g - 1.
      rest: (v, 3) the mesh in a pose in which no parts touch; defines distances on the surface.
    """

    vertices: np.ndarray
    faces: np.ndarray
    groups: np.ndarray
    mirror_groups: tuple[int, ...]
    rest: np.ndarray

    def cut(self, first: int, end: int) -> "Mesh":
        """Returns the mesh of frames [first, end)."""
        return dataclasses.replace(self, vertices=self.vertices[first:end])


def fit_frames(
    frames: UInt8[np.ndarray, "t y x 3"], size: tuple[int, int]
) -> UInt8[np.ndarray, "t h w 3"]:
    """Crops frames about their centre to the shape of `size` (height, width) and resizes them."""
    top, left, height, width = _box(frames.shape[1:3], size)
    cut = frames[:, top : top + height, left : left + width]
    return np.stack([cv2.resize(f, size[::-1], interpolation=cv2.INTER_AREA) for f in cut])


def fit_camera(camera: Camera, size: tuple[int, int]) -> Camera:
    """Returns the camera of frames that `fit_frames` has changed."""
    return camera.windowed(_box(camera.size, size), size)


def _box(have: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Returns top, left, height and width of the largest centred box of the shape of `size`."""
    scale = min(have[0] / size[0], have[1] / size[1])
    height, width = round(size[0] * scale), round(size[1] * scale)
    return (have[0] - height) // 2, (have[1] - width) // 2, height, width


def read_mesh(path: str | os.PathLike) -> Mesh:
    """Reads a mesh, `verts` (t, v, 3) and `faces` (f, 3), from an npz file.

    Optional arrays: `face_group` (f,) and `mirror_groups` name body parts, `rest` (v, 3) is the
    mesh at rest. Without them a mesh with the faces of the built-in body has its parts and rest;
    any other mesh is one part, with its first frame as rest.

    Raises:
      UserError: if the file cannot be read, or its arrays are not a mesh.
    """
    with foreign.parsing(path, "not a readable npz file"):
        arrays = foreign.load_npz(path)
    for name in ("verts", "faces"):
        if name not in arrays:
            raise UserError(f"{path}: holds no {name!r}; a mesh is verts (t, v, 3), faces (f, 3)")
    vertices, faces = np.asarray(arrays["verts"], np.float64), arrays["faces"]
    if vertices.ndim != 3 or vertices.shape[-1] != 3 or not np.isfinite(vertices).all():
        raise UserError(f"{path}: verts is {vertices.shape}; it must be finite and (t, v, 3)")
    if faces.ndim != 2 or faces.shape[-1] != 3 or not np.issubdtype(faces.dtype, np.integer):
        raise UserError(f"{path}: faces is {faces.dtype} {faces.shape}; it must be integer (f, 3)")
    if not len(faces) or faces.min() < 0 or faces.max() >= vertices.shape[1]:
        raise UserError(f"{path}: faces name vertices beyond the {vertices.shape[1]} of verts")
    groups, mirror, rest = _parts_and_rest(arrays, vertices, faces)
    if groups.shape != (len(faces),) or groups.min() < 1 or groups.max() > len(mirror):
        raise UserError(f"{path}: face_group must give each face a part of 1..{len(mirror)}")
    if rest.shape != vertices.shape[1:] or not np.isfinite(rest).all():
        raise UserError(f"{path}: rest is {rest.shape}; it must be finite and one frame of verts")
    return Mesh(vertices, faces.astype(np.int32), groups.astype(np.int32), mirror, rest)


def _parts_and_rest(
    arrays: dict[str, np.ndarray], vertices: np.ndarray, faces: np.ndarray
) -> tuple[np.ndarray, tuple[int, ...], np.ndarray]:
    template = body.template()
    groups, mirror, rest = np.ones(len(faces), np.int32), (1,), vertices[0]
    if np.array_equal(template.faces, faces):
        groups, mirror, rest = template.face_group, template.mirror_groups, template.vertices
    if "face_group" in arrays:
        groups = arrays["face_group"]
        mirror = arrays.get("mirror_groups", np.arange(1, int(groups.max()) + 1))
    return groups, tuple(map(int, mirror)), np.asarray(arrays.get("rest", rest), np.float64)


def guide(
    frames: UInt8[np.ndarray, "t h w 3"],
    mesh: Mesh,
    source: Camera,
    target: Camera,
    *,
    near: float,
    far: float,
    mask: UInt8[np.ndarray, "t h w"] | None = None,
) -> dict[str, np.ndarray]:
    """Computes all inputs of a novel view over a whole clip, without a batch axis.

    Args:
      frames: the source view's frames, of the size of `source`.
      mesh: the person at the same times.
      source: the camera of `frames`.
      target: the camera to synthesize for, of the same size.
      near: metres at which the encoded depth is 1 (as in the training data).
      far: metres at which it is 0.
      mask: the person in `frames`, if known; colours are then taken from inside it only.

    Returns:
      Arrays (t, …) of source, source_mask, target_mask, target_depth, target_mesh_flow,
      target_visibility and target_prior.

    Raises:
      UserError: if there are not as many meshes as frames, or a camera never sees the person.
    """
    if len(frames) != len(mesh.vertices):
        raise UserError(f"the video has {len(frames)} frames and the mesh {len(mesh.vertices)}")
    seen = {"source": _render(mesh, source), "target": _render(mesh, target)}
    for name, pictures in seen.items():
        if all((picture.face < 0).all() for picture in pictures):
            raise UserError(f"the {name} camera does not see the mesh in any frame")
    faces = {name: np.stack([p.face for p in pictures]) for name, pictures in seen.items()}
    near_faces = _near_faces(mesh.rest.tobytes(), mesh.faces.tobytes())
    parts = mesh.groups, mesh.mirror_groups
    transferred = rendering.transfer(
        frames, faces["source"], faces["target"], near_faces, *parts, mask=mask
    )
    depth = np.stack([picture.depth for picture in seen["target"]])
    flow = raster.backward_flow(seen["target"], mesh.vertices, mesh.faces, target)
    return {
        "source": frames,
        "source_mask": _mask(faces["source"]),
        "target_mask": _mask(faces["target"]),
        "target_depth": rendering.encode_depth(depth, near=near, far=far)[..., None],
        "target_mesh_flow": flow,
        "target_visibility": transferred["visibility"][..., None],
        "target_prior": transferred["prior"],
    }


@functools.lru_cache(maxsize=2)
def _near_faces(rest: bytes, faces: bytes) -> Int[np.ndarray, "f n"]:
    """Computes `visibility.face_neighbours` at rest; cached, since it takes seconds."""
    vertices = np.frombuffer(rest).reshape(-1, 3)
    corners = np.frombuffer(faces, np.int32).reshape(-1, 3)
    return visibility.face_neighbours(vertices, corners, visibility.neighbour_count(len(corners)))


def _render(mesh: Mesh, camera: Camera) -> list[raster.Raster]:
    return [raster.render(vertices, mesh.faces, camera) for vertices in mesh.vertices]


def _mask(faces: Int[np.ndarray, "t h w"]) -> UInt8[np.ndarray, "t h w 1"]:
    return np.where(faces >= 0, np.uint8(255), np.uint8(0))[..., None]
