"""Discriminators of several ranges of frames see exactly the windows of Eq. 2."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psrjax.errors import UserError
from psrjax.nn.discriminators import frame_ranges


def clip(t=8, size=16):
    rng = np.random.default_rng(0)
    made = (rng.normal(size=(2, t, size, size, c)) for c in (3, 2))
    return tuple(jnp.asarray(array, jnp.float32) for array in made)


def shapes(net, *arguments):
    """(the net's answers, its variables), without computing them."""
    return jax.eval_shape(lambda *a: net.init_with_output(jax.random.key(0), *a, True), *arguments)


@pytest.mark.parametrize(("n", "count", "channels"), ((3, 6, 13), (5, 4, 23), (7, 2, 33)))
def test_windows_hold_n_frames_and_the_flows_between_them(n, count, channels):
    video, flow = clip()
    found = np.asarray(frame_ranges.windows(video, flow, n))
    assert found.shape == (2 * count, 16, 16, channels)
    for b in range(2):
        for start in range(count):
            frames = [video[b, start + i] for i in range(n)]
            flows = [flow[b, start + i] * 256 / (20 * 16) for i in range(1, n)]
            truth = np.concatenate([*frames, *flows], -1)
            np.testing.assert_allclose(found[b * count + start], truth, rtol=1e-5)


@pytest.mark.parametrize("kind", frame_ranges.KINDS)
def test_there_is_a_discriminator_for_each_range(kind):
    video, flow = clip(size=64 if kind == "patch" else 16)
    discriminators = frame_ranges.FrameRangeDiscriminators((3, 5), kind, width=2)
    judged, variables = shapes(discriminators, video, flow)
    assert set(judged) == set(variables["params"]) == {"range3", "range5"}
    assert judged["range3"][0]["logits"].shape[0] == 12
    assert judged["range5"][0]["logits"].shape[0] == 8


def test_the_map_of_logits_is_sixteen_times_smaller():
    shape = jnp.zeros((1, 256, 256, 13))
    discriminator = frame_ranges.ResidualDiscriminator()
    judged, _ = shapes(discriminator, shape)
    assert judged[0]["logits"].shape == (1, 16, 16, 1)
    sizes = [feature.shape[1:] for feature in judged[0]["features"]]
    assert sizes == [(128, 128, 64), (64, 64, 128), (32, 32, 256)] + 3 * [(16, 16, 512)]


def test_ranges_longer_than_the_clip_are_told():
    video, flow = clip(t=4)
    with pytest.raises(UserError, match="a discriminator of 5 frames and windows of 4"):
        frame_ranges.windows(video, flow, 5)


@pytest.mark.parametrize("scaled", (True, False))
def test_a_fresh_discriminator_sees_its_input_only_where_its_kernels_are_scaled(scaled):
    colors = jax.random.normal(jax.random.key(1), (16, 1, 1, 3))
    pictures = jnp.broadcast_to(colors, (16, 16, 16, 3))
    net = frame_ranges.ResidualDiscriminator(4, scaled)
    variables = jax.jit(net.init, static_argnums=2)(jax.random.key(0), pictures, True)
    logits = jax.jit(net.apply, static_argnums=2)(variables, pictures, True)[0]["logits"]
    assert (float(logits.std()) > 0.02) == scaled
