"""Joints of the synthetic dataset that are off in each frame, as a detector's are."""

import numpy as np
import pytest

from psrjax.errors import UserError
from psrjax.synthetic import dataset

SETTINGS = {"kind": "long", "size": (32, 24), "frames": 80, "streams": ("frames", "mask", "joints")}


def rendered(noise):
    """Renders the clip's runs of frames and joins them."""
    config = dataset.make_config(SETTINGS | {"joint_noise": noise})
    runs = [dataset.render_clip(config, spec) for spec in dataset.clip_specs(config)["train"]]
    assert len(runs) == 2  # each run draws its own frames' noise
    return {
        name: np.concatenate([views[0].streams[name] for views in runs])
        for name in SETTINGS["streams"]
    }


def test_noisy_joints_are_off_by_the_named_share_of_the_height_and_pictures_are_not():
    exact, noisy = rendered(0.0), rendered(0.02)
    for name in ("frames", "mask"):
        np.testing.assert_array_equal(exact[name], noisy[name])
    np.testing.assert_array_equal(exact["joints"][..., 2], noisy["joints"][..., 2])
    found = exact["joints"][..., 2] > 0
    error = (noisy["joints"] - exact["joints"])[..., :2] * np.array([24 / 2, 32 / 2])  # pixels
    assert not error[~found].any() and found.sum() > 1000
    np.testing.assert_allclose(error[found].std(0), 0.02 * 32, rtol=0.05)
    np.testing.assert_allclose(error[found].mean(0), 0.0, atol=0.05)
    between = np.corrcoef(error[1:][found[1:] & found[:-1]].T, error[:-1][found[1:] & found[:-1]].T)
    assert np.abs(between[:2, 2:]).max() < 0.1  # frames are off independently


def test_noise_of_joints_beyond_half_a_picture_is_refused():
    with pytest.raises(UserError, match="joint_noise"):
        dataset.make_config(SETTINGS | {"joint_noise": 0.6})
