"""Writes an HTML page of runs: scores, papers' tables, curves and videos in one file.

psrjax report RUN... [--output page.html]
psrjax report RUN... --output gallery.md

Several runs of the same data also synthesize some unseen clips anew, shown side by side: as the
papers show their ablations. A page that ends in .md is a gallery: clips of each run, as animations
in a folder beside it, with its scores and the command that trained it. With --overwrite a gallery
keeps its sections of other runs.
"""

from collections.abc import Sequence

from absl import flags

from psrjax import io
from psrjax.errors import UserError
from psrjax.reporting import gallery, report

_WORKDIR = flags.DEFINE_string("workdir", "", "a run's directory; more may follow the flags")
_OUTPUT = flags.DEFINE_string(
    "output", "", "the page, .html or .md; by default report.html, of one run in RUN"
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "write over what lies at --output")
_STRIPS = flags.DEFINE_integer(
    "strips", 3, "clips that several runs show side by side, or each in a gallery; 0 is none"
)
_INTERMEDIATES = flags.DEFINE_bool("intermediates", False, "the steps below each of these too")


def main(arguments: Sequence[str]) -> None:
    """Writes the page and prints its path."""
    folders = [*([_WORKDIR.value] if _WORKDIR.value else []), *arguments]
    if not folders:
        raise UserError("report: name the directories of runs: psrjax report RUN...")
    if _OUTPUT.value:
        io.require_new(_OUTPUT.value, overwrite=_OVERWRITE.value)
    if _OUTPUT.value.endswith(".md"):
        print(gallery.write(*folders, output=_OUTPUT.value, clips=_STRIPS.value))
        return
    strips = _STRIPS.value if len(folders) > 1 else 0
    page = report.write(
        *folders, output=_OUTPUT.value, strips=strips, intermediates=_INTERMEDIATES.value
    )
    print(page)
