"""Shapes of a set of points by its convex hull: how large it is, and how alike two are."""

import numpy as np
from jaxtyping import Float


def area(points: Float[np.ndarray, "j 2"]) -> float:
    """The area of the convex hull; 0 of points on one line."""
    from scipy.spatial import ConvexHull, QhullError

    try:
        return float(ConvexHull(np.asarray(points, np.float64)).volume)
    except QhullError:
        return 0.0


def scale(source: Float[np.ndarray, "j 2"], driving: Float[np.ndarray, "j 2"]) -> float:
    """How much larger the source's body is: the root of the ratio of the hulls' areas.

    As the first-order model's official animation adapts the scale of movements.
    """
    return float(np.sqrt(area(source) / max(area(driving), 1e-8)))


def pose_distance(source: Float[np.ndarray, "j 2"], driving: Float[np.ndarray, "j 2"]) -> float:
    """How unlike two poses are, whatever their place and size: squared, summed over the points.

    As the official animation compares faces when it looks for the best frame.
    """
    normal = [
        (points - points.mean(0)) / np.sqrt(max(area(points), 1e-8)) for points in (source, driving)
    ]
    return float(np.square(normal[0] - normal[1]).sum())
