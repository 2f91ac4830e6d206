"""Self-attention: over one map and over several, at once and in rows, is the plain formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psrjax.nn import attention


def dense(query, key, value):
    scores = np.einsum("bnc,bmc->bnm", query, key).astype(np.float64)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bnm,bmd->bnd", weights / weights.sum(-1, keepdims=True), value)


@pytest.mark.parametrize("chunk", (0, 3, 5, 64))
def test_attention_in_rows_is_dense_attention(chunk):
    rng = np.random.default_rng(0)
    query, key, value = (jnp.asarray(rng.normal(size=(2, *s)), jnp.float32) for s in SHAPES)
    found = attention.attend(query, key, value, chunk=chunk)
    np.testing.assert_allclose(found, dense(query, key, value), atol=1e-5)

    def total(chunk, *arrays):
        return jnp.square(attention.attend(*arrays, chunk=chunk)).sum()

    grads = jax.grad(total, (1, 2, 3))(chunk, query, key, value)
    truth = jax.grad(total, (1, 2, 3))(0, query, key, value)
    for ours, theirs in zip(grads, truth, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


SHAPES = ((11, 4), (7, 4), (7, 5))


def test_the_scores_never_exist_whole():
    n = 4096
    arrays = [jnp.zeros((1, n, 8))] * 3
    grad = jax.grad(lambda *a: attention.attend(*a, chunk=64).sum(), (0, 1, 2))
    text = str(jax.make_jaxpr(grad)(*arrays))
    assert f"{n},{n}" not in text and f"64,{n}" in text


def test_several_maps_are_one_set_of_positions():
    """Two equal maps beside each other: every position sees the same values as in one."""
    x = jax.random.normal(jax.random.key(1), (1, 4, 4, 8))
    layer = attention.SelfAttention()
    variables = layer.init(jax.random.key(0), x, False)
    variables["params"]["gamma"] = jnp.asarray(0.7)
    for _ in range(4):  # the first guess of a singular value may be near 0
        _, turned = layer.apply(variables, x, True, mutable=["spectral"])
        variables |= turned
    one = layer.apply(variables, x, False)
    two = layer.apply(variables, jnp.stack([x, x], 1), False)
    np.testing.assert_allclose(two, jnp.stack([one, one], 1), atol=1e-5)


def test_it_begins_as_nothing_and_may_leave_the_input_out():
    x = jax.random.normal(jax.random.key(2), (1, 4, 4, 8))
    variables = attention.SelfAttention().init(jax.random.key(0), x, False)
    np.testing.assert_array_equal(attention.SelfAttention().apply(variables, x, False), x)
    variables["params"]["gamma"] = jnp.asarray(0.7)
    whole = attention.SelfAttention().apply(variables, x, False)
    change = attention.SelfAttention(residual=False).apply(variables, x, False)
    np.testing.assert_allclose(x + change, whole, atol=1e-6)
