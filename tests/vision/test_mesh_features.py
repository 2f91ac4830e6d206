"""The mesh's Laplacian against plain loops, and its picture's signs and places."""

import numpy as np

from psrjax.vision import body, mesh_features, raster
from psrjax.vision.camera import Camera

SIZE = 48
CAMERA = Camera(np.diag([60.0, 60.0, 1.0]), np.eye(3), np.zeros(3), np.zeros(5), (SIZE, SIZE))


def standing():
    """The built-in body before the camera, facing it; x right, y down, z away."""
    model = body.template()
    turned = model.vertices[:, [1, 2, 0]] * (1, -1, -1)
    return turned + (1.2, 2.0, 3.0), model.faces


def test_each_vertex_is_taken_from_the_mean_of_its_neighbours():
    vertices, faces = standing()
    found = mesh_features.laplacian(vertices, faces)
    for vertex in (0, 17, 900, len(vertices) - 1):
        near = set(faces[(faces == vertex).any(1)].ravel().tolist()) - {vertex}
        expected = vertices[vertex] - vertices[sorted(near)].mean(0)
        np.testing.assert_allclose(found[vertex], expected, atol=1e-12)
    both = mesh_features.laplacian(np.stack([vertices, 2 * vertices]), faces)
    np.testing.assert_allclose(both, np.stack([found, 2 * found]), atol=1e-12)


def test_a_vertex_without_faces_is_flat():
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [9, 9, 9]])
    found = mesh_features.laplacian(vertices, np.array([[0, 1, 2]], np.int32))
    np.testing.assert_allclose(found[0], [-0.5, -0.5, 0])
    assert not found[3].any()


def test_the_picture_is_zero_off_the_body_and_points_outwards_on_it():
    vertices, faces = standing()
    picture = raster.render(vertices, faces, CAMERA)
    label = mesh_features.label(picture, vertices, faces, CAMERA).astype(int)
    on = picture.face >= 0
    assert on.any() and (label[~on] == 128).all() and label[on].min() < 60 < 200 < label[on].max()
    # What is seen bulges towards the camera: on the whole its z is below 0.
    assert label[on][:, 2].mean() < 126
    # The left outline bends to the left, the right one to the right.
    rows = np.flatnonzero(on.any(1))
    edges = [(label[row, np.flatnonzero(on[row])[[0, -1]], 0]) for row in rows]
    left, right = np.mean(edges, 0)
    assert left < 128 < right


def test_it_turns_with_the_camera():
    vertices, faces = standing()
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    matrix = np.array([[60.0, 0, SIZE - 1], [0, 60, 0], [0, 0, 1]])
    turned = Camera(matrix, turn, np.zeros(3), np.zeros(5), (SIZE, SIZE))
    upright = mesh_features.label(
        raster.render(vertices, faces, CAMERA), vertices, faces, CAMERA
    ).astype(int)
    lying = mesh_features.label(
        raster.render(vertices, faces, turned), vertices, faces, turned
    ).astype(int)
    # A pixel (x, y) comes to (SIZE - 1 - y, x), and so do the directions.
    expected = np.rot90(upright, -1)[..., [1, 0, 2]] * (-1, 1, 1) + (255, 0, 0)
    same = np.abs(lying - expected).max(-1) <= 1
    assert same.mean() > 0.99
