"""Losses: closed forms in NumPy, limits, and finite gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from psrjax.errors import UserError
from psrjax.losses import adversarial, perceptual, pixel
from psrjax.pretrained import i3d


def test_huber_is_scipys_summed_over_channels():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 2, (2, 4, 5, 3)), rng.normal(0, 2, (2, 4, 5, 3))
    expected = special.huber(1.0, a - b).sum(-1)
    got = pixel.huber(jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32))
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_huber_gradient_is_zero_at_zero_and_one_far_away():
    slope = jax.grad(lambda x: pixel.huber(x, jnp.zeros(3)).sum())
    np.testing.assert_allclose(slope(jnp.asarray([0.0, 0.5, -9.0])), [0.0, 0.5, -1.0])


def test_region_mean_is_the_sum_of_the_means_inside():
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    regions = np.zeros((3, 4, 2), bool)
    regions[0, :, 0] = regions[1:, :2, 1] = True
    expected = values[0].mean() + values[1:, :2].mean()
    assert float(pixel.region_mean(jnp.asarray(values), jnp.asarray(regions))) == pytest.approx(
        expected
    )


def test_a_sliver_of_a_region_counts_as_one_percent_and_an_empty_one_as_nothing():
    values = np.ones((100, 100), np.float32)
    regions = np.zeros((100, 100, 2), bool)
    regions[0, 0, 0] = True
    assert float(pixel.region_mean(jnp.asarray(values), jnp.asarray(regions))) == pytest.approx(
        0.01
    )


@pytest.mark.parametrize("logit", [-3.0, 0.0, 2.0])
def test_cross_entropy_equals_its_definition(logit):
    p = 1 / (1 + np.exp(-logit))
    x = jnp.full((2, 3), logit)
    assert float(adversarial.generator_loss(x)) == pytest.approx(-np.log(p), rel=1e-5)
    both = float(adversarial.discriminator_loss(x, x))
    assert both == pytest.approx(-(np.log(p) + np.log(1 - p)) / 2, rel=1e-5)


def test_least_squares_and_hinge_equal_their_definitions():
    real, fake = jnp.asarray([0.5, 2.0]), jnp.asarray([-2.0, 0.25])
    squares = adversarial.discriminator_loss(real, fake, mode="least_squares")
    assert float(squares) == pytest.approx(0.5 * ((0.25 + 1) / 2 + (4 + 0.0625) / 2))
    hinge = adversarial.discriminator_loss(real, fake, mode="hinge")
    assert float(hinge) == pytest.approx(0.5 * (0.5 / 2 + 1.25 / 2))
    assert float(adversarial.generator_loss(fake, mode="hinge")) == pytest.approx(0.875)
    assert float(adversarial.generator_loss(fake, mode="least_squares")) == pytest.approx(4.78125)


def test_large_logits_stay_finite():
    x = jnp.asarray([1e4, -1e4])
    for mode in adversarial.MODES:
        value, slope = jax.value_and_grad(lambda x, m=mode: adversarial.generator_loss(x, mode=m))(
            x
        )
        assert np.isfinite(value) and np.isfinite(slope).all()


def test_an_unknown_mode_is_told():
    with pytest.raises(UserError, match="no mode 'wgan'; there are bce, least_squares, hinge"):
        adversarial.generator_loss(jnp.zeros(2), mode="wgan")


@pytest.fixture(scope="module")
def weights():
    return i3d.random_weights()


def test_i3d_has_the_published_shapes_and_random_features_unit_deviation(weights):
    video = jax.ShapeDtypeStruct((1, 8, 112, 112, 3), jnp.float32)
    found = jax.eval_shape(i3d.features, weights, video)
    assert {name: x.shape[1:] for name, x in found.items()} == {
        "Conv3d_1a_7x7": (4, 56, 56, 64),
        "Conv3d_2b_1x1": (4, 28, 28, 64),
        "Mixed_3c": (4, 14, 14, 480),
        "Mixed_4b": (2, 7, 7, 512),
    }
    noise = jnp.asarray(np.random.default_rng(9).uniform(-1, 1, (1, 8, 32, 32, 3)), jnp.float32)
    for tap in jax.jit(i3d.features)(weights, noise).values():
        assert 0.7 < np.asarray(tap).std() < 1.5


def test_perceptual_loss_is_zero_for_equal_clips_and_pulls_others_together(weights):
    rng = np.random.default_rng(3)
    a, b = jnp.asarray(rng.uniform(-1, 1, (2, 1, 4, 16, 16, 3)), jnp.float32)
    loss = jax.jit(jax.value_and_grad(lambda x: perceptual.temporal_perceptual(weights, x, b)))
    assert float(loss(b)[0]) < 1e-9
    value, slope = loss(a)
    assert np.isfinite(slope).all()
    assert float(loss(a - 0.1 * slope / np.abs(slope).max())[0]) < float(value)
