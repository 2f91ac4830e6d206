"""Transfer between views: face neighbours, PSR-Net's visibility map, GTNet's texture transfer.

Face maps are int32 images of face indices, -1 off the mesh, computed by `psrjax.vision.raster`.
"""

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sparse
from jaxtyping import Float, Int, UInt8
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import KDTree

BACKGROUND, VISIBLE, OCCLUDED = 0, 1, 2  # the paper's 1, 2, 3
NO_COLOUR = (102, 163, 255)  # of a part if a view shows nothing of it and its mirror part
_SOURCES = 256  # faces whose distances are computed at a time


def neighbour_count(face_count: int) -> int:
    """Scales GTNet's 50 neighbours of SMPL's 13,776 faces to a mesh; at least one."""
    return max(1, round(50 * face_count / 13776))


def face_neighbours(
    vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"], count: int
) -> Int[np.ndarray, "f n"]:
    """Finds the `count` faces nearest each face along the surface, in order: (f, count + 1) int32.

    Column 0 is the face itself. Distance is the shortest path over faces that share an edge, each
    step as long as the distance of the two centroids (Dijkstra); equal distances are ordered by
    index. Where a connected component has too few faces, the face itself fills the row.
    """
    graph = _adjacency(vertices, faces)
    _, piece = connected_components(graph, directed=False)
    wanted = np.minimum(count + 1, np.bincount(piece)[piece])
    result = np.repeat(np.arange(len(faces), dtype=np.int32)[:, None], count + 1, 1)
    reach = 1.5 * np.sqrt(count + 1) * (graph.data.mean() if graph.nnz else 1.0)
    open_faces = np.flatnonzero(wanted > 1)
    while len(open_faces):
        again = []
        for first in range(0, len(open_faces), _SOURCES):
            source = open_faces[first : first + _SOURCES]
            distance = dijkstra(graph, directed=False, indices=source, limit=reach)
            row, face = np.nonzero(np.isfinite(distance))
            order = np.lexsort((face, distance[row, face], row))
            face = face[order]
            found = np.bincount(row, minlength=len(source))
            rank = np.arange(len(face)) - np.repeat(np.cumsum(found) - found, found)
            enough = found >= wanted[source]
            keep = (rank <= count) & enough[row]
            result[source[row[keep]], rank[keep]] = face[keep]
            again.append(source[~enough])
        open_faces = np.concatenate(again)
        reach *= 2
    return result


def _adjacency(vertices: np.ndarray, faces: np.ndarray) -> sparse.csr_matrix:
    """Builds the graph of faces that share an edge, weighted by the centroids' distance."""
    pairs = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]], -1).reshape(-1, 2)
    _, edge = np.unique(pairs, axis=0, return_inverse=True)
    face = np.repeat(np.arange(len(faces)), 3)
    ones = np.ones(len(face), np.int8)
    touches = sparse.csr_matrix((ones, (face, edge.ravel())), (len(faces), edge.max() + 1))
    graph = (touches @ touches.T).tocoo()
    row, column = graph.row[graph.row != graph.col], graph.col[graph.row != graph.col]
    centroids = vertices[faces].mean(1)
    length = np.linalg.norm(centroids[row] - centroids[column], axis=-1)
    length = np.maximum(length, 1e-12)  # a zero would mean "not adjacent"
    return sparse.csr_matrix((length, (row, column)), graph.shape)


def seen_faces(face_maps: Int[np.ndarray, "t h w"], face_count: int) -> np.ndarray:
    """Tells for each face whether it appears anywhere in the clip: (face_count,) bool."""
    seen = np.zeros(face_count, bool)
    seen[face_maps[face_maps >= 0]] = True
    return seen


