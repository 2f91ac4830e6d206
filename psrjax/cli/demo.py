"""Renders people, trains a method on them, scores it, and shows everything in one HTML report.

    psrjax demo
    psrjax demo --method=NAME

A second call goes on where the first was cut off; --config and --config.KEY=VALUE change the run.
"""

import os
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from psrjax.cli import main as cli
from psrjax.evaluation import score_table
from psrjax.reporting import demo
from psrjax.training import checkpoint

_MINUTES = demo.minutes()
_DEFAULT = next(iter(_MINUTES))
_METHOD = flags.DEFINE_string(
    "method",
    _DEFAULT,
    "the method, here with the minutes it takes on one or two CPU cores: "
    + ", ".join(f"{name} {minutes} min" for name, minutes in _MINUTES.items()),
)
_CONFIG = cli.define_config(f"{cli.given('method') or _DEFAULT}:demo")
_WORKDIR = flags.DEFINE_string("workdir", "", "the run's directory; by default runs/demo-METHOD")


def main(arguments: Sequence[str]) -> None:
    """Runs the demo, or what is left of it, and prints the times and the scores."""
    del arguments
    config = _CONFIG.require()
    workdir = _WORKDIR.value or f"runs/demo-{config.method.name}"
    minutes = 0 if cli.given("config") else _MINUTES[_METHOD.value]
    shown = demo.run(config, workdir, command=cli.typed(), minutes=minutes)
    print()
    for part in shown.parts:
        print(f"{part['seconds']:7.1f} s  {part['name']}")
    print(f"{shown.peak_memory_gib:7.2f} GiB at most")
    print()
    print(score_table.text_table(shown.rows))
    for verdict in score_table.verdicts(shown.rows):
        print(f"{'yes' if verdict['good'] else 'NO '}  {verdict['text']}")
    page = checkpoint.absolute(shown.report)
    print(f"\nthe report: {page}")
    if sys.stdout.isatty() and _has_browser():
        webbrowser.open(Path(page).as_uri())


def _has_browser() -> bool:
    """Tells whether a browser would open in a window of its own, not in this terminal."""
    desktop = sys.platform in ("darwin", "win32")
    return desktop or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
