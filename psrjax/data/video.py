"""Reads and writes video files by PyAV: times, rotation, audio, H.264 or lossless; comparisons.

Frames are (h, w, 3) uint8 RGB. Times are seconds from the first frame.
"""

import collections
import itertools
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.error import FFmpegError
from jaxtyping import Float, UInt8

from psrjax import io
from psrjax.errors import UserError
from psrjax.io import foreign

_CLOCK = 90_000  # ticks per second of files with uneven times
_REORDERED = 16  # H.264 and HEVC: frames that are decoded before one that is shown first, at most
_SMALLEST = 192  # width in pixels that frames are enlarged to, at least, for a legible label
_BAR = 26  # height of the bar with the labels
LOSSLESS_SUFFIXES = (".mkv", ".avi")
_MP4_AUDIO = ("aac", "mp3", "ac3", "eac3", "alac", "opus")  # codecs that an mp4 can hold


@dataclass(frozen=True)
class Frame:
    """One decoded frame, upright, and its time."""

    image: UInt8[np.ndarray, "h w 3"]
    time: float


@dataclass(frozen=True)
class Video:
    """A whole video in memory."""

    frames: UInt8[np.ndarray, "t h w 3"]
    times: Float[np.ndarray, " t"]

    @property
    def fps(self) -> float:
        """Mean number of frames per second; 0 of a single frame."""
        span = float(self.times[-1] - self.times[0])
        return (len(self.times) - 1) / span if span else 0.0


