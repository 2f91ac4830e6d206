"""Trains all stages of a config in a run directory, and goes on where it was cut off."""

from absl import flags

from psrjax.cli import main as cli
from psrjax.training import stages

_CONFIG = cli.define_config()
_WORKDIR = flags.DEFINE_string("workdir", None, "the run directory, local or gs://", required=True)
flags.mark_flag_as_required("config")


def main(arguments: list[str]) -> None:
    """Trains; a finished stage is skipped."""
    del arguments
    stages.train(_CONFIG.value, _WORKDIR.value)
