"""Weights of frozen networks by name: `<name>.npz` in a search path, or untrained ones for tests.

`<name>.npz` holds arrays named `<unit>/<array>` in float32 or float16. The search path is
$PSRJAX_WEIGHTS (folders separated as in $PATH), then the cache's folder `weights`.
"""

import importlib
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from psrjax.errors import UserError

# name -> the module that says what its weights look like: shapes() and random_weights(seed).
NETWORKS = {"i3d": "psrjax.nn.i3d", "vgg19": "psrjax.nn.vgg"}


def load(name: str) -> dict[str, dict[str, np.ndarray]]:
    """{unit: {array: weights}} of "i3d", or untrained ones of "i3d:random".

    Raises:
      UserError: for an unknown name, a missing file, or one that holds other weights.
    """
    network, _, kind = name.partition(":")
    expected = shapes(name)
    if kind == "random":
        return importlib.import_module(NETWORKS[network]).random_weights()
    return _read(_find(network), expected)


def shapes(name: str) -> dict[str, dict[str, tuple[int, ...]]]:
    """{unit: {array: shape}} of what `load` gives.

    Raises:
      UserError: for an unknown name.
    """
    network, _, kind = name.partition(":")
    if network not in NETWORKS or kind not in ("", "random"):
        known = ", ".join(f"{known}, {known}:random" for known in NETWORKS)
        raise UserError(f"no pretrained weights {name!r}; there are {known}")
    return importlib.import_module(NETWORKS[network]).shapes()


def search_path() -> tuple[Path, ...]:
    """The folders that are searched, in order."""
    given = os.environ.get("PSRJAX_WEIGHTS", "")
    cache = os.environ.get("PSRJAX_CACHE") or Path.home() / ".cache" / "psrjax"
    return (
        *(Path(folder) for folder in given.split(os.pathsep) if folder),
        Path(cache) / "weights",
    )


def _find(network: str) -> Path:
    for folder in search_path():
        if (folder / f"{network}.npz").is_file():
            return folder / f"{network}.npz"
    searched = ", ".join(map(str, search_path()))
    raise UserError(
        f"no weights {network}.npz in {searched}: put them there (or name their folder in "
        "PSRJAX_WEIGHTS), or switch off what needs them (config.method.perceptual=off)"
    )


def _read(
    path: Path, expected: Mapping[str, Mapping[str, tuple]]
) -> dict[str, dict[str, np.ndarray]]:
    try:
        with np.load(path) as file:
            arrays = {key: file[key].astype(np.float32) for key in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read as .npz weights: {error}") from error
    weights: dict[str, dict[str, np.ndarray]] = {}
    for unit, parts in expected.items():
        for part, shape in parts.items():
            found = arrays.get(f"{unit}/{part}")
            if found is None or found.shape != shape:
                have = "nothing" if found is None else f"shape {found.shape}"
                raise UserError(f"{path}: {unit}/{part} should be {shape}, there is {have}")
            weights.setdefault(unit, {})[part] = found
    return weights
