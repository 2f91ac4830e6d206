"""Discriminators: the published sizes, and refusal of inputs that they cannot take."""

import jax
import jax.numpy as jnp
import pytest

from psrjax.errors import UserError
from psrjax.nn.discriminators import patch


def shapes(discriminator, *size):
    x = jax.ShapeDtypeStruct(size, jnp.float32)
    return jax.eval_shape(lambda x: discriminator.init_with_output(jax.random.key(0), x, True), x)


def count(variables):
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def test_patch_discriminator_is_the_published_one():
    made, variables = shapes(patch.PatchDiscriminator(), 2, 112, 112, 6)
    assert count(variables) == 2_768_705
    assert made["logits"].shape == (2, 12, 12, 1)  # 112 / 8, less one for each layer of stride 1
    assert [x.shape[-1] for x in made["features"]] == [64, 128, 256, 512]


def test_video_discriminator_is_mocogans_with_padded_time():
    made, variables = shapes(patch.VideoDiscriminator(), 2, 8, 112, 112, 3)
    assert count(variables) == 11_056_896
    assert made["logits"].shape == (2, 1, 4, 4, 1)
    assert [x.shape[1:3] for x in made["features"]] == [(7, 56), (6, 28), (5, 14), (4, 7)]


def test_mocogans_own_discriminator_needs_sixteen_frames():
    discriminator = patch.VideoDiscriminator(time_padding=0)
    assert shapes(discriminator, 1, 16, 64, 64, 3)[0]["logits"].shape == (1, 1, 1, 1, 1)
    with pytest.raises(UserError, match="at least 16 frames of 64x64"):
        shapes(discriminator, 1, 15, 64, 64, 3)


@pytest.mark.parametrize("size", [(1, 7, 64, 64, 3), (1, 8, 64, 60, 3)])
def test_video_discriminator_refuses_what_it_cannot_take(size):
    assert shapes(patch.VideoDiscriminator(), 1, 8, 64, 64, 3)[0]["logits"].size == 1
    with pytest.raises(UserError, match=r"at least 8 frames of 64x64 pixels, not .*video_depth"):
        shapes(patch.VideoDiscriminator(), *size)


def test_patch_discriminator_refuses_what_it_cannot_take():
    assert shapes(patch.PatchDiscriminator(), 1, 24, 24, 6)[0]["logits"].size == 1
    with pytest.raises(UserError, match=r"at least 24x24 pixels, not 23x24.*discriminator_layers"):
        shapes(patch.PatchDiscriminator(), 1, 23, 24, 6)


def test_width_and_depth_are_free():
    made, _ = shapes(patch.VideoDiscriminator(width=4, depth=2), 1, 6, 16, 16, 3)
    assert [x.shape[-1] for x in made["features"]] == [4, 8]
    assert made["logits"].shape == (1, 1, 1, 1, 1)
