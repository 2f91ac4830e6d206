"""Converts a checkpoint of the public first-order-model into a run, without PyTorch.

AliaksandrSiarohin/first-order-model saves three nets; each of their arrays has one place here. The
conversion is strict: an array that is missing, unexpected or of another shape is named.
"""

import contextlib
import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import yaml
from flax import traverse_util

from psrjax import config as config_lib
from psrjax.config import RunConfig
from psrjax.errors import UserError
from psrjax.io import foreign
from psrjax.methods import base
from psrjax.ops import local_affine
from psrjax.pretrained import torch_files
from psrjax.training import checkpoint, optimizer, state

STAGE = "joint"

# The fields of the official configs, and their counterparts here.
_FIELDS = {
    "common_params.num_kp": "method.points",
    "kp_detector_params.temperature": "method.temperature",
    "kp_detector_params.block_expansion": "method.points_width",
    "kp_detector_params.max_features": "method.max_channels",
    "kp_detector_params.num_blocks": "method.depth",
    "generator_params.block_expansion": "method.width",
    "generator_params.max_features": "method.generator_max_channels",
    "generator_params.num_down_blocks": "method.levels",
    "generator_params.num_bottleneck_blocks": "method.blocks",
    "generator_params.dense_motion_params.block_expansion": "method.motion_width",
    "discriminator_params.block_expansion": "method.discriminator_width",
    "discriminator_params.max_features": "method.discriminator_max_channels",
    "discriminator_params.num_blocks": "method.discriminator_layers",
}
_OPTIONAL = {
    "kp_detector_params.pad": ("method.points_padding", 0),
    "generator_params.dense_motion_params.kp_variance": ("method.variance", 0.01),
    "discriminator_params.sn": ("method.discriminator_spectral", False),
    "discriminator_params.use_kp": ("method.discriminator_sees_points", False),
}


def convert(
    path: str | os.PathLike,
    yaml_path: str | os.PathLike,
    to: str | os.PathLike,
    *,
    align_corners: bool = True,
) -> Path:
    """Writes a run directory with the checkpoint's nets, ready for `psrjax synthesize`.

    Args:
      path: the checkpoint, such as vox-cpk.pth.tar.
      yaml_path: its config, such as vox-256.yaml.
      to: the new run directory.
      align_corners: how the source is sampled, see `read_config`.

    Raises:
      UserError: naming the file and the key that is missing, unexpected, or of another shape or
        value.
    """
    root = checkpoint.absolute(to)
    if (root / checkpoint.CONFIG).exists():
        raise UserError(f"{root}: holds a run already; give another --to")
    config = read_config(yaml_path, align_corners=align_corners)
    saved = torch_files.load(path)
    stage = config_lib.stage_config(config, STAGE)
    method = base.build(**config_lib.method_fields(stage))
    height, width = config.data.crop
    sizes = {"b": 1, "k": 1, "t": config.data.sampling.t, "h": height, "w": width}
    optimizers = optimizer.make_optimizers(stage.optimizer, method.updates)
    begin = functools.partial(state.init_state, method, optimizers, sizes, 0, ema=False)
    fresh = jax.jit(begin)()  # which computes no forward pass
    variables = convert_variables(
        saved, fresh.variables, factor=config.method.factor, where=str(path)
    )
    converted = state.with_variables(fresh, variables).replace(step=fresh.step + stage.steps)
    with contextlib.closing(checkpoint.Checkpoints(root / STAGE, stage)) as store:
        store.save(stage.steps, converted, {"next_index": stage.steps})
    checkpoint.write_run_config(root, config)
    return Path(os.fspath(root))


def read_config(path: str | os.PathLike, *, align_corners: bool = True) -> RunConfig:
    """Makes the config of a run that continues the training of an official YAML config.

    Args:
      path: the YAML file.
      align_corners: True is `grid_sample` as it was when the checkpoints were published and
        trained; False is its default from PyTorch 1.3 on, under which the official code answers
        differently from how it was trained.

    Raises:
      UserError: if the file is none, or describes a model that psrjax does not have.
    """
    with foreign.parsing(path, "cannot be read as a YAML config"):
        official = yaml.safe_load(Path(path).read_text())
    with foreign.parsing(path, "not a config of first-order-model"):
        return _config(official, path, align_corners)


def _config(official: Any, path: str | os.PathLike, align_corners: bool) -> RunConfig:
    def get(key: str, *default: Any) -> Any:
        value = official
        for name in key.split("."):
            if not isinstance(value, Mapping) or name not in value:
                if default:
                    return default[0]
                raise UserError(f"{path}: has no {key}; is it a config of first-order-model?")
            value = value[name]
        return value

    def require(key: str, good: Any, *default: Any) -> None:
        if get(key, *default) != good:
            raise UserError(f"{path}: {key}={get(key, *default)} is not supported, only {good}")

    model = "model_params"
    overrides = {field: get(f"{model}.{key}") for key, field in _FIELDS.items()}
    overrides |= {
        field: type(default)(get(f"{model}.{key}", default))
        for key, (field, default) in _OPTIONAL.items()
    }
    overrides["method.temperature"] = float(overrides["method.temperature"])
    levels = overrides["method.levels"]
    if type(levels) is not int or not 0 <= levels <= _MAX_LEVELS:
        raise UserError(f"{path}: {levels!r} levels; at most {_MAX_LEVELS} make sense")
    require(f"{model}.common_params.num_channels", 3)
    require(f"{model}.generator_params.estimate_occlusion_map", True, False)
    require(f"{model}.discriminator_params.scales", [1])
    motion = f"{model}.generator_params.dense_motion_params"
    for key in (f"{model}.kp_detector_params", motion):
        require(f"{key}.scale_factor", 0.5**levels, 1)
    for name in ("max_features", "num_blocks"):
        require(f"{motion}.{name}", get(f"{model}.kp_detector_params.{name}"))
    shared = get(f"{model}.kp_detector_params.single_jacobian_map", False)
    known = get(f"{model}.common_params.estimate_jacobian", False)
    overrides["method.jacobians"] = ("one" if shared else "each") if known else "none"
    shape = tuple(get("dataset_params.frame_shape", (256, 256, 3)))[:2]
    overrides |= {"method.factor": 2**levels, "data.crop": shape, "steps": 1}
    overrides["method.align_corners"] = align_corners
    overrides["data.sampling.source"] = "first"  # of a video that is animated
    return config_lib.load("internet:FoM", overrides)


