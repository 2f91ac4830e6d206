"""Converts published weights of frozen networks to `.npz`, strict on names and shapes."""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from psrjax.errors import UserError
from psrjax.pretrained import alexnet, lpips, registry, torch_files, vgg

KINDS = ("torchvision", "fid-inception", "i3d", "lpips", "super-slomo")
_SLOMO_PARTS = {"flow": "state_dictFC", "synthesis": "state_dictAT"}  # {our net: its dict there}
# Layers of the files that no network here has: the classifiers behind the convolutions.
_UNUSED = {"torchvision": r"classifier\.\d+\.(weight|bias)"}
_COUNTERS = r".*\.num_batches_tracked"
_BATCH_NORM = {
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_I3D_EPSILON = {"rgb_imagenet.pt": 1e-3, "i3d_pretrained_400.pt": 1e-5}
_EPSILON = 1e-3  # of the batch norms in `psrjax.pretrained.frozen`


def convert(kind: str, path: str | os.PathLike, to: str | os.PathLike = "") -> tuple[Path, str]:
    """Writes the weights of a published file for `psrjax.pretrained.registry`.

    Args:
      kind: one of KINDS; which network the file holds is told by its arrays.
      path: the published file.
      to: the folder to write to; by default the last of the search path.

    Returns:
      The path of the .npz and the SHA-256 of its weights.

    Raises:
      UserError: naming the file, if it is not what its name's hash says, or an array is missing,
        unexpected or of another shape.
    """
    path = Path(path)
    saved = torch_files.load(path)
    if isinstance(saved, Mapping) and isinstance(saved.get("state_dict"), Mapping):
        saved = saved["state_dict"]
    if kind == "super-slomo":
        saved = _joined(saved, str(path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    digits = registry.published_hash(path.name)
    if not digest.startswith(digits):
        raise UserError(
            f"{path}: its SHA-256 begins {digest[:8]}, its name says {digits}: the file is damaged "
            "or not the published one; get it again"
        )
    name, weights = convert_arrays(kind, saved, where=str(path))
    folder = Path(to or registry.search_path()[-1])
    made = folder / f"{registry.NETWORKS[name].file}.npz"
    return made, registry.write(made, weights, source=digest)


def _joined(saved: Any, where: str) -> dict[str, Any]:
    """Joins the state dicts of Super SloMo's two nets, which lie beside numbers of its training."""
    found = {}
    for part in _SLOMO_PARTS.values():
        if not isinstance(saved, Mapping) or not isinstance(saved.get(part), Mapping):
            raise UserError(f"{where}: holds no {part!r}; is it a checkpoint of Super-SloMo?")
        found |= {f"{part}.{key}": value for key, value in saved[part].items()}
    return found


def convert_arrays(
    kind: str, saved: Any, *, where: str
) -> tuple[str, dict[str, dict[str, np.ndarray]]]:
    """Returns a network's name and its weights, from the arrays of a published file.

    Args:
      kind: one of KINDS.
      saved: {published name: array}.
      where: the file, for messages; I3D's tells the epsilon of its batch norms by its name.

    Raises:
      UserError: as `convert`.
    """
    if kind not in KINDS:
        raise UserError(f"no weights {kind!r} to convert; there are {', '.join(KINDS)}")
    if not isinstance(saved, Mapping) or not all(hasattr(v, "shape") for v in saved.values()):
        raise UserError(f"{where}: holds no weights by name; is it a file of {kind}?")
    arrays = {str(key).removeprefix("module."): np.asarray(value) for key, value in saved.items()}
    name = _network(kind, arrays, where)
    made: dict[str, dict[str, np.ndarray]] = {}
    for unit, parts in registry.NETWORKS[name].shapes().items():
        for part, shape in parts.items():
            key = published_name(name, unit, part)
            if key not in arrays:
                raise UserError(f"{where}: {key!r} is missing; is it the file of {name}?")
            found = arrays.pop(key)
            value = _in_our_order(part, found, shape)
            if value.shape != shape:
                raise UserError(
                    f"{where}: {key!r} has shape {found.shape}, which does not fit {name}'s {shape}"
                )
            made.setdefault(unit, {})[part] = value.astype(np.float32)
    ignored = re.compile(f"{_COUNTERS}|{_UNUSED.get(kind, '(?!)')}")
    extra = [key for key in arrays if not ignored.fullmatch(key)]
    if extra:
        raise UserError(f"{where}: {extra[0]!r} is unexpected: {name} has no such array")
    if kind == "i3d":
        # The copies of the weights differ in the batch norms' epsilon. The sum of variance and
        # epsilon is what counts, so a variance moved by the difference is exact.
        moved = _I3D_EPSILON.get(Path(where).name, _EPSILON) - _EPSILON
        for parts in made.values():
            if "var" in parts:
                parts["var"] = (parts["var"].astype(np.float64) + moved).astype(np.float32)
    return name, made


def published_name(network: str, unit: str, part: str) -> str:
    """Returns the published file's name of an array of a network of the registry."""
    if network == "super_slomo":
        net, _, layer = unit.partition(".")
        return f"{_SLOMO_PARTS[net]}.{layer}.{_plain(part)}"
    if network.startswith("lpips"):
        return f"{unit}.model.1.weight"
    if network in ("vgg19", "vgg16", "alexnet"):
        return f"features.{_place(network, unit)}.{_plain(part)}"
    if unit == "fc":
        return f"fc.{_plain(part)}"
    if unit == "logits":
        return f"logits.conv3d.{_plain(part)}"
    convolution = "conv3d" if network.startswith("i3d") else "conv"
    return f"{unit}.{convolution}.weight" if part == "kernel" else f"{unit}.bn.{_BATCH_NORM[part]}"


def _plain(part: str) -> str:
    return "weight" if part == "kernel" else part


def _place(network: str, unit: str) -> int:
    """Returns a convolution's number among torchvision's layers, which count ReLUs and pools."""
    if network == "alexnet":
        return dict(zip(alexnet.UNITS, (0, 3, 6, 8, 10), strict=True))[unit]
    units = list(vgg.UNITS if network == "vgg19" else vgg.UNITS16)
    index = units.index(unit)
    pools = int(unit.removeprefix("conv").partition("_")[0]) - 1
    return 2 * index + pools


def _network(kind: str, arrays: Mapping[str, np.ndarray], where: str) -> str:
    """Recognizes the network that a file holds."""
    if kind in ("fid-inception", "super-slomo"):
        return {"fid-inception": "inception", "super-slomo": "super_slomo"}[kind]
    if kind == "i3d":
        return "i3d_whole"
    first = "lin0.model.1.weight" if kind == "lpips" else "features.0.weight"
    if first not in arrays:
        raise UserError(f"{where}: {first!r} is missing; is it a file of {kind}?")
    if kind == "lpips":
        widths = tuple(
            arrays[key].shape[1:2]
            for key in sorted(arrays)
            if re.fullmatch(r"lin\d\.model\.1\.weight", key)
        )
        nets = {tuple((w,) for w in sizes): net for net, sizes in lpips.WIDTHS.items()}
        if widths not in nets:
            raise UserError(f"{where}: these are no heads of LPIPS's {' or '.join(lpips.WIDTHS)}")
        return f"lpips_{nets[widths]}"
    if arrays[first].shape[-1:] == (11,):
        return "alexnet"
    return "vgg19" if "features.34.weight" in arrays else "vgg16"


def _in_our_order(part: str, value: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Moves a kernel's channels (o i *size) last (*size i o); one of size 1 may become a matrix."""
    if part == "weight":  # a head of LPIPS: (1 c 1 1)
        return value.reshape(value.shape[1:2]) if value.ndim == 4 else value
    if part != "kernel" or value.ndim < 2:
        return value
    moved = np.moveaxis(value, (0, 1), (-1, -2))
    is_matrix = len(shape) == 2 and set(moved.shape[:-2]) <= {1}
    return moved.reshape(moved.shape[-2:]) if is_matrix else moved
