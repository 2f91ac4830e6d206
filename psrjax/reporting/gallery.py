"""A gallery of runs in Markdown: clips that move, their scores, and what made them."""

import os
import re
from typing import Any

import numpy as np
from etils import epath
from tqdm.auto import tqdm

from psrjax import io
from psrjax.data import sampling, video
from psrjax.data.source import Source
from psrjax.evaluation import evaluated_split, failure_gallery, score_export
from psrjax.inference import novel_view, output_files, synthesizer
from psrjax.reporting import run_summary
from psrjax.reporting.run_summary import RunFolder
from psrjax.runtime import run_record
from psrjax.synthetic import dataset
from psrjax.training import checkpoint

_FRAMES = 48  # of each clip: a page stays small enough to be looked at
_WORST = 2  # pictures of the frames that were scored worst


def write(*folders: str | os.PathLike, output: str | os.PathLike, clips: int = 1) -> epath.Path:
    """Writes a page of runs, and its animations and pictures into a folder named after it.

    Each run has some clips of its evaluation split, with what was given, the result and the truth
    side by side; the worst frames of its last evaluation; the scores of that; and the command that
    trained it, with its time and machine, as `psrjax train` recorded them.

    Sections of a page that exists stay as they are, words of yours included, but those of the given
    runs, which are written anew. A run that the page does not have yet comes first.

    Args:
      folders: of runs.
      output: the page, "NAME.md".
      clips: how many each run shows, spread over the split and over pairs of views.

    Returns:
      The path of the page.

    Raises:
      UserError: if a folder is not the directory of a run, or the run has no checkpoint.
    """
    page = epath.Path(output)
    beside = page.parent / page.stem
    beside.mkdir(parents=True, exist_ok=True)
    before, known = _sections(page.read_text() if page.exists() else "# Gallery\n")
    made = {}
    for run in run_summary.open_runs(folders):
        heading, *parts = _section(run, beside, clips)
        made[heading] = "\n\n".join([heading, *parts]) + "\n"
    new = {heading: made[heading] for heading in made if heading not in known}
    io.write_text(page, "\n".join([before, *(new | known | made).values()]))
    return page


def _sections(text: str) -> tuple[str, dict[str, str]]:
    """Returns (what stands before the first heading of the second level, {heading: section})."""
    before, *parts = (
        part.rstrip("\n") + "\n" for part in re.split(r"^(?=## )", text, flags=re.MULTILINE)
    )
    return before, {part.split("\n", 1)[0]: part for part in parts}


def _section(run: RunFolder, beside: epath.Path, clips: int) -> list[str]:
    method, variables, config, stage = checkpoint.restore_for_inference(run.folder)
    config = evaluated_split.for_scoring(config)
    name = run.title.replace("/", "-")
    parts = [f"## {run.title}: {config.method.name}"]
    for number, inputs in enumerate(_inputs(method, config, clips), 1):
        made = novel_view.synthesize(method, variables, inputs)
        path = beside / f"{name}{number}.webp"
        videos = {**made.videos, "result": made.videos[made.steps[-1]]}
        labels = (synthesizer.SOURCE, "result", synthesizer.TRUTH)
        shown = {label: videos[label] for label in labels if label in videos}
        frames = video.beside({label: clip[:_FRAMES] for label, clip in shown.items()})
        output_files.write(path, iter(frames), times=made.times[:_FRAMES])
        height, width = shown["result"].shape[1:3]
        told = f"{inputs.name}, {width}x{height} pixels: {', '.join(shown)}"
        parts.append(f"![{', '.join(shown)}]({beside.name}/{path.name})\n\n*{told}*")
    if worst := _worst(run, beside, name):
        parts += ["What it cannot do: the frames of its evaluation that were scored worst.", *worst]
    if run.rows:
        parts.append(score_export.markdown(run.rows).strip())
    return [*parts, _made_by(run, stage)]


def _inputs(method: Any, config: Any, count: int) -> list[novel_view.NovelViewInputs]:
    source = Source(dataset.resolve_path(config.data)["path"], config.data.eval_split)
    policy = sampling.policy(config.data.sampling)
    known = [(clip, pair) for clip in source.clips for pair in sampling.pairs(clip, policy)]
    places = np.linspace(0, len(known) - 1, min(count, len(known))).round().astype(int)
    return [
        novel_view.from_scored(method, config, clip=known[place][0].name, views=known[place][1])
        for place in tqdm(places, "gallery", unit="clip")
    ]


def _worst(run: RunFolder, beside: epath.Path, name: str) -> list[str]:
    folder = run.folder / failure_gallery.FOLDER
    entries = run_summary.read_optional(folder / failure_gallery.INDEX, {})
    found = []
    for number, entry in enumerate(entries.get("worst", [])[:_WORST], 1):
        path = beside / f"{name}.worst{number}.png"
        with io.replacing(path) as temporary:
            temporary.write_bytes((folder / entry["picture"]).read_bytes())
        labels, score = ", ".join(entry["labels"]), entry["scores"]["psnr"]
        title = f"{entry['clip']}, {entry['pair']}, frame {entry['frame']}: {score:.1f} dB"
        found.append(f"![{labels}]({beside.name}/{path.name})\n\n*{title}. {labels}.*")
    return found


def _made_by(run: RunFolder, stage: str) -> str:
    config = checkpoint.read_run_config(run.folder)
    steps = run_summary.steps(config)
    lines = [f"Shown: stage {stage}. Steps: {steps}. Batch {config.batch}, seed {config.seed}."]
    record = run_summary.read_optional(run.folder / run_record.FILE, {})
    if record:
        lines.append(f"{run_record.cost(record)}:")
        # A page is for others: of a path of this machine it shows the last name.
        command = re.sub(r"(?<![^\s=,])/\S*/", "", record["command"])
        lines.append(f"\n```bash\n{command}\n```")
    return "\n".join(lines)
