"""Trains all stages of a config in a run directory; resumes an interrupted run.

    psrjax train --config=NAME --workdir=DIR
    psrjax train --config=NAME --workdir=DIR --profile=10:12
    psrjax train --config=NAME --workdir=DIR --rewind=STEP
    psrjax train --config=NAME --workdir=DIR --replay

--profile writes a trace of those steps into DIR/STAGE/plugins/profile, for TensorBoard or xprof.
--rewind removes the checkpoints after STEP of the stage begun last and goes on from there, as with
a lower learning rate where the loss has jumped; `psrjax data check DIR` verifies them all.
--replay makes the steps after the last checkpoint again, to tell which one was not finite and by
which clips; it writes nothing.
"""

import contextlib
from typing import Any

import jax
from absl import flags
from etils import epath

from psrjax.api import training
from psrjax.cli import main as cli
from psrjax.errors import UserError
from psrjax.runtime import run_record
from psrjax.training import profile

_CONFIG = cli.define_config()
_WORKDIR = flags.DEFINE_string("workdir", None, "the run directory, local or gs://", required=True)
_PROFILE = flags.DEFINE_string("profile", "", "START:STOP, the steps of each stage to trace")
_REWIND = flags.DEFINE_integer("rewind", 0, "the checkpoint's step to go back to", 0)
_REPLAY = flags.DEFINE_bool("replay", False, "look at each step after the last checkpoint")


def main(arguments: list[str]) -> None:
    """Trains; a finished stage is skipped."""
    del arguments
    if not _WORKDIR.value:
        raise UserError("--workdir: name the run's directory")
    config, traced = _CONFIG.require(), profile.parse(_PROFILE.value)
    if _REPLAY.value and _REWIND.value:
        raise UserError("--replay: writes nothing; leave --rewind out, or rewind first")
    how: Any = {"traced": traced, "rewind": _REWIND.value, "replay": _REPLAY.value}
    timed = contextlib.nullcontext()
    if jax.process_index() == 0 and not _REPLAY.value:
        record = run_record.RunRecord(epath.Path(_WORKDIR.value), cli.typed())
        timed = record.part(run_record.TRAINING)
    with timed:
        training.train(config, _WORKDIR.value, **how)
