"""Times synthesis, training step and data loading of a method, alone or against PyTorch.

    psrjax bench --config=NAME --stage=STAGE --size=64x64 --frames=8
    psrjax bench --config=NAME:demo --config.method.width=32 --against=torch --json=bench.json
    psrjax bench --config=NAME:demo --data=synthetic
    psrjax bench --config=NAME --runs=0 --data=clip.mp4 --size=256x256
    psrjax bench --suite=DIR "NAME:bf16 --batch=2" "OTHER:bf16 --against=torch"

--suite runs each of its arguments as a `psrjax bench --config=…` of its own, after the facts of the
machine and the tests of accelerators; see launch/accelerator_check.sh. Called again it goes on.

Needs only jax, flax, optax, numpy, ml_collections and jaxtyping; --data and --against need more.
Weights of frozen networks that are not found are replaced by untrained ones.
"""

import re
import sys
from pathlib import Path
from typing import Any

from absl import flags

from psrjax import config as config_lib
from psrjax import io
from psrjax.benchmarks import suite, suite_table
from psrjax.cli import main as cli
from psrjax.errors import UserError

_CONFIG = cli.define_config()
_STAGE = flags.DEFINE_string("stage", "", "the stage; by default the config's first")
_SIZE = flags.DEFINE_string("size", "", "HEIGHTxWIDTH of the frames; by default the config's crop")
_FRAMES = flags.DEFINE_integer("frames", 0, "frames of a window; 0 is config.data.sampling.t", 0)
_BATCH = flags.DEFINE_integer("batch", 1, "clips of a training step and of synthesis", 1)
_RUNS = flags.DEFINE_integer("runs", 10, "timed runs of synthesis and step; 0: only the data", 0)
_AGAINST = flags.DEFINE_enum("against", "", ["", "torch"], "torch: check and time PyTorch too")
_PAIRS = flags.DEFINE_integer("pairs", 7, "timed pairs, psrjax and PyTorch in turn", 1)
_DATA = flags.DEFINE_string("data", "", "also time loading: a stored dataset, synthetic, a video")
_JOINTS = flags.DEFINE_string("joints", "mediapipe", "of that video, see psrjax prepare --joints")
_OPERATIONS = flags.DEFINE_bool("operations", True, "also time single operations")
_JSON = flags.DEFINE_string("json", "", "also write everything to this file")
_SUITE = flags.DEFINE_string("suite", "", "the folder of a suite, see above")
_MINUTES = flags.DEFINE_float("minutes", 8.75, "of the suite; what is left is for the next call", 0)


def main(arguments: list[str]) -> None:
    """Measures, prints the table, and writes the JSON."""
    if _SUITE.value:
        _run_suite(arguments)
        return
    from psrjax.benchmarks import stage_benchmark, text_table  # a suite leaves JAX to its parts
    from psrjax.benchmarks.compiled_stage import BenchmarkOptions

    config = _CONFIG.require()
    config = config_lib.stage_config(config, _STAGE.value or config.stages[0])
    options = BenchmarkOptions(
        *_size(config),
        frames=_FRAMES.value,
        batch=_BATCH.value,
        runs=_RUNS.value,
        against=_AGAINST.value,
        pairs=_PAIRS.value,
        data=_DATA.value,
        joints=_JOINTS.value,
        operations=_OPERATIONS.value,
    )
    result = stage_benchmark.run(config, options)
    print(text_table.table(result))
    if _JSON.value:
        result = {"command": cli.typed(), **result}
        io.write_json(_JSON.value, result)


def _run_suite(arguments: list[str]) -> None:
    """Runs the suite, prints its table; exit code 1 if a part failed or is left."""
    work = suite.parts(arguments)
    folder = Path(_SUITE.value).absolute()
    found = suite.run(folder, work, minutes=_MINUTES.value, table=suite_table.table)
    print(suite_table.table(found))
    if found["left"] or any(part["status"] == "failed" for part in found["parts"].values()):
        sys.exit(1)


def _size(config: Any) -> tuple[int, int]:
    if not _SIZE.value:
        return tuple(config.data.crop)
    size = re.fullmatch(r"(\d+)x(\d+)", _SIZE.value)
    if not size:
        raise UserError(f"--size={_SIZE.value}: give HEIGHTxWIDTH, as in 64x64")
    return int(size[1]), int(size[2])
