"""The contextual loss is its formula, in chunks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psrjax.errors import UserError
from psrjax.losses import contextual


def naive(ours, theirs, bandwidth=0.1):
    total = 0.0
    for x, y in zip(ours.astype(np.float64), theirs.astype(np.float64), strict=True):
        x, y = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
        centre = y.mean(0)
        x, y = x - centre, y - centre
        x /= np.linalg.norm(x, axis=1, keepdims=True)
        y /= np.linalg.norm(y, axis=1, keepdims=True)
        best = []
        for row in x:
            distance = np.maximum(1 - y @ row, 0)
            weight = np.exp((1 - distance / (distance.min() + 1e-3)) / bandwidth)
            best.append((weight / weight.sum()).max())
        total -= np.log(np.mean(best))
    return total / len(ours)


def features(seed, shape=(2, 5, 6, 8)):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("chunk", [4, 30, 512])  # 4: the last chunk is filled up
def test_it_equals_the_formula_whatever_the_chunk(chunk):
    ours, theirs = features(0), features(1, (2, 4, 7, 8))
    found = contextual.contextual_loss(jnp.asarray(ours), jnp.asarray(theirs), chunk=chunk)
    np.testing.assert_allclose(found, naive(ours, theirs), rtol=1e-4)


def test_a_picture_beside_itself_costs_nothing_even_with_its_positions_shuffled():
    ours = features(0, (1, 6, 6, 32))
    order = np.random.default_rng(1).permutation(36)
    shuffled = ours.reshape(1, 36, 32)[:, order].reshape(ours.shape)
    assert abs(float(contextual.contextual_loss(jnp.asarray(ours), jnp.asarray(shuffled)))) < 1e-3
    assert (
        float(contextual.contextual_loss(jnp.asarray(ours), jnp.asarray(features(2, ours.shape))))
        > 0.1
    )


def test_the_gradient_is_finite_at_a_match_and_goes_downhill():
    theirs = jnp.asarray(features(1))
    loss = jax.jit(jax.value_and_grad(lambda x: contextual.contextual_loss(x, theirs, chunk=16)))
    assert np.isfinite(loss(theirs)[1]).all()
    ours = jnp.asarray(features(0))
    value, gradient = loss(ours)
    assert float(loss(ours - 0.5 * gradient / jnp.linalg.norm(gradient))[0]) < float(value)


def test_layers_are_summed_with_their_weights_the_finest_halved():
    ours, theirs = (
        {f"relu{k}_2": jnp.asarray(features(seed + k, (1, 4, 4, 4))) for k in (3, 4, 5)}
        for seed in (0, 10)
    )
    halve = lambda x: x.reshape(1, 2, 2, 2, 2, 4).mean((2, 4))  # noqa: E731
    pairs = {
        k: (np.asarray(ours[f"relu{k}_2"]), np.asarray(theirs[f"relu{k}_2"])) for k in (3, 4, 5)
    }
    expected = 2 * naive(*map(halve, pairs[3])) + 4 * naive(*pairs[4]) + 8 * naive(*pairs[5])
    np.testing.assert_allclose(contextual.over_layers(ours, theirs), expected, rtol=1e-4)


def test_blocks_are_matched_with_the_block_at_their_own_position_only():
    sizes = {"relu3_2": (2, 16, 8, 4), "relu4_2": (2, 8, 4, 4), "relu5_2": (2, 4, 4, 4)}
    ours, theirs = (
        {name: features(seed + i, shape) for i, (name, shape) in enumerate(sizes.items())}
        for seed in (0, 10)
    )
    halve = lambda x: x.reshape(2, 8, 2, 4, 2, 4).mean((2, 4))  # noqa: E731
    expected = 0.0
    for name, weight in {"relu3_2": 2, "relu4_2": 4, "relu5_2": 8}.items():
        pair = [x[name] if name != "relu3_2" else halve(x[name]) for x in (ours, theirs)]
        blocks = [[b for rows in np.split(x, 2, 1) for b in np.split(rows, 2, 2)] for x in pair]
        expected += weight * np.mean([naive(*both) for both in zip(*blocks, strict=True)])
    given = [{name: jnp.asarray(x) for name, x in both.items()} for both in (ours, theirs)]
    np.testing.assert_allclose(contextual.over_layers(*given, blocks=2), expected, rtol=1e-4)


def test_blocks_of_less_than_2x2_positions_are_refused():
    given = {name: jnp.ones((1, 8, 8, 2)) for name in contextual.LAYERS}
    with pytest.raises(UserError, match=r"context_blocks=4: relu3_2 has 4x4 positions"):
        contextual.over_layers(given, given, blocks=4)
    with pytest.raises(UserError, match=r"context_blocks=3: relu3_2 has 4x4 positions"):
        contextual.over_layers(given, given, blocks=3)
