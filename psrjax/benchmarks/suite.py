"""All that is to be measured on an accelerator, part by part, in little time, and resumable.

A part is a process with a time limit of its own; one that fails is recorded with its last line, and
the rest goes on. After every part `suite.json` and `suite.txt` in the folder are written anew, so
that whatever ends the suite, what was measured is there, and a second call goes on.
"""

import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psrjax.errors import UserError

RESULT, TABLE = "suite.json", "suite.txt"
_CONSOLE = "from psrjax.cli.main import console; console()"
_TESTS = "tests/gpu"
_LEAST_SECONDS = 20.0  # no part is begun with less
_GROWING = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # others need the device's memory too
_PATH = "JSON"  # in a command: the file that it writes


@dataclass(frozen=True)
class Part:
    """One process of the suite.

    Attributes:
      name: in the results.
      command: its words; "JSON" among them stands for the file that it writes its result to.
      limit: seconds after which it is ended.
      environment: added to this process's.
      read: makes the result from its standard output, where it writes no file.
    """

    name: str
    command: tuple[str, ...]
    limit: float
    environment: Mapping[str, str] = field(default_factory=dict)
    read: Callable[[str], dict[str, Any]] | None = None


def parts(benchmarks: Sequence[str]) -> list[Part]:
    """Returns the device's facts, the tests of accelerators, and the benchmarks, in this order.

    Args:
      benchmarks: arguments of `psrjax bench`, one string for each, that of --config first.
    """
    devices = (sys.executable, "-m", "psrjax.benchmarks.device_facts", _PATH)
    root = Path(__file__).parents[2]
    found = [Part("devices", devices, 90.0)]
    if (root / _TESTS).exists():  # a checkout
        found.append(Part("tests", _tests(), 240.0, _GROWING, read_tests))
    for text in (" ".join(each.split()) for each in benchmarks):
        against = "--against" in text
        command = (sys.executable, "-c", _CONSOLE, "bench", "--operations=false")
        found.append(
            Part(
                text,
                (*command, *shlex.split(f"--config={text}"), f"--json={_PATH}"),
                240.0 if against else 150.0,
                _GROWING if against else {},
            )
        )
    return found


def _tests() -> tuple[str, ...]:
    # No conftest: it is that of the tests on CPUs, and needs more than a bare machine has.
    command = (sys.executable, "-m", "pytest", "-v", "-m", "gpu", "--noconftest", "--tb=line")
    command += ("-p", "no:cacheprovider", _TESTS)
    workers = max(min((os.cpu_count() or 1) - 2, 14), 1)  # they mostly compile
    alone = importlib.util.find_spec("xdist") is None or workers == 1
    return command if alone else (*command, "-n", str(workers))


def read_tests(output: str) -> dict[str, Any]:
    """Reads pytest's -v output, also one that was cut off: how many of each, and which failed."""
    outcome = r"(PASSED|FAILED|ERROR|SKIPPED)"
    alone = re.findall(rf"^(\S+::.+?) {outcome}", output, re.MULTILINE)
    workers = re.findall(rf"^\[gw\d+\] .*?{outcome} (\S+::.+?) *$", output, re.MULTILINE)
    found = dict(alone) | {name: said for said, name in workers}
    names = ("passed", "failed", "error", "skipped")
    reasons = re.findall(r"^\S*: \w*Error: (.*)$", output, re.MULTILINE)
    return {
        **{name: sum(said == name.upper() for said in found.values()) for name in names},
        "failures": [name for name, said in found.items() if said in ("FAILED", "ERROR")],
        "reasons": [reason[:300] for reason in reasons],
    }


def run(
    folder: Path,
    work: Sequence[Part],
    *,
    minutes: float,
    table: Callable[[Mapping[str, Any]], str],
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Runs the parts that the folder does not hold yet, then those that failed, while time is left.

    Args:
      folder: where `suite.json` and `suite.txt` are, or will be.
      work: the parts, the most valuable first.
      minutes: after which nothing is begun, and what runs is ended.
      table: formats the results.
      clock: seconds.

    Returns:
      {"parts": {name: {"status": "done" | "failed", "seconds", "result" | "error"}}, "left": names
      of those that this call had no time for}.

    Raises:
      UserError: if the folder holds something else.
    """
    end = clock() + 60 * minutes
    found = _read(folder)
    known = {name: part["status"] for name, part in found["parts"].items()}
    again = [part for part in work if known.get(part.name) == "failed"]
    todo = [part for part in work if part.name not in known] + again
    found["left"] = [part.name for part in todo]
    for part in todo:
        left = end - clock()
        if left < min(part.limit, _LEAST_SECONDS):
            break
        print(f"{part.name} …", flush=True)
        began = clock()
        outcome = _run(part, min(part.limit, left))
        cut = outcome["status"] == "failed" and left < part.limit and clock() >= end
        if cut and part.name not in known:
            break  # it had too little time: the next call begins it anew
        outcome["seconds"] = round(clock() - began, 1)
        if not (part in again and outcome["status"] == "failed"):
            found["parts"][part.name] = outcome
        found["left"].remove(part.name)
        _write(folder, found, table)
        print(f"  {outcome['status']} in {outcome['seconds']:.0f} s", flush=True)
    _write(folder, found, table)
    return found


def _read(folder: Path) -> dict[str, Any]:
    path = folder / RESULT
    if not path.exists():
        return {"parts": {}, "left": []}
    try:
        found = json.loads(path.read_text())
        return {"parts": dict(found["parts"]), "left": []}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a suite's results; give another folder") from error


def _write(
    folder: Path, found: Mapping[str, Any], table: Callable[[Mapping[str, Any]], str]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    contents = {RESULT: json.dumps(found, indent=2), TABLE: table(found)}
    for name, text in contents.items():
        temporary = folder / f"{name}.tmp"  # psrjax.io is not for bare machines
        temporary.write_text(text + "\n")
        temporary.replace(folder / name)


def _run(part: Part, seconds: float) -> dict[str, Any]:
    """Runs a part; returns its status, and its result or the line that says what is wrong."""
    with tempfile.TemporaryDirectory(prefix="psrjax-suite-") as temporary:
        path, log = Path(temporary) / "result.json", Path(temporary) / "log.txt"
        command = [word.replace(_PATH, str(path)) for word in part.command]
        with log.open("w") as output:
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=Path(__file__).parents[2],
                env={**os.environ, **part.environment, "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
            try:
                code: int | None = process.wait(seconds)
            except subprocess.TimeoutExpired:
                code = None
            finally:
                _end(process)
        said = log.read_text(errors="replace")
        result: dict[str, Any] = {}
        if part.read:
            result = {"result": part.read(said)}
        elif code == 0 and path.exists():
            result = {"result": json.loads(path.read_text())}
    if code == 0 and result:
        return {"status": "done", **result}
    why = f"not done after {seconds:.0f} s; " if code is None else f"exit code {code}; "
    return {"status": "failed", "error": why + _last_line(said), **result}


def _end(process: subprocess.Popen) -> None:
    """Ends a process with all that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def _last_line(said: str) -> str:
    """Returns the line that most likely says what went wrong: the last error, or the last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"psrjax: |([\w.]*(Error|Exception)\b.*)", line)]
    return ([*lines[-1:], *errors][-1] if lines else "it said nothing")[:300]