def visibility_map(
    source_faces: Int[np.ndarray, "s h w"],
    target_faces: Int[np.ndarray, "t h2 w2"],
    neighbours: Int[np.ndarray, "f n"],
    k: int,
) -> UInt8[np.ndarray, "t h2 w2"]:
    """Labels target pixels by what the source view has seen (PSR-Net, Alg. 1): 0, 1 or 2.

    0 background: the target shows no face; 1 visible: the face, or one of its k nearest faces,
    appears anywhere in the whole source clip; 2 occluded. `k=0` is the text's strict definition.
    Departs from: Alg. 1 as printed, whose loop relabels background pixels too.

    Raises:
      ValueError: if `neighbours` has fewer than k neighbours.
    """
    if not 0 <= k < neighbours.shape[1]:
        raise ValueError(f"k={k}, but there are {neighbours.shape[1] - 1} neighbours of each face")
    seen = seen_faces(source_faces, len(neighbours))
    known = seen[neighbours[:, : k + 1]].any(1)
    labels = np.append(np.where(known, VISIBLE, OCCLUDED), BACKGROUND).astype(np.uint8)
    return labels[target_faces]  # face -1 reads the last entry


def texture_transfer(
    frames: UInt8[np.ndarray, "s h w 3"],
    source_faces: Int[np.ndarray, "s h w"],
    target_faces: Int[np.ndarray, "t h2 w2"],
    neighbours: Int[np.ndarray, "f n"],
    parts: Int[np.ndarray, " f"],
    mirror_parts: Sequence[int],
) -> UInt8[np.ndarray, "t h2 w2 3"]:
    """Transfers the source clip's colours to the target view: PSR-Net's x̂₀ (GTNet, Steps I-III).

    I: a face's colour is the per-channel median of its pixels over all source frames (rounded
    down). II: a target pixel takes the colour of its face or of the nearest coloured face in
    `neighbours`. III: else the colour of the nearest pixel that Step II coloured, in the image, of
    the same part; of its mirror part where the frame has none of the part; else `NO_COLOUR`. The
    background is 0.

    Args:
      frames: the whole source clip, RGB.
      source_faces: its face maps.
      target_faces: face maps of the target view.
      neighbours: of `face_neighbours`.
      parts: part 1.. of each face.
      mirror_parts: `mirror_parts[p - 1]` is the mirror part of p.

    Departs from: GTNet's script, whose Step II files directly seen pixels under a stale colour.
    """
    colours, seen = _face_colours(frames, source_faces, len(neighbours))
    known = seen[neighbours]
    donor = neighbours[np.arange(len(neighbours)), known.argmax(1)]
    table = np.concatenate([colours[donor], np.zeros((1, 3), np.uint8)])
    result = table[target_faces]  # face -1 reads the last entry, black
    filled = np.append(known.any(1), True)[target_faces]
    pixel_parts = np.append(parts, 0)[target_faces]
    for frame in np.flatnonzero(~filled.all((1, 2))):
        _fill_from_nearest(result[frame], filled[frame], pixel_parts[frame], mirror_parts)
    return result


def _face_colours(frames: np.ndarray, face_maps: np.ndarray, face_count: int):
    """Step I: computes the median colour (f, 3) of each face's pixels, and which faces have any."""
    on = face_maps >= 0
    face = face_maps[on].astype(np.int64)
    count = np.bincount(face, minlength=face_count)
    seen = count > 0
    start = (np.cumsum(count) - count)[seen]
    colours = np.zeros((face_count, 3), np.uint8)
    for channel in range(3):
        # Sorted by face, then by value: each face's values stand in order, in one run.
        values = np.sort(face * 256 + frames[on][:, channel]) & 255
        middle = values[start + (count[seen] - 1) // 2] + values[start + count[seen] // 2]
        colours[seen, channel] = middle // 2
    return colours, seen


def _fill_from_nearest(
    image: np.ndarray, filled: np.ndarray, parts: np.ndarray, mirror_parts: Sequence[int]
) -> None:
    """Step III, in place on one frame: fills from the nearest pixels of the same part."""
    coloured = np.where(filled, parts, 0)
    for part in np.unique(parts[~filled]):
        place = (parts == part) & ~filled
        donors = np.argwhere(coloured == part)
        if not len(donors):
            donors = np.argwhere(coloured == mirror_parts[part - 1])
        if not len(donors):
            image[place] = NO_COLOUR
            continue
        _, nearest = KDTree(donors, leafsize=16).query(np.argwhere(place))  # it decides ties
        image[place] = image[tuple(donors[nearest].T)]
