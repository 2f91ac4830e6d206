"""Convex hulls of sets of points: their size, and the similarity of two."""

import numpy as np
from jaxtyping import Float


def area(points: Float[np.ndarray, "j 2"]) -> float:
    """Returns the area of the convex hull; 0 for points on one line."""
    from scipy.spatial import ConvexHull, QhullError

    try:
        return float(ConvexHull(np.asarray(points, np.float64)).volume)
    except QhullError:
        return 0.0


def scale(source: Float[np.ndarray, "j 2"], driving: Float[np.ndarray, "j 2"]) -> float:
    """Returns the scale of the source's body to the driving one: root of the hulls' area ratio.

    The first-order model's official animation scales movements by it.
    """
    return float(np.sqrt(area(source) / max(area(driving), 1e-8)))


def pose_distance(source: Float[np.ndarray, "j 2"], driving: Float[np.ndarray, "j 2"]) -> float:
    """Returns the squared distance of two poses, normalised for place and size.

    The first-order model's official animation finds the best frame of a face by it.
    """
    normal = [
        (points - points.mean(0)) / np.sqrt(max(area(points), 1e-8)) for points in (source, driving)
    ]
    return float(np.square(normal[0] - normal[1]).sum())
