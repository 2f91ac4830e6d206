"""Rasterises triangle meshes with a z-buffer: each pixel's face, barycentrics and depth."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from psrjax.vision.camera import Camera

_NEAR = 0.01  # metres; faces nearer than this are dropped
_CHUNK = 1 << 20  # (face, pixel) candidates tested at a time


@dataclass(frozen=True, eq=False)
class Raster:
    """A mesh as seen at each pixel centre.

    Attributes:
      face: (h, w) int32 index of the nearest face, -1 off the mesh.
      barycentric: (h, w, 3) float32 perspective-correct weights of that face's corners; they sum
        to one on the mesh and are zero off it.
      depth: (h, w) float32 metres along the optical axis, inf off the mesh.
    """

    face: np.ndarray
    barycentric: np.ndarray
    depth: np.ndarray


def render(
    vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], camera: Camera
) -> Raster:
    """Rasterises a mesh (world metres) at the pixel centres of `camera`, without backface culling.

    A pixel whose centre lies exactly on an edge belongs to one of the edge's faces only (the same
    one in any order of faces), so closed surfaces have no holes. Of faces at equal depth the one
    of the lower index is seen. The lens moves the corners; edges stay straight, so large faces
    must be subdivided where distortion matters. A face with a corner nearer than 1 cm, behind the
    camera or outside the lens's field is dropped, not clipped.
    """
    height, width = camera.size
    image = camera.project(vertices)
    setup = _edges(image["pixels"], image["depth"], faces)
    nearness = np.zeros(height * width)  # 1 / depth: linear on the screen
    winner = np.full(height * width, -1, np.int32)
    for face, column, row in _candidates(setup["corners"], height, width):
        shares = _shares(setup["edges"], face, column, row)
        inside = (shares >= setup["threshold"][:, face]).all(0) & (shares.sum(0) > 0)
        face, shares = face[inside], shares[:, inside]
        pixel = (row * width + column)[inside]
        near = (shares * setup["nearness"][:, face]).sum(0) / shares.sum(0)
        np.maximum.at(nearness, pixel, near)
        nearest = near == nearness[pixel]
        winner[pixel[nearest]] = face[nearest]  # faces come in descending order: the lowest stays
    barycentric = np.zeros((height * width, 3), np.float32)
    depth = np.full(height * width, np.inf, np.float32)
    (pixel,) = np.nonzero(winner >= 0)
    face, row, column = winner[pixel], pixel // width, pixel % width
    shares = _shares(setup["edges"], face, column, row) * setup["nearness"][:, face]
    barycentric[pixel] = (shares / shares.sum(0)).T
    depth[pixel] = 1 / nearness[pixel]
    winner[pixel] = setup["index"][face]
    return Raster(
        winner.reshape(height, width),
        barycentric.reshape(height, width, 3),
        depth.reshape(height, width),
    )


def _edges(pixels: np.ndarray, depth: np.ndarray, faces: np.ndarray) -> dict[str, np.ndarray]:
    """Computes edge functions (A x + B y + C, positive inside) of the faces that can be drawn.

    Both faces of an edge compute it from the same ordered pair of corners, so that their values
    are exact negatives of each other; ties (zero) go to the side given by the edge's direction.
    """
    drawable = np.isfinite(pixels).all(-1) & (depth > _NEAR)
    index = np.flatnonzero(drawable[faces].all(-1))[::-1]
    corners = pixels[faces[index]]
    near = 1 / np.where(drawable, depth, 1.0)[faces[index]]
    x, y = corners[..., 0], corners[..., 1]
    edges = np.empty((3, 3, len(index)))
    forward = np.empty((3, len(index)), bool)
    for i in range(3):  # the edge opposite corner i
        j, k = (i + 1) % 3, (i + 2) % 3
        swap = (x[:, j] > x[:, k]) | ((x[:, j] == x[:, k]) & (y[:, j] > y[:, k]))
        ax, bx = np.where(swap, x[:, [k, j]].T, x[:, [j, k]].T)
        ay, by = np.where(swap, y[:, [k, j]].T, y[:, [j, k]].T)
        sign = np.where(swap, -1.0, 1.0)
        edges[i] = (ay - by) * sign, (bx - ax) * sign, (ax * by - bx * ay) * sign
        forward[i] = ~swap
    area = edges[:, 2].sum(0)
    edges *= np.sign(area)
    forward ^= area < 0
    keep = area != 0
    return {
        "index": index[keep].astype(np.int32),
        "corners": corners[keep],
        "edges": edges[..., keep],
        "threshold": np.where(forward, 0.0, np.finfo(float).smallest_subnormal)[:, keep],
        "nearness": near[keep].T,
    }


def _shares(edges, face, column, row) -> np.ndarray:
    """Evaluates edge functions (3, n) at pixels: screen barycentrics times twice the area."""
    return np.stack([a[face] * column + b[face] * row + c[face] for a, b, c in edges])


def _candidates(corners: np.ndarray, height: int, width: int):
    """Yields (face, column, row) of all pixels in the faces' boxes, some 2²⁰ at a time."""
    low = np.ceil(corners.min(1)).clip(0, (width, height)).astype(np.int64)
    high = np.floor(corners.max(1)).clip(-1, (width - 1, height - 1)).astype(np.int64)
    extent = (high - low + 1).clip(0)
    counts = extent.prod(-1)
    (present,) = np.nonzero(counts)
    ends = np.cumsum(counts[present])
    first = 0
    while first < len(present):
        done = ends[first - 1] if first else 0
        last = max(first + 1, int(np.searchsorted(ends, done + _CHUNK, "right")))
        chunk = present[first:last]
        face = np.repeat(chunk, counts[chunk])
        offset = np.arange(len(face)) - np.repeat(
            ends[first:last] - counts[chunk] - done, counts[chunk]
        )
        down, across = np.divmod(offset, extent[face, 0])
        yield face, low[face, 0] + across, low[face, 1] + down
        first = last


