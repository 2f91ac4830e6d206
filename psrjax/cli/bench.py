"""Times synthesis and training step of a method, single operations and the loader; against PyTorch.

    psrjax bench --base=64 --size=64x64 --frames=8 --stage=layer1
    psrjax bench --method=internet --size=256x256 --against=torch --json=bench.json
    psrjax bench --config="internet:MS-c,w/o perceptual" --size=512x512 --frames=1
    psrjax bench --data=synthetic
    psrjax bench --runs=0 --data=clip.mp4 --size=256x256

Needs only jax, flax, optax, numpy, ml_collections and jaxtyping; --data and --against need more.
Weights of frozen networks that are not found are replaced by untrained ones. PSR-Net's perceptual
term is off unless --config says otherwise.
"""

import itertools
import json
import re
import sys
from pathlib import Path
from typing import Any

from absl import flags

from psrjax import config as config_lib
from psrjax.benchmarks import stage_benchmark, subject, text_table
from psrjax.cli import main as cli
from psrjax.errors import UserError

_DEFAULT, _DEFAULT_SIZE = "psrnet:w/o L_p", (64, 64)


def _named() -> str:
    """The value of --method, which has to be known before the flags of the config are."""
    for argument, value in itertools.pairwise([*sys.argv, ""]):
        flag, equals, rest = argument.lstrip("-").partition("=")
        if argument.startswith("-") and flag == "method":
            return rest if equals else value
    return ""


_METHOD = flags.DEFINE_string("method", "", "the method, where no --config is given")
_CONFIG = cli.define_config(_named() or _DEFAULT)
_STAGE = flags.DEFINE_string("stage", "", "the stage to train; the config's first by default")
_BASE = flags.DEFINE_integer("base", 0, "config.method.width; 0 leaves it as the config has it")
_SIZE = flags.DEFINE_string("size", "", "HEIGHTxWIDTH of the frames; by default the config's crop")
_FRAMES = flags.DEFINE_integer(
    "frames", 0, "frames of a synthesized window; 0 is config.data.sampling.t", lower_bound=0
)
_BATCH = flags.DEFINE_integer("batch", 1, "clips of a step", lower_bound=1)
_RUNS = flags.DEFINE_integer(
    "runs", 10, "timed runs of synthesis and of the step; 0: data only", lower_bound=0
)
_AGAINST = flags.DEFINE_enum("against", "", ["", *stage_benchmark.PEERS], "what to compare with")
_PAIRS = flags.DEFINE_integer("pairs", 7, "interleaved pairs against the peer", lower_bound=1)
_DATA = flags.DEFINE_string(
    "data", "", "also time the loader: a stored data set, world, or a video, which is prepared"
)
_JOINTS = flags.DEFINE_string("joints", "mediapipe", "of that video, as psrjax prepare has it")
_JSON = flags.DEFINE_string("json", "", "also write everything to this file")


def main(arguments: list[str]) -> None:
    """Measures, prints the table, and writes the JSON."""
    del arguments
    config = config_lib.stage_config(_CONFIG.value, _STAGE.value or _CONFIG.value.stages[0])
    if _METHOD.value not in ("", config.method.name):
        raise UserError(f"--method={_METHOD.value}: --config is of {config.method.name}; leave one")
    height, width = _size(config)
    if _BASE.value:
        config_lib.update(config, {"method.width": _BASE.value})
    options = subject.Options(
        height=height,
        width=width,
        frames=_FRAMES.value,
        batch=_BATCH.value,
        runs=_RUNS.value,
        against=_AGAINST.value,
        pairs=_PAIRS.value,
        data=_DATA.value,
        joints=_JOINTS.value,
    )
    result = stage_benchmark.run(config, options)
    print(text_table.table(result))
    if _JSON.value:
        result = {"command": " ".join(["psrjax", "bench", *sys.argv[1:]]), **result}
        path = Path(_JSON.value)
        temporary = path.with_name(f"{path.name}.tmp")
        temporary.write_text(json.dumps(result, indent=2) + "\n")
        temporary.replace(path)


def _size(config: Any) -> tuple[int, int]:
    if not _SIZE.value:
        is_default = not _METHOD.value and not flags.FLAGS["config"].present
        return _DEFAULT_SIZE if is_default else tuple(config.data.crop)
    size = re.fullmatch(r"(\d+)x(\d+)", _SIZE.value)
    if not size:
        raise UserError(f"--size={_SIZE.value}: give HEIGHTxWIDTH, as in 64x64")
    return int(size[1]), int(size[2])
