"""Writes an HTML page of runs: scores, papers' tables, curves and videos in one file.

psrjax report RUN... [--output page.html]
"""

from collections.abc import Sequence

from absl import flags

from psrjax.errors import UserError
from psrjax.reporting import report

_WORKDIR = flags.DEFINE_string("workdir", "", "a run's directory; more may follow the flags")
_OUTPUT = flags.DEFINE_string("output", "", "the page; by default report.html, of one run in RUN")


def main(arguments: Sequence[str]) -> None:
    """Writes the page and prints its path."""
    folders = [*([_WORKDIR.value] if _WORKDIR.value else []), *arguments]
    if not folders:
        raise UserError("report: name the directories of runs: psrjax report RUN...")
    print(report.write(*folders, output=_OUTPUT.value))
