"""The demo: renders a data set, trains all stages, scores them, and shows what came out."""

import dataclasses
import datetime
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from absl import logging
from etils import epath
from tqdm.auto import tqdm

from psrjax import io
from psrjax.data import codec, loader, sampling
from psrjax.evaluation import method_evaluation
from psrjax.inference import novel_view
from psrjax.methods.base import Method
from psrjax.reporting import report
from psrjax.runtime import machine
from psrjax.synthetic import dataset
from psrjax.training import checkpoint, stages
from psrjax.vision import drawing

SHOWN = 3  # comparison videos, of different clips and pairs of views


@dataclasses.dataclass(frozen=True)
class Shown:
    """What the demo made: the report's path, the scores' rows and the seconds of each part."""

    report: epath.Path
    rows: list[dict[str, Any]]
    parts: list[dict[str, Any]]
    peak_memory_gib: float


def run(config: Any, workdir: str, *, command: str) -> Shown:
    """Does everything, or what is left of it, and writes `<workdir>/report.html`.

    A call after an interrupted one renders and trains nothing that is there already.

    Args:
      config: a locked config.
      workdir: the run's directory.
      command: what the user typed, for the report.

    Raises:
      UserError: as training and evaluation do.
    """
    root = epath.Path(workdir)
    clock = _Clock(root / "run.json", command)
    with clock.part("render the people"):
        dataset.resolve_path(config.data)
    with clock.part("train, compilation included"):
        stages.train(config, workdir)
    method, variables, config, _ = checkpoint.restore_for_inference(workdir)
    with clock.part("score on unseen people"):
        found = method_evaluation.evaluate(method, variables, config, show_progress=True)
        method_evaluation.write(root, found)
    with clock.part("comparison videos"):
        show_clips(method, variables, config, root / "videos")
    page = report.write(workdir)
    return Shown(page, found.rows, clock.parts(), machine.peak_memory_gib())


def show_clips(method: Method, variables: Any, config: Any, folder: epath.Path) -> None:
    """Synthesizes whole clips, of different people and pairs of views, and lists them.

    Args:
      method: with its `variables`, as `checkpoint.restore_for_inference` gives them.
      variables: its parameters and statistics.
      config: the run's; its evaluation split is shown.
      folder: where the comparison videos, their strips and `index.json` go.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source = loader.open_split(dataset.resolve_path(config.data), config.data.eval_split)
    spread = np.linspace(0, len(source.clips) - 1, min(SHOWN, len(source.clips))).round()
    entries, how = [], sampling.policy(config.data.sampling)
    chosen = [source.clips[int(place)] for place in spread]
    for number, clip in enumerate(tqdm(chosen, "comparison videos", unit="clip")):
        views = tuple(clip.views)
        pair = (views[number % len(views)], views[(number + 1) % len(views)])
        known = sampling.pairs(clip, how)  # each view with itself, where a method keeps its camera
        pair = pair if pair in known else known[number % len(known)]
        inputs = novel_view.from_data(method, config, clip=clip.name, views=pair)
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


class _Clock:
    """Times the parts of a run, over all calls that it took, in `run.json`."""

    def __init__(self, path: epath.Path, command: str):
        self._path = path
        record = io.read_json(path) if path.exists() else {"parts": []}
        self._parts = {part["name"]: part for part in record["parts"]}
        self._record = {
            "command": command,
            "commit": machine.commit(),
            "machine": machine.describe(),
            "versions": machine.versions(),
        }

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Times one part. A part that was cut off goes on counting; one that was done and is only
        looked through again keeps its time."""
        logging.info("%s", name)
        part = self._parts.setdefault(name, {"name": name, "seconds": 0.0, "done": False})
        before, was_done, started = part["seconds"], part["done"], time.monotonic()
        try:
            yield
            part["done"] = True
        finally:
            taken = time.monotonic() - started
            part["seconds"] = max(before, taken) if was_done else before + taken
            self.write()

    def write(self) -> None:
        """Writes what is known so far."""
        now = datetime.datetime.now(datetime.UTC)
        io.write_json(
            self._path,
            {
                **self._record,
                "finished": now.strftime("%Y-%m-%d %H:%M UTC"),
                "parts": self.parts(),
                "peak_memory_gib": machine.peak_memory_gib(),
            },
        )

    def parts(self) -> list[dict[str, Any]]:
        """[{"name", "seconds", "done"}] in the order in which they were begun."""
        return list(self._parts.values())