def decode(path: str | os.PathLike) -> Iterator[Frame]:
    """Yields the frames of a video one by one, rotated upright by its metadata.

    Raises:
      UserError: naming the file, if it is missing, empty, no video, sound only, or cut off.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such video")
    if not path.stat().st_size:
        raise UserError(f"{path}: the file is empty")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise UserError(f"{path}: holds no video, only {_kinds(container)}")
            stream = container.streams.video[0]
            if stream.width * stream.height > foreign.MAX_PIXELS:
                raise UserError(f"{path}: frames of {stream.width}x{stream.height} pixels")
            yield from _decode(container, path)
    except UserError:
        raise
    except Exception as error:  # besides FFmpeg's own, of values that make no sense
        raise UserError(
            f"{path}: not a video, or damaged ({getattr(error, 'strerror', None) or error})"
        ) from error


def check_audio(path: str | os.PathLike, audio: str | os.PathLike) -> None:
    """Raises UserError if the sound of the file `audio` cannot be copied into the file `path`."""
    _Sound(Path(path), audio)


def read(path: str | os.PathLike) -> Video:
    """Reads a whole video into memory. Raises UserError as `decode` does."""
    frames = list(decode(path))
    sizes = {frame.image.shape for frame in frames}
    if len(sizes) > 1:
        raise UserError(f"{path}: its frames change size: {sorted(sizes)}")
    return Video(
        np.stack([frame.image for frame in frames]),
        np.array([frame.time for frame in frames], np.float64),
    )


def _kinds(container: Any) -> str:
    return ", ".join(sorted({stream.type for stream in container.streams})) or "no stream at all"


def _decode(container: Any, path: Path) -> Iterator[Frame]:
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    step = 1 / float(stream.average_rate or 25)
    packets, count, first, last = 0, 0, 0.0, 0.0

    def decoded() -> Iterator[av.VideoFrame]:
        nonlocal packets
        for packet in container.demux(stream):
            packets += packet.size > 0
            yield from packet.decode()

    for frame, time in _timed(decoded(), step):
        first = time if count == 0 else first
        last = time - first
        turns = round(frame.rotation / 90) % 4  # counterclockwise
        image = frame.to_ndarray(format="rgb24")
        yield Frame(np.ascontiguousarray(np.rot90(image, turns)), last)
        count += 1
    if stream.frames:
        whole = packets >= stream.frames
    elif container.duration and len(container.streams) == 1:  # Matroska promises seconds only
        whole = last + 2 * step >= 0.9 * container.duration / av.time_base
    else:
        whole = True
    if not count or not whole:
        raise UserError(f"{path}: the video is cut off, {count} frames of it can be read")


def _timed(frames: Iterable[av.VideoFrame], step: float) -> Iterator[tuple[av.VideoFrame, float]]:
    """Yields frames with their time stamps, or with multiples of `step` where these are wrong.

    AVI has no times of display: frames of a file with B-frames come in their order, with stamps
    of the order in which they were coded. Frames are held until so many later ones are known that
    a stamp which does not increase is met before the first wrong one is given.
    """
    held: collections.deque[av.VideoFrame] = collections.deque()
    last, before, ordered = -step, -np.inf, True
    for frame in frames:
        ordered = ordered and frame.pts is not None and frame.time > before
        before = frame.time if ordered else before
        held.append(frame)
        while held and (not ordered or len(held) > _REORDERED):
            last = held[0].time if ordered else last + step
            yield held.popleft(), last
    for frame in held:
        yield frame, frame.time


def write(
    path: str | os.PathLike,
    frames: Iterable[UInt8[np.ndarray, "h w 3"]],
    *,
    fps: float = 25.0,
    times: Float[np.ndarray, " t"] | None = None,
    lossless: bool = False,
    audio: str | os.PathLike = "",
    comment: str = "",
) -> None:
    """Writes a video file, whole or not at all.

    Args:
      path: its suffix names the container, such as .mp4; lossless video needs .mkv.
      frames: uint8 RGB frames of one size; an odd height or width is padded by one pixel.
      fps: frames per second, unless `times` are given.
      times: seconds at which the frames are shown, increasing.
      lossless: whether to write FFV1 instead of H.264.
      audio: a file whose first audio stream, if any, is copied for the length of the video.
      comment: stored in the file's metadata.

    Raises:
      UserError: if the frames or times are not as they must be, or the file cannot be written.
    """
    path = Path(path)
    if lossless and path.suffix.lower() not in LOSSLESS_SUFFIXES:
        raise UserError(f"{path}: lossless video needs a name that ends in .mkv")
    timing = _Timing.of(path, fps, times)
    with io.replacing(path) as temporary:
        options = {"movflags": "+faststart"} if path.suffix.lower() in (".mp4", ".mov") else {}
        try:
            with av.open(os.fspath(temporary), "w", options=options) as container:
                container.metadata["comment"] = comment
                sound = _Sound(path, audio) if audio else None
                _mux(container, _checked(path, frames, timing), timing, lossless, sound)
        except (FFmpegError, ValueError) as error:
            if isinstance(error, OSError) and error.errno:  # the disk's: `replacing` explains it
                raise OSError(error.errno, str(error)) from error
            raise UserError(f"{path}: cannot be written as a video ({error})") from error


@dataclass(frozen=True)
class _Timing:
    """A frame rate, and with uneven times that of each frame in ticks of 1 / _CLOCK."""

    rate: Fraction
    ticks: tuple[int, ...] = ()
    frames: int = 0  # the number that must come; 0 is any

    @classmethod
    def of(cls, path: Path, fps: float, times: Any) -> "_Timing":
        if times is None:
            return cls(Fraction(fps).limit_denominator(1001))
        times = np.asarray(times, np.float64)
        steps = np.diff(times)
        if len(times) == 0 or not np.isfinite(times).all() or (steps <= 0).any():
            raise UserError(f"{path}: the times of the frames must increase")
        rate = float(1 / np.median(steps)) if len(steps) else 25.0
        times = times - times[0]
        timing = cls(Fraction(rate).limit_denominator(1001), frames=len(times))
        if np.abs(times - np.arange(len(times)) / rate).max() < 0.25 / rate:
            return timing
        return replace(timing, ticks=tuple(np.round(times * _CLOCK).astype(int).tolist()))

    @property
    def base(self) -> Fraction:
        """Length of one unit of `at` in seconds."""
        return Fraction(1, _CLOCK) if self.ticks else 1 / self.rate

    def at(self, number: int) -> int:
        """The time of a frame, in units of `base`."""
        return self.ticks[number] if self.ticks else number


def _checked(path: Path, frames: Iterable[np.ndarray], timing: _Timing) -> Iterator[np.ndarray]:
    shape, count = None, 0
    for count, image in enumerate(frames, 1):
        image = np.asarray(image)
        shape = shape or image.shape
        if image.shape != shape or image.dtype != np.uint8 or shape[2:] != (3,):
            raise UserError(
                f"{path}: frame {count - 1} is {image.dtype} {image.shape}, all must be uint8 "
                f"(height, width, 3) of one size, as the first, {shape}"
            )
        if timing.frames and count > timing.frames:
            raise UserError(f"{path}: more frames than the {timing.frames} times")
        yield image
    if count < max(1, timing.frames):
        wanted = f"for {timing.frames} times" if timing.frames else "to write"
        raise UserError(f"{path}: {count or 'no'} frame {wanted}")


def _mux(
    container: Any,
    frames: Iterator[np.ndarray],
    timing: _Timing,
    lossless: bool,
    sound: "_Sound | None",
) -> None:
    first = next(frames)
    stream = container.add_stream("ffv1" if lossless else "libx264", rate=timing.rate)
    stream.options = {} if lossless else {"crf": "18"}
    stream.pix_fmt = "bgr0" if lossless else "yuv420p"
    multiple = 1 if lossless else 2
    stream.height, stream.width = (-(-side // multiple) * multiple for side in first.shape[:2])
    stream.codec_context.time_base = timing.base
    if sound:
        sound.join(container)
    rows, columns = stream.height - first.shape[0], stream.width - first.shape[1]
    for number, image in enumerate(itertools.chain([first], frames)):
        image = np.pad(image, ((0, rows), (0, columns), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        frame.time_base, frame.pts = timing.base, timing.at(number)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())
    if sound:
        sound.copy(container, until=float(timing.at(number) * timing.base + 1 / timing.rate))


class _Sound:
    """The first audio stream of another file, copied packet by packet; nothing if it has none."""

    def __init__(self, path: Path, audio: str | os.PathLike):
        self._audio = str(audio)
        self._stream = None
        with self._open() as source:
            streams = source.streams.audio
            name = streams[0].codec_context.name if streams else ""
        if name and path.suffix.lower() in (".mp4", ".mov") and name not in _MP4_AUDIO:
            raise UserError(
                f"{audio}: its sound ({name}) cannot be copied into {path.suffix}; write to .mkv, "
                "or convert the sound to AAC"
            )

    def _open(self) -> Any:
        try:
            return av.open(self._audio)
        except (FFmpegError, OSError) as error:
            raise UserError(f"{self._audio}: its sound cannot be read ({error})") from error

    def join(self, container: Any) -> None:
        """Adds the stream to a file whose header is not yet written."""
        with self._open() as source:
            if source.streams.audio:
                self._stream = container.add_stream_from_template(source.streams.audio[0])

    def copy(self, container: Any, *, until: float) -> None:
        """Copies the packets that begin before `until` seconds."""
        if self._stream is None:
            return
        with self._open() as source:
            for packet in source.demux(source.streams.audio[0]):
                if packet.dts is not None and float(packet.dts * packet.time_base) < until:
                    packet.stream = self._stream
                    container.mux(packet)


def beside(
    videos: Mapping[str, UInt8[np.ndarray, "t h w 3"]], *, smallest: int = _SMALLEST
) -> UInt8[np.ndarray, "t height width 3"]:
    """Places videos side by side, each under its label, for comparison.

    Small frames are enlarged by a whole factor without interpolation. A shorter video repeats its
    last frame; videos are aligned at the top.

    Args:
      videos: {label: frames}, from left to right.
      smallest: width that each is enlarged to, at least.

    Raises:
      UserError: if there is no video, or one without a frame.
    """
    if not videos or not all(len(frames) for frames in videos.values()):
        raise UserError("a comparison needs videos, and each of them a frame")
    length = max(len(frames) for frames in videos.values())
    panels = {label: _enlarged(np.asarray(frames), smallest) for label, frames in videos.items()}
    height = max(panel.shape[1] for panel in panels.values())
    columns = []
    for label, panel in panels.items():
        panel = panel[np.minimum(np.arange(length), len(panel) - 1)]
        below = np.zeros((length, height - panel.shape[1], *panel.shape[2:]), np.uint8)
        bar = np.broadcast_to(_bar(label, panel.shape[2]), (length, _BAR, panel.shape[2], 3))
        columns.append(np.concatenate([bar, panel, below], axis=1))
    return np.concatenate(columns, axis=2)


def _enlarged(frames: np.ndarray, smallest: int) -> np.ndarray:
    factor = max(1, -(-smallest // frames.shape[2]))
    return frames.repeat(factor, axis=1).repeat(factor, axis=2)


def _bar(label: str, width: int) -> UInt8[np.ndarray, "height width 3"]:
    """A dark bar with a centred label, in smaller letters where it does not fit."""
    bar = np.full((_BAR, width, 3), 24, np.uint8)
    label = unicodedata.normalize("NFKD", label).encode("ascii", "ignore").decode()  # cv2's set
    font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.55
    (wide, tall), _ = cv2.getTextSize(label, font, scale, 1)
    if wide > width - 8:
        scale *= max(0.1, (width - 8) / wide)
        (wide, tall), _ = cv2.getTextSize(label, font, scale, 1)
    place = ((width - wide) // 2, (_BAR + tall) // 2)
    return cv2.putText(bar, label, place, font, scale, (240, 240, 240), 1, cv2.LINE_AA)
