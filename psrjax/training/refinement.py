"""A run that builds on another: its method becomes a frozen net of this one (`config.init.run`)."""

import copy
import json
from typing import Any

from flax import traverse_util

from psrjax import config as config_lib
from psrjax.config import RunConfig
from psrjax.errors import UserError
from psrjax.methods import base
from psrjax.training import checkpoint
from psrjax.training.state import TrainState, with_variables

_NET = "estimate"


def with_estimator(config: RunConfig) -> RunConfig:
    """Completes a config that builds on the run `config.init.run`: by that run's method.

    Where `config.data.path` is `base.RUN`, that run's data too; only the number of target frames
    stays its own.

    Raises:
      UserError: if a run is named and none is asked for, or the other way round.
    """
    asked = config.method.to_dict().get("estimator") == base.RUN
    if asked and not config.init.run:
        raise UserError("config.init.run: name the run to build on")
    if not config.init.run:
        return config
    if not asked:
        raise UserError(
            "config.init.run: this config builds on no run: presets refine and learned_texture do"
        )
    _, _, found, _ = checkpoint.restore_for_inference(config.init.run)
    changes: dict[str, Any] = {"method.estimator": json.dumps(config_lib.method_fields(found))}
    if config.data.path == base.RUN:
        changes |= {f"data.{key}": value for key, value in found.data.to_dict().items()}
        changes["data.sampling.t"] = config.data.sampling.t
    return config_lib.update(copy.deepcopy(config), changes)


def with_estimate(state: TrainState, run: str) -> TrainState:
    """Gives the net `estimate` of a fresh state the variables of a run."""
    _, theirs, _, _ = checkpoint.restore_for_inference(run)
    mine: dict[str, Any] = {"params": state.params, **state.stats}
    changed = {}
    for collection, nets in mine.items():
        wanted = traverse_util.flatten_dict(nets.get(_NET, {}))
        known = traverse_util.flatten_dict(dict(theirs.get(collection, {})))
        taken = traverse_util.unflatten_dict({path: known[path] for path in wanted})
        changed[collection] = {**nets, _NET: taken} if _NET in nets else nets
    return with_variables(state, changed)
