"""The record of a run: its command, machine and time, as `run.json` in its directory."""

import datetime
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from etils import epath

from psrjax import io
from psrjax.errors import UserError
from psrjax.runtime import machine

FILE = "run.json"
TRAINING = "train, compilation included"


def cost(record: Mapping[str, Any]) -> str:
    """Returns "MINUTES on MACHINE, commit COMMIT" of what `run.json` holds."""
    minutes = sum(part["seconds"] for part in record["parts"]) / 60
    return f"{minutes:.0f} minutes on {record['machine']}, commit {record['commit']}"


class RunRecord:
    """Says in `run.json` what made a run, and how long its parts took, over all calls."""

    def __init__(self, folder: epath.Path, command: str):
        """Goes on with the folder's record, if it has one.

        Raises:
          UserError: for an address that nothing here can open.
        """
        self._path = io.absolute(folder) / FILE
        record = io.read_json(self._path) if self._path.exists() else {"parts": []}
        self._parts = {part["name"]: part for part in record["parts"]}
        self._record = {
            "command": command,
            "commit": machine.commit(),
            "machine": machine.describe(),
            "versions": machine.versions(),
        }

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Times one part over all calls; a mistake that is told to the user leaves no record."""
        part = self._parts.setdefault(name, {"name": name, "seconds": 0.0, "done": False})
        started = time.monotonic()
        mistaken = False
        try:
            yield
            part["done"] = True
        except UserError:
            mistaken = True
            raise
        finally:
            part["seconds"] += time.monotonic() - started
            if not mistaken:
                self._write()

    def _write(self) -> None:
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

    def seconds(self, name: str) -> float:
        """Returns the seconds that a part took."""
        return self._parts[name]["seconds"]

    def parts(self) -> list[dict[str, Any]]:
        """Lists [{"name", "seconds", "done"}] in the order in which they began."""
        return list(self._parts.values())
