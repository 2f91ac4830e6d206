"""Renders people, trains on them, scores and shows the result in runs/demo/report.html."""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

import psrjax
from psrjax import config as config_lib
from psrjax.cli import main as cli
from psrjax.evaluation import scores
from psrjax.reporting import demo
from psrjax.training import checkpoint

_CONFIG = cli.define_config()
_WORKDIR = flags.DEFINE_string("workdir", "runs/demo", "the run's directory")


def main(arguments: Sequence[str]) -> None:
    """Runs the demo, or what is left of it, and prints what it took and what came out."""
    del arguments
    checkout = f"{Path(psrjax.__file__).parents[1]}/"
    command = " ".join(argument.replace(checkout, "") for argument in sys.argv)
    config = _CONFIG.value or config_lib.load("psrnet:demo")
    shown = demo.run(config, _WORKDIR.value, command=command)
    print()
    for part in shown.parts:
        print(f"{part['seconds']:7.1f} s  {part['name']}")
    print(f"{shown.peak_memory_gib:7.2f} GiB at most")
    print()
    print(scores.text_table(shown.rows))
    for verdict in scores.verdicts(shown.rows):
        print(f"{'yes' if verdict['good'] else 'NO '}  {verdict['text']}")
    print(f"\nopen {checkpoint.absolute(shown.report)}")
