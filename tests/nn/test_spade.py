"""SPADE's norm, resize and modulation are their formulas; attention begins as nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psrjax.errors import UserError
from psrjax.nn import attention, layers, spade
from psrjax.nn.discriminators import spectral


def maps(seed=0, shape=(2, 6, 4, 8)):
    return jnp.asarray(np.random.default_rng(seed).normal(1.0, 2.0, shape), jnp.float32)


def test_positional_norm_has_mean_0_and_unbiased_variance_1_at_each_pixel():
    found = np.asarray(spade.positional_norm(maps()))
    np.testing.assert_allclose(found.mean(-1), 0.0, atol=1e-5)
    np.testing.assert_allclose(found.var(-1, ddof=1), 1.0, atol=1e-4)


def convolved(x, conv):
    """3x3 with mirrored borders, tap by tap."""
    padded = np.pad(np.asarray(x), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    h, w = x.shape[1:3]
    kernel = np.asarray(conv["kernel"])
    kernel_size = [
        padded[:, y : y + h, z : z + w] @ kernel[y, z] for y in range(3) for z in range(3)
    ]
    return sum(kernel_size) + np.asarray(conv["bias"])


def test_spade_is_its_formula():
    x, condition = maps(), maps(1, (2, 12, 8, 3))
    net = spade.Spade(hidden=5)
    variables = net.init(jax.random.key(0), x, condition)
    found = net.apply(variables, x, condition)
    parts = variables["params"]
    small = np.asarray(condition)[:, ::2, ::2]
    made = convolved(np.maximum(convolved(small, parts["shared"]), 0), parts["maps"])
    flat = np.asarray(x, np.float64)
    normal = (flat - flat.mean(-1, keepdims=True)) / np.sqrt(
        flat.var(-1, ddof=1, keepdims=True) + 1e-5
    )
    np.testing.assert_allclose(found, normal * (1 + made[..., :8]) + made[..., 8:], atol=1e-4)


def test_a_spectral_convolution_has_norm_one_after_some_iterations():
    x = maps()
    net = layers.SpectralConv(5, (3, 3), padding=1, use_bias=False)
    made = net.init_with_output(jax.random.key(0), x, True)[1]
    params, kept = made["params"], made["spectral"]
    iterate = jax.jit(
        lambda kept: net.apply({"params": params, "spectral": kept}, x, True, mutable=["spectral"])
    )
    for _ in range(100):
        kept = iterate(kept)[1]["spectral"]
    kernel = np.asarray(params["kernel"]).reshape(-1, 5)
    largest = kept["left"] @ kernel.T @ kept["right"]
    np.testing.assert_allclose(largest, np.linalg.norm(kernel, 2), rtol=1e-2)


def test_attention_begins_as_the_identity_and_is_then_its_formula():
    x = maps(shape=(2, 4, 6, 16))
    net = attention.SelfAttention()
    variables = net.init(jax.random.key(0), x, False)
    np.testing.assert_array_equal(net.apply(variables, x, False), x)
    params = dict(variables["params"], gamma=jnp.asarray(0.7))
    found = net.apply({**variables, "params": params}, x, False)

    def project(x, name):
        kernel = np.asarray(params[name]["kernel"])[0, 0]
        u, v = (np.asarray(variables["spectral"][name][k]) for k in ("left", "right"))
        return x @ (kernel / (u @ kernel.T @ v))

    flat = np.asarray(x).reshape(2, 24, 16)
    pooled = lambda y: y.reshape(2, 2, 2, 3, 2, -1).max((2, 4)).reshape(2, 6, -1)  # noqa: E731
    scores = project(flat, "query") @ pooled(project(flat, "key")).swapaxes(1, 2)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    seen = project(weights @ pooled(project(flat, "value")), "out")
    np.testing.assert_allclose(found, (flat + 0.7 * seen).reshape(x.shape), rtol=1e-3, atol=1e-3)


def test_the_spectral_discriminator_judges_at_every_size_and_refuses_what_is_too_small():
    net = spectral.SpectralDiscriminator(scales=2, width=4, depth=3)
    shape = jax.ShapeDtypeStruct((2, 32, 48, 5), jnp.float32)
    made = lambda x: net.init_with_output(jax.random.key(0), x, True)[0]  # noqa: E731
    judged = jax.eval_shape(made, shape)
    assert [j["logits"].shape for j in judged] == [(2, 6, 10, 1), (2, 2, 4, 1)]
    assert [len(j["features"]) for j in judged] == [3, 3]
    with pytest.raises(UserError, match="need images of at least 24x24, not 16x48"):
        jax.eval_shape(made, jax.ShapeDtypeStruct((2, 16, 48, 5), jnp.float32))
