"""Every metric by name is computed by a function that exists, from weights that exist."""

import importlib

import pytest

from psrjax import metrics
from psrjax.errors import UserError
from psrjax.metrics import keypoints
from psrjax.pretrained import registry


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
    named = {name for name, m in metrics.available().items() if m.needs == ("joints",)}
    assert keypoints.scores(counts).keys() == named


def test_untrained_networks_are_asked_for_by_name_only():
    assert metrics.get("fid").networks == ("inception",)
    assert metrics.get("rand_fid").networks == ("inception:random",)
    for name in ("rand_psnr", "rand_rand_fid", "fidd"):
        with pytest.raises(UserError, match=f"no metric '{name}'"):
            metrics.get(name)
