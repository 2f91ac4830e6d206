"""Resizing and pooling are their formulas."""

import jax.numpy as jnp
import numpy as np
import pytest

from psrjax.errors import UserError
from psrjax.nn import resampling


@pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 2)])
def test_half_a_picture_is_the_mean_of_the_pixels_that_there_are(size):
    height, width = size
    image = np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)
    expected = [
        [
            image[:, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].mean((1, 2))
            for x in range(0, width, 2)
        ]
        for y in range(0, height, 2)
    ]
    expected = np.moveaxis(np.array(expected), 2, 0)
    np.testing.assert_allclose(
        resampling.antialiased_downsample(jnp.asarray(image)), expected, atol=1e-6
    )


def test_the_nearest_resize_picks_the_first_pixel_of_each_cell_and_repeats_upwards():
    row = jnp.arange(16.0).reshape(1, 1, 16, 1)
    np.testing.assert_array_equal(resampling.resize_nearest(row, 1, 4)[0, 0, :, 0], [0, 4, 8, 12])
    np.testing.assert_array_equal(
        resampling.resize_nearest(row, 1, 6)[0, 0, :, 0], [0, 2, 5, 8, 10, 13]
    )
    np.testing.assert_array_equal(
        resampling.resize_nearest(row, 2, 32), resampling.upsample_nearest(row)
    )


def test_odd_sizes_are_not_halved():
    with pytest.raises(UserError, match="5x4 cannot be halved 1 times"):
        resampling.avg_pool(jnp.zeros((1, 5, 4, 2)))
