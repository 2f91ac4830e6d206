"""Writes a run as one file to take along: what synthesis needs, at half precision.

psrjax export RUN FILE.safetensors

Every command that takes a run takes the file as well, and so does psrjax.load(FILE). With --card
a model card stands beside it, FILE.md: what it is, how it scores where RUN was evaluated, and gaps
for what only its maker knows.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from psrjax.api import model
from psrjax.errors import UserError
from psrjax.reporting import model_card

_STAGE = flags.DEFINE_string("stage", "", "a stage of the run; by default the last finished one")
_SNAPSHOT = flags.DEFINE_enum(
    "snapshot", "newest", ["newest", "best"], "of the stage: its newest checkpoint, or the best by "
    "config.keep_best"
)  # fmt: skip
_CARD = flags.DEFINE_bool("card", False, "write a model card, FILE.md, where there is none")


def main(arguments: Sequence[str]) -> None:
    """Writes the file and prints its path and size."""
    if len(arguments) != 2:
        raise UserError("write: psrjax export RUN FILE.safetensors")
    run, file = arguments[0], Path(arguments[1])
    loaded = model.load(run, stage=_STAGE.value, best=_SNAPSHOT.value == "best")
    loaded.export(file)
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
    if _CARD.value:
        print(model_card.write(file, loaded.config, run))
