"""Training of a config on its data."""

import copy
import os
from collections.abc import Callable, Mapping
from typing import Any

from absl import logging

from psrjax import config as config_lib
from psrjax.config import RunConfig
from psrjax.data import loader
from psrjax.evaluation import evaluated_split
from psrjax.runtime import jax_setup
from psrjax.synthetic import dataset
from psrjax.training import refinement, stages, writer


def train(
    config: str | RunConfig,
    workdir: str | os.PathLike,
    overrides: Mapping[str, Any] = {},
    *,
    progress: Callable[[str, int, int], writer.Progress] | None = None,
    traced: range = range(0),
    rewind: int = 0,
    replay: bool = False,
) -> None:
    """Trains all stages of a config in a run directory; goes on where it was cut off.

    Args:
      config: "METHOD", "METHOD:PRESET", a file, or what `psrjax.config.load` gives.
      workdir: the run's directory, local or gs://.
      overrides: {dotted key: value}, such as {"data.path": "data/me", "steps": 500}.
      progress: makes what shows the progress of a stage, from (stage, first step, last step).
      traced: the steps of each stage that are profiled.
      rewind: the step of a checkpoint to go back to; those after it are removed.
      replay: makes the steps after the last checkpoint again and looks at each, to find the one
        that was not finite and its clips; nothing is written.

    Raises:
      UserError: for a config, data or directory that does not fit.
    """
    jax_setup.use_compilation_cache()
    if isinstance(config, str):
        config = config_lib.load(config, overrides)
    elif overrides:
        config = config_lib.override(copy.deepcopy(config), overrides)
    config = refinement.with_estimator(config)
    config = evaluated_split.with_prepared_split(config)
    _tell_crop(config)
    how: Any = {"progress": progress, "traced": traced, "rewind": rewind, "replay": replay}
    stages.train(config, workdir, **how)


def _tell_crop(config: RunConfig) -> None:
    """Says what a crop that is smaller than the stored frames leaves out."""
    if config.data.path == dataset.SYNTHETIC or not any(config.data.crop):
        return
    source = loader.open_split(dataset.resolve_path(config.data), config.data.train_split)
    stored = next(iter(source.clips[0].views.values())).size
    crop = tuple(want or have for want, have in zip(config.data.crop, stored))
    if crop != stored:
        logging.warning(
            "config.data.crop=%dx%d cuts the stored %dx%d: training sees a random part of each "
            "frame, scores and videos its middle; --config.data.crop='(0,0)' takes all of it",
            *(*crop, *stored),
        )
