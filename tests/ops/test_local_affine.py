"""Local affine motion and thin plates: exact maps, closed forms, and derivatives by differences."""

import jax
import jax.numpy as jnp
import numpy as np

from psrjax.ops import local_affine, thin_plate


def test_inverse_is_numpys_and_stays_finite():
    matrix = np.random.default_rng(0).normal(size=(5, 2, 2)).astype(np.float32)
    matrix = jnp.asarray(matrix)
    np.testing.assert_allclose(local_affine.inverse(matrix), np.linalg.inv(matrix), rtol=1e-3)
    singular = jnp.ones((2, 2))
    assert np.isfinite(local_affine.inverse(singular)).all()
    assert np.isfinite(jax.grad(lambda m: local_affine.inverse(m).sum())(singular)).all()


def test_one_affine_map_is_found_by_every_key_point():
    rng = np.random.default_rng(1)
    linear, shift = rng.normal(size=(2, 2)), rng.normal(size=2)
    value = rng.uniform(-1, 1, (1, 3, 2))
    jacobian = rng.normal(size=(1, 3, 2, 2))
    source = {"value": value @ linear.T + shift, "jacobian": linear @ jacobian}
    driving = {"value": value[:, None], "jacobian": jacobian[:, None]}
    source, driving = jax.tree.map(jnp.float32, (source, driving))
    motions = local_affine.local_motions(source, driving, height=4, width=6)
    grid = local_affine.corner_grid(4, 6)
    np.testing.assert_array_equal(motions[0, 0, 0], grid)
    for k in range(1, 4):
        np.testing.assert_allclose(motions[0, 0, k], grid @ linear.T + shift, atol=1e-4)


def test_soft_argmax_of_a_blob_is_its_centre_and_gaussians_stand_there():
    centre = jnp.asarray([[[0.2, -0.4]]])
    blob = local_affine.gaussians(centre, height=65, width=33)
    expected = np.exp(-((local_affine.corner_grid(65, 33) - [0.2, -0.4]) ** 2).sum(-1) / (2 * 0.01))
    np.testing.assert_allclose(blob[0, ..., 0], expected, atol=1e-5)
    found = local_affine.soft_argmax(blob / blob.sum((1, 2), keepdims=True))
    np.testing.assert_allclose(found, centre, atol=1e-3)


def test_downsampling_is_a_gaussian_convolution_and_a_stride():
    from scipy import ndimage

    image = np.random.default_rng(2).uniform(size=(1, 21, 16, 1)).astype(np.float32)
    image = jnp.asarray(image)
    weights = np.exp(-(np.arange(-6, 7) ** 2) / (2 * 1.5**2))
    kernel = np.outer(weights, weights) / weights.sum() ** 2
    blurred = ndimage.convolve(image[0, ..., 0], kernel, mode="constant")[::4, ::4]
    np.testing.assert_allclose(local_affine.downsample(image, 4)[0, ..., 0], blurred, atol=1e-5)
    assert local_affine.downsample(image, 1) is image


def test_upsampling_keeps_corners_and_straight_lines():
    grid = jnp.asarray(local_affine.corner_grid(5, 7))[None]
    np.testing.assert_allclose(
        local_affine.upsample(grid, 2)[0], local_affine.corner_grid(10, 14), atol=1e-6
    )


def test_corner_coordinates_become_unit_coordinates():
    corners = local_affine.corners_to_unit(
        jnp.asarray([[-1.0, -1.0], [1.0, 1.0]]), height=4, width=8
    )
    np.testing.assert_allclose(corners, [[1 / 8 - 1, 1 / 4 - 1], [1 - 1 / 8, 1 - 1 / 4]])


def test_a_plate_without_noise_is_the_identity():
    plate = thin_plate.sample(jax.random.key(0), 2, sigma_affine=0.0, sigma_spline=0.0)
    points = jax.random.uniform(jax.random.key(1), (2, 5, 2), minval=-1.0)
    np.testing.assert_allclose(thin_plate.apply(plate, points), points, atol=1e-6)
    eye = jnp.broadcast_to(jnp.eye(2), (2, 5, 2, 2))
    np.testing.assert_allclose(thin_plate.jacobian(plate, points), eye, atol=1e-6)
    image = jax.random.uniform(jax.random.key(2), (2, 8, 9, 3))
    np.testing.assert_allclose(thin_plate.warp(plate, image), image, atol=1e-5)


def test_a_plate_is_the_published_sum_and_its_jacobian_the_derivative():
    plate = thin_plate.sample(jax.random.key(0), 1, sigma_spline=0.1)
    points = np.random.default_rng(3).uniform(-1, 1, (1, 4, 2))
    affine, coefficients = (np.asarray(part[0], np.float64) for part in plate)
    controls = [(x, y) for y in np.linspace(-1, 1, 5) for x in np.linspace(-1, 1, 5)]

    def naive(point):
        bend = 0.0
        for control, weight in zip(controls, coefficients, strict=True):
            distance = abs(point[0] - control[0]) + abs(point[1] - control[1])
            bend += weight * distance**2 * np.log(distance + 1e-6)
        return affine[:, :2] @ point + affine[:, 2] + bend

    made = thin_plate.apply(plate, jnp.asarray(points, jnp.float32))
    slopes = thin_plate.jacobian(plate, jnp.asarray(points, jnp.float32))
    for i, point in enumerate(points[0]):
        np.testing.assert_allclose(made[0, i], naive(point), atol=1e-5)
        steps = np.eye(2) * 1e-5
        difference = np.stack([(naive(point + s) - naive(point - s)) / 2e-5 for s in steps], -1)
        np.testing.assert_allclose(slopes[0, i], difference, atol=1e-3)
