"""What a run is told: the base config, the words of a variant, dotted overrides, validation, JSON.

A file in `configs/` imports only this module:

    ABLATIONS = {"common_head": {"method.head": "common"}}
    PRESETS = {"tiny": {"batch": 2, "steps": 4, "method.width": 4}}

    def get_config(variant=""):
        config = base()
        ...
        return apply_variant(config, variant, presets=PRESETS, ablations=ABLATIONS)

Leaves are int, float, bool, str or tuples of these, never None; keys are words without dots.
"""

import difflib
import functools
import importlib.util
import json
from collections.abc import Iterable, Mapping
from operator import getitem
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from psrjax.errors import UserError

OPEN = ("weights", "optimizer", "overrides", "data.synthetic")  # where overrides may add keys
VARIANTS = {"bf16": {"method.dtype": "bfloat16"}}  # the words that every config file has
DTYPES = ("float32", "bfloat16", "float16")


def base() -> ConfigDict:
    """The fields that every run has, unlocked; a config file fills and changes them.

    Returns:
      `method`: its name and its dataclass fields; `stages`: all stages in order, `only`: the ones
      to train now, () for all; `init`: another run to start the first stage from (`stage` "" is its
      last finished one, `nets` () is all nets that both have). `batch` is global and `steps` counts
      of one stage. `weights[update][term]`; `optimizer[update]`; `ema` 0 is off. `overrides[stage]`
      holds, nested, what a stage changes.
    """
    return ConfigDict(
        {
            "method": {
                "name": "",
                "stage": "",
                "dtype": "float32",
                "remat": "none",
                "conv": "auto",
            },
            "stages": (),
            "only": (),
            "init": {"path": "", "stage": "", "nets": ()},
            "data": {
                "path": "synthetic",  # a stored data set, or the embedded world
                "synthetic": {},  # what the embedded world is made of
                "train_split": "train",
                "eval_split": "test",
                "crop": (0, 0),  # height and width; 0 is the stored size
                "flip": 0.0,  # how often a training clip is mirrored
                "jitter": 0.0,  # how far its colours are changed
                "sampling": {
                    "source": "same_time",
                    "k": 1,
                    "t": 1,
                    "gap_seconds": 0.0,
                    "history": 0,
                },
                "workers": 0,  # processes that read ahead; 0 is threads only
            },
            "batch": 1,
            "accumulate": 1,
            "steps": 1000,
            "seed": 0,
            "weights": {},
            "optimizer": {},
            "ema": 0.0,
            "mesh": {"data": -1, "fsdp": 1, "fsdp_min_bytes": 1 << 20},
            "checkpoint_steps": 1000,
            "keep_checkpoints": 2,
            "log_steps": 50,
            "evaluate_steps": 0,
            "overrides": {},
        }
    )


def apply_variant(
    config: ConfigDict,
    words: str,
    *,
    presets: Mapping[str, Mapping[str, Any]] = {},
    ablations: Mapping[str, Mapping[str, Any]] = {},
) -> ConfigDict:
    """Applies the comma-separated words of a variant, in their order, and locks the config.

    A word is a preset or the label of an ablation (rows of dotted overrides), "bf16", or a stage:
    stages named here are the ones to train (`config.only`).

    Raises:
      UserError: for a word that is none of these, with the list; for a config that is not valid.
    """
    rows = {**VARIANTS, **presets, **ablations}
    before = config.stages
    chosen = [word.strip() for word in words.split(",") if word.strip()]
    stages = [word for word in chosen if word not in rows]
    for word in chosen:
        if word in rows:
            update(config, rows[word])
    unknown = [word for word in stages if word not in config.stages]
    if unknown:
        raise UserError(
            f"unknown variant {unknown[0]!r} after the colon; "
            f"presets: {_list({**VARIANTS, **presets})}; "
            f"stages: {_list(config.stages)}; ablations: {_list(ablations)}"
        )
    removed = set(before) - set(config.stages)  # by an ablation
    for stage in removed & set(config.overrides):
        del config.overrides[stage]
    config.only = tuple(stage for stage in config.stages if stage in stages)
    validate(config)
    return config.lock()


def update(config: ConfigDict, overrides: Mapping[str, Any]) -> ConfigDict:
    """Sets dotted keys, `{"data.crop": (64, 64)}`, in place; also of a locked config.

    Raises:
      UserError: for a key that does not exist (with the nearest that does), or a value of another
        type than the one it replaces.
    """
    with config.unlocked():
        for key, value in overrides.items():
            _set(config, key, value)
    return config


