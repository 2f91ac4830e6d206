"""Runs the demo: renders a dataset, trains all stages, scores them and writes the report."""

import dataclasses
from typing import Any

import numpy as np
from absl import logging
from etils import epath
from tqdm.auto import tqdm

from psrjax import config as config_lib
from psrjax import io
from psrjax.data import codec, loader, sampling
from psrjax.evaluation import evaluated_split, method_evaluation
from psrjax.inference import novel_view
from psrjax.methods.base import Method
from psrjax.reporting import report
from psrjax.runtime import machine, run_record
from psrjax.synthetic import dataset
from psrjax.training import checkpoint, stages, writer
from psrjax.vision import drawing

SHOWN = 3  # comparison videos, of different clips and pairs of views
_SCORING, _VIDEOS = 0.03, 0.02  # seconds, as shares of those of training


@dataclasses.dataclass(frozen=True)
class DemoResult:
    """The report's path, the rows of the scores, and the seconds of each part."""

    report: epath.Path
    rows: list[dict[str, Any]]
    parts: list[dict[str, Any]]
    peak_memory_gib: float


def minutes() -> dict[str, int]:
    """Reads {method: minutes of its demo on one CPU core} from the configs, the default first."""
    found = {name: config_lib.module(name).DEMO for name in config_lib.names()}
    ordered = sorted(found, key=lambda name: not found[name].get("default", False))
    return {name: found[name]["minutes"] for name in ordered}


def run(config: Any, workdir: str, *, command: str, minutes: int = 0) -> DemoResult:
    """Does everything, or what is left of it, and writes `<workdir>/report.html`.

    A call after an interrupted one renders and trains nothing that is there already.

    Args:
      config: a locked config.
      workdir: the run's directory.
      command: what the user typed, for the report.
      minutes: how long all will take, where that is known.

    Raises:
      UserError: as training and evaluation do.
    """
    root = epath.Path(workdir)
    record, count = run_record.RunRecord(root, command), _StageCount(config)
    with record.part("render the people"):
        count.announce(1, "render the people", 60 * minutes)
        dataset.resolve_path(config.data)
    with record.part(run_record.TRAINING):
        stages.train(config, workdir, progress=count.training)
    trained = record.seconds(run_record.TRAINING)
    method, variables, config, _ = checkpoint.restore_for_inference(workdir)
    with record.part("score on unseen people"):
        count.announce(-1, "score on unseen people", trained * (_SCORING + _VIDEOS))
        found = method_evaluation.evaluate(method, variables, config, show_progress=True)
        method_evaluation.write(root, found)
    with record.part("comparison videos"):
        count.announce(0, "comparison videos", trained * _VIDEOS)
        show_clips(method, variables, config, root / "videos")
    page = report.write(workdir)
    return DemoResult(page, found.rows, record.parts(), machine.peak_memory_gib())


class _StageCount:
    """Counts what a demo does, from rendering to the videos, and tells the time left for all."""

    def __init__(self, config: Any):
        names = config.only or config.stages
        self._steps = {name: config_lib.stage_config(config, name).steps for name in names}
        self._count = len(names) + 3  # rendering, scoring and the videos

    def announce(self, number: int, name: str, seconds: float) -> None:
        """Logs that a stage begins; `number` counts from 1, or from the last one, which is 0."""
        number = number if number > 0 else self._count + number
        left = f", about {max(seconds / 60, 1):.0f} min left in all" if seconds else ""
        logging.info("stage %d of %d: %s%s", number, self._count, name, left)

    def training(self, name: str, start: int, total: int) -> writer.Progress:
        """Makes the progress of a stage of training."""
        place = list(self._steps).index(name)
        later = sum(list(self._steps.values())[place + 1 :])
        later += (_SCORING + _VIDEOS) * sum(self._steps.values())
        label = f"stage {place + 2} of {self._count}: train {name}"
        return writer.Progress(label, start, total, lambda pace: pace * later)


def show_clips(method: Method, variables: Any, config: Any, folder: epath.Path) -> None:
    """Synthesizes whole clips, of different people and pairs of views, and lists them.

    Args:
      method: with its `variables`, as `checkpoint.restore_for_inference` gives them.
      variables: its parameters and statistics.
      config: the run's; its evaluation split is shown.
      folder: where the comparison videos, their strips and `index.json` go.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = evaluated_split.for_scoring(config)
    source = loader.open_split(dataset.resolve_path(config.data), config.data.eval_split)
    spread = np.linspace(0, len(source.clips) - 1, min(SHOWN, len(source.clips))).round()
    entries, how = [], sampling.policy(config.data.sampling)
    chosen = [source.clips[int(place)] for place in spread]
    for number, clip in enumerate(tqdm(chosen, "comparison videos", unit="clip")):
        views = tuple(clip.views)
        pair = (views[number % len(views)], views[(number + 1) % len(views)])
        known = sampling.pairs(clip, how)  # each view with itself, where a method keeps its camera
        pair = pair if pair in known else known[number % len(known)]
        inputs = novel_view.from_scored(method, config, clip=clip.name, views=pair)
        made = novel_view.synthesize(method, variables, inputs)
        name = f"{clip.name}.{pair[0]}-{pair[1]}"
        _, compare = novel_view.write(folder / f"{name}.mp4", made)
        with io.replacing(folder / f"{name}.png") as path:
            path.write_bytes(codec.encode_png(drawing.grid(made.videos)))
        entries.append(
            {
                "title": inputs.name,
                "labels": list(made.videos),
                "video": compare.name,
                "strip": f"{name}.png",
            }
        )
    io.write_json(folder / "index.json", entries)