def interpolate(
    raster: Raster,
    faces: Int[np.ndarray, "f 3"],
    values: Float[np.ndarray, "v c"] | Float[np.ndarray, "f 3 c"],
) -> Float[np.ndarray, "h w c"]:
    """Interpolates values of the vertices, or of each face's corners; 0 off the mesh."""
    seen = raster.face >= 0
    face = raster.face[seen]
    corners = values[face] if values.ndim == 3 else values[faces[face]]
    result = np.zeros((*seen.shape, values.shape[-1]), values.dtype)
    result[seen] = np.einsum("pi,pic->pc", raster.barycentric[seen].astype(values.dtype), corners)
    return result


def mesh_flow(
    raster: Raster,
    faces: Int[np.ndarray, "f 3"],
    vertices_other: Float[np.ndarray, "v 3"],
    camera: Camera,
) -> Float[np.ndarray, "h w 2"]:
    """Computes each pixel's motion to where its surface point is at another time: (x, y), float32.

    With the raster of frame t and the vertices of t - 1 this is the backward flow (PSR-Net's O);
    with the raster of t - 1 and the vertices of t the forward flow. 0 off the mesh, and where the
    point is not imaged at the other time.
    """
    image = camera.project(vertices_other)
    flow = np.zeros((*raster.face.shape, 2), np.float32)
    row, column = np.nonzero(raster.face >= 0)
    corners = faces[raster.face[row, column]]
    # Perspective-correct weights times depth interpolate images linearly, lens and all.
    weights = raster.barycentric[row, column].astype(np.float64) * image["depth"][corners]
    with np.errstate(divide="ignore", invalid="ignore"):
        weights /= weights.sum(-1, keepdims=True)
    moved = np.einsum("pi,pic->pc", weights, image["pixels"][corners])
    moved -= np.stack([column, row], -1)
    flow[row, column] = np.where(np.isfinite(moved).all(-1, keepdims=True), moved, 0)
    return flow


def backward_flow(
    rasters: Sequence[Raster],
    vertices: Float[np.ndarray, "t v 3"],
    faces: Int[np.ndarray, "f 3"],
    camera: Camera,
) -> Float[np.ndarray, "t h w 2"]:
    """Computes `mesh_flow` from each frame to the one before, float16; zero at the first frame."""
    flow = [np.zeros((*camera.size, 2), np.float16)]
    for raster, before in zip(rasters[1:], vertices):
        flow.append(mesh_flow(raster, faces, before, camera).astype(np.float16))
    return np.stack(flow)
