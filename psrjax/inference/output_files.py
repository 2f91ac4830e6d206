"""The files that a synthesized video may become: a video, a GIF, a WebP, a folder of pictures.

A name's ending says which. A name without one, or one that ends in "/", is a folder, whose pictures
are 000000.png, 000001.png, …: without loss. Every file says in its metadata that it is synthesized.
"""

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import ExifTags, Image, PngImagePlugin

from psrjax import io
from psrjax.data import video
from psrjax.errors import UserError
from psrjax.inference import content_credentials
from psrjax.inference.marks import UNNAMED, Mark

VIDEOS = (".mp4", ".mov", ".mkv", ".avi")
ANIMATIONS = (".gif", ".webp")
FOLDER = ""  # the suffix of a folder of pictures
_LEAST_GIF_STEP = 0.02  # seconds: browsers show what is quicker at a tenth of a second a frame
_PICTURE = re.compile(r"\d{6}\.png")


def suffix_of(path: str | os.PathLike) -> str:
    """Returns what a name's ending asks for, one of `VIDEOS`, `ANIMATIONS` or `FOLDER`.

    Raises:
      UserError: for an ending that cannot be written.
    """
    text = os.fspath(path)
    suffix = FOLDER if text.endswith("/") or Path(text).is_dir() else Path(text).suffix.lower()
    if suffix not in (*VIDEOS, *ANIMATIONS, FOLDER):
        raise UserError(
            f"{text}: a {suffix} cannot be written; end the name in {', '.join(VIDEOS)}, "
            f"{' or '.join(ANIMATIONS)}, or in / for a folder of pictures"
        )
    return suffix


def takes_sound(path: str | os.PathLike) -> bool:
    """Returns whether what a name's ending asks for has sound; of "DIR/*.mp4" each file's."""
    return Path(path).suffix.lower() in VIDEOS and suffix_of(path) != FOLDER


def check(path: str | os.PathLike, *, audio: str = "", lossless: bool = False) -> None:
    """Refuses what could not be written, before anything is computed.

    Args:
      path: the file or folder to write.
      audio: a file whose sound goes with it, or "".
      lossless: whether it must be written without loss.

    Raises:
      UserError: for an ending that is not known, sound that it does not take, or a place that
        cannot be written to.
    """
    path, suffix = Path(path), suffix_of(path)
    if audio and suffix not in VIDEOS:
        kind = suffix or "folder of pictures"
        raise UserError(f"{path}: a {kind} has no sound: leave --audio out, or write an .mp4")
    if lossless and suffix not in (*video.LOSSLESS_SUFFIXES, FOLDER):
        raise UserError(f"{path}: without loss only .mkv, .avi and folders are written")
    if audio:
        video.check_audio(path, audio)
    if suffix == FOLDER:
        _require_replaceable(path)
    elif path.is_dir():
        raise UserError(f"{path}: is a folder; name a file in it")
    there = next(
        each for each in (path.absolute().parent, *path.absolute().parents) if each.exists()
    )
    if not there.is_dir():
        raise UserError(f"{path}: a part of the path is a file, not a folder")
    if not os.access(there, os.W_OK):
        raise UserError(f"{path}: no permission to write there")


def write(
    path: str | os.PathLike,
    frames: Iterable[UInt8[np.ndarray, "h w 3"]],
    *,
    times: Float[np.ndarray, " t"],
    suffix: str | None = None,
    audio: str = "",
    lossless: bool = False,
    mark: Mark | None = UNNAMED,
) -> None:
    """Writes frames as `suffix_of` the path says, whole or not at all.

    An animation is kept in memory until its last frame. A GIF loses frames that follow one another
    in less than 20 ms, which no browser shows.

    Args:
      path: the file or folder.
      frames: of one size; as many as times.
      times: seconds at which they are shown, increasing.
      suffix: where it is not that of the path.
      audio: a file whose sound is copied, or "".
      lossless: of a video: FFV1 instead of H.264.
      mark: what the file says of itself; None of frames that nobody has synthesized.

    Raises:
      UserError: as `psrjax.data.video.write` does, and as `check`.
    """
    path = Path(path)
    suffix = suffix_of(path) if suffix is None else suffix
    frames, comment = (map(mark.on, frames), mark.text) if mark else (frames, "")
    if suffix in ANIMATIONS:
        _write_animation(path, frames, times, suffix, comment)
    elif suffix == FOLDER:
        _write_folder(path, frames, comment)
    else:
        options: Any = {"audio": audio, "lossless": lossless, "comment": comment}
        video.write(path, frames, times=times, **options)
    if mark and mark.signer:
        content_credentials.sign(path, mark.signer, title=comment)


def _write_animation(
    path: Path, frames: Iterable[np.ndarray], times: np.ndarray, suffix: str, comment: str
) -> None:
    is_gif = suffix == ".gif"
    shown = _far_enough(times) if is_gif else list(range(len(times)))
    unit = 10 if is_gif else 1  # milliseconds
    usual = float(np.median(np.diff(times))) if len(times) > 1 else 1.0
    ends = np.append(times[shown[1:]], times[-1] + usual)
    ticks = np.round(np.append(times[0], ends) * 1000 / unit).astype(int)
    pictures = _pictures(frames, set(shown))
    options: dict[str, Any] = {"comment": comment.encode()}
    if not is_gif:
        exif = Image.Exif()
        exif[ExifTags.Base.ImageDescription] = comment
        options = {"quality": 90, "method": 4, "exif": exif}
    with io.replacing(path) as temporary:
        next(pictures).save(
            temporary,
            format=suffix.removeprefix("."),
            save_all=True,
            append_images=pictures,
            duration=(np.diff(ticks) * unit).tolist(),
            loop=0,
            **options,
        )


def _far_enough(times: np.ndarray) -> list[int]:
    """Numbers the frames that are at least `_LEAST_GIF_STEP` after the one before."""
    taken = [0]
    for number, time in enumerate(times):
        if time - times[taken[-1]] >= _LEAST_GIF_STEP - 1e-6:
            taken.append(number)
    return taken


def _pictures(frames: Iterable[np.ndarray], shown: set[int]) -> Iterator[Image.Image]:
    for number, frame in enumerate(frames):
        if number in shown:
            yield Image.fromarray(frame)


def _write_folder(path: Path, frames: Iterable[np.ndarray], comment: str) -> None:
    about = PngImagePlugin.PngInfo()
    about.add_text("Comment", comment)
    _require_replaceable(path)
    with io.replacing(path) as temporary:
        folder = Path(temporary)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            for number, frame in enumerate(frames):
                Image.fromarray(frame).save(folder / f"{number:06d}.png", pnginfo=about)
            shutil.rmtree(path, ignore_errors=True)
        except BaseException:
            shutil.rmtree(folder)
            raise


def _require_replaceable(path: Path) -> None:
    """Raises UserError if a folder holds what a folder of pictures does not."""
    if path.is_file():
        raise UserError(f"{path}: is a file, not a folder")
    inside = path.iterdir() if path.exists() else ()
    other = [each.name for each in inside if not _PICTURE.fullmatch(each.name)]
    if other:
        raise UserError(f"{path}: holds {other[0]}; name a folder of its own for the pictures")
