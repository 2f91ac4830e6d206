"""Reads DensePose IUV files (Güler et al., CVPR 2018): body part 0..24 and its u, v, per pixel.

Writers disagree on the order of the channels: the authors' PNG files hold I, U, V as OpenCV's
blue, green and red, so that OpenCV reads I, U, V and other readers V, U, I; other tools write the
reverse. The values tell: parts are at most 24, and where the part is 0, so are u and v.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Shaped, UInt8

from psrjax.errors import UserError
from psrjax.io import foreign

PARTS = 24
FILES = (".png", ".npz", ".npy", ".pkl", ".pickle")
_KEYS = ("iuv", "IUV", "densepose", "arr_0")
_LABELS, _UV, _BOX, _SIZE = "labels", "uv", "bbox", "size"
_SAMPLED = 32  # files of a clip whose values decide the order of channels


def list_files(folder: str | os.PathLike) -> list[Path]:
    """Lists a folder's IUV files in no order, without `*_INDS.png` (numbers of people)."""
    inside = Path(folder).iterdir()
    return [path for path in inside if path.suffix in FILES and "INDS" not in path.stem]


def read(path: str | os.PathLike, *, reverse: bool = False) -> UInt8[np.ndarray, "h w 3"]:
    """Reads one picture's I, U, V: part 0..24, and u, v times 255.

    Args:
      path: a PNG, an .npz or .npy of (h, w, 3) or (3, h, w), or a pickle of plain arrays: `iuv`, or
        `labels` (h, w) and `uv` (2, h, w) in [0, 1] of one person, with `bbox` (left, top, …) and
        `size` (height, width) if they are cropped. No code in a pickle runs.
      reverse: whether the channels are V, U, I (see `reversed_order`).

    Raises:
      UserError: if the file is damaged, something else, or its parts exceed 24.
    """
    iuv = _read_array(path)
    iuv = iuv[..., ::-1] if reverse else iuv
    if iuv[..., 0].max(initial=0) > PARTS:
        raise UserError(
            f"{path}: body parts up to {iuv[..., 0].max()}, DensePose has {PARTS}: not an IUV "
            "picture, or one that was resized or stored as JPEG"
        )
    return np.ascontiguousarray(iuv)


def reversed_order(paths: Iterable[str | os.PathLike]) -> bool:
    """Tells whether the files of one clip hold V, U, I rather than I, U, V.

    Raises:
      UserError: if neither order fits the values.
    """
    listed = list(paths)
    chosen = np.unique(np.linspace(0, len(listed) - 1, min(len(listed), _SAMPLED)).astype(int))
    fits = [True, True]
    for index in chosen:
        iuv = _read_array(listed[index])
        fits = [fit and _plausible(iuv[..., ::step]) for fit, step in zip(fits, (1, -1))]
        if not any(fits):
            raise UserError(
                f"{listed[index]}: in neither order of the channels are there parts of 0..{PARTS} "
                "and u, v on them alone: not IUV, or resized, or stored as JPEG"
            )
    return not fits[0]


def _plausible(iuv: UInt8[np.ndarray, "h w 3"]) -> bool:
    part = iuv[..., 0]
    return bool(part.max(initial=0) <= PARTS and not iuv[part == 0][:, 1:].any())


def _read_array(path: str | os.PathLike) -> UInt8[np.ndarray, "h w 3"]:
    if Path(path).suffix == ".png":
        foreign.check_picture(path)
        picture = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
        if picture is None or picture.ndim != 3 or picture.dtype != np.uint8:
            raise UserError(f"{path}: not a whole PNG of three channels of 8 bits")
        return picture[..., :3]
    with foreign.parsing(path, "damaged, or not arrays"):
        return _to_uint8(path, _extract(path, foreign.load_arrays(path)))


def _extract(path: str | os.PathLike, content: Any) -> Shaped[np.ndarray, "..."]:
    if isinstance(content, np.ndarray):
        return content
    if isinstance(content, Mapping):
        key = next((key for key in _KEYS if key in content), None)
        if key:
            return np.asarray(content[key])
        if _LABELS in content and _UV in content:
            return _paste(path, content)
    raise UserError(
        f"{path}: no IUV in it as plain arrays (`iuv`, or `labels` and `uv`); what detectron2's "
        "apply_net.py dumps needs its own classes: write it out with save_iuv, which "
        "the documents' page on single_person has"
    )


def _paste(path: str | os.PathLike, content: Mapping[str, Any]) -> np.ndarray:
    """Pastes one person's chart result where its box lies in the picture."""
    labels, uv = np.asarray(content[_LABELS]), np.asarray(content[_UV], np.float32)
    if labels.ndim != 2 or uv.shape != (2, *labels.shape):
        raise UserError(f"{path}: labels {labels.shape} and uv {uv.shape}; (h, w) and (2, h, w)")
    own = np.concatenate([labels[None].astype(np.float32), np.clip(uv, 0, 1) * 255])
    own = np.moveaxis(np.where(labels[None] > 0, own.astype(np.uint8), np.uint8(0)), 0, -1)
    if _BOX not in content or _SIZE not in content:
        return own
    left, top = (int(edge) for edge in np.asarray(content[_BOX]).ravel()[:2])
    height, width = (int(side) for side in np.asarray(content[_SIZE]).ravel())
    if height * width > foreign.MAX_PIXELS:
        raise UserError(f"{path}: a picture of {width}x{height} pixels")
    picture = np.zeros((height, width, 3), np.uint8)
    target = picture[max(top, 0) : top + own.shape[0], max(left, 0) : left + own.shape[1]]
    target[:] = own[max(-top, 0) :, max(-left, 0) :][: target.shape[0], : target.shape[1]]
    return picture


def _to_uint8(path: str | os.PathLike, array: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[-1] != 3:
        array = np.moveaxis(array, 0, -1)
    if array.ndim != 3 or array.shape[-1] != 3:
        raise UserError(f"{path}: an array {array.shape}; IUV is (h, w, 3) or (3, h, w)")
    if array.dtype == np.uint8:
        return array
    values = np.asarray(array, np.float32)
    if values[..., 1:].max(initial=0) <= 1.0:  # u, v as fractions; truncated, as the authors do
        values = values * np.array([1, 255, 255], np.float32)
    return np.clip(values, 0, 255).astype(np.uint8)


def crop(
    iuv: UInt8[np.ndarray, "h w 3"],
    box: tuple[int, int, int, int],
    video: tuple[int, int],
    size: tuple[int, int],
) -> UInt8[np.ndarray, "hh ww 3"]:
    """Crops `box` (top, left, height, width in a picture of size `video`), resized to `size`.

    Takes the nearest pixels, since parts cannot be averaged; 0 beyond the edges.
    """
    scale = np.asarray(iuv.shape[:2]) / np.asarray(video)
    places = [
        np.floor((start + (np.arange(count) + 0.5) * extent / count) * s).astype(int)
        for start, extent, count, s in zip(box[:2], box[2:], size, scale)
    ]
    held = [(place >= 0) & (place < side) for place, side in zip(places, iuv.shape[:2])]
    picked = iuv[np.ix_(*(np.clip(p, 0, side - 1) for p, side in zip(places, iuv.shape[:2])))]
    return np.where((held[0][:, None] & held[1])[..., None], picked, np.uint8(0))
