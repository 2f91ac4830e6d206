"""Motion and generator: published sizes, identities that hold at every scale, what they refuse."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psrjax.errors import UserError
from psrjax.models import motion, motion_generator
from psrjax.nn.discriminators import multiscale
from psrjax.ops import geometry, local_affine


def count(module, *inputs):
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), *inputs, True))
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def points(*shape):
    eye = jnp.broadcast_to(jnp.eye(2), (*shape, 2, 2))
    return {"value": jnp.zeros((*shape, 2)), "jacobian": eye}


def test_all_nets_are_of_the_published_size():
    image = jnp.zeros((1, 256, 256, 3))
    field = jnp.zeros((1, 1, 64, 64, 2)), jnp.zeros((1, 1, 64, 64, 1))
    assert count(motion.KeypointDetector(), image) == 14_215_368
    assert count(motion.DenseMotion(), image, points(1, 10), points(1, 1, 10)) == 37_730_268
    assert count(motion_generator.MotionGenerator("ss4x", blocks=6), image, *field) == 7_845_123
    assert count(multiscale.ValidDiscriminator(), image) == 2_758_849
    biases = 128 + 256 + 512  # those that a norm removes
    assert count(multiscale.MultiScaleDiscriminator(1), jnp.zeros((1, 64, 64, 6))) == (
        2_767_809 - biases
    )


def test_no_motion_is_the_identity_at_every_scale():
    still = jnp.asarray(local_affine.corner_grid(8, 8))[None, None]
    for level, field in enumerate(motion.pyramid(still, levels=2)):
        size = 8 * 2**level
        picture = jax.random.uniform(jax.random.key(level), (1, size, size, 5))
        same = geometry.grid_sample(picture, field[:, 0], align_corners=True)
        np.testing.assert_allclose(same, picture, atol=1e-4)


def test_a_new_detector_has_identity_jacobians_and_points_inside():
    detector = motion.KeypointDetector(points=3, width=4, depth=2, max_channels=8, padding=3)
    image = jax.random.uniform(jax.random.key(1), (2, 64, 64, 3))
    found, _ = jax.jit(detector.init_with_output, static_argnums=2)(jax.random.key(0), image, True)
    np.testing.assert_allclose(found["jacobian"], points(2, 3)["jacobian"], atol=1e-5)
    assert float(jnp.abs(found["value"]).max()) < 1


def test_the_same_picture_twice_does_not_move():
    field = motion.DenseMotion(width=4, depth=2, max_channels=8)
    image = jax.random.uniform(jax.random.key(1), (1, 64, 64, 3))
    there = points(1, 3) | {"value": jax.random.uniform(jax.random.key(2), (1, 3, 2))}
    later = {name: value[:, None] for name, value in there.items()}
    moved, _ = jax.jit(field.init_with_output, static_argnums=4)(
        jax.random.key(0), image, there, later, True
    )
    grid = local_affine.corner_grid(16, 16)
    np.testing.assert_allclose(moved["deformation"][0, 0], grid, atol=1e-5)
    np.testing.assert_allclose(moved["weights"].sum(-1), 1.0, atol=1e-5)


def test_locality_lets_an_untrained_field_move_what_is_near_a_point():
    field = motion.DenseMotion(width=4, depth=2, max_channels=8, locality=20.0)
    image = jax.random.uniform(jax.random.key(1), (1, 64, 64, 3))
    there, later = points(1, 1), points(1, 1, 1)
    later["value"] = later["value"] + 1.0 / 15.0  # a pixel's centre of the small picture
    start = jax.jit(field.init, static_argnums=4)
    variables = start(jax.random.key(0), image, there, later, True)
    variables["params"]["weights"] = jax.tree.map(jnp.zeros_like, variables["params"]["weights"])
    moved, _ = field.apply(variables, image, there, later, True, mutable=["batch_stats"])
    weight = moved["weights"][0, 0, ..., 1]
    assert float(weight[8, 8]) == pytest.approx(20.01 / 21.01, rel=1e-4)
    assert float(weight[0, 0]) == pytest.approx(0.01 / 1.01, rel=1e-2)


def test_confidence_decides_between_the_warped_source_and_what_is_painted():
    source = jax.random.uniform(jax.random.key(1), (2, 16, 12, 3))
    generated = jax.random.uniform(jax.random.key(2), (2, 3, 16, 12, 3))
    shape = (2, 3, 8, 6)
    still = jnp.broadcast_to(local_affine.corner_grid(8, 6), (*shape, 2))
    keep = functools.partial(motion_generator.keep_source, generated, source, still, levels=1)
    np.testing.assert_allclose(keep(jnp.zeros((*shape, 1))), generated, atol=1e-6)
    whole = jnp.broadcast_to(source[:, None], generated.shape)
    np.testing.assert_allclose(keep(jnp.ones((*shape, 1))), whole, atol=1e-4)


def test_frames_together_are_frames_one_by_one():
    generator = motion_generator.MotionGenerator(width=4, blocks=1)
    image = jax.random.uniform(jax.random.key(1), (1, 32, 32, 3))
    field = jax.random.uniform(jax.random.key(2), (1, 3, 8, 8, 2), minval=-1.0)
    trust = jax.random.uniform(jax.random.key(3), (1, 3, 8, 8, 1))
    start, paint = (jax.jit(call, static_argnums=4) for call in (generator.init, generator.apply))
    variables = start(jax.random.key(0), image, field, trust, False)
    whole = paint(variables, image, field, trust, False)
    for i in range(3):
        one = slice(i, i + 1)
        alone = paint(variables, image, field[:, one], trust[:, one], False)
        np.testing.assert_allclose(whole[:, one], alone, atol=1e-5)


@pytest.mark.parametrize("generator_kind", motion_generator.GENERATORS)
def test_confidence_gates_all_that_comes_from_the_source(generator_kind):
    generator = motion_generator.MotionGenerator(generator_kind, width=4, blocks=1)
    image = jax.random.uniform(jax.random.key(1), (2, 32, 32, 3))
    field = jnp.broadcast_to(local_affine.corner_grid(8, 8), (2, 1, 8, 8, 2))
    run = jax.jit(generator.init_with_output, static_argnums=4)
    closed, _ = run(jax.random.key(0), image, field, jnp.zeros((2, 1, 8, 8, 1)), False)
    np.testing.assert_allclose(closed[0], closed[1], atol=1e-6)
    open_, _ = run(jax.random.key(0), image, field, jnp.ones((2, 1, 8, 8, 1)), False)
    # An untrained net of four channels says little, but a hundred times more than a closed gate.
    assert float(jnp.abs(open_[0] - open_[1]).max()) > 1e-4


def test_sizes_that_do_not_fit_are_told():
    image = jnp.zeros((1, 72, 64, 3))
    with pytest.raises(UserError, match="18x16 cannot be halved 2 times"):
        count(motion.KeypointDetector(depth=2), image)
    field = jnp.zeros((1, 1, 8, 8, 2)), jnp.zeros((1, 1, 8, 8, 1))
    with pytest.raises(UserError, match="config.method.factor"):
        count(
            motion_generator.MotionGenerator(width=4, levels=1), jnp.zeros((1, 32, 32, 3)), *field
        )
