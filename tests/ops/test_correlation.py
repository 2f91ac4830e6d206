"""The chunked correspondence equals the dense one, and the dense matrix is nowhere."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tracing
from jax.extend.core import jaxprs_in_params

from psrjax.ops import correlation

N, M, C, D = 96, 80, 7, 3


def inputs(seed=0):
    rng = np.random.default_rng(seed)
    arrays = (rng.normal(size=(2, rows, width)) for rows, width in ((N, C), (M, C), (M, D)))
    queries, keys, values = (array.astype(np.float32) for array in arrays)
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
    colors = np.clip(values, -1.0, 1.0)
    return tuple(jnp.asarray(x) for x in (unit(queries), unit(keys), colors))


def dense(queries, keys, values, sharpness=100.0):
    """In float64 where it is given, with the whole matrix."""
    scores = sharpness * queries @ keys.swapaxes(1, 2)
    weights = jnp.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ values


@pytest.mark.parametrize("chunk", [7, 32, 96, 1000])
def test_the_chunked_warp_equals_the_dense_one(chunk):
    found = jax.jit(functools.partial(correlation.softmax_warp, chunk=chunk))(*inputs())
    with jax.enable_x64(True):
        expected = np.asarray(dense(*(np.asarray(x, np.float64) for x in inputs())))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("chunk", [7, 96])
def test_the_best_match_is_the_largest_weight_of_the_dense_matrix(chunk):
    queries, keys, values = inputs()
    match = functools.partial(correlation.softmax_match, sharpness=20.0, chunk=chunk)
    out, place, weight = jax.jit(match)(queries, keys, values)
    weights = dense(queries, keys, jnp.broadcast_to(jnp.eye(M), (2, M, M)), sharpness=20.0)
    np.testing.assert_array_equal(place, weights.argmax(-1))
    np.testing.assert_allclose(weight, weights.max(-1), rtol=1e-4)
    np.testing.assert_allclose(out, weights @ values, atol=1e-5)


@pytest.mark.parametrize("chunk", [7, 32])
def test_its_gradients_equal_those_of_the_dense_one(chunk):
    g = np.random.default_rng(1).normal(size=(2, N, D)).astype(np.float32)
    chunked = functools.partial(correlation.softmax_warp, sharpness=20.0, chunk=chunk)
    _, back = jax.vjp(jax.jit(chunked), *inputs())
    with jax.enable_x64(True):
        whole = (np.asarray(x, np.float64) for x in inputs())
        _, exact = jax.vjp(functools.partial(dense, sharpness=20.0), *whole)
        expected = exact(g.astype(np.float64))
    for found, wanted in zip(back(jnp.asarray(g)), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5 * float(np.abs(wanted).max()))


def three_products(equation, a, b, precision=None):
    """A product as TPUs make it by Precision.HIGH: each factor is the sum of two bfloat16."""
    assert precision is jax.lax.Precision.HIGH
    high, above = (rounded(x) for x in (a, b))
    low, below = rounded(a - high), rounded(b - above)
    pairs = ((high, above), (high, below), (low, above))
    return sum(EINSUM(equation, *pair, precision=jax.lax.Precision.HIGHEST) for pair in pairs)


def rounded(x):
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)


EINSUM = jnp.einsum


def test_three_bfloat16_products_for_one_are_enough_for_values_and_gradients(monkeypatch):
    g = np.random.default_rng(1).normal(size=(2, N, D)).astype(np.float32)

    def both(*given):
        found, back = jax.vjp(functools.partial(correlation.softmax_warp, chunk=32), *given)
        return found, *back(jnp.asarray(g))

    expected = tracing.as_on("cpu", both, *inputs())
    monkeypatch.setattr(jnp, "einsum", three_products)
    for found, wanted in zip(tracing.as_on("tpu", both, *inputs()), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-3 * float(np.abs(wanted).max()))


def sizes(jaxpr):
    """The number of elements of every array that a program makes."""
    for equation in jaxpr.eqns:
        yield from (variable.aval.size for variable in equation.outvars)
        for inner in jaxprs_in_params(equation.params):
            yield from sizes(inner)


def test_no_array_of_the_program_is_as_large_as_the_matrix_forward_or_backward():
    shapes = [jax.ShapeDtypeStruct((1, 256, 8), jnp.float32)] * 3

    def largest(chunk):
        def total(*args):
            return correlation.softmax_warp(*args, chunk=chunk).sum()

        program = jax.make_jaxpr(jax.value_and_grad(total, (0, 1, 2)))(*shapes)
        return max(sizes(program.jaxpr))

    assert largest(256) >= 256 * 256  # a single chunk is the whole matrix
    assert largest(32) <= 32 * 256


def test_a_position_finds_itself():
    keys = inputs()[1]
    values = jnp.arange(2.0 * M * D).reshape(2, M, D)
    found = correlation.softmax_warp(keys, keys, values, sharpness=2000.0, chunk=16)
    np.testing.assert_allclose(found, values, rtol=1e-4)


def test_the_order_of_what_is_read_does_not_matter():
    queries, keys, values = inputs()
    order = np.random.default_rng(2).permutation(M)
    one = correlation.softmax_warp(queries, keys, values)
    other = correlation.softmax_warp(queries, keys[:, order], values[:, order])
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_descriptors_are_neighbourhoods_centred_over_channels_of_length_one():
    features = np.random.default_rng(3).normal(size=(2, 5, 4, 3)).astype(np.float32)
    found = np.asarray(correlation.descriptors(jnp.asarray(features)))
    padded = np.pad(features, ((0, 0), (1, 1), (1, 1), (0, 0)))
    for y in range(5):
        for x in range(4):
            patch = padded[:, y : y + 3, x : x + 3].reshape(2, -1)
            patch = patch - patch.mean(-1, keepdims=True)
            patch /= np.linalg.norm(patch, axis=-1, keepdims=True)
            np.testing.assert_allclose(found[:, y * 4 + x], patch, atol=1e-6)


def test_a_vector_of_zeros_has_a_finite_gradient():
    gradient = jax.grad(lambda x: correlation.unit_length(x).sum())(jnp.zeros(4))
    assert np.isfinite(gradient).all()
