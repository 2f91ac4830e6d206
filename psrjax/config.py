"""The config of a run: its fields and defaults, variants, dotted overrides, validation, JSON.

`base(METHOD)` fills `config.method` from the fields of `psrjax.methods.METHOD.Method`: the defaults
stand there only, and overrides are checked against them. A file in `configs/` imports only this
module and states what differs:

    PRESETS = {"tiny": {"batch": 2, "steps": 4, "method.width": 4}}
    ABLATIONS = {"common_head": {"method.decoder": "common_head"}}

    def get_config(variant=""):
        config = update(base(METHOD), {"stages": ("layer1",), "batch": 3})
        return apply_variant(config, variant, presets=PRESETS, ablations=ABLATIONS)

Leaves are int, float, bool, str or tuples of these, never None; keys are words without dots.
"""

import difflib
import functools
import importlib.util
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from operator import getitem
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from ml_collections import ConfigDict  # pyright: ignore[reportMissingTypeStubs]  # it has none

from psrjax.errors import UserError

if TYPE_CHECKING:
    from psrjax.data.policy import Policy

OPEN = ("weights", "optimizer", "overrides", "data.synthetic")  # where overrides may add keys
COMMON_PRESETS = {"bf16": {"method.dtype": "bfloat16"}}  # of every config file
DTYPES = ("float32", "bfloat16", "float16")
BATCH_RATES = {"sqrt": 0.5, "linear": 1.0, "fixed": 0.0}  # {rule: power of the batches' ratio}


@dataclass
class Section:
    """A part of a config as type checkers see it; at run time it is a `ConfigDict`."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields, nested ones too."""
        return asdict(self)


@dataclass
class MethodSection(Section):
    """The method's name, the stage to build it for, and the fields of its dataclass."""

    name: str = ""
    stage: str = ""  # set by `stage_config`
    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


@dataclass
class InitSection(Section):
    """Another run, from which the first stage starts."""

    path: str = ""  # its directory, or the file that `psrjax export` made of it
    stage: str = ""  # by default its last finished one
    nets: tuple[str, ...] = ()  # by default all that both have
    run: str = ""  # a run whose frames are refined, see `psrjax.training.refinement`


def _default_policy() -> "Policy":
    from psrjax.data import policy  # beside the sampler, which a bare machine cannot import

    return policy.Policy()


@dataclass
class DataSection(Section):
    """The dataset, and what is drawn from it."""

    path: str = "synthetic"  # a stored dataset, or the synthetic one
    synthetic: dict[str, Any] = field(default_factory=dict[str, Any])  # settings of the latter
    train_split: str = "train"
    eval_split: str = "test"
    validation_split: str = ""  # of `keep_best`
    crop: tuple[int, int] = (0, 0)  # height and width; 0 is the stored size
    train_crop: tuple[int, int] = (0, 0)  # of training's random crops; 0 is that of `crop`
    stored: tuple[int, int] = (0, 0)  # size to prepare for this preset; 0 is that of `crop`
    flip: float = 0.0  # the probability that a training clip is mirrored
    jitter: float = 0.0  # how far its colours are changed
    hue: float = 0.0  # how far their hue is turned, as a part of the circle
    sampling: "Policy" = field(default_factory=_default_policy)
    workers: int = 0  # processes that read ahead; 0 is threads only


@dataclass
class MeshSection(Section):
    """The devices: see `psrjax.training.sharding`."""

    data: int = -1  # -1 takes all devices that are left
    fsdp: int = 1  # over so many devices the state is cut, as rows are
    fsdp_min_bytes: int = 1 << 20  # smaller arrays of the state stay whole
    space: int = 1  # over so many devices the height of frames is cut
    norm_groups: int = 1  # groups of rows of which batch norm takes statistics; 1 is the batch


@dataclass
class RunConfig(Section):
    """Everything that a run is made from."""

    method: MethodSection = field(default_factory=MethodSection)
    stages: tuple[str, ...] = ()  # all stages in order
    only: tuple[str, ...] = ()  # the stages to train now; () is all
    init: InitSection = field(default_factory=InitSection)
    data: DataSection = field(default_factory=DataSection)
    batch: int = 1  # of all devices together
    batch_per_device: int = 0  # if not 0: the batch is this times the devices
    batch_rates: str = "sqrt"  # what that does to learning rates: "sqrt", "linear" or "fixed"
    accumulate: int = 1  # micro-batches of a batch
    steps: int = 1000  # of one stage
    grow: float = 0.0  # the part of a stage's steps that come first, at half the frames' size
    seed: int = 0
    weights: dict[str, dict[str, float]] = field(  # [update][term]
        default_factory=dict[str, dict[str, float]]
    )
    optimizer: dict[str, dict[str, Any]] = field(  # [update]: see `psrjax.training.optimizer`
        default_factory=dict[str, dict[str, Any]]
    )
    ema: float = 0.0  # decay of the averaged parameters, less in the first steps; 0 is off
    mesh: MeshSection = field(default_factory=MeshSection)
    conv: str = "auto"  # how convolutions are computed: "auto", "native" or "fold"
    checkpoint_steps: int = 1000
    keep_checkpoints: int = 2  # the newest ones
    keep_best: str = ""  # a metric: the best by it on `data.validation_split` is kept too
    log_steps: int = 50
    evaluate_steps: int = 0  # 0 is never
    overrides: dict[str, Any] = field(default_factory=dict[str, Any])  # [stage]: changes, nested


