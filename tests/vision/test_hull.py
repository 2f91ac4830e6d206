"""Sizes and likeness of sets of points."""

import numpy as np

from psrjax.vision import hull


def test_areas_and_scales_are_those_of_convex_hulls():
    square = np.array([[0, 0], [2, 0], [2, 2], [0, 2], [1, 1.0]])
    assert hull.area(square) == 4.0
    assert hull.area(np.array([[0, 0], [1, 1], [2, 2.0]])) == 0.0
    np.testing.assert_allclose(hull.scale(square, 0.5 * square), 2.0, rtol=1e-6)


def test_likeness_of_poses_does_not_depend_on_place_or_size():
    pose = np.random.default_rng(0).uniform(-1, 1, (10, 2))
    assert hull.pose_distance(pose, 0.4 * pose + 0.1) < 1e-9
    assert hull.pose_distance(pose, pose[::-1]) > 0.1
