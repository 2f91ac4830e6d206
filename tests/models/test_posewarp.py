"""The single-frame model has the published layers, and works part by part."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psrjax.errors import UserError
from psrjax.models import posewarp


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def test_the_parameters_are_as_many_as_the_official_codes():
    shapes = (jnp.zeros((1, 256, 256, 3)), jnp.zeros((1, 26, 3)), jnp.zeros((1, 1, 26, 3)))
    tree = jax.eval_shape(posewarp.PoseWarp().init, jax.random.key(0), *shapes)["params"]
    heads = {name: count(net) for name, net in tree["heads"].items()}
    assert count(tree["segmentation"]) + count(tree["parts"]) == 2_555_723
    assert count(tree["background"]) + heads["background"] == 2_612_739
    assert count(tree["foreground"]) + heads["foreground"] + heads["mask"] == 2_694_852
    assert count(tree) == 7_863_314


def test_the_discriminators_parameters_are_as_many_as_the_official_codes():
    arguments = (jnp.zeros((1, 256, 256, 3)), jnp.zeros((1, 128, 128, 28)))
    tree = jax.eval_shape(posewarp.PairDiscriminator().init, jax.random.key(0), *arguments)[
        "params"
    ]
    assert count(tree) == 6_625_409


def test_upsampling_keeps_pixels_and_puts_means_between_them():
    x = np.random.default_rng(0).normal(size=(1, 4, 6, 2)).astype(np.float32)
    y = np.asarray(posewarp.double_size(jnp.asarray(x)))
    padded = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)), mode="reflect")
    np.testing.assert_allclose(y[:, ::2, ::2], x, atol=1e-6)
    np.testing.assert_allclose(y[:, 1::2, ::2], (x + padded[:, 1:, :-1]) / 2, atol=1e-6)
    np.testing.assert_allclose(y[:, ::2, 1::2], (x + padded[:, :-1, 1:]) / 2, atol=1e-6)


@pytest.fixture(scope="module")
def made():
    rng = np.random.default_rng(1)
    source = rng.uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    joints = rng.uniform(-0.8, 0.8, (2, 3, 26, 3)).astype(np.float32)
    joints[..., 2] = 1.0
    model = posewarp.PoseWarp(width=4, num_downsamples=2)
    arguments = tuple(map(jnp.asarray, (source, joints[:, 0], joints[:, 1:])))
    return model, arguments, *jax.jit(model.init_with_output)(jax.random.key(0), *arguments)[::-1]


def test_the_picture_is_the_foreground_over_the_background(made):
    _, _, _, out = made
    assert out["video"].shape == (2, 2, 16, 16, 3) and out["mask"].shape == (2, 2, 16, 16, 1)
    blend = out["foreground"] * out["mask"] + out["background"] * (1 - out["mask"])
    np.testing.assert_allclose(out["video"], blend, atol=1e-6)
    np.testing.assert_allclose(out["parts"].sum(-1), 1.0, atol=1e-5)


def test_background_features_do_not_know_the_target(made):
    model, (source, joints, targets), variables, out = made
    other = jax.jit(model.apply)(variables, source, joints, targets[:, ::-1])
    np.testing.assert_allclose(out["background"][:, 0], out["background"][:, 1], atol=1e-6)
    np.testing.assert_allclose(other["video"], out["video"][:, ::-1], atol=1e-5)


def test_sizes_that_cannot_be_halved_are_told():
    with pytest.raises(UserError, match="15x16 cannot be halved 2 times"):
        posewarp.PoseUNet(4, 4, 2).init(
            jax.random.key(0), jnp.zeros((1, 15, 16, 3)), jnp.zeros((1, 7, 8, 14))
        )
