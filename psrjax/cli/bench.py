"""Times forward and training step of a stage, single operations and the loader; against PyTorch.

    psrjax bench --base=64 --size=64x64 --frames=8 --stage=layer1
    psrjax bench --base=32 --size=112x112 --against=torch --json=bench.json
    psrjax bench --data=world

Needs only jax, flax, optax, numpy, ml_collections and jaxtyping; --data and --against need more.
The config's perceptual term is off unless --config says otherwise.
"""

import json
import re
import sys
from pathlib import Path

from absl import flags

from psrjax import config as config_lib
from psrjax.cli import main as cli
from psrjax.errors import UserError
from psrjax.training import benchmark

_CONFIG = cli.define_config("psrnet:w/o L_p")
_STAGE = flags.DEFINE_string("stage", "", "the stage to train; the config's first by default")
_BASE = flags.DEFINE_integer("base", 0, "config.method.width; 0 leaves it as the config has it")
_SIZE = flags.DEFINE_string("size", "64x64", "HEIGHTxWIDTH of the frames")
_FRAMES = flags.DEFINE_integer("frames", 8, "frames of a clip", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 1, "clips of a step", lower_bound=1)
_RUNS = flags.DEFINE_integer("runs", 10, "timed runs of forward and of the step", lower_bound=1)
_AGAINST = flags.DEFINE_enum("against", "", ["", *benchmark.PEERS], "what to compare with")
_PAIRS = flags.DEFINE_integer("pairs", 7, "interleaved pairs against the peer", lower_bound=1)
_DATA = flags.DEFINE_string("data", "", "also time the loader: a stored data set, or world")
_JSON = flags.DEFINE_string("json", "", "also write everything to this file")


def main(arguments: list[str]) -> None:
    """Measures, prints the table, and writes the JSON."""
    del arguments
    size = re.fullmatch(r"(\d+)x(\d+)", _SIZE.value)
    if not size:
        raise UserError(f"--size={_SIZE.value}: give HEIGHTxWIDTH, as in 64x64")
    config = config_lib.stage_config(_CONFIG.value, _STAGE.value or _CONFIG.value.stages[0])
    if _BASE.value:
        config_lib.update(config, {"method.width": _BASE.value})
    options = benchmark.Options(
        height=int(size[1]),
        width=int(size[2]),
        frames=_FRAMES.value,
        batch=_BATCH.value,
        runs=_RUNS.value,
        against=_AGAINST.value,
        pairs=_PAIRS.value,
        data=_DATA.value,
    )
    result = benchmark.run(config, options)
    print(benchmark.table(result))
    if _JSON.value:
        result = {"command": " ".join(["psrjax", "bench", *sys.argv[1:]]), **result}
        path = Path(_JSON.value)
        temporary = path.with_name(f"{path.name}.tmp")
        temporary.write_text(json.dumps(result, indent=2) + "\n")
        temporary.replace(path)
