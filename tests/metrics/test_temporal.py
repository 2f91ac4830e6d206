"""Metrics over time equal their definitions written out in loops, and forgive true motion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psrjax.errors import UserError
from psrjax.metrics import temporal

HEIGHT, WIDTH = 9, 11


def bilinear(image, x, y):
    """image at (x, y), the nearest pixel beyond the border."""
    x, y = np.clip(x, 0, image.shape[1] - 1), np.clip(y, 0, image.shape[0] - 1)
    left, top = min(int(x), image.shape[1] - 2), min(int(y), image.shape[0] - 2)
    a, b = x - left, y - top
    rows = (1 - a) * image[top : top + 2, left] + a * image[top : top + 2, left + 1]
    return (1 - b) * rows[0] + b * rows[1]


def warped(image, flow):
    out = np.zeros_like(image)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            out[y, x] = bilinear(image, x + flow[y, x, 0], y + flow[y, x, 1])
    return out


@pytest.fixture(scope="module")
def clips():
    random = np.random.default_rng(0)
    return {
        "video": random.random((2, 3, HEIGHT, WIDTH, 3)),
        "flow": random.normal(0, 2, (2, 3, HEIGHT, WIDTH, 2)),
        "trust": (random.random((2, 3, HEIGHT, WIDTH, 1)) < 0.7).astype(float),
    }


def single(arrays):
    return [jnp.asarray(array, jnp.float32) for array in arrays]


def test_temporal_error_equals_the_sum_written_out(clips):
    expected = []
    for video, flow, trust in zip(*clips.values()):
        total = 0.0
        for t in range(1, len(video)):
            change = video[t] - warped(video[t - 1], flow[t])
            total += (trust[t] * change**2).sum() / (HEIGHT * WIDTH * 3)
        expected.append(100 * np.sqrt(total / (len(video) - 1)))
    found = jax.jit(temporal.temporal_error)(*single(clips.values()))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_temporal_gap_equals_the_sum_written_out(clips):
    truth, expected = np.random.default_rng(2).random(clips["video"].shape), []
    for video, true, flow, trust in zip(clips["video"], truth, clips["flow"], clips["trust"]):
        total = 0.0
        for t in range(1, len(video)):
            changes = (each[t] - warped(each[t - 1], flow[t]) for each in (video, true))
            made, real = (np.sqrt((trust[t] * change**2).mean()) for change in changes)
            total += abs(made - real)
        expected.append(100 * total / (len(video) - 1))
    found = temporal.temporal_gap(*single([clips["video"], truth, clips["flow"], clips["trust"]]))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_blur_lowers_the_temporal_error_and_raises_the_gap_and_flicker_raises_both(clips):
    truth, flow, trust = single(clips.values())
    noise = np.random.default_rng(3).normal(0, 0.3, truth.shape)
    faint, flickering = 0.5 * truth + 0.25, truth + jnp.asarray(noise, jnp.float32)
    own = temporal.temporal_error(truth, flow, trust)
    assert (temporal.temporal_gap(truth, truth, flow, trust) == 0).all()
    assert (temporal.temporal_error(faint, flow, trust) < own).all()
    assert (temporal.temporal_error(flickering, flow, trust) > own).all()
    for video in (faint, flickering):
        assert (temporal.temporal_gap(video, truth, flow, trust) > 0.1 * own).all()


def test_warping_error_equals_the_sum_written_out(clips):
    expected = np.zeros((2, 2))
    for i, (video, flow, trust) in enumerate(zip(*clips.values())):
        for t in range(1, len(video)):
            change = video[t - 1] - warped(video[t], flow[t])
            expected[i, t - 1] = (trust[t] * change**2).sum() / (3 * trust[t].sum())
    found = temporal.warping_error(*single(clips.values()))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_nothing_trusted_is_no_error(clips):
    video, flow, trust = single(clips.values())
    assert (temporal.warping_error(video, flow, 0 * trust) == 0).all()
    assert (temporal.temporal_error(video, flow, 0 * trust) == 0).all()


def test_a_picture_that_moves_as_the_flow_says_has_no_error_and_flicker_does():
    random = np.random.default_rng(1)
    wide = random.random((HEIGHT, WIDTH + 8, 3))
    video = np.stack([wide[:, 2 * t : 2 * t + WIDTH] for t in range(4)])[None]
    flow = np.zeros((1, 4, HEIGHT, WIDTH, 2))
    flow[..., 0] = 2  # what is at x was at x + 2 a frame ago
    inside = np.ones((1, 4, HEIGHT, WIDTH, 1))
    inside[:, :, :, -2:] = 0  # what came into the frame
    video, flow, inside = single((video, flow, inside))
    assert float(temporal.temporal_error(video, flow, inside)[0]) < 1e-4
    assert float(temporal.temporal_error(video, flow)[0]) > 1
    blinking = video.at[:, 1::2].multiply(0.9)
    assert float(temporal.temporal_error(blinking, flow, inside)[0]) > 1


def test_a_constant_offset_between_frames_is_its_size_in_hundredths():
    video = np.zeros((1, 2, 8, 8, 3))
    video[:, 1] = 0.05
    found = temporal.temporal_error(*single((video, np.zeros((1, 2, 8, 8, 2)))))
    np.testing.assert_allclose(found, 5.0, rtol=1e-5)


def test_pieces_that_share_a_frame_give_the_clips_error(clips):
    video, flow, trust = single(clips.values())
    whole = temporal.temporal_squares(video, flow, trust)
    pieces = [
        temporal.temporal_squares(video[:, s], flow[:, s], trust[:, s])
        for s in (slice(0, 2), slice(1, 3))
    ]
    np.testing.assert_allclose(whole, jnp.concatenate(pieces, 1), rtol=1e-6)


@pytest.mark.parametrize("one_sided", [False, True])
def test_trust_equals_the_criteria_written_out(one_sided):
    random = np.random.default_rng(2)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    smooth = np.stack([3 + 0.04 * x, 1 + 0.03 * y], -1) + 0.02 * random.normal(size=(9, 11, 2))
    smooth[2:5, 3:6] += 2
    back = -smooth + np.where(random.random((9, 11, 1)) < 0.2, 1.5, 0)
    returned = warped(back, smooth)
    expected = np.zeros((HEIGHT, WIDTH))
    for j in range(HEIGHT):
        for i in range(WIDTH):
            here, there = smooth[j, i], returned[j, i]
            steep = 0.0
            for axis, place, last in ((0, j, HEIGHT - 1), (1, i, WIDTH - 1)):
                line = smooth[:, i] if axis == 0 else smooth[j]
                if one_sided:
                    slope = line[place + 1] - line[place] if place < last else 0 * here
                else:
                    low, high = max(place - 1, 0), min(place + 1, last)
                    slope = (line[high] - line[low]) / (high - low)
                steep += (slope**2).sum()
            length = (here**2).sum()
            occluded = ((here + there) ** 2).sum() > 0.01 * (length + (there**2).sum()) + 0.5
            expected[j, i] = not (occluded or steep > 0.01 * length + 0.002)
    given = single((smooth[None, None], back[None, None]))
    found = temporal.trust(*given, one_sided=one_sided)[0, 0, ..., 0]
    assert 0.2 < expected.mean() < 0.9
    np.testing.assert_array_equal(found, expected)


def test_flicker_is_the_change_of_the_background_in_hundredths():
    video = np.zeros((1, 2, 4, 4, 3))
    video[:, 1] = 0.02
    mask = np.zeros((1, 2, 4, 4, 1))
    video[:, 1, :2], mask[:, 0, :2] = 1.0, 1.0
    np.testing.assert_allclose(temporal.flicker(*single((video, mask))), [[2.0]], rtol=1e-5)
    assert np.isnan(temporal.flicker(*single((video, mask + 1)))).all()


def test_a_single_frame_is_refused():
    with pytest.raises(UserError, match="at least 2 frames"):
        temporal.temporal_error(jnp.zeros((1, 1, 4, 4, 3)), jnp.zeros((1, 1, 4, 4, 2)))
