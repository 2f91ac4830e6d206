"""Where key points should lie: drawn to what moves, away from one another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psrjax.errors import UserError
from psrjax.losses import landmarks


def test_heat_on_what_moves_costs_nothing_and_elsewhere_its_logarithm():
    flow = np.zeros((1, 8, 8, 2), np.float32)
    flow[0, 4:, 4:] = 0.5, -0.5
    heat = np.zeros((1, 4, 4, 3), np.float32)
    heat[0, 3, 3, 0] = heat[0, 0, 0, 1] = 1.0  # on it, off it
    heat[0, 0, 0, 2] = heat[0, 2, 2, 2] = 0.5  # half of it
    expected = -np.mean(np.log(np.array([1.0, 0.0, 0.5]) + 1e-3))
    assert float(landmarks.moving(jnp.asarray(heat), jnp.asarray(flow))) == pytest.approx(
        expected, rel=1e-5
    )


def test_where_nothing_moves_heat_may_lie_anywhere():
    heat = jax.nn.softmax(jax.random.normal(jax.random.key(0), (1, 16, 2)), 1).reshape(1, 4, 4, 2)
    still = jax.grad(landmarks.moving)(heat, jnp.full((1, 8, 8, 2), 0.1))
    np.testing.assert_array_equal(still, 0.0)


def test_heat_that_does_not_cover_the_picture_is_told():
    with pytest.raises(UserError, match="config.method.points_padding to 3"):
        landmarks.moving(jnp.ones((1, 5, 5, 1)), jnp.zeros((1, 16, 16, 2)))


def test_points_count_their_neighbours():
    same = jnp.zeros((2, 3, 2))
    assert float(landmarks.apart(same)) == pytest.approx(2.0, rel=1e-6)
    away = jnp.asarray([[[-1.0, -1.0], [1.0, 1.0], [1.0, -1.0]]])
    assert float(landmarks.apart(away)) == pytest.approx(0.0, abs=1e-6)
    pair = jnp.asarray([[[0.0, 0.0], [0.3, 0.0]]])
    assert float(landmarks.apart(pair)) == pytest.approx(np.exp(-0.09 / 0.045), rel=1e-5)
