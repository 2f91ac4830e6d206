"""Chooses the frames of a dataset that are scored: a prepared split, else those held back."""

import copy
from collections.abc import Mapping
from typing import Any

from absl import logging

from psrjax import config as config_lib
from psrjax.config import RunConfig
from psrjax.data import loader, store
from psrjax.synthetic import dataset

TEST = "test"  # the split that `psrjax prepare` holds out
_SOURCE_SHARE = 3  # of a short clip no more than this part gives source frames


def with_prepared_split(config: RunConfig) -> RunConfig:
    """Returns the config of a run whose dataset has a split of unseen frames.

    A preset that holds back frames of its training split, for want of another one, then trains on
    all of that split and is scored on "test". Other configs are returned as they are.
    """
    data = config.data
    if not data.sampling.held_back or data.eval_split != data.train_split:
        return config
    if data.path == dataset.SYNTHETIC or TEST not in store.read_manifest(data.path)["splits"]:
        return config
    logging.info(
        "%s has a split %r: it is scored, and all of %r is trained on", *(data.path, TEST),
        data.train_split,
    )  # fmt: skip
    changes = {"data.eval_split": TEST, "data.sampling.held_back": 0.0}
    return config_lib.update(copy.deepcopy(config), changes)


def for_scoring(config: RunConfig, split: str = "") -> RunConfig:
    """Returns the config by which a split is scored; its `data.eval_split` names it.

    Nothing of another split than the trained one is held back. A method of one person then gets its
    source frames from the split that it was trained on, as in synthesis, and other clips are scored
    whole; where there is no such split, short clips give fewer source frames than `k_evaluation`,
    so that two thirds of each are scored.

    Args:
      config: of the run.
      split: by default that of the config, see `with_prepared_split`.
    """
    if split:
        config = config_lib.update(copy.deepcopy(config), {"data.eval_split": split})
    else:
        config = with_prepared_split(config)
    data = config.data
    if data.eval_split == data.train_split:
        return config
    changes: dict[str, Any] = {"data.sampling.held_back": 0.0}
    count = data.sampling.k_evaluation
    resolved: Mapping[str, Any] = dataset.resolve_path(data)
    if count and data.train_split in loader.splits(resolved):
        changes["data.sampling.source_split"] = data.train_split
    elif count:
        shortest = min(clip.frames for clip in loader.open_split(resolved, data.eval_split).clips)
        fitting = max(data.sampling.k, min(count, shortest // _SOURCE_SHARE))
        if fitting < count:
            line = "%d source frames of each clip, not %d: the shortest of split %r has %d frames"
            logging.info(line, fitting, count, data.eval_split, shortest)
        changes["data.sampling.k_evaluation"] = fitting
    return config_lib.update(copy.deepcopy(config), changes)
