"""Weights of frozen networks by name: `<name>.npz` in a search path, or untrained ones for tests.

`<name>.npz` holds arrays named `<unit>/<array>` in float32 or float16; a file that `write` made
also holds its own hash, and that of the file it was converted from. The search path is
$PSRJAX_WEIGHTS (folders or gs:// addresses, separated as in $PATH), then the folder `weights` of
the cache.
"""

import dataclasses
import hashlib
import importlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from psrjax import io
from psrjax.errors import UserError
from psrjax.io import foreign

CONTENT, SOURCE = "about/content_sha256", "about/source_sha256"  # entries beside the arrays


@dataclasses.dataclass(frozen=True)
class Network:
    """A frozen network.

    Attributes:
      module: has shapes(**options) and random_weights(**options).
      published: the file that its weights were published in; its name may end in the first digits
        of its SHA-256.
      kind: what `psrjax convert` calls that file.
      file: the stem of its .npz.
      options: for the module's functions.
    """

    module: str
    published: str
    kind: str
    file: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def shapes(self) -> dict[str, dict[str, tuple[int, ...]]]:
        """Returns {unit: {array: shape}} of its weights."""
        return importlib.import_module(self.module).shapes(**self.options)


NETWORKS = {
    "i3d": Network("psrjax.pretrained.i3d", "rgb_imagenet.pt", "i3d", "i3d"),
    "i3d_whole": Network("psrjax.pretrained.i3d", "rgb_imagenet.pt", "i3d", "i3d", {"whole": True}),
    "vgg19": Network("psrjax.pretrained.vgg", "vgg19-dcbb9e9d.pth", "torchvision", "vgg19"),
    "vgg16": Network(
        "psrjax.pretrained.vgg", "vgg16-397923af.pth", "torchvision", "vgg16", {"depth": 16}
    ),
    "alexnet": Network(
        "psrjax.pretrained.alexnet", "alexnet-owt-7be5be79.pth", "torchvision", "alexnet"
    ),
    "inception": Network(
        "psrjax.pretrained.inception",
        "pt_inception-2015-12-05-6726825d.pth",
        "fid-inception",
        "inception",
    ),
    "super_slomo": Network(
        "psrjax.pretrained.super_slomo", "SuperSloMo.ckpt", "super-slomo", "super_slomo"
    ),
    "lpips_alex": Network(
        "psrjax.pretrained.lpips", "alex.pth", "lpips", "lpips_alex", {"net": "alex"}
    ),
    "lpips_vgg": Network(
        "psrjax.pretrained.lpips", "vgg.pth", "lpips", "lpips_vgg", {"net": "vgg"}
    ),
}


def load(name: str) -> dict[str, dict[str, np.ndarray]]:
    """Loads {unit: {array: weights}} of "i3d", or untrained ones, from a fixed seed, "i3d:random".

    Raises:
      UserError: for an unknown name, a missing file, or one that holds other weights.
    """
    network, _, kind = name.partition(":")
    expected = shapes(name)
    if kind == "random":
        chosen = NETWORKS[network]
        return importlib.import_module(chosen.module).random_weights(**chosen.options)
    return _read(find(network), expected)


def shapes(name: str) -> dict[str, dict[str, tuple[int, ...]]]:
    """Returns {unit: {array: shape}} of what `load` gives.

    Raises:
      UserError: for an unknown name.
    """
    network, _, kind = name.partition(":")
    if network not in NETWORKS or kind not in ("", "random"):
        known = ", ".join(f"{known}, {known}:random" for known in NETWORKS)
        raise UserError(f"no pretrained weights {name!r}; there are {known}")
    return NETWORKS[network].shapes()


def search_path() -> tuple[epath.Path, ...]:
    """Lists the folders that are searched, in order."""
    given = os.environ.get("PSRJAX_WEIGHTS", "")
    cache = os.environ.get("PSRJAX_CACHE") or Path.home() / ".cache" / "psrjax"
    return (
        *(io.absolute(folder) for folder in re.split(rf"{os.pathsep}(?!//)", given) if folder),
        epath.Path(cache) / "weights",
    )


def find(network: str) -> epath.Path:
    """Finds the file that holds a network's weights.

    Raises:
      UserError: if no folder of the search path has it: which file it is, its hash, where it was
        looked for, and what makes it.
    """
    name = f"{NETWORKS[network].file}.npz"
    for folder in search_path():
        if (folder / name).is_file():
            return folder / name
    searched = ", ".join(map(str, search_path()))
    published, kind = NETWORKS[network].published, NETWORKS[network].kind
    digits = published_hash(published)
    hashed = f" (SHA-256 begins {digits})" if digits else ""
    raise UserError(
        f"no weights {name} in {searched}: make them by `psrjax convert {kind} {published}`"
        f"{hashed}, put them there (or name their folder in PSRJAX_WEIGHTS), or do without (a "
        "loss: --config.method.perceptual=off; a metric: its name with rand_, of untrained weights)"
    )


def published_hash(name: str) -> str:
    """Returns the first digits of a published file's SHA-256 that its name ends in, or ""."""
    digits = Path(name).stem.rpartition("-")[2].lower()
    return digits if len(digits) == 8 and set(digits) <= set("0123456789abcdef") else ""


def write(path: Path, weights: Mapping[str, Mapping[str, np.ndarray]], *, source: str) -> str:
    """Writes `<name>.npz` in float32, whole or not at all, with its hash.

    Args:
      path: of the file.
      weights: {unit: {array: values}}.
      source: SHA-256 of the file that they are from.

    Returns:
      The SHA-256 of the weights.
    """
    arrays = _flat(weights)
    digest = _digest(arrays)
    path.parent.mkdir(parents=True, exist_ok=True)
    with io.replacing(path) as temporary:
        with open(temporary, "wb") as file:
            about = {CONTENT: np.array(digest), SOURCE: np.array(source)}
            np.savez(file, allow_pickle=False, **arrays, **about)
    return digest


def digest(weights: Mapping[str, Mapping[str, np.ndarray]]) -> str:
    """Returns the SHA-256 of weights, as `write` does."""
    return _digest(_flat(weights))


def _flat(weights: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {
        f"{unit}/{part}": np.asarray(value, np.float32)
        for unit, parts in weights.items()
        for part, value in parts.items()
    }


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Hashes arrays by name: names, shapes and float32 values."""
    found = hashlib.sha256()
    for name in sorted(arrays):
        found.update(f"{name} {arrays[name].shape} ".encode())
        found.update(np.ascontiguousarray(arrays[name], "<f4").tobytes())
    return found.hexdigest()


def _read(
    path: epath.Path, expected: Mapping[str, Mapping[str, tuple]]
) -> dict[str, dict[str, np.ndarray]]:
    with foreign.parsing(path, "cannot be read as .npz weights"):
        stored = foreign.load_npz(path)
        about = {key: str(stored[key]) for key in stored if key.startswith("about/")}
        arrays = {key: stored[key].astype(np.float32) for key in stored if key not in about}
    if CONTENT in about and _digest(arrays) != about[CONTENT]:
        raise UserError(f"{path}: its weights are not those that its hash tells: convert it again")
    weights: dict[str, dict[str, np.ndarray]] = {}
    for unit, parts in expected.items():
        for part, shape in parts.items():
            found = arrays.get(f"{unit}/{part}")
            if found is None or found.shape != shape:
                have = "nothing" if found is None else f"shape {found.shape}"
                raise UserError(f"{path}: {unit}/{part} should be {shape}, there is {have}")
            weights.setdefault(unit, {})[part] = found
    return weights
