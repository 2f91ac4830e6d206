"""The hybrid texture's sampling against plain loops and autodiff, and its unwrapping."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tracing

from psrjax.errors import UserError
from psrjax.ops import geometry, texture

PARTS, SIZE, CHANNELS = 3, 5, 4


def inputs(seed=0, reach=1.3, shape=(2, 3, 4)):
    """Places inside, outside, and exactly on texels and edges."""
    generator = np.random.default_rng(seed)
    atlas = generator.normal(size=(PARTS, SIZE, SIZE, CHANNELS))
    places = generator.uniform(-reach, reach, (*shape, PARTS, 2))
    weights = generator.uniform(size=(*shape, PARTS))
    return tuple(jnp.asarray(value, jnp.float32) for value in (atlas, places, weights))


def naive(atlas, places, weights):
    """Eq. 1 texel by texel: every texel of a part counts with its tent."""
    atlas, places, weights = (np.asarray(value, np.float64) for value in (atlas, places, weights))
    grid = np.linspace(-1, 1, SIZE)
    step = grid[1] - grid[0]
    result = np.zeros((*weights.shape[:-1], CHANNELS))
    for index in np.ndindex(*weights.shape):
        x, y = (np.maximum(0, 1 - np.abs(place - grid) / step) for place in places[index])
        picked = np.einsum("v,u,vuc->c", y, x, atlas[index[-1]])
        result[index[:-1]] += weights[index] * picked
    return result


def by_autodiff(atlas, places, weights):
    """The published way: a grid sample for each part, which autodiff takes back."""
    total = 0.0
    for part in range(len(atlas)):
        image = jnp.broadcast_to(atlas[part], (len(places), *atlas.shape[1:]))
        picked = geometry.grid_sample(image, places[..., part, :], align_corners=True)
        total += weights[..., part, None] * picked
    return total


def test_it_is_eq_1_texel_by_texel():
    arguments = inputs()
    np.testing.assert_allclose(
        texture.sample_texture(*arguments), naive(*arguments), atol=1e-5, rtol=1e-5
    )


def test_all_three_gradients_are_those_of_autodiff():
    arguments = inputs(1)
    pull = np.random.default_rng(2).normal(size=(2, 3, 4, CHANNELS)).astype(np.float32)
    gradients = [
        jax.jit(jax.grad(lambda *a, f=f: (f(*a) * pull).sum(), argnums=(0, 1, 2)))(*arguments)
        for f in (texture.sample_texture, by_autodiff)
    ]
    for ours, theirs in zip(*gradients):
        np.testing.assert_allclose(ours, theirs, atol=2e-5, rtol=1e-5)


def test_the_formulation_for_tpus_gives_the_same_values_and_gradients(monkeypatch):
    monkeypatch.setattr(texture, "_PIXELS", 5)  # so that the last chunk is filled up
    arguments = inputs(1)
    pull = np.random.default_rng(2).normal(size=(2, 3, 4, CHANNELS)).astype(np.float32)

    def both(*given):
        found, back = jax.vjp(texture.sample_texture, *given)
        return found, *back(pull)

    found, expected = (tracing.as_on(platform, both, *arguments) for platform in ("tpu", "cpu"))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=1e-4)


def test_gradients_are_those_of_finite_differences():
    arguments = inputs(3, reach=0.97)  # no place lies on a fold
    pull = np.random.default_rng(4).normal(size=(2, 3, 4, CHANNELS))
    found = jax.grad(
        lambda *a: (texture.sample_texture(*a) * pull.astype(np.float32)).sum(), argnums=(0, 1, 2)
    )(*arguments)
    generator, step = np.random.default_rng(5), 1e-4
    for number, gradient in enumerate(found):
        direction = generator.choice((-1.0, 1.0), gradient.shape)
        if number == 1:  # places near a fold stay where they are
            texels = (np.asarray(arguments[1], np.float64) + 1) * (SIZE - 1) / 2
            direction *= np.abs(texels - np.rint(texels)) > 1e-2
        moved = [list(arguments), list(arguments)]
        for sign, side in zip((1, -1), moved):
            side[number] = np.asarray(side[number], np.float64) + sign * step * direction
        sides = [naive(*side) for side in moved]
        slope = ((sides[0] - sides[1]) * pull).sum() / (2 * step)
        np.testing.assert_allclose((np.asarray(gradient) * direction).sum(), slope, rtol=1e-4)


def test_slopes_at_texels_and_at_the_edges_are_those_of_the_grid_sample():
    atlas, _, _ = inputs(6)
    grid = np.linspace(-1, 1, SIZE)
    u, v = np.meshgrid([-1.5, *grid, 1.5], [-1.5, *grid, 1.5])
    places = jnp.asarray(np.repeat(np.stack([u, v], -1)[None, :, :, None], PARTS, 3), jnp.float32)
    weights = jnp.ones(places.shape[:-1])
    ours, theirs = (
        jax.jit(jax.grad(lambda c, f=f: f(atlas, c, weights).sum()))(places)
        for f in (texture.sample_texture, by_autodiff)
    )
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_bfloat16_is_summed_in_float32_and_keeps_its_types():
    exact = inputs(7)
    halves = tuple(value.astype(jnp.bfloat16) for value in exact)
    rounded = tuple(value.astype(jnp.float32) for value in halves)
    result = texture.sample_texture(*halves)
    assert result.dtype == jnp.bfloat16
    expected = texture.sample_texture(*rounded).astype(jnp.bfloat16)
    np.testing.assert_array_equal(np.asarray(result), np.asarray(expected))
    gradients = jax.grad(
        lambda *a: texture.sample_texture(*a).astype(jnp.float32).sum(), argnums=(0, 1, 2)
    )(*halves)
    assert all(gradient.dtype == jnp.bfloat16 for gradient in gradients)


def test_a_constant_texture_is_the_sum_of_the_weights():
    _, places, weights = inputs(8, reach=1.0)
    sampled = texture.sample_texture(jnp.full((PARTS, SIZE, SIZE, 1), 0.7), places, weights)
    np.testing.assert_allclose(sampled[..., 0], 0.7 * weights.sum(-1), rtol=1e-5)


def test_the_gradient_reaches_sampled_texels_only():
    atlas, places, weights = inputs(9, shape=(1, 1, 1))
    centre = jnp.zeros_like(places)
    gradient = jax.grad(lambda a: texture.sample_texture(a, centre, weights).sum())(atlas)
    assert np.count_nonzero(np.abs(gradient).sum(-1)) == PARTS  # the middle texel of each part
    assert (np.abs(gradient[:, SIZE // 2, SIZE // 2]) > 0).all()


def test_unwrapped_colours_come_back_where_they_were_seen():
    """A synthetic IUV whose parts' pixels fall on texels: sampling is the inverse of unwrapping."""
    size, generator = 18, np.random.default_rng(10)  # 255 / 17 = 15: u, v on texels exactly
    places = np.stack(np.meshgrid(np.arange(size), np.arange(size)), -1) * 15
    part = np.repeat(np.arange(1, 3), size * size // 2).reshape(size, size)
    iuv = np.concatenate([part[..., None], places], -1).astype(np.uint8)[None]
    frames = generator.integers(0, 256, (1, size, size, 3)).astype(np.uint8)
    atlas = texture.unwrap([(frames, iuv)], size=size, parts=2)
    coordinates = jnp.asarray(np.repeat(iuv[..., None, 1:] / 127.5 - 1, 2, -2), jnp.float32)
    weights = jnp.asarray(iuv[..., :1] == [1, 2], jnp.float32)
    sampled = texture.sample_texture(jnp.asarray(atlas), coordinates, weights)
    np.testing.assert_allclose(sampled, frames, atol=2e-2)


def test_unwrapping_averages_over_frames_and_leaves_unseen_texels_empty():
    iuv = np.zeros((2, 2, 2, 3), np.uint8)
    iuv[:, 0, 0] = 2, 255, 0  # part 2, u = 1: the last column; v = 0: the first row
    frames = np.zeros((2, 2, 2, 3), np.uint8)
    frames[:, 0, 0] = [[10, 20, 30], [20, 40, 60]]
    frames[:, 1, 1] = 255  # background
    whole = texture.unwrap([(frames, iuv)], size=4)
    pieces = texture.unwrap(zip(frames[:, None], iuv[:, None]), size=4)
    np.testing.assert_array_equal(whole, pieces)
    np.testing.assert_allclose(whole[1, 0, 3], [15, 30, 45])
    assert whole.sum() == 15 + 30 + 45


def test_the_static_texture_on_the_device_is_the_unwrapped_one_where_frames_show_it():
    generator = np.random.default_rng(11)
    part = generator.integers(0, 3, (4, 6, 5, 1))
    places = generator.integers(0, 256, (4, 6, 5, 2)) * (part > 0)
    iuv = np.concatenate([part, places], -1).astype(np.uint8)
    frames = generator.integers(1, 256, (4, 6, 5, 3)).astype(np.float32)
    expected = texture.unwrap([(frames, iuv)], size=7, parts=3)
    given = iuv / np.array([1, 255, 255])
    found = np.asarray(
        texture.static_texture(
            jnp.asarray(frames, jnp.float32), jnp.asarray(given), size=7, parts=3
        )
    )
    seen = expected.any(-1)
    np.testing.assert_array_equal(found[seen][:, 3], 1)
    np.testing.assert_allclose(found[seen][:, :3], expected[seen], rtol=1e-5)
    assert found[~seen][:, 3].max() < 1e-3 and not found[2].any()  # nobody shows the third part
    for number in (0, 1):  # a texel that no frame shows has its part's mean colour
        empty = found[number][~seen[number]]
        mean = frames[part[..., 0] == number + 1].mean(0)
        np.testing.assert_allclose(empty[0, :3] / empty[0, 3], mean, rtol=1e-4)


def test_wrong_textures_are_refused():
    atlas, places, weights = inputs()
    with pytest.raises(UserError, match="two are the fewest"):
        texture.sample_texture(atlas[:, :1, :1], places, weights)
    with pytest.raises(UserError, match="part 25"):
        texture.unwrap([(np.zeros((1, 1, 1, 3)), np.full((1, 1, 1, 3), 25, np.uint8))], size=4)
