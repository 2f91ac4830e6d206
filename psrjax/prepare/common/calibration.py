"""Reads camera calibrations: OpenCV-style JSON and Qualisys text."""

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from psrjax.errors import UserError
from psrjax.io import foreign
from psrjax.vision.camera import Camera


def calibration_files(folder: Path | str) -> list[Path]:
    """Lists the calibration files in `folder`, OpenCV-style JSON before Qualisys text."""
    folder = Path(folder)
    return sorted(folder.glob("*.json")) + sorted(folder.glob("*.qca.txt"))


def read_calibration(path: Path | str) -> dict[str, Camera]:
    """Reads a calibration: OpenCV-style JSON, or Qualisys `.qca.txt`; cameras by name.

    The JSON maps names to `K`, `R`, `t` (metres; world to camera, OpenCV axes), `dist` and an
    optional `image_size` [width, height] as OpenCV writes it, or `size` [height, width] as psrjax
    does; common spellings are known. A camera without a size gets (0, 0).

    Raises:
      UserError: if the file is not readable, or a camera's numbers are impossible.
    """
    path = Path(path)
    read = _opencv if path.suffix == ".json" else _qualisys
    with foreign.parsing(path, "the calibration cannot be read"):
        cameras = read(path, path.read_text(encoding="utf-8-sig"))
    if not cameras:
        raise UserError(f"{path}: holds no camera")
    return cameras


def same_name(one: str, other: str) -> bool:
    """Tells whether two camera names differ at most in case and punctuation (`cam_01`, `Cam01`)."""
    return _bare(one) == _bare(other)


def _bare(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


_SPELLINGS = {
    "matrix": ("K", "matrix", "camera_matrix", "intrinsic", "intrinsics"),
    "rotation": ("R_world_to_cam_opencv", "R", "rotation", "rvec"),
    "translation": ("t_m", "t", "T", "translation", "tvec"),
    "distortion": ("dist_k1k2p1p2", "dist", "distortion", "dist_coeffs", "distortion_coefficients"),
    "image_size": ("image_size", "resolution"),
}


def _opencv(path: Path, text: str) -> dict[str, Camera]:
    try:
        entries = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path}: not a whole JSON file ({error})") from error
    if isinstance(entries, dict) and isinstance(entries.get("cameras"), dict):
        entries = entries["cameras"]
    if not isinstance(entries, dict) or not all(isinstance(e, dict) for e in entries.values()):
        raise UserError(f"{path}: expected an object of cameras by name, each with K, dist, R, t")
    return {name: _opencv_camera(path, name, entry) for name, entry in entries.items()}


def _opencv_camera(path: Path, name: str, entry: dict) -> Camera:
    found = {
        part: next((entry[key] for key in keys if key in entry), None)
        for part, keys in _SPELLINGS.items()
    }
    missing = [part for part in ("matrix", "rotation", "translation") if found[part] is None]
    if missing:
        keys = ", ".join(_SPELLINGS[missing[0]])
        raise UserError(f"{path}: camera {name!r} has no {missing[0]} (one of the keys {keys})")
    size = entry.get("size", (0, 0) if found["image_size"] is None else found["image_size"][::-1])
    distortion = [] if found["distortion"] is None else found["distortion"]
    return _camera(
        path, name, found["matrix"], found["rotation"], found["translation"], distortion,
        size,
    )  # fmt: skip


def _qualisys(path: Path, text: str) -> dict[str, Camera]:
    """Reads Qualisys text: millimetres, 64ths of a pixel, camera y and z reversed."""
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise UserError(f"{path}: not a whole Qualisys calibration file ({error})") from error
    cameras: dict[str, Camera] = {}
    for node in root.iter("camera"):
        name = node.get("serial", f"camera {len(cameras)}")
        if int(node.get("viewrotation", "0")):
            raise UserError(
                f"{path}: camera {name!r} has viewrotation {node.get('viewrotation')}, which is "
                "not supported: export the calibration and the video unrotated"
            )
        cameras[name] = _qualisys_camera(path, name, node)
    return cameras


def _qualisys_camera(path: Path, name: str, node: ElementTree.Element) -> Camera:
    try:
        view, lens, place = (
            {key: float(value) for key, value in child.attrib.items()}
            for kind in ("fov_video", "intrinsic", "transform")
            for child in node.findall(kind)[:1]
        )
        matrix = np.asarray([
            [lens["focalLengthU"] / 64, 0.0, lens["centerPointU"] / 64 - view["left"]],
            [0.0, lens["focalLengthV"] / 64, lens["centerPointV"] / 64 - view["top"]],
            [0.0, 0.0, 1.0],
        ])  # fmt: skip
        axes = [[place[f"r{i}{j}"] for j in (1, 2, 3)] for i in (1, 2, 3)]
        rotation = np.diag([1.0, -1.0, -1.0]) @ np.asarray(axes)
        centre = np.asarray([place["x"], place["y"], place["z"]]) / 1000.0
        distortion = [
            lens["radialDistortion1"], lens["radialDistortion2"],
            lens["tangentalDistortion1"], lens["tangentalDistortion2"],
            lens["radialDistortion3"],
        ]  # fmt: skip
        size = int(view["bottom"] - view["top"]) + 1, int(view["right"] - view["left"]) + 1
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: camera {name!r} is not whole ({error!r})") from error
    return _camera(path, name, matrix, rotation, -rotation @ centre, distortion, size)


def _camera(path, name, matrix, rotation, translation, distortion, size) -> Camera:
    """Checks and makes a camera; a rotation of three numbers is a Rodrigues vector."""
    try:
        matrix = np.asarray(matrix, np.float64).reshape(3, 3)
        rotation = np.asarray(rotation, np.float64)
        if rotation.size == 3:
            rotation = Rotation.from_rotvec(rotation.ravel()).as_matrix()
        rotation = rotation.reshape(3, 3)
        translation = np.asarray(translation, np.float64).reshape(3)
        distortion = np.asarray(distortion, np.float64).reshape(-1)
        height, width = (int(side) for side in size)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: camera {name!r}: {error}") from error
    if len(distortion) > 5 and np.any(distortion[5:]):
        raise UserError(f"{path}: camera {name!r}: only k1 k2 p1 p2 k3 of the distortion are known")
    distortion = np.pad(distortion[:5], (0, max(0, 5 - len(distortion))))
    numbers = np.concatenate([matrix.ravel(), rotation.ravel(), translation, distortion])
    if not np.isfinite(numbers).all() or matrix[0, 0] <= 0 or matrix[1, 1] <= 0:
        raise UserError(f"{path}: camera {name!r}: K, R, t must be finite and focal lengths > 0")
    unit = np.abs(rotation @ rotation.T - np.eye(3)).max()
    if unit > 1e-3 or np.linalg.det(rotation) < 0:
        raise UserError(f"{path}: camera {name!r}: R is not a rotation (R Rᵀ is off by {unit:.3g})")
    return Camera(matrix, rotation, translation, distortion=distortion, size=(height, width))
