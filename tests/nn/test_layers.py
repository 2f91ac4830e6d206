"""Layers: PyTorch's numbers, written out in NumPy, and the statistics that training keeps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psrjax.errors import UserError
from psrjax.nn import blocks, layers


def clips(seed=0, shape=(2, 3, 4, 5, 6)):
    return jnp.asarray(np.random.default_rng(seed).normal(3.0, 2.0, shape), jnp.float32)


def test_batch_norm_normalizes_by_the_batch_and_keeps_the_unbiased_variance():
    x = clips()
    norm = layers.BatchNorm()
    variables = norm.init(jax.random.key(0), x, True)
    y, new = norm.apply(variables, x, True, mutable=["batch_stats"])
    flat = np.asarray(x, np.float64).reshape(-1, 6)
    expected = (x - flat.mean(0)) / np.sqrt(flat.var(0) + 1e-5)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    kept = new["batch_stats"]
    np.testing.assert_allclose(kept["mean"], 0.1 * flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(kept["var"], 0.9 + 0.1 * flat.var(0, ddof=1), rtol=1e-5)


def test_batch_norm_in_evaluation_uses_and_leaves_the_kept_statistics():
    x = clips()
    norm = layers.BatchNorm()
    variables = norm.init(jax.random.key(0), x, True)
    assert (variables["batch_stats"]["mean"] == 0).all()  # initialisation is no training step
    stats = {"mean": jnp.full(6, 2.0), "var": jnp.full(6, 4.0)}
    y, new = norm.apply(
        {"params": variables["params"], "batch_stats": stats}, x, False, mutable=["batch_stats"]
    )
    np.testing.assert_allclose(y, (x - 2.0) / 2.0, atol=1e-4)
    assert new["batch_stats"] == stats


def test_batch_norm_keeps_small_deviations_around_a_large_mean():
    x = 1000.0 + 0.1 * clips()
    norm = layers.BatchNorm()
    y, _ = norm.apply(norm.init(jax.random.key(0), x, True), x, True, mutable=["batch_stats"])
    assert abs(np.asarray(y).std() - 1.0) < 1e-2


def test_instance_norm_treats_each_sample_alone():
    x = clips().at[1].multiply(100.0)
    norm = layers.InstanceNorm()
    y = norm.apply(norm.init(jax.random.key(0), x, True), x, True)
    np.testing.assert_allclose(np.asarray(y).mean((1, 2, 3)), 0.0, atol=1e-4)
    np.testing.assert_allclose(np.asarray(y).std((1, 2, 3)), 1.0, atol=1e-3)


@pytest.mark.parametrize("kind", layers.NORMS)
@pytest.mark.parametrize(("mean", "slope"), [(0.0, 0.0), (0.0, 0.2), (30.0, None)])
def test_norms_of_bfloat16_have_the_values_and_gradients_of_float32(kind, mean, slope):
    rng = np.random.default_rng(0)
    x = jnp.asarray(mean + rng.normal(size=(2, 8, 8, 5)), jnp.bfloat16)
    pull = jnp.asarray(rng.normal(size=x.shape), jnp.float32)
    norm = layers.make_norm(kind, dtype=jnp.float32, name="norm")
    variables = norm.init(jax.random.key(0), x, True)
    params = jax.tree.map(lambda p: p + rng.normal(size=p.shape), variables.get("params", {}))

    def both(x):
        def total(x, params):
            given = {**variables, "params": params}
            y, kept = norm.apply(given, x, True, slope=slope, mutable=["batch_stats"])
            return (y * pull).sum(), (y, kept)

        return jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(x, params)

    ((_, found), gradients), ((_, expected), wanted) = both(x), both(x.astype(jnp.float32))
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)
    for ours, theirs in zip(jax.tree.leaves(gradients), jax.tree.leaves(wanted), strict=True):
        scale = float(np.abs(theirs).max())
        np.testing.assert_allclose(ours.astype(jnp.float32), theirs, atol=1e-2 * scale)


@pytest.mark.parametrize(
    ("init", "std"),
    [
        (layers.uniform_fan_in, 1 / np.sqrt(3 * 9 * 20)),
        (layers.kaiming_fan_out, np.sqrt(2 / (9 * 50))),
        (layers.normal_small, 0.02),
    ],
)
def test_initializers_have_the_deviation_of_pytorch(init, std):
    kernel = np.asarray(init(jax.random.key(1), (3, 3, 20, 50)))
    assert kernel.std() == pytest.approx(std, rel=0.03)
    assert abs(kernel.mean()) < 0.05 * std


def test_a_biass_gradient_sums_all_pixels_in_float32_while_products_are_bfloat16():
    layer, x = layers.Conv(4, (1, 1), dtype=jnp.bfloat16), jnp.zeros((2, 64, 64, 3))
    params = {"kernel": jnp.zeros((1, 1, 3, 4)), "bias": jnp.zeros(4)}
    total = lambda params: layer.apply({"params": params}, x).sum(dtype=jnp.float32)  # noqa: E731
    gradient = jax.grad(total)(params)
    np.testing.assert_array_equal(gradient["bias"], 2 * 64 * 64)  # bfloat16 stops counting at 256


def test_parameters_stay_float32_while_products_are_bfloat16():
    layer = layers.Conv(4, (3, 3, 3), padding=1, dtype=jnp.bfloat16)
    y, variables = layer.init_with_output(jax.random.key(0), clips())
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_recomputed_blocks_give_the_same_values_and_gradients():
    x = clips()

    def run(policy):
        block = blocks.maybe_remat(blocks.Residual3D, policy)(name="block")
        variables = block.init(jax.random.key(0), x, True)

        def loss(params, x):
            y, _ = block.apply({**variables, "params": params}, x, True, mutable=["batch_stats"])
            return jnp.sum(jnp.sin(y))

        return jax.jit(jax.value_and_grad(loss))(variables["params"], x)

    plain, again = run("none"), run("blocks")
    for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_unknown_kinds_are_told():
    with pytest.raises(UserError, match="no norm 'group'; there are batch, instance"):
        layers.make_norm("group", dtype=jnp.float32, name="norm")
    with pytest.raises(UserError, match="no policy 'all'; there are none, blocks"):
        blocks.maybe_remat(blocks.Residual3D, "all")
