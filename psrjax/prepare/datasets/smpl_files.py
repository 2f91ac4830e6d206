"""Reads SMPL parameters from the files that other tools write, and poses SMPL's mesh by them."""

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from psrjax.errors import UserError
from psrjax.io import foreign
from psrjax.vision import body, smpl

_POSE = ("pose", "poses", "thetas", "smpl_thetas", "full_pose")
_SHAPE = ("betas", "shape", "smpl_betas", "beta")
_SHIFT = ("trans", "transl", "translation", "cam_trans")
_CAMERA = ("cams", "cam", "pred_cam")
# Joints of SMPL that the built-in skeleton has too: (SMPL's, of the 26).
_SHARED = ((1, 12), (2, 9), (4, 13), (5, 10), (16, 5), (17, 2), (18, 6), (19, 3))


@dataclass(frozen=True, eq=False)
class SmplParameters:
    """SMPL parameters of one clip, in camera axes (x right, y down, z away).

    Attributes:
      pose: (t, 72) axis-angle.
      betas: (s,) or (t, s).
      translation: (t, 3) metres, or None if not given.
      cameras: (t, 3) scale, x, y of a weak perspective, pictures being [-1, 1], or None.
    """

    pose: np.ndarray
    betas: np.ndarray
    translation: np.ndarray | None
    cameras: np.ndarray | None


@dataclass(frozen=True, eq=False, kw_only=True)
class SmplSurface(body.BodySurface):
    """SMPL's mesh and model; DensePose's charts of it are not known."""

    model: smpl.SmplModel


@functools.lru_cache(maxsize=1)
def surface(path: str) -> SmplSurface:
    """Reads the mesh of an SMPL file, once per process. Raises UserError as `smpl.load_smpl`."""
    model = smpl.load_smpl(path)
    count = len(model.faces)
    try:
        groups = smpl.face_groups(model)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    return SmplSurface(
        model=model,
        vertices=model.vertices,
        faces=model.faces,
        face_group=groups,
        face_part=np.zeros(count, np.int32),
        corner_uv=np.zeros((count, 3, 2), np.float32),
    )


def find(folder: str, stem: str) -> Path:
    """Finds the file of a clip's parameters.

    Raises:
      UserError: if there is none.
    """
    if not folder:
        raise UserError("--smpl needs the people's parameters: --smpl_parameters FOLDER")
    for ending in (".npz", ".pkl"):
        if (Path(folder) / f"{stem}{ending}").is_file():
            return Path(folder) / f"{stem}{ending}"
    raise UserError(f"{folder}: no SMPL parameters of {stem} ({stem}.npz or {stem}.pkl)")


def read(path: str | os.PathLike, frames: int) -> SmplParameters:
    """Reads SMPL parameters from an .npz or a pickle of arrays (no code in it runs).

    Raises:
      UserError: if the file is damaged, lacks pose or shape, or is of fewer frames.
    """
    content = load(path)
    with foreign.parsing(path, "its SMPL parameters are no numbers"):
        pose, betas, translation, cameras = (
            _find(content, keys) for keys in (_POSE, _SHAPE, _SHIFT, _CAMERA)
        )
    if pose is None or betas is None:
        name, keys = ("pose", _POSE) if pose is None else ("shape", _SHAPE)
        raise UserError(f"{path}: no SMPL {name} (one of the keys {', '.join(keys)})")
    pose = pose.reshape(len(pose), -1) if pose.size and pose.ndim else pose.ravel()[None]
    if pose.shape[1] != 72 or len(pose) < frames or not np.isfinite(pose).all():
        raise UserError(f"{path}: poses {pose.shape}; the clip needs ({frames}, 72), finite")
    if betas.ndim == 2:
        betas = betas[:frames] if len(betas) >= frames else betas[0]
    for name, found in (("translation", translation), ("cameras", cameras)):
        if found is not None and found.shape != (len(pose), 3):
            raise UserError(f"{path}: {name} are {found.shape}, poses are of {len(pose)}")
    return SmplParameters(
        pose[:frames],
        betas,
        None if translation is None else translation[:frames],
        None if cameras is None else cameras[:frames],
    )


def _find(content: Mapping[str, Any], keys: tuple[str, ...]) -> np.ndarray | None:
    return next((np.asarray(content[key], np.float64) for key in keys if key in content), None)


def load(path: str | os.PathLike) -> Mapping[str, Any]:
    """Loads the arrays of an .npz or a pickled dict, of any Python version.

    Raises:
      UserError: if the file is damaged, or something else.
    """
    with foreign.parsing(path, "neither .npz nor a pickle of arrays"):
        content = foreign.load_arrays(path)
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: holds a {type(content).__name__}; expected arrays by name")
    return content


def posed(
    surface: SmplSurface, given: SmplParameters, joints: Float[np.ndarray, "t 26 3"]
) -> Float[np.ndarray, "t v 3"]:
    """Poses SMPL's vertices in camera axes, without a translation at the place of the joints.

    Args:
      surface: as `surface` gives it.
      given: as `read` gives it.
      joints: the skeleton in the same axes, metres.
    """
    shift = given.translation
    if shift is None:
        own = smpl.joints(surface.model, given.pose, given.betas, np.zeros((len(joints), 3)))
        theirs, ours = (list(side) for side in zip(*_SHARED))
        shift = (joints[:, ours] - own[:, theirs]).mean(1)
    return smpl.vertices(surface.model, given.pose, given.betas, shift)
