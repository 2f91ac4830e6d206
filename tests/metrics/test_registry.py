"""Every metric is computed by a function and weights that exist, within its limits."""

import contextlib
import importlib

import jax.numpy as jnp
import numpy as np
import pytest

from psrjax import metrics
from psrjax.errors import UserError
from psrjax.evaluation import challenging_poses, clip_metrics, score_table, set_metrics
from psrjax.metrics import detail, image, interpolation, keypoints
from psrjax.metrics import registry as metric_registry
from psrjax.pretrained import registry
from psrjax.reporting import paper_tables


@pytest.mark.parametrize("name", metrics.available())
def test_a_metric_names_its_function_and_its_networks(name):
    metric = metrics.get(name)
    module, _, function = metric.function.partition(".")
    assert callable(getattr(importlib.import_module(f"psrjax.metrics.{module}"), function))
    assert set(metric.networks) <= set(registry.NETWORKS)
    assert metric.of in ("frame", "pair", "clip", "set")


def test_the_pose_metrics_are_those_that_counts_give():
    counts = dict.fromkeys(
        ("distance", "distance_l1", "both", "measured", "true_positive", "false_positive")
        + ("false_negative", "missing_share", "frames")
        + tuple(f"within_{limit}" for limit in keypoints.PCK),
        1.0,
    )
    named = {name for name, m in metrics.available().items() if "detected_joints" in m.needs}
    assert keypoints.scores(counts).keys() == named


def test_a_metric_in_percent_is_100_at_best_as_the_papers_print_it():
    percent = {name for name, m in metrics.available().items() if m.unit == "%"}
    assert percent == {"pck@0.2", "pck@0.05", "pck@0.01", "precision", "recall", "f1"}
    joints = jnp.asarray(np.random.default_rng(0).uniform(1, 9, (4, 26, 3)), jnp.float32)
    counts = keypoints.counts(joints, joints)
    best = keypoints.scores({name: value.sum() for name, value in counts.items()})
    assert {best[name] for name in percent} == {100.0}
    printed = [
        row.paper[column]
        for table in paper_tables.tables().values()
        for column, metric in table.columns.items()
        if metric in percent
        for row in table.rows
    ]
    assert printed and min(printed) > 1.0 and max(printed) <= 100.0
    assert score_table.format_metric("f1", 5.0) == "5.00"


def test_decibels_pixels_and_numbers_are_told_apart():
    units = {name: m.unit for name, m in metrics.available().items()}
    assert {name for name, unit in units.items() if unit == "pixels"} == {"kp_l2", "akd"}
    assert units["psnr"] == units["m_psnr_in"] == "dB" and units["ssim"] == units["mkr"] == ""
    assert set(units.values()) == {"dB", "%", "pixels", ""}


def test_untrained_networks_are_asked_for_by_name_only():
    assert metrics.get("fid").networks == ("inception",)
    assert metrics.get("rand_fid").networks == ("inception:random",)
    for name in ("rand_psnr", "rand_rand_fid", "fidd"):
        with pytest.raises(UserError, match=f"no metric '{name}'"):
            metrics.get(name)


def test_an_evaluation_computes_every_metric_of_the_registry():
    plain = {name.removeprefix(metric_registry.RANDOM) for name in metric_registry.FURTHER}
    joints = {name for name, m in metrics.available().items() if "detected_joints" in m.needs}
    of_clips = {*clip_metrics._OF_ARRAYS, *clip_metrics._OF_CLIPS}
    computed = {*of_clips, *set_metrics._FEATURES, *challenging_poses.METRICS, *joints}
    assert computed == plain and plain | set(metric_registry.BASIC) == set(metrics.available())


def masked(function):
    return lambda made, truth: function(made, truth, jnp.ones((*made.shape[:-1], 1)))


def three_frames(made, truth):
    videos = (
        np.repeat((255 * np.asarray(video)).astype(np.uint8), 3, 0) for video in (made, truth)
    )
    return interpolation.interp_psnr(*videos)


FUNCTIONS = {
    "ssim": image.ssim,
    "ssim_uniform7": image.ssim_uniform7,
    "m_ssim_zero": masked(image.m_ssim_zero),
    "m_ssim_in": masked(image.m_ssim_in),
    "ms_ssim": detail.ms_ssim,
    "sd_lua": detail.sd_lua,
    "sd_eq": detail.sd_eq,
    "interp_psnr[dis]": three_frames,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_smallest_side_is_the_smallest_that_tells_frames_apart(name):
    def differs(side):
        random = np.random.default_rng(0)
        truth, made = jnp.asarray(random.uniform(0.1, 0.9, (2, 1, side, side, 3)), jnp.float32)
        same, other = (FUNCTIONS[name](frames, truth) for frames in (truth, made))
        return np.abs(np.asarray(other) - np.asarray(same)).max() > 1e-3

    side = metrics.get(name).side
    assert differs(side)
    with contextlib.suppress(UserError):
        assert not differs(side - 1)
