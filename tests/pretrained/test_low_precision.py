"""Frozen networks with bfloat16 products, beside the same with float32 ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psrjax.losses import perceptual, style
from psrjax.ops import conv
from psrjax.pretrained import i3d, vgg


def pictures(*shape):
    """A smooth picture and a noisy one, in [0, 1]."""
    rng = np.random.default_rng(0)
    waves = np.sin(np.linspace(0.0, 6.0, int(np.prod(shape)))).reshape(shape)
    return (0.5 + 0.4 * waves).astype(np.float32), rng.uniform(0, 1, shape).astype(np.float32)


def vgg_loss(weights, ours, theirs, dtype):
    found = [vgg.features(weights, x, dtype=dtype) for x in (ours, theirs)]
    return style.feature_distance(*found), found[0]


def i3d_loss(weights, ours, theirs, dtype):
    loss = perceptual.temporal_perceptual(weights, ours, theirs, dtype=dtype)
    return loss, i3d.features(weights, ours, dtype=dtype)


def rounded(x):
    return jax.lax.reduce_precision(jnp.asarray(x), exponent_bits=8, mantissa_bits=7)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "loss", "shape"),
    [(vgg, vgg_loss, (1, 32, 32, 3)), (i3d, i3d_loss, (1, 4, 32, 32, 3))],
)
def test_bfloat16_adds_little_to_what_the_float32_products_of_a_tpu_round(
    network, loss, shape, monkeypatch
):
    """There each factor is rounded to bfloat16: so are the maps between products, nothing more."""
    weights, given = network.random_weights(), tuple(map(jnp.asarray, pictures(*shape)))

    def both(dtype):
        total = lambda x: loss(weights, x, given[1], dtype)  # noqa: E731
        return jax.jit(jax.value_and_grad(total, has_aux=True))(given[0])

    ((value, features), gradient), ((near, roughly), rough) = both("float32"), both("bfloat16")
    exact = conv.conv
    monkeypatch.setattr(conv, "conv", lambda x, k, **o: exact(rounded(x), rounded(k), **o))
    _, as_on_tpus = both("float32")
    np.testing.assert_allclose(near, value, rtol=0.01)
    for name, feature in features.items():
        assert roughly[name].dtype == jnp.float32
        assert 0 < apart(roughly[name], feature) < 0.02, name
    assert apart(rough, gradient) < 1.5 * apart(as_on_tpus, gradient)


def apart(found, wanted):
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