def base(method: str = "") -> RunConfig:
    """Returns the defaults of `RunConfig` and of a method's fields, unlocked.

    Raises:
      UserError: if there is no such method.
    """
    from psrjax.methods import base as methods  # imports JAX

    fields = {**methods.defaults(method), "name": method, "stage": ""}
    return _typed({**RunConfig().to_dict(), "method": fields})


def in_stage(stage: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the dotted overrides by which only one stage changes."""
    return {f"overrides.{stage}.{key}": value for key, value in changes.items()}


def stage_weights(stage: str, update: str = "generator", /, **terms: float) -> dict[str, Any]:
    """Returns the dotted overrides by which one stage weighs the terms of an update's loss."""
    return in_stage(stage, {f"weights.{update}.{term}": weight for term, weight in terms.items()})


def linear_decay(steps: int, *updates: str, start: int = 0) -> dict[str, Any]:
    """Returns overrides: so many steps, at rates that fall linearly to 0 from `start` on."""
    schedule = {"schedule": "linear", "decay_start_step": start, "decay_end_step": steps}
    rates = {f"optimizer.{each}.{key}": v for each in updates for key, v in schedule.items()}
    return {"steps": steps, **rates}


def apply_variant(
    config: RunConfig,
    variant: str,
    *,
    presets: Mapping[str, Mapping[str, Any]] = {},
    ablations: Mapping[str, Mapping[str, Any]] = {},
) -> RunConfig:
    """Applies the comma-separated names of a variant, in their order, and locks the config.

    Each is a preset or the label of an ablation (rows of dotted overrides), "bf16", or a stage:
    stages named here are the ones to train (`config.only`).

    Raises:
      UserError: for a name that is none of these, with the list; for a config that is not valid.
    """
    presets = {**COMMON_PRESETS, **presets}
    rows = {**presets, **ablations}
    before = config.stages
    chosen = [name.strip() for name in variant.split(",") if name.strip()]
    stages = [name for name in chosen if name not in rows]
    for name in chosen:
        if name in rows:
            update(config, rows[name])
    unknown = [name for name in stages if name not in config.stages]
    if unknown:
        raise UserError(
            f"no variant {unknown[0]!r}; presets: {_list(presets)}; "
            f"stages: {_list(config.stages)}; ablations: {_list(ablations)}"
        )
    removed = set(before) - set(config.stages)  # by an ablation
    for stage in removed & set(config.overrides):
        del config.overrides[stage]
    config.only = tuple(stage for stage in config.stages if stage in stages)
    validate(config)
    return _locked(config)


def update(config: RunConfig, overrides: Mapping[str, Any]) -> RunConfig:
    """Sets dotted keys, `{"data.crop": (64, 64)}`, in place; also of a locked config.

    Raises:
      UserError: for a key that does not exist (with the nearest that does), or a value of another
        type than the one it replaces.
    """
    plain = cast(ConfigDict, config)
    with plain.unlocked():
        for key, value in overrides.items():
            _set(plain, key, value)
    return config


def override(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """Sets dotted keys as `update`, but a user's: they outrank a preset's for single stages.

    `{"steps": 9}` also removes every `overrides.STAGE.steps`, unless `values` names that one too.
    `{"data.path": DIR}` also sets `data.crop` to the stored size, unless `values` names that one
    too, or the preset cuts its crops from larger frames (`data.stored`). A stage whose preset names
    data of its own keeps them.

    Raises:
      UserError: as `update`.
    """
    path = values.get("data.path", DataSection.path)
    if path != DataSection.path and not any(config.data.stored):
        update(config, {"data.crop": DataSection.crop})
    update(config, values)
    for stage, changes in config.overrides.items():
        own = {leaf: f"overrides.{stage}.{leaf}" for leaf in flat(changes)}
        own.pop("data.path", None)
        outranked = [key for leaf, key in own.items() if _covers(values, leaf)]
        remove(config, *(key for key in outranked if not _covers(values, key)))
    return config


def remove(config: RunConfig, *keys: str) -> None:
    """Removes dotted keys in place; also of a locked config."""
    plain: Any = config
    with plain.unlocked():
        for key in keys:
            *parents, last = key.split(".")
            del functools.reduce(getitem, parents, plain)[last]


def _covers(keys: Iterable[str], leaf: str) -> bool:
    return any(f"{leaf}.".startswith(f"{key}.") for key in keys)


def stage_config(config: RunConfig, stage: str) -> RunConfig:
    """Returns the locked config of one stage: `overrides[stage]` merged in, `method.stage` set."""
    sections = config.to_dict()
    changes = sections["overrides"].get(stage, {})
    merged = _typed({**sections, "overrides": {}})
    update(merged, flat(changes))
    merged.method.stage = stage
    return _locked(merged)


def method_fields(config: RunConfig) -> dict[str, Any]:
    """Returns the arguments of `methods.base.build`: the name and the fields of `config.method`."""
    return config.method.to_dict()


def validate(config: RunConfig) -> None:
    """Checks what can be known before anything is built.

    Raises:
      UserError: naming the key that is wrong and what it may be.
    """
    if not config.stages:
        raise UserError("config.stages: no stage to train")
    for key, named in (("only", config.only), ("overrides", config.overrides)):
        for stage in named:
            if stage not in config.stages:
                raise UserError(
                    f"config.{key}: no stage {stage!r}; there are {_list(config.stages)}"
                )
    for stage in config.stages:
        _validate_stage(stage_config(config, stage))


def load(name: str, overrides: Mapping[str, Any] = {}) -> RunConfig:
    """Loads "METHOD:tiny,layer1" or "configs/METHOD.py:tiny", with dotted overrides, and locks it.

    Raises:
      UserError: if there is no such file, or for a wrong variant, key or value.
    """
    path, _, variant = name.partition(":")
    config = override(module(path).get_config(variant), overrides)
    validate(config)
    return _locked(config)


def module(name: str) -> ModuleType:
    """Runs the file of a config: its `get_config`, and what it declares.

    Raises:
      UserError: if there is no such file.
    """
    file = find(name)
    spec = importlib.util.spec_from_file_location(f"psrjax_config_{file.stem}", file)
    assert spec and spec.loader
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def names() -> tuple[str, ...]:
    """Lists the configs that stand in the checkout or in the wheel."""
    found = {path.stem for folder in _folders() for path in folder.glob("*.py")}
    return tuple(sorted(found - {"__init__"}))


def _folders() -> tuple[Path, ...]:
    here = Path(__file__).parent
    return here / "configs", here.parent / "configs"


def find(name: str) -> Path:
    """Finds the file of a config: a path, or a bare name in the checkout or in the wheel.

    Raises:
      UserError: if there is none, with the names that there are.
    """
    bare = name.removeprefix("configs/").removesuffix(".py")
    candidates = [Path(name)] if name.endswith(".py") else []
    candidates += [folder / f"{bare}.py" for folder in _folders()]
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    raise UserError(f"no config {name!r}; there are {_list(names())}")


def to_json(config: RunConfig) -> str:
    """Writes the config as JSON; `from_json` gives it back, tuples included."""
    return json.dumps(config.to_dict(), indent=2)


def from_json(text: str) -> RunConfig:
    """Reads the locked config that `to_json` wrote.

    A key that did not exist yet when it was written has its default, so that older runs stay
    readable.
    """
    saved = _tuples(json.loads(text))
    return _locked(_typed(_completed(saved, base(saved["method"]["name"]).to_dict())))


def _completed(saved: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Returns the saved values over the defaults, nested sections too."""
    nested = {
        key: _completed(saved[key], cast(dict[str, Any], default))
        for key, default in defaults.items()
        if isinstance(default, dict) and key in saved
    }
    return {**defaults, **saved, **nested}


def differences(old: RunConfig, new: RunConfig) -> dict[str, tuple[Any, Any]]:
    """Returns {dotted key: (old, new)} where two configs differ; a missing value is None."""
    before, after = flat(old.to_dict()), flat(new.to_dict())
    keys = sorted(set(before) | set(after))
    pairs = {key: (before.get(key), after.get(key)) for key in keys}
    return {key: (a, b) for key, (a, b) in pairs.items() if a != b}


def _validate_stage(config: RunConfig) -> None:
    from psrjax.methods import base as methods

    leaves = flat(config.to_dict())

    def require(good: bool, key: str, rule: str) -> None:
        if not good:
            raise UserError(f"config.{key}={leaves.get(key)}: {rule} (stage {config.method.stage})")

    for key, value in leaves.items():
        parts = cast(tuple[Any, ...], value) if isinstance(value, tuple) else (value,)
        is_leaf = all(isinstance(part, bool | int | float | str | tuple) for part in parts)
        require(is_leaf, key, "must be a number, a string or a tuple of these")
    _check_numbers(leaves, methods.defaults(config.method.name), require)
    counts = "batch accumulate steps checkpoint_steps keep_checkpoints log_steps mesh.fsdp"
    counts += " mesh.space mesh.norm_groups"
    for key in counts.split():
        require(leaves[key] >= 1, key, "must be at least 1")
    require(config.batch_per_device >= 0, "batch_per_device", "must be at least 0 (0 is off)")
    shared = config.batch_per_device % config.accumulate == 0
    require(shared, "batch_per_device", f"must be a multiple of accumulate {config.accumulate}")
    known = config.batch_rates in BATCH_RATES
    require(known, "batch_rates", f"must be one of {_list(BATCH_RATES)}")
    require(config.evaluate_steps >= 0, "evaluate_steps", "must be at least 0 (0 is never)")
    split = config.data.validation_split
    require(not config.keep_best or split != "", "data.validation_split", "keep_best needs one")
    divides = config.batch % config.accumulate == 0
    require(divides, "accumulate", f"must divide batch {config.batch}")
    require(0.0 <= config.ema < 1.0, "ema", "must be in [0, 1); 0 is off")
    require(0.0 <= config.grow < 1.0, "grow", "must be in [0, 1); 0 is off")
    require(config.method.dtype in DTYPES, "method.dtype", f"must be one of {_list(DTYPES)}")
    is_size = config.mesh.data == -1 or config.mesh.data >= 1
    require(is_size, "mesh.data", "must be -1 or at least 1")
    methods.build(**method_fields(config))


def _check_numbers(
    leaves: Mapping[str, Any], defaults: Mapping[str, Any], require: Callable[..., None]
) -> None:
    """Checks that numbers are finite, rates not negative and the method's sizes not too small."""
    for key, value in leaves.items():
        parts = cast(tuple[Any, ...], value if isinstance(value, tuple) else (value,))
        finite = all(math.isfinite(part) for part in parts if isinstance(part, float))
        require(finite, key, "must be finite")
        if key.endswith("learning_rate"):
            require(
                all(isinstance(part, str) or part >= 0 for part in parts),
                key,
                "must not be negative",
            )
        default = defaults.get(key.removeprefix("method.")) if key.startswith("method.") else None
        if type(default) is int and type(parts[0]) is int:
            least = min(default, 1)
            require(parts[0] >= least, key, f"must be at least {least}")
    require(leaves["data.workers"] >= 0, "data.workers", "must be at least 0 (0 is threads only)")
    for key in ("data.crop", "data.train_crop", "data.stored"):
        sides = cast(tuple[int, ...], leaves[key])
        good = len(sides) == 2 and min(sides) >= 0
        require(good, key, "must be height and width, such as 128,128; 0 is the stored size")


def _set(config: Any, key: str, value: Any) -> None:
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
    value = _tuples(value)
    try:
        node[last] = ConfigDict(value) if hasattr(value, "items") else value
    except TypeError as error:
        kind = type(node[last]).__name__
        raise UserError(f"config.{key}: {value!r} is not of type {kind}") from error


def _is_open(key: str) -> bool:
    return any(key.startswith(f"{prefix}.") for prefix in OPEN)


def _unknown_key(config: ConfigDict, key: str) -> str:
    near = difflib.get_close_matches(key, list(flat(config)), n=1, cutoff=0.0)
    return f"config.{key}: no such key" + (f"; did you mean config.{near[0]}?" if near else "")


def flat(section: Any) -> dict[str, Any]:
    """Returns {dotted key: leaf} of a section or of nested dicts."""
    leaves: dict[str, Any] = {}
    for key, value in section.items():
        if isinstance(value, ConfigDict | dict):
            leaves |= {f"{key}.{name}": leaf for name, leaf in flat(value).items()}
        else:
            leaves[key] = value
    return leaves


def _tuples(value: Any) -> Any:
    if hasattr(value, "items"):
        return {key: _tuples(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_tuples(item) for item in cast(Iterable[Any], value))
    return value


def _typed(sections: dict[str, Any]) -> RunConfig:
    return cast(RunConfig, ConfigDict(sections))


def _locked(config: RunConfig) -> RunConfig:
    cast(ConfigDict, config).lock()
    return config


def _list(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
