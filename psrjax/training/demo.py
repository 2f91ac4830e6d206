"""The demo: renders a data set, trains all stages, scores them, and shows what came out."""

import datetime
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from absl import logging
from etils import epath

from psrjax import files
from psrjax.data import loader, video
from psrjax.training import checkpoint, evaluation, machine, report, stages, synthesis

SHOWN = 3  # comparison videos, of different clips and pairs of views


def run(config: Any, workdir: str, *, command: str) -> epath.Path:
    """Does everything, or what is left of it, and writes `<workdir>/report.html`.

    A second call with the same arguments renders and trains nothing that is there already.

    Args:
      config: a locked config whose method gives baselines.
      workdir: the run's directory.
      command: what the user typed, for the report.

    Returns:
      The path of the report.

    Raises:
      UserError: as training and evaluation do.
    """
    root = epath.Path(workdir)
    clock = _Clock(root / "run.json", command)
    with clock.part("render the people"):
        loader.prepare(config.data)
    with clock.part("train, compilation included"):
        stages.train(config, workdir)
    method, variables, config, _ = checkpoint.restore_for_inference(workdir)
    with clock.part("score on unseen people"):
        found = evaluation.evaluate(method, variables, config, show_progress=True)
        files.write_json(root / "results.json", found.rows)
    with clock.part("comparison videos"):
        _show(method, variables, config, root / "videos")
    clock.close()
    return report.write(workdir)


class _Clock:
    """Times the parts of a run, over all calls that it took, in `run.json`."""

    def __init__(self, path: epath.Path, command: str):
        self._path = path
        record = files.read_json(path) if path.exists() else {"parts": []}
        self._seconds = {part["name"]: part["seconds"] for part in record["parts"]}
        self._record = {
            "command": command,
            "commit": machine.commit(),
            "machine": machine.describe(),
            "versions": machine.versions(),
        }

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Times one part; the times of an earlier, interrupted call are added."""
        logging.info("%s", name)
        started = time.monotonic()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.monotonic() - started
            self.close()

    def close(self) -> None:
        """Writes what is known so far."""
        now = datetime.datetime.now(datetime.UTC)
        files.write_json(
            self._path,
            {
                **self._record,
                "finished": now.strftime("%Y-%m-%d %H:%M UTC"),
                "parts": [{"name": n, "seconds": s} for n, s in self._seconds.items()],
                "peak_memory_gib": machine.peak_memory_gib(),
            },
        )
