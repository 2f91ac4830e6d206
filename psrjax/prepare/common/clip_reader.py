"""Reads clips frame by frame, from video files and from folders of pictures."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from psrjax.data import video
from psrjax.data.video import Frame
from psrjax.errors import UserError
from psrjax.io import foreign

VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".gif", ".mpg", ".wmv")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
LEAST_IN_STRIP = 3  # frames of a strip, by which it is told from a wide picture
FOLDER_RATE = 25.0  # frames a second of a folder of pictures, unless a rate is given
MAX_RATE = 1000.0  # frames a second that a video can be resampled to
_MAX_PAUSE = 600.0  # seconds between two frames that are filled by repeating the first of them
EVEN = 0.1  # of a frame's duration: how far times may be off and still count as even


@dataclass(frozen=True)
class ClipFrame:
    """One RGB frame: when it is shown, in seconds, and which frame of its file it is."""

    image: UInt8[np.ndarray, "h w 3"]
    time: float
    number: int


def is_video(path: Path) -> bool:
    """Tells whether a path has a video's suffix or is a folder that holds pictures."""
    if path.is_dir():
        return any(child.suffix.lower() in PICTURES for child in path.iterdir())
    return path.suffix.lower() in VIDEOS


def read_frames(path: str | Path, *, fps: float = 0.0) -> Iterator[ClipFrame]:
    """Yields the frames of a video or of a folder of pictures, in order, all of one size.

    Args:
      path: a video file, or a folder whose pictures are its frames, ordered by the numbers in their
        names.
      fps: resamples a video to this rate by dropping and repeating frames; 0 gives every frame at
        its own time. For a folder it is the rate of the pictures, 25 by default.

    Raises:
      UserError: naming the file, if it is damaged, holds no frame, or frames change size.
    """
    path = Path(path)
    check_rate(fps)
    if path.is_dir():
        decoded, fps = _pictures(path, fps or FOLDER_RATE), 0.0
    else:
        decoded = video.decode(path)
    size = None
    for frame in _resampled(path, decoded, fps) if fps else _numbered(decoded):
        height, width = frame.image.shape[:2]
        size = size or (height, width)
        if (height, width) != size:
            raise UserError(
                f"{path}: frame {frame.number} is {width}x{height}, those before are "
                f"{size[1]}x{size[0]}: cut the video where its size changes"
            )
        yield frame


def check_rate(fps: float) -> None:
    """Raises UserError for a rate that no video is resampled to."""
    if not 0.0 <= fps <= MAX_RATE:
        raise UserError(f"fps {fps:g}: frames per second lie in [0, {MAX_RATE:g}]")


def _numbered(decoded: Iterator[Frame]) -> Iterator[ClipFrame]:
    return (ClipFrame(frame.image, frame.time, n) for n, frame in enumerate(decoded))


def _resampled(path: Path, decoded: Iterator[Frame], fps: float) -> Iterator[ClipFrame]:
    """Yields the frames on display at 0, 1/fps, 2/fps, …: the last whose time has come."""
    shown, tick = None, 0
    for frame in _numbered(decoded):
        if shown and frame.time - shown.time > _MAX_PAUSE:
            raise UserError(
                f"{path}: {frame.time - shown.time:.0f} seconds lie between frames {shown.number} "
                f"and {frame.number}; at most {_MAX_PAUSE:.0f} are filled: cut the video there, or "
                "keep its own times (no --fps)"
            )
        while shown and tick / fps < frame.time - 0.25 / fps:
            yield ClipFrame(shown.image, tick / fps, shown.number)
            tick += 1
        shown = frame
    if shown:
        yield ClipFrame(shown.image, tick / fps, shown.number)


def _pictures(folder: Path, fps: float) -> Iterator[Frame]:
    paths = [path for path in folder.iterdir() if path.suffix.lower() in PICTURES]
    if not paths:
        raise UserError(f"{folder}: holds no picture ({', '.join(PICTURES)})")
    for number, path in enumerate(sorted(paths, key=natural_key)):
        yield Frame(read_picture(path), number / fps)


def is_strip(path: Path) -> bool:
    """Tells whether a file is a picture of `LEAST_IN_STRIP` square frames or more side by side."""
    if path.suffix.lower() not in PICTURES or not path.is_file():
        return False
    try:
        with Image.open(path) as picture:
            width, height = picture.size
    except OSError:
        return False
    return width >= LEAST_IN_STRIP * height and width % height == 0


def read_strip(path: Path) -> UInt8[np.ndarray, "t h h 3"]:
    """Reads square frames side by side in one picture, as first-order-model stores videos.

    Raises:
      UserError: if it is damaged, or of another shape.
    """
    picture = read_picture(path)
    height, width = picture.shape[:2]
    if width % height:
        raise UserError(f"{path}: {width}x{height} is no row of square frames")
    return picture.reshape(height, width // height, height, 3).swapaxes(0, 1)


def read_picture(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """Reads a picture as RGB, whatever it holds. Raises UserError if damaged or enormous."""
    foreign.check_picture(path)
    data = np.fromfile(path, np.uint8)  # cv2.imread cannot read every name
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if len(data) else None
    if image is None:
        raise UserError(f"{path}: not a picture, or damaged; remove it or write it again")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def natural_key(path: Path | str) -> tuple:
    """Returns a sort key that puts frame 9 before frame 10."""
    return tuple(
        int(part) if part.isdigit() else part for part in re.split(r"(\d+)", Path(path).name)
    )


def frame_rate(times: Float[np.ndarray, " t"]) -> float:
    """Returns frames a second by the median step; 25 for a single frame."""
    steps = np.diff(times)
    return float(1.0 / np.median(steps)) if len(steps) else FOLDER_RATE


def evenly_timed(times: Float[np.ndarray, " t"]) -> bool:
    """Tells whether the times are those of a constant rate, up to rounding."""
    if len(times) < 3:
        return True
    regular = np.linspace(times[0], times[-1], len(times))
    return bool(np.abs(times - regular).max() < EVEN / frame_rate(times))


def crop(
    image: UInt8[np.ndarray, "h w *c"], box: Sequence[int], size: tuple[int, int]
) -> UInt8[np.ndarray, "hh ww *c"]:
    """Crops `box` (top, left, height, width) and resizes it to `size`; black beyond the edges."""
    top, left, height, width = box
    rows = slice(max(0, top), max(0, top + height))
    columns = slice(max(0, left), max(0, left + width))
    inside = image[rows, columns]
    if inside.shape[:2] != (height, width):
        above, before = max(0, -top), max(0, -left)
        below, after = height - above - inside.shape[0], width - before - inside.shape[1]
        inside = cv2.copyMakeBorder(inside, above, below, before, after, cv2.BORDER_CONSTANT)
    smaller = size[0] < height
    return cv2.resize(
        inside, size[::-1], interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
    )