def override(config: ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
    """As `update`, for what a user asks for: it outranks what a preset says of single stages.

    `{"steps": 9}` also removes every `overrides.STAGE.steps`, unless `values` names that one too.

    Raises:
      UserError: as `update`.
    """
    update(config, values)
    with config.unlocked():
        for stage, changes in config.overrides.items():
            for leaf in _flat(changes):
                mine = _covers(values, f"overrides.{stage}.{leaf}")
                if _covers(values, leaf) and not mine:
                    *parents, last = leaf.split(".")
                    del functools.reduce(getitem, parents, changes)[last]
    return config


def _covers(keys: Iterable[str], leaf: str) -> bool:
    return any(f"{leaf}.".startswith(f"{key}.") for key in keys)


def stage_config(config: ConfigDict, stage: str) -> ConfigDict:
    """The config of one stage, locked: `overrides[stage]` merged in and `method.stage` set."""
    merged = ConfigDict(config.to_dict())
    changes = merged.overrides.get(stage, ConfigDict())
    merged.overrides = ConfigDict()
    update(merged, _flat(changes))
    merged.method.stage = stage
    return merged.lock()


def method_fields(config: ConfigDict) -> dict[str, Any]:
    """The arguments of `methods.base.build`: the name and the fields of `config.method`."""
    return config.method.to_dict()


def validate(config: ConfigDict) -> None:
    """Checks what can be known before anything is built.

    Raises:
      UserError: naming the key that is wrong and what it may be.
    """
    if not config.stages:
        raise UserError("config.stages: no stage to train")
    for key in ("only", "overrides"):
        for stage in config[key]:
            if stage not in config.stages:
                raise UserError(
                    f"config.{key}: no stage {stage!r}; there are {_list(config.stages)}"
                )
    for stage in config.stages:
        _validate_stage(stage_config(config, stage))


def load(name: str, overrides: Mapping[str, Any] = {}) -> ConfigDict:
    """The locked config of "psrnet:tiny,layer1" or "configs/psrnet.py:tiny", and dotted overrides.

    Raises:
      UserError: if there is no such file, or for a wrong word, key or value.
    """
    path, _, words = name.partition(":")
    file = find(path)
    spec = importlib.util.spec_from_file_location(f"psrjax_config_{file.stem}", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = override(module.get_config(words), overrides)
    validate(config)
    return config.lock()


def find(name: str) -> Path:
    """The file of a config: a path, or a bare name that stands in the checkout or in the wheel.

    Raises:
      UserError: if there is none, with the names that there are.
    """
    here = Path(__file__).parent
    folders = (here / "configs", here.parent / "configs")
    bare = name.removeprefix("configs/").removesuffix(".py")
    candidates = [Path(name)] if name.endswith(".py") else []
    candidates += [folder / f"{bare}.py" for folder in folders]
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    names = {path.stem for folder in folders for path in folder.glob("*.py")}
    raise UserError(f"no config {name!r}; there are {_list(sorted(names - {'__init__'}))}")


def to_json(config: ConfigDict) -> str:
    """The config as JSON; `from_json` gives it back, tuples included."""
    return json.dumps(config.to_dict(), indent=2)


def from_json(text: str) -> ConfigDict:
    """The locked config that `to_json` wrote."""
    return ConfigDict(_tuples(json.loads(text))).lock()


def differences(old: ConfigDict, new: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """{dotted key: (old value, new value)} where two configs differ; a missing one is None."""
    before, after = _flat(old), _flat(new)
    keys = sorted(set(before) | set(after))
    pairs = {key: (before.get(key), after.get(key)) for key in keys}
    return {key: (a, b) for key, (a, b) in pairs.items() if a != b}


def _validate_stage(config: ConfigDict) -> None:
    def require(good: bool, key: str, rule: str) -> None:
        if not good:
            value = _flat(config).get(key)
            raise UserError(f"config.{key}={value}: {rule} (stage {config.method.stage})")

    flat = _flat(config)
    for key, value in flat.items():
        leaves = value if isinstance(value, tuple) else (value,)
        require(
            all(isinstance(leaf, bool | int | float | str | tuple) for leaf in leaves),
            key,
            "must be a number, a string or a tuple of these",
        )
    for key in (
        "batch",
        "accumulate",
        "steps",
        "checkpoint_steps",
        "keep_checkpoints",
        "log_steps",
    ):
        require(config[key] >= 1, key, "must be at least 1")
    require(config.evaluate_steps >= 0, "evaluate_steps", "must be at least 0 (0 is never)")
    require(
        config.batch % config.accumulate == 0, "accumulate", f"must divide batch {config.batch}"
    )
    require(0.0 <= config.ema < 1.0, "ema", "must be in [0, 1); 0 is off")
    require(config.method.dtype in DTYPES, "method.dtype", f"must be one of {_list(DTYPES)}")
    require(config.mesh.fsdp >= 1, "mesh.fsdp", "must be at least 1")
    require(
        config.mesh.data == -1 or config.mesh.data >= 1, "mesh.data", "must be -1 or at least 1"
    )


def _set(config: ConfigDict, key: str, value: Any) -> None:
    *parents, last = key.split(".")
    node = config
    for depth, parent in enumerate(parents):
        if parent not in node and _is_open(".".join(parents[: depth + 1])):
            node[parent] = ConfigDict()
        if not isinstance(node.get(parent), ConfigDict):
            raise UserError(_unknown_key(config, key))
        node = node[parent]
    if last not in node and not _is_open(key):
        raise UserError(_unknown_key(config, key))
    if isinstance(value, Mapping):
        value = ConfigDict(_tuples(value))
    try:
        node[last] = _tuples(value)
    except TypeError as error:
        kind = type(node[last]).__name__
        raise UserError(f"config.{key}: {value!r} is not of type {kind}") from error


def _is_open(key: str) -> bool:
    return any(key.startswith(f"{prefix}.") for prefix in OPEN)


def _unknown_key(config: ConfigDict, key: str) -> str:
    near = difflib.get_close_matches(key, list(_flat(config)), n=1, cutoff=0.0)
    return f"config.{key}: no such key" + (f"; did you mean config.{near[0]}?" if near else "")


def _flat(config: ConfigDict) -> dict[str, Any]:
    leaves = {}
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            leaves |= {f"{key}.{name}": leaf for name, leaf in _flat(value).items()}
        else:
            leaves[key] = value
    return leaves


def _tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _tuples(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_tuples(item) for item in value)
    return value


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
