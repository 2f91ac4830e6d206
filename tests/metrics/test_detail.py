"""MS-SSIM, SSIM and PSNR equal pytorch-msssim's and torchmetrics' recorded values; the sharpness
differences equal their definitions written out.
"""

import runpy
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psrjax.errors import UserError
from psrjax.metrics import detail, image

SCRIPT = Path(__file__).parents[1] / "golden" / "scores.py"
golden = types.SimpleNamespace(**runpy.run_path(str(SCRIPT)))
PAIRS = golden.pairs()
VALUES = np.load(golden.FILE)


@pytest.mark.parametrize("name", PAIRS)
def test_ms_ssim_ssim_and_psnr_equal_the_references(name):
    video, truth = (jnp.asarray(x)[None] for x in PAIRS[name])
    tolerance = {"psnr": 1e-4, "ssim": 1e-5, "ms_ssim": 1e-5, "ssim_map": 1e-4}
    found = measure(video, truth)
    for metric, value in {**found, "ssim_map": found["ssim"]}.items():
        expected = VALUES[f"{name}_{metric}"]
        np.testing.assert_allclose(value[0], expected, atol=tolerance[metric], err_msg=metric)


@jax.jit
def measure(video, truth):
    metrics = {"psnr": image.psnr, "ssim": image.ssim, "ms_ssim": detail.ms_ssim}
    return {name: metric(video, truth) for name, metric in metrics.items()}


def test_ms_ssim_of_frames_with_themselves_is_one_and_small_frames_are_refused():
    video = jnp.asarray(PAIRS["natural"][0])
    np.testing.assert_allclose(jax.jit(detail.ms_ssim)(video, video), 1.0, atol=1e-6)
    with pytest.raises(UserError, match="more than 160 pixels a side, these are 160x184"):
        detail.ms_ssim(video[:160], video[:160])


def small():
    random = np.random.default_rng(0)
    return random.random((2, 7, 9, 3)), random.random((2, 7, 9, 3))


def test_sd_lua_equals_the_loop_over_inner_pixels():
    made, true = small()
    expected = []
    for x, y in zip(made, true):
        total = 0.0
        for i in range(1, 6):
            for j in range(1, 8):
                for a in (0, 1):
                    before = (i - 1, j) if a == 0 else (i, j - 1)
                    total += np.abs(np.abs(x[i, j] - x[before]) - np.abs(y[i, j] - y[before])).sum()
        expected.append(10 * np.log10(255**2 / (128**2 / (3 * 7 * 9) * total)))
    found = detail.sd_lua(*(jnp.asarray(v, jnp.float32) for v in (made, true)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_sd_eq_equals_the_printed_equation():
    made, true = small()
    expected = []
    for x, y in zip(made, true):
        steep = [np.abs(v[1:, 1:] - v[:-1, 1:]) + np.abs(v[1:, 1:] - v[1:, :-1]) for v in (x, y)]
        expected.append(10 * np.log10(1 / np.abs(steep[1] - steep[0]).mean()))
    found = detail.sd_eq(*(jnp.asarray(v, jnp.float32) for v in (made, true)))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_sharpness_differences_have_a_ceiling_and_fall_with_blur():
    true = jnp.asarray(PAIRS["natural"][1])
    soft, softer = (sum(jnp.roll(true, i, 0) for i in range(n)) / n for n in (2, 4))
    for metric in (detail.sd_lua, detail.sd_eq):
        scores = [float(metric(x, true)) for x in (true, soft, softer)]
        assert scores[0] > scores[1] > scores[2]
        assert np.isfinite(scores).all()
