"""Writes a run as one file to take along: what synthesis needs, at half precision.

psrjax export RUN FILE.safetensors

Every command that takes a run takes the file as well, and so does psrjax.load(FILE). With --card
a model card stands beside it, FILE.md: what it is, how it scores where RUN was evaluated, and gaps
for what only its maker knows. With

    --clips CLIP:FIRST:END,DIR:CLIP:FIRST:END

footage to show it with lies beside it too: these frames of the run's data, or of the dataset DIR,
each a dataset, in the folders FILE/1 and FILE/2. `bash launch/local.sh show` runs the commands of
the cards that lie in docs/checkpoints.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from psrjax.api import model
from psrjax.data import excerpt, loader, sampling
from psrjax.data.source import Source
from psrjax.errors import UserError
from psrjax.reporting import model_card
from psrjax.synthetic import dataset

_STAGE = flags.DEFINE_string("stage", "", "a stage of the run; by default the last finished one")
_SNAPSHOT = flags.DEFINE_enum(
    "snapshot", "newest", ["newest", "best"], "of the stage: its newest checkpoint, or the best by "
    "config.keep_best"
)  # fmt: skip
_CARD = flags.DEFINE_bool("card", False, "write a model card, FILE.md, where there is none")
_CLIPS = flags.DEFINE_list("clips", [], "to show it with: CLIP:FIRST:END of the run's data, …")
_SPLIT = flags.DEFINE_string("split", "", "of the run's data; by default config.data.eval_split")


def main(arguments: Sequence[str]) -> None:
    """Writes the file and prints its path and size."""
    if len(arguments) != 2:
        raise UserError("write: psrjax export RUN FILE.safetensors")
    run, file = arguments[0], Path(arguments[1])
    loaded = model.load(run, stage=_STAGE.value, best=_SNAPSHOT.value == "best")
    method = loaded.method
    streams = {sampling.stream(key) for key in (*method.reads, *method.synthesis_reads)}
    excerpts = [_excerpt(text, loaded.config.data) for text in _CLIPS.value]
    loaded.export(file)
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB")
    for number, (split, clip, frames) in enumerate(excerpts, 1):
        folder = file.with_suffix("") / str(number)
        excerpt.write(folder, split, clip, frames, streams)
        print(folder)
    if _CARD.value:
        print(model_card.write(file, loaded.config, run))


def _excerpt(text: str, data: Any) -> tuple[Source, str, range]:
    try:
        *places, first, end = text.split(":")
        directory, clip = ["", *places][-2:]
        frames = range(int(first), int(end))
    except ValueError as error:
        raise UserError(
            f"--clips={text}: write it as CLIP:FIRST:END, such as p0_walk:0:40, or "
            "DIR:CLIP:FIRST:END"
        ) from error
    if not directory:
        split = loader.open_split(dataset.resolve_path(data), _SPLIT.value or data.eval_split)
        return split, split.clip(clip).name, frames
    splits = [Source(directory, name) for name in loader.splits({"path": directory})]
    there = [split for split in splits if clip in [each.name for each in split.clips]]
    if not there:
        known = ", ".join(each.name for split in splits for each in split.clips)
        raise UserError(f"--clips={text}: {directory} has no clip {clip!r}; there are {known}")
    return there[0], clip, frames
