"""Compiles a config for TPUs or GPUs that are not here: memory, FLOPs, bytes, collectives.

    psrjax compile --config=NAME:bf16 --topology=v5e:16x16 --config.batch_per_device=2
    psrjax compile --config=NAME --stage=STAGE --topology=h100 --program=synthesize --json=FILE

`config.batch` is that of all devices. Nothing is run. Exit code 1: a stage does not fit.
"""

import json
import sys
from pathlib import Path

from absl import flags

from psrjax import config as config_lib
from psrjax import io
from psrjax.benchmarks import ahead_of_time, compile_report
from psrjax.cli import main as cli
from psrjax.errors import UserError
from psrjax.runtime import machine

_CONFIG = cli.define_config()
_TOPOLOGY = flags.DEFINE_string(
    "topology", "", "CHIP:SIZE, as v5e:4x4, v5p:2x2x1, v6e:4x4, h100, h100:8"
)
_STAGE = flags.DEFINE_string("stage", "", "the stage; by default all that the config trains")
_PROGRAM = flags.DEFINE_enum(
    "program", "train", ahead_of_time.PROGRAMS, "the training step, or a window's synthesis"
)
_JSON = flags.DEFINE_string("json", "", "also write everything to this file")


def main(arguments: list[str]) -> None:
    """Compiles stage by stage, prints what each needs, and writes the JSON."""
    del arguments
    config = _CONFIG.require()
    if _STAGE.value and _STAGE.value not in config.stages:
        raise UserError(f"--stage={_STAGE.value}: there are {', '.join(config.stages)}")
    stages = (_STAGE.value,) if _STAGE.value else config.only or config.stages
    found = []
    for stage in stages:
        own = config_lib.stage_config(config, stage)
        found.append(compile_report.report(own, _TOPOLOGY.value, _PROGRAM.value))
        print(compile_report.table(found[-1]), flush=True)
    if _JSON.value:
        about = {
            "command": cli.typed(),
            "versions": machine.versions(),
            "commit": machine.commit(),
            "stages": found,
        }
        io.write_text(Path(_JSON.value), json.dumps(about, indent=2) + "\n")
    if not all(each["fits"] for each in found):
        sys.exit(1)
