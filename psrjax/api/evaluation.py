"""Scores of trained runs."""

import copy
import os
from collections.abc import Sequence

from psrjax import config as config_lib
from psrjax.api.model import Model, load
from psrjax.evaluation import method_evaluation
from psrjax.evaluation.method_evaluation import Evaluation


def evaluate(
    run: str | os.PathLike | Model,
    *,
    data: str = "",
    split: str = "",
    windows: str = "auto",
    metrics: Sequence[str] = (),
    k: int = 0,
    limit: int = 0,
    show_progress: bool = False,
) -> Evaluation:
    """Scores a run and its baselines on frames that it has not seen.

    Args:
      run: its directory, or a model.
      data: a stored dataset; by default the run's own.
      split: by default "test" where the dataset has it, else what the run held back.
      windows: see `method_evaluation.evaluate`.
      metrics: further ones.
      k: source frames of each window; 0 is as the run has it.
      limit: the number of windows at most; 0 is all.
      show_progress: whether to show a progress bar.

    Returns:
      The evaluation: its `rows` are the table, `psrjax.evaluation.method_evaluation.write` writes
      it to files.

    Raises:
      UserError: if there is nothing to score, or a metric lacks what it needs.
    """
    model = run if isinstance(run, Model) else load(run)
    given = {"data.path": data, "data.sampling.k_evaluation": k}
    config = config_lib.update(
        copy.deepcopy(model.config), {key: value for key, value in given.items() if value}
    )
    return method_evaluation.evaluate(
        model.method,
        model.variables,
        config,
        split=split,
        windows=windows,
        metrics=metrics,
        limit=limit,
        show_progress=show_progress,
    )
