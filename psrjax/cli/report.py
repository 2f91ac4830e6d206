"""Writes report.html of a run: scores, loss curves and videos in one file."""

from collections.abc import Sequence

from absl import flags

from psrjax.training import report

_WORKDIR = flags.DEFINE_string("workdir", None, "the run's directory", required=True)


def main(arguments: Sequence[str]) -> None:
    """Writes the page and prints where it is."""
    del arguments
    print(report.write(_WORKDIR.value))
