"""A video in memory whose frames may still be in the making: iterated, shown and saved.

Also what stands for a video or a picture where the user has no file: see `as_place`.
"""

import base64
import dataclasses
import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from psrjax import io
from psrjax.data import codec, video
from psrjax.errors import UserError
from psrjax.inference import output_files
from psrjax.inference.marks import UNNAMED, Mark

Item = TypeVar("Item")
_WIDTH = 256  # pixels in a notebook, at least
_FPS = 25.0  # of frames without times


class Kept(Generic[Item]):
    """Keeps the items of an iterator as they come: several may iterate over them, and again."""

    def __init__(self, items: Iterable[Item]):
        self._rest, self._items = iter(items), list[Item]()

    def __iter__(self) -> Iterator[Item]:
        number = 0
        while True:
            if number == len(self._items):
                try:
                    self._items.append(next(self._rest))
                except StopIteration:
                    return
            yield self._items[number]
            number += 1


class Video:
    """Frames with their times.

    `for frame in video` gives (h, w, 3) uint8 arrays, each as soon as it is made; a second loop
    gives the same frames. A notebook shows the video; `save` writes it.

    Attributes:
      times: (t,) seconds at which the frames are shown, the first at 0.
      audio: a file whose sound goes with it, or "".
      comparison: the same beside what it was made of, or None.
      poses: a picture of the driving poses before and after they were fitted, or None.
      mark: what its files say of themselves; None of frames that nobody has synthesized.
    """

    def __init__(
        self,
        frames: Iterable[UInt8[np.ndarray, "h w 3"]],
        *,
        times: Float[np.ndarray, " t"] | None = None,
        fps: float = _FPS,
        audio: str = "",
        comparison: "Video | None" = None,
        poses: UInt8[np.ndarray, "y x 3"] | None = None,
        mark: Mark | None = None,
    ):
        """Takes frames; without `times` they must have a length, and are evenly spaced by `fps`."""
        if times is None:
            frames = list(frames)
            times = np.arange(len(frames)) / fps
        self.times, self.audio = np.asarray(times, np.float64), audio
        self.comparison, self.poses, self.mark = comparison, poses, mark
        self._frames = Kept(frames)

    def __len__(self) -> int:
        """The number of frames, whether or not they are made already."""
        return len(self.times)

    def __iter__(self) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        return iter(self._frames)

    @property
    def frames(self) -> UInt8[np.ndarray, "t h w 3"]:
        """All frames as one array; waits until they are made."""
        return np.stack(list(self))

    @property
    def fps(self) -> float:
        """Mean number of frames per second; 25 of a single frame."""
        return (len(self) - 1) / self.times[-1] if len(self) > 1 else _FPS

    def save(
        self, path: str | os.PathLike, *, lossless: bool = False, watermark: bool = False
    ) -> Path:
        """Writes the video, whole or not at all; a synthesized one says so in its metadata.

        Args:
          path: its ending says what is written: .mp4, .mov, .mkv, .avi, .gif, .webp, or a folder of
            pictures, with "/" at its end. Only a video has sound.
          lossless: writes a .mkv without loss.
          watermark: whether every frame shows that it is synthesized.

        Raises:
          UserError: before any frame is made, if the path cannot be written.
        """
        audio = self.audio if output_files.takes_sound(path) else ""
        output_files.check(path, audio=audio, lossless=lossless)
        mark = dataclasses.replace(self.mark or UNNAMED, visible=True) if watermark else self.mark
        options: Any = {"audio": audio, "lossless": lossless, "mark": mark}
        output_files.write(path, self, times=self.times, **options)
        return Path(path)

    def _repr_html_(self) -> str:
        """Shows the video in a notebook, small frames enlarged."""
        with tempfile.TemporaryDirectory() as folder:
            content = self.save(Path(folder) / "video.mp4").read_bytes()
        data = base64.b64encode(content).decode()
        style = f"min-width:{_WIDTH}px;max-width:100%;image-rendering:pixelated"
        return (
            f'<video controls loop autoplay muted playsinline style="{style}" '
            f'src="data:video/mp4;base64,{data}"></video>'
        )


def as_place(footage: Any) -> str:
    """Returns the place of footage, as `footage.open_footage` takes it.

    Args:
      footage: a place; a `Video`; a picture of PIL; an array (h, w, 3) or (t, h, w, 3) of uint8; or
        a list of pictures or of arrays (h, w, 3). What is no place is written to the cache, once,
        without loss, under a name made of its content; 25 frames a second unless it is a `Video`.

    Raises:
      UserError: for anything else.
    """
    if isinstance(footage, str | os.PathLike):
        return os.fspath(footage)
    if isinstance(footage, Video):
        return _stored(list(footage), footage.times)
    if isinstance(footage, Image.Image):
        return _stored([_pixels(footage)], None)
    if isinstance(footage, np.ndarray) and footage.ndim == 3:
        return _stored([_pixels(footage)], None)
    if isinstance(footage, np.ndarray | list | tuple) and len(footage):
        frames = [_pixels(frame) for frame in footage]
        return _stored(frames, np.arange(len(frames)) / _FPS)
    raise UserError(
        f"{type(footage).__name__}: give a path, a psrjax.Video, a picture of PIL, or uint8 arrays "
        "(h, w, 3) or (t, h, w, 3)"
    )


def _pixels(picture: Any) -> UInt8[np.ndarray, "h w 3"]:
    if isinstance(picture, Image.Image):
        return np.asarray(picture.convert("RGB"))
    array = np.asarray(picture)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise UserError(
            f"an array of {array.dtype} {array.shape}: frames are uint8 (height, width, 3), in RGB"
        )
    return array


def _stored(frames: list[np.ndarray], times: np.ndarray | None) -> str:
    """Writes frames into the cache; without times as a picture."""
    digest = hashlib.sha256(b"" if times is None else times.tobytes())
    for frame in frames:
        digest.update(repr(frame.shape).encode() + frame.tobytes())
    suffix = ".png" if times is None else ".mkv"
    path = io.cache_folder() / "given" / f"{digest.hexdigest()[:16]}{suffix}"
    if not path.exists() and times is None:
        with io.replacing(path) as temporary:
            temporary.write_bytes(codec.encode_png(frames[0]))
    elif not path.exists():
        video.write(path, frames, times=times, lossless=True)
    return os.fspath(path)
