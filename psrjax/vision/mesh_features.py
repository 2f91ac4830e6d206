"""A picture of a posed mesh's shape: each vertex's Laplacian in the camera's axes.

D2G-Net's 3-D pose label (Sec. 3.2) is "Laplacian features" of the projected mesh; the paper does
not say which. Here it is a vertex minus the mean of its neighbours: the curvature and orientation
of the surface, independent of identity.
"""

import functools

import numpy as np
from jaxtyping import Float, Int, UInt8
from scipy import sparse

from psrjax.vision import raster
from psrjax.vision.camera import Camera

METRES = 0.005  # drawn as 1; nine tenths of the built-in body's vertices lie below


def laplacian(
    vertices: Float[np.ndarray, "*t v 3"], faces: Int[np.ndarray, "f 3"]
) -> Float[np.ndarray, "*t v 3"]:
    """Returns each vertex minus the mean of its neighbours; 0 for one without any."""
    mean = _neighbour_mean(faces.astype(np.int32).tobytes(), vertices.shape[-2])
    flat = np.moveaxis(vertices, -2, 0).reshape(vertices.shape[-2], -1)
    alone = np.asarray(mean.sum(1) == 0)
    off = np.where(alone, 0.0, flat - mean @ flat)
    return np.moveaxis(off.reshape(-1, *vertices.shape[:-2], 3), 0, -2)


@functools.lru_cache(maxsize=2)
def _neighbour_mean(faces: bytes, count: int) -> sparse.csr_matrix:
    corners = np.frombuffer(faces, np.int32).reshape(-1, 3)
    edges = np.unique(np.sort(corners[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1), axis=0)
    ends = np.concatenate([edges, edges[:, ::-1]])
    degree = np.bincount(ends[:, 0], minlength=count)
    return sparse.csr_matrix((1.0 / degree[ends[:, 0]], (ends[:, 0], ends[:, 1])), (count, count))


def label(
    picture: raster.Raster,
    vertices: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    camera: Camera,
) -> UInt8[np.ndarray, "h w 3"]:
    """Draws the Laplacian of a rasterised mesh: x right, y down, z away, [-1, 1] as 0..255.

    Args:
      picture: the mesh rasterised in `camera`.
      vertices: of the mesh, world metres.
      faces: of the mesh.
      camera: of the picture.

    Returns:
      The picture: 128 off the mesh; lengths beyond `METRES` are clipped.
    """
    bent = laplacian(vertices, faces) @ camera.rotation.T / METRES
    seen = raster.interpolate(picture, faces, bent)
    return np.rint((np.clip(seen, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)
