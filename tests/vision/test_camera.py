"""Cameras agree with OpenCV; triangulation finds points exactly, and despite a wrong view."""

import dataclasses

import cv2
import numpy as np
import pytest

from psrjax.vision.camera import Camera, triangulate

LENS = np.array([-0.21, 0.09, 0.002, -0.003, -0.012])


def look_at(position, distortion=LENS, size=(1080, 1920), target=(0.0, 0.0, 1.0)):
    forward = np.subtract(target, position)
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    matrix = np.array([[1400.0, 0, 950], [0, 1380, 545], [0, 0, 1]])
    return Camera(matrix, rotation, -rotation @ position, distortion, size)


@pytest.fixture
def cameras():
    return [look_at(position) for position in ((5.0, 0, 1.5), (-3, 4, 2), (-2, -4, 1))]


@pytest.fixture
def points():
    return np.random.default_rng(0).uniform((-1, -1, 0), (1, 1, 2), (4, 26, 3))


def test_projection_equals_opencv(cameras, points):
    for camera in cameras:
        result = camera.project(points)
        expected, _ = cv2.projectPoints(
            points.reshape(-1, 3),
            cv2.Rodrigues(camera.rotation)[0],
            camera.translation,
            camera.matrix,
            camera.distortion,
        )
        np.testing.assert_allclose(result["pixels"].reshape(-1, 2), expected[:, 0], atol=1e-6)
        assert (result["depth"] > 0).all()


def test_undistort_inverts_projection_and_equals_opencv(cameras, points):
    camera = cameras[0]
    pixels = camera.project(points)["pixels"]
    seen = points @ camera.rotation.T + camera.translation
    rays = camera.undistort(pixels)
    np.testing.assert_allclose(rays, seen[..., :2] / seen[..., 2:], atol=1e-10)
    expected = cv2.undistortPoints(pixels.reshape(-1, 1, 2), camera.matrix, camera.distortion)
    np.testing.assert_allclose(
        rays.reshape(-1, 2), expected[:, 0], atol=1e-4
    )  # OpenCV iterates 5 times


def test_points_behind_the_camera_have_no_pixels(cameras):
    camera = cameras[0]
    point = camera.centre - camera.rotation[2]
    result = camera.project(point)
    assert result["depth"] == pytest.approx(-1) and np.isnan(result["pixels"]).all()


def test_points_outside_the_lens_field_do_not_fold_into_the_image(cameras):
    lens = np.array([-0.4, 0, 0, 0, 0.0])  # r (1 - 0.4 r²) turns round at r² = 1 / 1.2
    camera = dataclasses.replace(cameras[0], distortion=lens)
    angles = np.linspace(0, 1.5, 200)
    rays = np.stack([np.tan(angles), 0 * angles, 1 + 0 * angles], -1)
    world = (rays - camera.translation) @ camera.rotation
    columns = camera.project(world)["pixels"][:, 0]
    imaged = np.isfinite(columns)
    np.testing.assert_array_equal(imaged, np.tan(angles) ** 2 < 1 / 1.2)
    assert (np.diff(columns[imaged]) > 0).all()


def test_resizing_and_cropping_the_camera_moves_points_as_the_image(cameras, points):
    camera = cameras[1]
    pixels = camera.project(points)["pixels"]
    small = camera.resized(270, 640).project(points)["pixels"]
    np.testing.assert_allclose((small + 0.5) / (640, 270), (pixels + 0.5) / (1920, 1080))
    cut = camera.cropped(100, 200, height=300, width=400)
    assert cut.size == (300, 400)
    np.testing.assert_allclose(cut.project(points)["pixels"], pixels - (200, 100))
    np.testing.assert_allclose(
        camera.resized(270, 640).resized(1080, 1920).matrix, camera.matrix, atol=1e-9
    )


def test_triangulation_of_exact_images_is_exact(cameras, points):
    pixels = np.stack([camera.project(points)["pixels"] for camera in cameras])
    result = triangulate(pixels, np.full(pixels.shape[:-1], 0.8), cameras)
    np.testing.assert_allclose(result["points"], points, atol=1e-8)
    np.testing.assert_allclose(result["confidence"], 0.8, atol=1e-8)
    assert result["error"].shape == (3, 4, 26) and result["error"].max() < 1e-5


def test_two_views_suffice_and_one_does_not(cameras, points):
    pixels = np.stack([camera.project(points)["pixels"] for camera in cameras])
    confidences = np.ones(pixels.shape[:-1])
    confidences[0, 0] = 0
    confidences[:2, 1] = 0.01
    pixels[0, 0] = np.nan
    result = triangulate(pixels, confidences, cameras)
    np.testing.assert_allclose(result["points"][0], points[0], atol=1e-8)
    assert (result["confidence"][1] == 0).all() and np.isnan(result["points"][1]).all()
    assert np.isnan(result["error"][:, 1]).all() and np.isnan(result["error"][0, 0]).all()
    assert (result["confidence"][2:] > 0.99).all()


def test_one_wrong_view_of_three_plus_one_does_not_spoil_the_point(cameras, points):
    cameras = [*cameras, look_at((1.0, 6.0, 2.5))]
    pixels = np.stack([camera.project(points)["pixels"] for camera in cameras])
    pixels[2] += 300
    result = triangulate(pixels, np.ones(pixels.shape[:-1]), cameras)
    assert np.abs(result["points"] - points).max() < 0.01
    assert result["error"][2].min() > 250


def test_noisy_triangulation_is_as_good_as_its_noise(cameras, points):
    generator = np.random.default_rng(1)
    pixels = np.stack([camera.project(points)["pixels"] for camera in cameras])
    noisy = pixels + generator.normal(0, 2, pixels.shape)
    result = triangulate(noisy, np.ones(pixels.shape[:-1]), cameras)
    distance = np.linalg.norm(result["points"] - points, axis=-1)
    assert np.sqrt((distance**2).mean()) < 2 * 2 / 1400 * 5  # pixels / focal length x depth
    truth = np.linalg.norm(pixels - noisy, axis=-1)
    assert (result["error"] ** 2).mean() < (truth**2).mean()  # no point explains the images better


def test_a_wrong_shape_is_refused():
    with pytest.raises(ValueError, match="distortion"):
        Camera(np.eye(3), np.eye(3), np.zeros(3), np.zeros(4), (4, 4))
