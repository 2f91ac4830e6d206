"""D2G-Net's nets: sizes as published, Eq. 1 in simple cases, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psrjax.errors import UserError
from psrjax.models import dynamic_details, uv_generator

PARTS = uv_generator.PARTS
CHEAP = {"xla_backend_optimization_level": 0}


def shapes_of(net, *inputs):
    return jax.eval_shape(lambda: net.init(jax.random.key(0), *inputs))["params"]


def millions(net, *inputs):
    shapes = shapes_of(net, *inputs)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes)) / 1e6


def screen(seed=0, size=6):
    rng = np.random.default_rng(seed)
    coordinates = rng.uniform(-1, 1, (1, size, size, PARTS, 2)).astype(np.float32)
    weights = rng.dirichlet(np.ones(PARTS + 1), (1, size, size)).astype(np.float32)
    return jnp.asarray(coordinates), jnp.asarray(weights)


@pytest.mark.parametrize(("blocks", "channels", "expected"), [(9, 18, 182.7), (5, 3, 107.2)])
def test_the_uv_generator_is_as_large_as_pix2pixhds(blocks, channels, expected):
    net = uv_generator.UVGenerator(64, 4, blocks)
    found = millions(net, jnp.zeros((1, 64, 64, channels)), False)
    np.testing.assert_allclose(found, expected, atol=0.06)


def test_the_uv_generator_gives_25_parts_and_24_places():
    net = uv_generator.UVGenerator(2, 1, 1)
    label = jax.random.normal(jax.random.key(1), (2, 8, 12, 6))
    made = jax.eval_shape(lambda: net.init_with_output(jax.random.key(0), label, True)[0])
    assert made["logits"].shape == (2, 8, 12, 25)
    assert made["coordinates"].shape == (2, 8, 12, 24, 2)


def test_a_texture_of_one_colour_gives_it_times_the_probability_of_a_person():
    coordinates, weights = screen()
    atlas = jnp.broadcast_to(jnp.float32([0.2, 0.5, 0.8, -3.0]), (PARTS, 5, 5, 4))
    mapped = dynamic_details.HybridTexture(5, 4).apply(
        {"params": {"atlas": atlas}}, coordinates, weights[..., 1:]
    )
    np.testing.assert_allclose(mapped, atlas[0, 0, 0] * (1 - weights[..., :1]), atol=1e-5)


def test_mask_tex_is_a_texture_without_its_learned_channels():
    coordinates, weights = screen()
    atlas = jax.random.normal(jax.random.key(1), (PARTS, 5, 5, 6))
    emptied = atlas.at[..., 3:].set(0.0)
    net = dynamic_details.HybridTexture(5, 6)
    inputs = (coordinates, weights[..., 1:])
    masked = net.apply({"params": {"atlas": atlas}}, *inputs, colors_only=True)
    np.testing.assert_array_equal(masked, net.apply({"params": {"atlas": emptied}}, *inputs))


def details(**fields):
    small = {"width": 2, "num_downsamples": 2, "blocks": 1, "pose_width": 2, "pose_level": 4}
    return dynamic_details.DynamicDetails(**{**small, **fields})


@pytest.mark.parametrize(("level", "matters"), [(4, True), (0, False)])
def test_the_pose_matters_where_it_joins(level, matters):
    mapped = jax.random.normal(jax.random.key(1), (1, 8, 8, 4))
    label, other = (jax.random.normal(jax.random.key(k), (1, 8, 8, 5)) for k in (2, 3))
    net = details(pose_level=level)
    both = lambda key: [  # noqa: E731
        net.init_with_output(key, mapped, x, True)[0] for x in (label, other)
    ]
    one, two = jax.jit(both, compiler_options=CHEAP)(jax.random.key(0))
    assert one.shape == (1, 8, 8, 3)
    assert bool(jnp.any(one != two)) == matters


def test_no_layer_is_wider_than_the_widest():
    inputs = (jnp.zeros((1, 64, 64, 18)), jnp.zeros((1, 64, 64, 18)), False)
    made = shapes_of(dynamic_details.DynamicDetails(max_channels=512, blocks=2), *inputs)
    kernels = [leaf.shape for leaf in jax.tree.leaves(made) if leaf.ndim == 4]
    assert max(shape[-1] for shape in kernels) == 512


def test_a_level_that_does_not_exist_is_told():
    inputs = (jnp.zeros((1, 8, 8, 4)), jnp.zeros((1, 8, 8, 5)), False)
    with pytest.raises(UserError, match=r"pose_level=8: with 2 downsamples one of 2, 4, or 0"):
        shapes_of(details(pose_level=8), *inputs)


def test_a_background_of_another_size_is_told():
    net = dynamic_details.Background()
    variables = {"params": {"picture": jnp.ones((1, 4, 6, 3))}}
    np.testing.assert_array_equal(net.apply(variables, 4, 6), np.ones((1, 4, 6, 3)))
    with pytest.raises(UserError, match="frames of 8x6: the background was learned at 4x6"):
        net.apply(variables, 8, 6)
