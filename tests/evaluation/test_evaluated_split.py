"""A prepared split of unseen frames is scored; what a preset holds back is for data without one."""

import numpy as np
import pytest

from psrjax import config as config_lib
from psrjax.data import loader, sampling
from psrjax.evaluation import evaluated_split
from psrjax.synthetic import dataset


@pytest.fixture
def config(dataset_folder):
    """A preset that holds back frames of "train", on data that has a "test" of 12 frames."""
    return config_lib.load("hpt:tiny", {"data.path": str(dataset_folder)})


def test_training_takes_all_of_train_and_scores_are_of_test(config):
    assert config.data.eval_split == "train" and config.data.sampling.held_back == 0.2
    data = evaluated_split.with_prepared_split(config).data
    assert (data.eval_split, data.sampling.held_back) == ("test", 0.0)
    assert config.data.eval_split == "train"  # a copy was changed


def test_what_is_rendered_or_has_no_such_split_is_held_back_as_before(config, monkeypatch):
    rendered = config_lib.load("hpt:tiny")
    assert evaluated_split.with_prepared_split(rendered) is rendered
    monkeypatch.setattr(evaluated_split, "TEST", "another")
    assert evaluated_split.with_prepared_split(config) is config


def test_source_frames_are_of_the_trained_clip_and_others_are_scored_whole(config):
    data = evaluated_split.for_scoring(config).data
    how = {"split": data.eval_split, "windows": "all"}
    batches = loader.evaluation_batches(data, ("source", "target"), batch=2, **how)
    shown = loader.open_split(data, "train").clips[0]
    every = np.linspace(0, shown.frames - 1, 64).round().astype(int)
    expected = loader.open_split(data, "train").read(shown.name, "cam1", "frames", every)
    height, width = (want or have for want, have in zip(data.crop, expected.shape[1:3]))
    top, left = (expected.shape[1] - height) // 2, (expected.shape[2] - width) // 2
    expected = expected[:, top : top + height, left : left + width]
    scored = set()
    for batch, ids in batches:
        for source in np.asarray(batch["source"]):
            np.testing.assert_array_equal(source, expected)
        scored |= {row["start"] + i for row in ids for i in range(data.sampling.t)}
    assert scored == set(range(12))


def test_without_the_trained_split_clips_are_scored_behind_their_own_source_frames(
    config, monkeypatch
):
    monkeypatch.setattr(loader, "splits", lambda data: ("test",))
    data = evaluated_split.for_scoring(config).data
    policy = sampling.policy(data.sampling)
    assert data.eval_split == "test" and policy.k_evaluation == 4  # a third of 12, not 64
    source = loader.open_split(dataset.resolve_path(data), "test")
    windows = sampling.evaluation_windows(source, policy, "all")
    frames = {frame for window in windows for frame in window.target_frames}
    assert frames == set(range(4, 12))


def test_a_split_that_is_named_is_scored_whole_and_the_trained_one_only_behind(config):
    assert evaluated_split.for_scoring(config, "test").data.sampling.held_back == 0.0
    assert evaluated_split.for_scoring(config, "train").data.sampling.held_back == 0.2
