"""Records of a run while it works: metrics.jsonl, events, the table of parameters, progress."""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from absl import logging
from clu import parameter_overview
from etils import epath
from tensorboardX.proto import event_pb2, summary_pb2
from tensorboardX.record_writer import RecordWriter
from tqdm.auto import tqdm

from psrjax import io

_events: Any = event_pb2  # protocol buffers make their classes at run time
_summaries: Any = summary_pb2
_COMPILE_SECONDS = 2.5e-3  # of an operation: 1.3 to 3.8 ms in the demos' steps, on two CPU cores
_LINE_SECONDS = 15.0  # between two lines of progress where there is no terminal


class Writer:
    """The records of one stage; only the first process writes.

    A run that resumes at an earlier step than it was cut off at makes the steps between again: the
    lines of metrics.jsonl that it had written for them are removed.

    Args:
      directory: of the stage.
      start_step: the step that it begins at.
      warnings: says what is wrong by the numbers of a step, see `Method.warnings`; what it says
        first is logged. So is the first gradient that is exactly 0.
    """

    def __init__(
        self,
        directory: epath.Path,
        start_step: int,
        warnings: Callable[[Mapping[str, float]], Sequence[str]] = lambda numbers: (),
    ):
        self._warnings = warnings
        self._warned: set[str] = set()
        self._path = directory / "metrics.jsonl"
        self._lines: list[str] = []
        self._events = None
        self._is_local = "://" not in os.fspath(directory)
        if jax.process_index() != 0:
            return
        directory.mkdir(parents=True, exist_ok=True)
        if self._path.exists():
            old = self._path.read_text().splitlines()
            self._lines = [line for line in old if _step(line) <= start_step]
        io.write_text(self._path, "".join(f"{line}\n" for line in self._lines))
        if self._is_local:  # TensorBoard's writer appends, which a bucket cannot
            self._events = _Events(directory, start_step)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Records {update/name: number} at a step."""
        if jax.process_index() != 0:
            return
        self._warn(step, scalars)
        line = json.dumps({"step": step, **scalars})
        if self._is_local:
            with self._path.open("a") as file:
                file.write(line + "\n")
        else:
            self._lines.append(line)
            io.write_text(self._path, "".join(f"{line}\n" for line in self._lines))
        if self._events:
            self._events.write(step, scalars)

    def _warn(self, step: int, scalars: Mapping[str, float]) -> None:
        numbers = {name.partition("/")[2]: value for name, value in scalars.items()}
        for kind, lines in (("dead", _dead(scalars)), ("method", self._warnings(numbers))):
            if kind in self._warned or not lines:
                continue
            self._warned.add(kind)
            for line in lines:
                logging.warning("step %d: %s", step, line)

    def close(self) -> None:
        """Ends the TensorBoard events."""
        if self._events:
            self._events.close()


def _dead(scalars: Mapping[str, float]) -> list[str]:
    """Says which updates have a gradient of exactly 0, as behind a saturated tanh."""
    names = [name for name, value in scalars.items() if name.endswith("/grad_norm") and value == 0]
    return [
        f"the gradient of {update} is exactly 0, so it does not learn; if that stays so, go back "
        f"to a checkpoint before it (--rewind), with a lower "
        f"config.optimizer.{update}.learning_rate or with config.optimizer.{update}.clip_norm"
        for update in (name.removesuffix("/grad_norm") for name in names)
    ]


class _Events:
    """A file of TensorBoard events, written at once.

    tensorboardX's own writer uses threads, which go on failing, loudly, on a full disk.
    """

    def __init__(self, directory: epath.Path, start_step: int):
        name = f"events.out.tfevents.{time.time():.6f}.psrjax"
        self._file = RecordWriter(os.fspath(directory / name))
        self._write(file_version="brain.Event:2")
        log = _events.SessionLog
        start = log(status=log.START)  # what was recorded from here on is void
        self._write(step=start_step + 1, session_log=start)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        summary = _summaries.Summary()
        for name, value in scalars.items():
            summary.value.add(tag=name, simple_value=value)
        self._write(step=step, summary=summary)

    def close(self) -> None:
        self._file.close()

    def _write(self, **content: Any) -> None:
        event = _events.Event(wall_time=time.time(), **content)
        self._file.write(event.SerializeToString())
        self._file.flush()


class Progress:
    """A bar where a person watches (terminal, notebook), else a line every few seconds.

    Args:
      label: of the bar.
      start: the step it begins at.
      total: the last step.
      later: estimates the seconds of what follows these steps, from the seconds of one step; the
        time left is then that of all.
    """

    def __init__(
        self, label: str, start: int, total: int, later: Callable[[float], float] | None = None
    ):
        self._label, self._start, self._total = label, start, total
        self._later = later
        self._began = self._last = time.monotonic()
        self._note = ""
        shown = jax.process_index() == 0
        watched = sys.stderr.isatty() or "ipykernel" in sys.modules
        self._quiet = not shown or watched
        self._bar = tqdm(
            desc=label, initial=start, total=total, unit="step", disable=not (shown and watched)
        )

    def update(self, step: int) -> None:
        """Shows that `step` steps are done."""
        now = time.monotonic()
        pace = max(now - self._began, 1e-9) / max(step - self._start, 1)
        left = f"{_duration((self._total - step) * pace)} left"
        if self._later:
            left = f"{_duration((self._total - step) * pace + self._later(pace))} left in all"
            self._bar.set_postfix_str(f"{left}{self._note}", refresh=False)
        self._bar.update(step - self._bar.n if not self._bar.disable else 0)
        if self._quiet or (now - self._last < _LINE_SECONDS and step != self._total):
            return
        self._last = now
        line = "%s: step %d of %d, %.2f steps/s, %s%s"
        logging.info(line, self._label, step, self._total, 1 / pace, left, self._note)

    def note(self, losses: Mapping[str, float]) -> None:
        """Shows {name: loss} beside the count from now on."""
        self._note = "".join(f", {name} {value:.4g}" for name, value in losses.items())
        self._bar.set_postfix_str(self._note.removeprefix(", "), refresh=False)

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()


def describe_parameters(directory: epath.Path, params: Mapping[str, Any]) -> None:
    """Logs the number of parameters of each net, and writes the table of all to parameters.txt."""
    if jax.process_index() != 0:
        return
    counts = {net: parameter_overview.count_parameters(tree) for net, tree in params.items()}
    logging.info("parameters: %s", ", ".join(f"{net} {n:,}" for net, n in counts.items()))
    table = parameter_overview.get_parameter_overview(params, include_stats=False)
    io.write_text(directory / "parameters.txt", table + "\n")


def announce_compilation(label: str, lowered: jax.stages.Lowered) -> None:
    """Logs that a program is being compiled, and about how long that takes on a CPU."""
    operations = lowered.as_text().count("stablehlo.")
    seconds = operations * _COMPILE_SECONDS
    about = (
        f"{seconds / 60:.0f} minutes" if seconds > 90 else f"{max(10, round(seconds, -1)):.0f} s"
    )
    line = "%s: compiling (about %s on two CPU cores; less where the compilation cache has it)"
    logging.info(line, label, about)


def describe_compilation(label: str, compiled: jax.stages.Compiled, seconds: float) -> None:
    """Logs the time of compilation, and the memory and work of a step, where XLA knows them."""
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
    parts = []
    if memory is not None:
        parts.append(
            f"{memory.argument_size_in_bytes / 2**20:.0f} MiB of state and batch and "
            f"{memory.temp_size_in_bytes / 2**20:.0f} MiB while it works, on each device"
        )
    if cost.get("flops", 0) > 0:
        parts.append(f"{cost['flops'] / 1e9:.1f} GFLOP by XLA's count")
    logging.info("%s: compiled in %.1f s; a step takes %s", label, seconds, "; ".join(parts) or "?")


def _step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (json.JSONDecodeError, KeyError, TypeError):  # cut off while it was written
        return float("inf")


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
