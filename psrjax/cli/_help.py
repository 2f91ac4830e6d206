"""Text of `psrjax COMMAND --help`: flags with their defaults, and what --config takes."""

import textwrap
from types import ModuleType
from typing import Any

from absl import flags

from psrjax import config as config_lib

_WIDTH = 96
_KEYS = {  # worth knowing: {key: what it does}
    "data.path": "the dataset: synthetic, or the folder that psrjax prepare made",
    "steps": "of every stage; overrides.STAGE.steps is of one",
    "batch": "clips of a step, of all devices together",
    "batch_per_device": "instead of batch: clips of a step on each device; 0 is off",
    "seed": "of everything random",
    "data.crop": "height and width of the frames; (0, 0) is the stored size",
    "data.train_crop": "of training alone: random crops of this size; (0, 0) is data.crop's",
    "data.eval_split": "the split that is scored",
    "checkpoint_steps": "steps between two checkpoints",
    "log_steps": "steps between two lines of metrics.jsonl",
    "evaluate_steps": "steps between two sample pictures with scores; 0 is never",
    "keep_best": "a metric, such as psnr: the best checkpoint by it is kept too",
    "ema": "decay of the averaged parameters; 0.0 is off",
    "accumulate": "micro-batches of a batch, where memory is short",
    "init.path": "another run to start from, or its exported file",
    "method.dtype": "bfloat16 halves memory on GPUs and TPUs",
}


def command(module: ModuleType, *shared: str) -> str:
    """Describes a command: its file's text, its flags, then those of the modules `shared`."""
    parts = [(module.__doc__ or "").strip()]
    for name, title in (
        (module.__name__, "Flags"),
        *((name, "Of all commands") for name in shared),
    ):
        own = flags.FLAGS.flags_by_module_dict().get(name, [])
        lines = [_flag(flag) for flag in sorted(own, key=lambda flag: flag.name)]
        parts += ["\n".join([f"{title}, with their defaults:", *lines])] if lines else []
    return "\n\n".join(parts)


def _flag(flag: Any) -> str:
    value = "" if flag.default in (None, "", []) else flag.default
    if flag.boolean:
        name = f"--[no]{flag.name}" if value == "" else f"--{flag.name}={str(value).lower()}"
    else:
        value = ",".join(map(str, value)) if isinstance(value, list) else value
        name = f"--{flag.name}={value}" if value != "" else f"--{flag.name}"
    help_text = " ".join((flag.help or "").split())
    return f"  {name}\n{textwrap.indent(textwrap.fill(help_text, _WIDTH - 6), '      ')}"


def configs(name: str) -> str:
    """Describes --config of a command: systems with presets, stages and ablations, useful keys."""
    defaults = config_lib.flat(config_lib.RunConfig().to_dict())
    lines = [
        "--config=SYSTEM[:NAME,NAME…] or FILE.py[:NAME…]: names are presets, stages, ablations:",
        "",
    ]
    for system in config_lib.names():
        module, config = config_lib.module(system), config_lib.load(system)
        defaults["method.dtype"] = config.method.dtype  # the same in all
        presets = [*module.PRESETS, *config_lib.COMMON_PRESETS]
        title = (module.__doc__ or "").splitlines()[0]
        listed = {"presets": presets, "stages": config.stages, "ablations": module.ABLATIONS}
        lines.append(f"  {title}")
        lines.append(f"      psrjax {name} --config={system}:demo --workdir=runs/{system}")
        for kind, found in listed.items():
            text = f"{kind}: {', '.join(found)}"
            lines.append(
                textwrap.fill(text, _WIDTH, initial_indent="    ", subsequent_indent="      ")
            )
        lines.append("")
    lines += [
        "--config.KEY=VALUE changes one value; useful keys, with the defaults of no preset:",
        "",
    ]
    width = max(len(f"{key}={defaults[key]}") for key in _KEYS)
    lines += [f"  {f'{key}={defaults[key]}':<{width}}  {text}" for key, text in _KEYS.items()]
    return "\n".join(lines)
