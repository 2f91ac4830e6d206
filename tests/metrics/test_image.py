"""Image metrics equal scikit-image's, and the masked ones have the properties that define them."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from skimage import metrics as skimage_metrics

from psrjax.errors import UserError
from psrjax.metrics import image

SHAPE = (2, 3, 40, 52, 3)


def waves():
    y, x = np.mgrid[:40, :52]
    truth = 127 + 90 * np.sin(x / 5 + np.arange(6).reshape(2, 3, 1, 1)) * np.cos(y / 7)
    return truth[..., None] + np.random.default_rng(1).normal(0, 10, SHAPE)


def natural():
    picture = np.asarray(Image.open(Path(__file__).parents[1] / "golden" / "natural.png"))
    crops = [picture[20 * i : 20 * i + 40, 15 * i : 15 * i + 52] for i in range(6)]
    return np.stack(crops).reshape(SHAPE).astype(float)


@pytest.fixture(scope="module", params=[waves, natural], ids=["random", "natural"])
def pair(request):
    truth = request.param()
    video = truth + np.random.default_rng(0).normal(0, 15, SHAPE)
    return {
        "video": np.clip(video, 0, 255).astype(np.uint8),
        "truth": np.clip(truth, 0, 255).astype(np.uint8),
    }


@pytest.fixture(scope="module")
def mask():
    mask = np.zeros((*SHAPE[:-1], 1), np.uint8)
    mask[..., 12:32, 20:36, :] = 255
    return mask


def each_frame(function, *videos):
    flat = [video.reshape(-1, *video.shape[2:]) for video in videos]
    return np.array([function(*frames) for frames in zip(*flat)]).reshape(SHAPE[:2])


def scores(pair, mask):
    return jax.tree.map(np.asarray, dict(image.frame_scores(pair["video"], pair["truth"], mask)))


def gaussian_ssim(video, truth, **options):
    return skimage_metrics.structural_similarity(
        video,
        truth,
        data_range=255,
        channel_axis=-1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        **options,
    )


def test_ssim_equals_scikit_image_with_the_canonical_options(pair, mask):
    expected = each_frame(gaussian_ssim, pair["video"], pair["truth"])
    np.testing.assert_allclose(scores(pair, mask)["ssim"], expected, atol=1e-5)


def test_ssim_uniform7_equals_the_default_of_scikit_image(pair, mask):
    def default(video, truth):
        return skimage_metrics.structural_similarity(video, truth, channel_axis=-1)

    expected = each_frame(default, pair["video"], pair["truth"])
    np.testing.assert_allclose(scores(pair, mask)["ssim_uniform7"], expected, atol=1e-5)


def test_psnr_equals_scikit_image(pair, mask):
    expected = each_frame(skimage_metrics.peak_signal_noise_ratio, pair["truth"], pair["video"])
    np.testing.assert_allclose(scores(pair, mask)["psnr"], expected, atol=1e-4)


def test_zero_masked_scores_equal_scikit_image_on_blackened_frames(pair, mask):
    video, truth = (pair[name] * (mask > 0) for name in ("video", "truth"))

    def default(video, truth):
        return skimage_metrics.structural_similarity(video, truth, channel_axis=-1)

    found = scores(pair, mask)
    ssim = each_frame(default, video, truth)
    np.testing.assert_allclose(found["m_ssim_zero"], ssim, atol=1e-5)
    psnr = each_frame(skimage_metrics.peak_signal_noise_ratio, truth, video)
    np.testing.assert_allclose(found["m_psnr_zero"], psnr, atol=1e-4)


def test_ssim_inside_is_the_mean_of_scikit_images_map_over_the_mask(pair, mask):
    def inside(video, truth):
        return gaussian_ssim(video, truth, full=True)[1][12:32, 20:36].mean()

    expected = each_frame(inside, pair["video"], pair["truth"])
    np.testing.assert_allclose(scores(pair, mask)["m_ssim_in"], expected, atol=1e-5)


def test_the_two_masked_psnr_differ_by_the_area_of_the_person(pair, mask):
    found = scores(pair, mask)
    gap = -10 * np.log10((mask > 0).mean())
    np.testing.assert_allclose(found["m_psnr_zero"] - found["m_psnr_in"], gap, atol=1e-4)


def test_the_background_does_not_move_the_scores_inside(pair, mask):
    changed = np.where(mask > 0, pair["video"], 255 - pair["video"]).astype(np.uint8)
    before, after = scores(pair, mask), scores({**pair, "video": changed}, mask)
    for name in ("m_psnr_in", "m_psnr_zero", "m_ssim_zero"):
        np.testing.assert_array_equal(before[name], after[name])


@pytest.mark.parametrize("level", [0, 1, 127, 255])
def test_equal_constant_frames_score_one_and_the_cap(level):
    frames = np.full((1, 16, 16, 3), level, np.uint8)
    found = scores({"video": frames, "truth": frames}, np.full((1, 16, 16, 1), 255, np.uint8))
    for name, score in found.items():
        expected = image.PSNR_CAP if "psnr" in name else 1.0
        np.testing.assert_allclose(score, expected, atol=1e-6, err_msg=name)


def test_frames_without_a_person_are_nan_in_the_masked_scores_only(pair, mask):
    some = mask.copy()
    some[0, 1] = 0
    found = scores(pair, some)
    empty = np.zeros(SHAPE[:2], bool)
    empty[0, 1] = True
    for name, score in found.items():
        expected = empty if name.startswith("m_") else np.zeros_like(empty)
        np.testing.assert_array_equal(np.isnan(score), expected, err_msg=name)


def test_the_gradient_of_ssim_equals_finite_differences():
    random = np.random.default_rng(1)
    video, truth = jnp.asarray(random.random((2, 1, 14, 15, 2)), jnp.float32)
    direction = jnp.asarray(random.normal(size=video.shape), jnp.float32)
    slope = (jax.grad(lambda frames: image.ssim(frames, truth).sum())(video) * direction).sum()
    step = 1e-2
    above, below = (image.ssim(video + sign * step * direction, truth).sum() for sign in (1, -1))
    np.testing.assert_allclose(slope, (above - below) / (2 * step), rtol=2e-2)


def test_jit_changes_nothing(pair):
    video, truth = (jnp.asarray(pair[name], jnp.float32) / 255 for name in ("video", "truth"))
    np.testing.assert_allclose(
        jax.jit(image.ssim)(video, truth), image.ssim(video, truth), rtol=1e-5
    )


def test_frames_smaller_than_the_window_are_refused_by_size():
    with pytest.raises(UserError, match="at least 11x11, these are 10x40"):
        image.ssim(jnp.zeros((10, 40, 3)), jnp.zeros((10, 40, 3)))
