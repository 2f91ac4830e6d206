"""Pictures of half the size, as the discriminators of several sizes see them."""

import jax.numpy as jnp
import numpy as np
import pytest

from psrjax.nn.discriminators import multiscale


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
        multiscale.antialiased_downsample(jnp.asarray(image)), expected, atol=1e-6
    )
