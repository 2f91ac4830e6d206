"""Coordinates and sampling: SciPy's interpolation, exact identities, finite gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tracing
from scipy import ndimage

from psrjax.errors import UserError
from psrjax.ops import geometry

SCIPY = {"zeros": "grid-constant", "border": "nearest", "reflection": "reflect"}


def image(seed=0, shape=(2, 6, 9, 3)):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def spread(values, *shape):
    return jnp.asarray(np.broadcast_to(np.asarray(values, np.float32), shape))


def identity(height, width):
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
    return geometry.pixels_to_unit(pixels, height=height, width=width)


def test_unit_coordinates_end_at_the_outer_edges():
    corners = np.asarray([[-0.5, -0.5], [0.0, 0.0], [7.5, 3.5]])
    unit = geometry.pixels_to_unit(corners, height=4, width=8)
    np.testing.assert_allclose(unit, [[-1, -1], [-0.875, -0.75], [1, 1]])
    assert isinstance(unit, np.ndarray)
    assert isinstance(geometry.unit_to_pixels(jnp.asarray(unit), height=4, width=8), jax.Array)


def test_unit_to_pixels_is_the_inverse():
    points = np.random.default_rng(0).uniform(-20, 20, (50, 2))
    unit = geometry.pixels_to_unit(points, height=7, width=12)
    np.testing.assert_allclose(geometry.unit_to_pixels(unit, height=7, width=12), points, atol=1e-9)


def test_the_identity_grid_returns_the_image():
    x = image()
    grid = spread(identity(6, 9), 2, 6, 9, 2)
    np.testing.assert_allclose(geometry.grid_sample(x, grid), x, atol=1e-5)
    line = np.stack(np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 6)), -1)
    grid = spread(line, 2, 6, 9, 2)
    np.testing.assert_allclose(geometry.grid_sample(x, grid, align_corners=True), x, atol=1e-5)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("padding", geometry.PADDINGS)
def test_sampling_equals_scipy(padding, align_corners):
    x = image()
    pixels = np.random.default_rng(1).uniform(-8, 15, (2, 40, 2)).astype(np.float32)
    if align_corners:
        grid = (2 * pixels / np.asarray([8, 5]) - 1).astype(np.float32)
    else:
        grid = geometry.pixels_to_unit(pixels, height=6, width=9)
    mode = "mirror" if align_corners and padding == "reflection" else SCIPY[padding]
    expected = np.stack(
        [
            [
                ndimage.map_coordinates(x[b, ..., c], pixels[b, :, ::-1].T, order=1, mode=mode)
                for c in range(3)
            ]
            for b in range(2)
        ]
    )
    got = geometry.grid_sample(x, jnp.asarray(grid), padding=padding, align_corners=align_corners)
    np.testing.assert_allclose(got, expected.transpose(0, 2, 1), atol=1e-4)


def test_a_whole_pixel_flow_shifts_and_fills_with_zeros():
    x = image()
    flow = spread([2, -1], 2, 6, 9, 2)
    expected = np.zeros(x.shape, np.float32)
    expected[:, 1:, :-2] = np.asarray(x)[:, :-1, 2:]
    np.testing.assert_array_equal(geometry.warp(x, flow), expected)


def test_warping_keeps_a_linear_ramp_linear():
    ramp = spread(np.arange(9)[None, None, :, None], 1, 6, 9, 1)
    flow = spread([0.25, 0.0], 1, 6, 9, 2)
    moved = geometry.warp(ramp, flow, padding="border")
    np.testing.assert_allclose(moved[..., :-1, 0], ramp[..., :-1, 0] + 0.25, atol=1e-6)


def test_gradients_equal_finite_differences():
    """In both arguments, at points that lie inside a cell, so that the derivative exists."""
    x = image(shape=(1, 4, 5, 2))
    rng = np.random.default_rng(2)
    pixels = rng.integers(-1, 5, (1, 7, 2)) + rng.uniform(0.2, 0.8, (1, 7, 2))
    weights = rng.normal(size=(1, 7, 2)).astype(np.float32)

    def loss(x, pixels):
        grid = geometry.pixels_to_unit(pixels, height=4, width=5)
        return jnp.sum(weights * geometry.grid_sample(x, grid))

    pixels = pixels.astype(np.float32)
    by_image, by_grid = jax.jit(jax.grad(loss, (0, 1)))(x, pixels)
    value = jax.jit(loss)
    for argument, gradient in ((0, by_image), (1, by_grid)):
        for index in np.ndindex(gradient.shape):
            change = np.zeros(gradient.shape, np.float32)
            change[index] = 0.05  # the function is linear inside a cell
            arguments = [x, pixels]
            up, down = list(arguments), list(arguments)
            up[argument], down[argument] = up[argument] + change, down[argument] - change
            slope = (value(*up) - value(*down)) / 0.1
            np.testing.assert_allclose(gradient[index], slope, atol=2e-3)


def test_gradients_are_finite_on_pixels_and_borders():
    grid = spread(identity(4, 5), 1, 4, 5, 2).at[0, 0, 0].set(-1.0)
    x = image(0, (1, 4, 5, 2))
    for padding in geometry.PADDINGS:

        def total(grid, padding=padding):
            return geometry.grid_sample(x, grid, padding=padding).sum()

        assert np.isfinite(jax.grad(total)(grid)).all()


def test_resize_keeps_a_constant_and_halves_by_averaging_neighbours():
    constant = jnp.full((1, 5, 7, 2), 0.3)
    np.testing.assert_allclose(geometry.resize(constant, height=9, width=3), 0.3, atol=1e-6)
    x = image(shape=(1, 4, 4, 1))
    half = geometry.resize(x, height=2, width=2, antialias=False)
    means = x.reshape(1, 2, 2, 2, 2, 1).mean((2, 4))
    np.testing.assert_allclose(half, means, atol=1e-6)


def test_an_unknown_padding_is_told():
    with pytest.raises(UserError, match="no padding 'wrap'; there are zeros, border, reflection"):
        geometry.warp(image(), jnp.zeros((2, 6, 9, 2)), padding="wrap")


def test_parts_are_sampled_each_at_its_own_points_as_by_scipy():
    rng = np.random.default_rng(12)
    images = rng.normal(size=(2, 3, 5, 7, 4)).astype(np.float32)
    points = rng.uniform(-2, 8, size=(2, 6, 9, 3, 2)).astype(np.float32)
    got = geometry.sample_parts(jnp.asarray(images), jnp.asarray(points), padding="border")
    for b, p, c in np.ndindex(2, 3, 4):
        x, y = points[b, :, :, p, 0], points[b, :, :, p, 1]
        expected = ndimage.map_coordinates(images[b, p, ..., c], [y, x], order=1, mode="nearest")
        np.testing.assert_allclose(got[b, :, :, p, c], expected, atol=1e-5)


def test_the_gradient_of_sampled_parts_is_the_adjoint():
    rng = np.random.default_rng(13)
    images = jnp.asarray(rng.normal(size=(2, 3, 5, 7, 4)), jnp.float32)
    points = jnp.asarray(rng.uniform(-2, 8, size=(2, 6, 3, 2)), jnp.float32)
    y = jnp.asarray(rng.normal(size=(2, 6, 3, 4)), jnp.float32)
    sampled, back = jax.vjp(lambda images: geometry.sample_parts(images, points), images)
    there, here = jnp.vdot(sampled, y), jnp.vdot(images, back(y)[0])
    np.testing.assert_allclose(there, here, rtol=1e-4)


@pytest.mark.parametrize("padding", geometry.PADDINGS)
def test_the_formulation_for_tpus_gives_the_same_samples_and_gradients(padding):
    rng = np.random.default_rng(14)
    frames, maps = image(), image(1, (2, 6, 9, 40))  # one fills rows of a tile, one does not
    limbs = image(2, (2, 5, 6, 9, 3))
    grid = jnp.asarray(rng.uniform(-1.4, 1.4, size=(2, 4, 7, 2)), jnp.float32)
    points = jnp.asarray(rng.uniform(-2, 10, size=(2, 4, 5, 2)), jnp.float32)

    def total(frames, maps, limbs, grid, points):
        found = [geometry.grid_sample(x, grid, padding=padding) for x in (frames, maps)]
        found += [geometry.sample_parts(limbs, points, padding=padding)]
        return sum((jnp.cos(jnp.arange(x.size)).reshape(x.shape) * x).sum() for x in found), found

    both = jax.value_and_grad(total, argnums=range(5), has_aux=True)
    given = (frames, maps, limbs, grid, points)
    ((_, found), gradients), ((_, expected), wanted) = (
        tracing.as_on(platform, both, *given) for platform in ("tpu", "cpu")
    )
    for ours, theirs in zip((*found, *gradients), (*expected, *wanted), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5 * np.abs(theirs).max())
