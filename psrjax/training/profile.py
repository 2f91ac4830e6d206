"""A trace of some steps of a stage, which TensorBoard's profiler and xprof open."""

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from absl import logging
from etils import epath

from psrjax.errors import UserError

_FOLDER = "plugins/profile"  # below a log directory, where both look


def parse(text: str) -> range:
    """Reads the steps of --profile=START:STOP, both included; "" is none.

    Raises:
      UserError: for anything else.
    """
    if not text:
        return range(0)
    found = re.fullmatch(r"(\d+):(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(
            f"--profile={text}: give the first and the last step to trace, as in 10:12; "
            "steps count from 1"
        )
    return range(int(found[1]), int(found[2]) + 1)


class Trace:
    """Traces some steps of a stage into `<directory>/plugins/profile/<time>/`.

    The first process traces, what its host and its devices do; the others do nothing.

    Args:
      directory: of the stage, local or gs://.
      steps: to be traced.
    """

    def __init__(self, directory: epath.Path, steps: range):
        self._directory = directory
        self._steps = steps if jax.process_index() == 0 else range(0)
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def reach(self, step: int, log: Mapping[str, jax.Array]) -> None:
        """Starts or ends the trace, where the next step asks for it.

        Args:
          step: about to be made.
          log: of the step before, which is waited for then.
        """
        if (step in self._steps) == (self._folder is not None):
            return
        jax.block_until_ready(log)
        if self._folder:
            self.close()
        else:
            self._folder = tempfile.TemporaryDirectory(prefix="psrjax-profile-")
            jax.profiler.start_trace(self._folder.name)

    def close(self) -> None:
        """Ends the trace, if there is one, and writes it."""
        if not self._folder:
            return
        jax.profiler.stop_trace()
        with self._folder as local:  # JAX's own writer knows no buckets
            for file in Path(local).glob(f"{_FOLDER}/*/*"):
                place = self._directory / _FOLDER / file.parent.name / file.name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(file.read_bytes())
        self._folder = None
        logging.info("traced into %s", self._directory / _FOLDER)


def step(number: int) -> Any:
    """Names a step in the trace; costs nothing while nothing is traced."""
    return jax.profiler.StepTraceAnnotation("train", step_num=number)
