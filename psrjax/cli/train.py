"""Trains all stages of a config in a run directory; resumes an interrupted run."""

from absl import flags

from psrjax.cli import main as cli
from psrjax.training import stages

_CONFIG = cli.define_config()
_WORKDIR = flags.DEFINE_string("workdir", None, "the run directory, local or gs://", required=True)


def main(arguments: list[str]) -> None:
    """Trains; a finished stage is skipped."""
    del arguments
    stages.train(_CONFIG.require(), _WORKDIR.value)