def convert_variables(
    saved: Any, fresh: Mapping[str, Any], *, factor: int, where: str
) -> dict[str, Any]:
    """Brings the arrays of a checkpoint to their places here.

    Args:
      saved: the content of the file: dicts "kp_detector", "generator", "discriminator".
      fresh: {collection: {net: …}} of arrays or shapes, as the method has them.
      factor: of the Gaussian downsampling, whose kernel the checkpoint also holds.
      where: the file, for messages.

    Raises:
      UserError: naming what is missing, unexpected or of another shape.
    """
    nets = ("kp_detector", "generator", "discriminator")
    for net in nets:
        if not isinstance(saved, Mapping) or not isinstance(saved.get(net), Mapping):
            raise UserError(f"{where}: holds no {net!r}; is it a checkpoint of first-order-model?")
    arrays = {f"{net}.{key}": value for net in nets for key, value in saved[net].items()}
    leaves: dict[tuple[str, ...], Any] = traverse_util.flatten_dict(fresh)
    variables: dict[tuple[str, ...], np.ndarray] = {}
    for place, leaf in leaves.items():
        key = official_name(place, spectral="spectral" in fresh)
        if key not in arrays:
            raise UserError(f"{where}: {key!r} is missing")
        value = np.asarray(arrays.pop(key), np.float32)
        kernel = leaves.get(("params", *place[1:-1], "kernel"))
        wanted = _official_shape(place[-1], leaf.shape)
        if value.shape != wanted:
            raise UserError(
                f"{where}: {key!r} has shape {value.shape}, the config asks for {wanted}: is it "
                "the config of this checkpoint?"
            )
        variables[place] = _in_our_order(place[-1], value, kernel)
    _check_blur(arrays, factor, where)
    extra = [key for key in arrays if not key.endswith("num_batches_tracked")]
    if extra:
        raise UserError(f"{where}: {extra[0]!r} is unexpected: the config has no such layer")
    return traverse_util.unflatten_dict(variables)


def _check_blur(arrays: dict[str, Any], factor: int, where: str) -> None:
    if factor == 1:
        return
    kernel = local_affine.gaussian_kernel(factor)
    for key in ("kp_detector.down.weight", "generator.dense_motion_network.down.weight"):
        if key not in arrays:
            raise UserError(f"{where}: {key!r} is missing")
        found, wanted = np.asarray(arrays.pop(key)), np.outer(kernel, kernel)
        if found.shape != (3, 1, *wanted.shape) or np.abs(found - wanted).max() > 1e-5:
            raise UserError(f"{where}: {key!r} is not the Gaussian of scale_factor 1/{factor}")


_NETS = {
    "keypoints": "kp_detector",
    "motion": "generator.dense_motion_network",
    "generator": "generator",
    "discriminator": "discriminator.discs.1",
}
_LEAVES = {
    "kernel": "weight",
    "bias": "bias",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
    "left": "weight_u",
    "right": "weight_v",
}
_MAX_LEVELS = 16  # of a pyramid: a side is halved so many times
_HEADS = {"heatmap": "kp", "weights": "mask", "confidence": "occlusion", "logits": "conv"}


def official_name(place: tuple[str, ...], *, spectral: bool = False) -> str:
    """Returns the official name of an array.

    Args:
      place: (collection, net, layers…, leaf).
      spectral: whether the discriminator's kernels are divided by their spectral norm.
    """
    _, net, *layers, leaf = place
    parts = [_NETS[net]]
    for layer in layers:
        stem = layer.rstrip("0123456789")
        number = layer[len(stem) :]
        if net == "discriminator" and number:
            parts.append(f"down_blocks.{number}.{stem}")
        elif stem == "hourglass":
            parts.append("predictor" if net == "keypoints" else "hourglass")
        elif stem in ("down", "up"):
            inside = {"down": "encoder.", "up": "decoder."}[stem] if net != "generator" else ""
            parts.append(f"{inside}{stem}_blocks.{number}")
        elif stem == "block":
            parts.append(f"bottleneck.r{number}")
        else:
            parts.append(_HEADS.get(layer, layer))
    last = (
        "weight_orig" if spectral and net == "discriminator" and leaf == "kernel" else _LEAVES[leaf]
    )
    return ".".join([*parts, last])


def _official_shape(leaf: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[3], shape[2], shape[0], shape[1]) if leaf == "kernel" else tuple(shape)


def _in_our_order(leaf: str, value: np.ndarray, kernel: Any) -> np.ndarray:
    """Returns an official array with its axes in our order: spatial, inputs, outputs."""
    if leaf == "kernel":
        return value.transpose(2, 3, 1, 0)
    if leaf == "right":  # a number for each input channel and place
        *size, inputs, _ = kernel.shape
        return value.reshape(inputs, *size).transpose(1, 2, 0).reshape(-1)
    return value
