"""Integration of several frames: what each fusion does to the maps of the sources."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psrjax.errors import UserError
from psrjax.models import integration

B, T, K, H, W, C = 1, 2, 3, 16, 16, 8
SMALL = {"blocks": 1, "attention_stride": 4, "chunk": 8}


def inputs(s=T):
    rng = np.random.default_rng(0)
    shapes = ((B, s, K, H, W, C), (B, K, H, W, 14), (B, T, H, W, 14))
    return tuple(jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)


def fuse(kind, arguments, variables=None, gamma=0.0):
    """The fusion's result, and its variables with the attention's gamma set."""
    layer = integration.Fusion(kind, **SMALL)
    if variables is None:
        variables = jax.jit(layer.init, static_argnums=4)(jax.random.key(0), *arguments, False)
        if "attention" in variables.get("params", {}):
            variables["params"]["attention"]["gamma"] = jnp.asarray(gamma)
    return jax.jit(layer.apply, static_argnums=4)(variables, *arguments, False), variables


def test_maps_shared_by_all_targets_are_weighed_for_each():
    """Compiled: jaxlib 0.10.2 once made garbage of sums of products with such maps."""
    rng = np.random.default_rng(1)
    shapes = ((B, 1, K, 64, 64, C), (B, K, 64, 64, 14), (B, T, 64, 64, 14))
    arguments = tuple(jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)
    found, _ = fuse("rb6", arguments)
    features = np.asarray(arguments[0][:, 0], np.float64)
    truth = np.einsum("bkhwc,btkhw->bthwc", features, np.asarray(found["weights"], np.float64))
    np.testing.assert_allclose(found["features"], truth, atol=1e-5)


def test_average_and_maximum_are_those_and_know_no_order():
    features, sources, targets = inputs()
    for kind, truth in (("avg", np.mean), ("max", np.max)):
        found, _ = fuse(kind, (features, sources, targets))
        np.testing.assert_allclose(found["features"], truth(features, 2), atol=1e-6)
        turned, _ = fuse(kind, (features[:, :, ::-1], sources[:, ::-1], targets))
        np.testing.assert_allclose(turned["features"], found["features"], atol=1e-6)
        np.testing.assert_allclose(found["weights"].sum(2), 1.0, atol=1e-5)


@pytest.mark.parametrize("kind", integration.FUSIONS)
def test_equal_sources_give_themselves(kind):
    features, sources, targets = inputs()
    features = jnp.broadcast_to(features[:, :, :1], features.shape)
    found, _ = fuse(kind, (features, sources, targets))
    assert found["features"].shape == (B, T, H, W, C)
    np.testing.assert_allclose(found["features"], features[:, :, 0], atol=1e-5)
    np.testing.assert_allclose(found["weights"].sum(2), 1.0, atol=1e-5)


@pytest.mark.parametrize("kind", ("rb6", "sa3d_rb6", "rb6_sa2d"))
def test_backgrounds_of_all_targets_at_once_are_those_of_each(kind):
    """Features without a target axis of their own (s = 1) are convolved once, to the same end."""
    once = inputs(s=1)
    found, variables = fuse(kind, once, gamma=0.5)
    each, _ = fuse(kind, (jnp.repeat(once[0], T, 1), *once[1:]), variables)
    np.testing.assert_allclose(found["features"], each["features"], atol=1e-5)


def test_attention_over_space_begins_as_nothing_and_then_changes_the_result():
    arguments = inputs()
    plain, variables = fuse("rb6", arguments)
    params = variables["params"]
    for kind in ("rb6_sa2d", "sa3d_rb6"):
        _, begun = fuse(kind, arguments)
        begun["params"] |= params  # the same residual blocks
        same, _ = fuse(kind, arguments, begun)
        np.testing.assert_allclose(same["features"], plain["features"], atol=1e-6)
        begun["params"]["attention"]["gamma"] = jnp.asarray(1.0)
        other, _ = fuse(kind, arguments, begun)
        assert float(jnp.abs(other["features"] - plain["features"]).max()) > 1e-4


def test_the_result_is_the_weighted_sum_of_the_sources():
    arguments = inputs()
    found, _ = fuse("rb6", arguments)
    truth = np.einsum("btkhw,btkhwc->bthwc", found["weights"], arguments[0])
    np.testing.assert_allclose(found["features"], truth, atol=1e-5)


def test_wrong_kinds_and_sizes_are_told():
    features, sources, targets = inputs()
    with pytest.raises(UserError, match="no 'sum'; there are avg"):
        integration.Fusion("sum").init(jax.random.key(0), features, sources, targets, False)
    with pytest.raises(UserError, match="attention_stride=16: twice this must divide the 16x16"):
        layer = integration.Fusion("rb6_sa2d", blocks=1, attention_stride=16)
        jax.eval_shape(
            lambda *a: layer.init(jax.random.key(0), *a, False), features, sources, targets
        )


@pytest.mark.parametrize("small", (True, False))
def test_fusion_begins_as_almost_the_average_only_where_scores_are_small(small):
    layer = integration.Fusion("rb6", **SMALL, small_scores=small)
    arguments = inputs()
    variables = jax.jit(layer.init, static_argnums=4)(jax.random.key(0), *arguments, False)
    weights = jax.jit(layer.apply, static_argnums=4)(variables, *arguments, False)["weights"]
    assert (float(jnp.abs(weights - 1.0 / K).max()) < 0.05) == small
