"""A trained run as one file to take along: safetensors, the config in its metadata."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

import psrjax
from psrjax import config as config_lib
from psrjax import io
from psrjax.config import RunConfig
from psrjax.data import spec
from psrjax.errors import UserError
from psrjax.io import foreign
from psrjax.methods import base
from psrjax.methods.base import Batch, Method
from psrjax.training.state import INIT_STREAMS

SUFFIX = ".safetensors"
_FORMAT = "psrjax run 1"
_MAX_HEADER = 1 << 22  # bytes; names and shapes of some 30 000 arrays
_MAX_SIZE = 1 << 16  # of a side, a window, or any whole number of the method
_SEP = "/"

# Not bfloat16: frames of the tiny presets then differ seven times as much from the run's (at most
# .59 and 4.6 of 255 in the worst of them). What has one axis (biases, scales of norms)
# and statistics stay float32: they are few, and may be large numbers.
_HALF = np.float16


def is_file(path: str | os.PathLike[str]) -> bool:
    """Returns whether a run's place is that of an exported file, which need not exist."""
    return os.fspath(path).endswith(SUFFIX)


def write(
    path: str | os.PathLike[str],
    method: Method,
    variables: Mapping[str, Any],
    config: RunConfig,
) -> None:
    """Writes what synthesis needs of a run: its weights at half precision and its config.

    Nets that only training uses, such as discriminators, are left out, and so are places of this
    machine (`config.data.path`). The frames' size is that of the run's data.

    Args:
      path: the file, ending in ".safetensors".
      method: at its stage.
      variables: {"params": (averaged where the run kept averages), collection: …}.
      config: of the stage.

    Raises:
      UserError: if the file's name ends otherwise, or it cannot be written.
    """
    if not is_file(path):
        raise UserError(f"{os.fspath(path)}: the file's name must end in {SUFFIX}")
    config = _portable(config)
    known = _flat(variables)
    arrays = {name: np.asarray(known[name]) for name in _needed(method, config)}
    metadata = {
        "format": _FORMAT,
        "psrjax": psrjax.__version__,
        "config": json.dumps(config.to_dict()),
    }
    with io.replacing(path) as temporary:
        halved = {name: _halve(name, array) for name, array in arrays.items()}
        temporary.write_bytes(safetensors.numpy.save(halved, metadata))


def read(path: str | os.PathLike[str]) -> tuple[Method, dict[str, Any], RunConfig]:
    """Reads (method, variables, the stage's config) of what `write` wrote; weights are float32.

    Nothing in the file runs, and memory is bounded by its size: the header is measured before it
    is parsed, and every shape compared with what the config makes of the method.

    Raises:
      UserError: if it is no such file, is cut off, or its arrays are not those of its config.
    """
    if io.is_remote(path):
        raise UserError(f"{os.fspath(path)}: copy the file to a disk")
    with foreign.parsing(path, "not a whole file of `psrjax export`"):
        _check_header(path := Path(path).expanduser())
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise ValueError(f"its format is {metadata.get('format')!r}, not {_FORMAT!r}")
            config, method, needed = _described(metadata["config"])
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
            for name in sorted({*needed, *found}):
                if needed.get(name) != found.get(name):
                    raise ValueError(
                        f"{name} is {found.get(name)}, its config says {needed.get(name)}"
                    )
            arrays = {name: file.get_tensor(name).astype(np.float32) for name in needed}
    return method, traverse_util.unflatten_dict(arrays, sep=_SEP), config


def _described(text: str) -> tuple[RunConfig, Method, dict[str, tuple[int, ...]]]:
    """Returns the config that a file holds as text, its method, and {name: shape} of its arrays."""
    try:
        config = config_lib.from_json(text)
        _check_sizes(config)
        method = base.build(**config_lib.method_fields(config))
        return config, method, _needed(method, config)
    except UserError as error:
        raise ValueError(str(error)) from error  # which is told with the file's name


def _portable(config: RunConfig) -> RunConfig:
    """Returns the config without places of this machine, the frames' size told."""
    from psrjax.inference import transfer  # PyAV, which training alone does without

    sections = config.to_dict()
    own = config_lib.update(
        config_lib.from_json(json.dumps(sections)),
        {"data.crop": transfer.frame_size(config), "init": config_lib.InitSection().to_dict()},
    )
    if config.data.path != config_lib.DataSection.path:
        config_lib.update(own, {"data.path": ""})
    return own


def _needed(method: Method, config: RunConfig) -> dict[str, tuple[int, ...]]:
    """Returns {name: shape} of the arrays that synthesis and baselines read."""
    height, width = config.data.crop
    sampling = config.data.sampling
    sizes = {"b": 1, "k": sampling.k, "t": sampling.t, "h": height, "w": width}
    keys = {*method.reads, *method.synthesis_reads, *method.baseline_reads}

    def synthesize(module: Method, batch: Batch) -> None:
        module.synthesize(batch, module.start(batch), True)
        module.baselines(batch)

    def make() -> Any:
        rngs: dict[str, jax.Array] = dict(
            zip(INIT_STREAMS, jax.random.split(jax.random.key(0), len(INIT_STREAMS)))
        )
        return method.init(rngs, spec.decode(spec.zeros(keys, sizes)), method=synthesize)

    return {name: leaf.shape for name, leaf in _flat(jax.eval_shape(make)).items()}


def _flat(variables: Mapping[str, Any]) -> dict[str, Any]:
    return traverse_util.flatten_dict(dict(variables), sep=_SEP)


def _halve(name: str, array: np.ndarray) -> np.ndarray:
    is_weight = name.startswith(f"params{_SEP}") and array.ndim > 1
    fits = np.abs(array).max(initial=0) <= np.finfo(_HALF).max
    return array.astype(_HALF) if is_weight and fits else array


def _check_header(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > min(_MAX_HEADER, size - 8):
        raise ValueError(f"a header of {length} bytes in a file of {size}")


def _check_sizes(config: RunConfig) -> None:
    """Raises ValueError for sizes that no run has: what they make would never end."""
    sampling = config.data.sampling
    sizes = {"crop": config.data.crop, "k": sampling.k, "t": sampling.t, **config.method.to_dict()}
    for name, value in sizes.items():
        numbers = [each for each in np.ravel([value]).tolist() if isinstance(each, int | float)]
        if any(not math.isfinite(each) or abs(each) > _MAX_SIZE for each in numbers):
            raise ValueError(f"its config says {name}={value}")
