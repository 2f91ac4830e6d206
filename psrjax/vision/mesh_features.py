"""A posed mesh as a picture of its shape: each vertex's Laplacian, in the camera's axes.

D2G-Net's 3-D pose label (Sec. 3.2) is "Laplacian features" of the projected mesh; which is not in
the paper. Here it is what a vertex is off the mean of its neighbours: it says how the surface bends
and which way it looks, whoever's it is.
"""

import functools

import numpy as np
from jaxtyping import Float, Int, UInt8
from scipy import sparse

from psrjax.vision import raster
from psrjax.vision.camera import Camera

METRES = 0.005  # what is drawn as 1: nine tenths of the built-in body's vertices are off by less


def laplacian(
    vertices: Float[np.ndarray, "*t v 3"], faces: Int[np.ndarray, "f 3"]
) -> Float[np.ndarray, "*t v 3"]:
    """Each vertex minus the mean of its neighbours; 0 for one without any."""
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
    """The Laplacian where a picture sees the mesh: x right, y down, z away, [-1, 1] in 0..255.

    Args:
      picture: the mesh as the camera sees it.
      vertices: of the mesh, world metres.
      faces: of the mesh.
      camera: of the picture.

    Returns:
      128, the zero, off the mesh; what is off by more than `METRES` is drawn as that.
    """
    bent = laplacian(vertices, faces) @ camera.rotation.T / METRES
    seen = raster.interpolate(picture, faces, bent)
    return np.rint((np.clip(seen, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)
