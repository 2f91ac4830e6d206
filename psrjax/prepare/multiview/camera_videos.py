"""Reads the videos of a recording: length, size and rate, black bars, crops."""

from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
from av.error import FFmpegError
from jaxtyping import Float, UInt8

from psrjax.data import video
from psrjax.errors import UserError
from psrjax.prepare.common.letterbox import Placement
from psrjax.prepare.multiview.layout import Recording
from psrjax.vision.camera import Camera

SHORTEST = 0.5  # of the longest video; a shorter one is refused
BLACK = 24  # of 255: the brightest that a padded border may be


@dataclass(frozen=True)
class VideoInfo:
    """Size (height, width), frames per second and number of frames of a video file."""

    size: tuple[int, int]
    rate: float
    frames: int


def probe(path: Path) -> VideoInfo:
    """Reads a video's upright size, its rate, and its frames, counted without decoding them.

    Frames that an edit list cuts away do not count.

    Raises:
      UserError: if the file is no video that can be read.
    """
    height, width = next(video.decode(path)).image.shape[:2]
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            rate = float(stream.average_rate or 0)
            packets = container.demux(stream)
            frames = sum(packet.size > 0 and not packet.is_discard for packet in packets)
    except FFmpegError as error:
        raise UserError(f"{path}: damaged ({error})") from error
    if not rate:
        raise UserError(f"{path}: does not say how many frames a second it has")
    return VideoInfo((height, width), rate, frames)


def common(recording: Recording, videos: list[VideoInfo], notes: list[str]) -> tuple[int, float]:
    """Returns the number of frames that all videos have, and their rate; notes what is cut.

    Raises:
      UserError: if the rates differ, or a video is shorter than `SHORTEST` of the longest.
    """
    files = [camera.video for camera in recording.cameras]
    for path, one in zip(files, videos):
        if abs(one.rate - videos[0].rate) > 0.01 * videos[0].rate:
            raise UserError(
                f"{path}: {one.rate:.3f} frames a second, {files[0].name} has "
                f"{videos[0].rate:.3f}: convert them to one rate"
            )
    counts = [one.frames for one in videos]
    least, most = min(counts), max(counts)
    short = files[counts.index(least)]
    if least < SHORTEST * most:
        raise UserError(
            f"{short}: {least} frames, another video has {most}: it is cut off, or not of this "
            "recording; leave the camera out (--cameras)"
        )
    if least < most:
        notes.append(f"{short.name}: {least} frames, others up to {most}: all are cut to {least}")
    if least < 4:
        raise UserError(f"{short}: {least} frames are too few")
    return least, videos[0].rate


def check_bars(path: Path, placement: Placement, calibrated: tuple[int, int]) -> None:
    """Raises UserError unless a video's first frame is black where it must have been padded."""
    frame = next(video.decode(path)).image
    height, width = frame.shape[:2]
    left, top = placement.shift
    rows = np.abs(np.arange(height) - (height - 1) / 2) < placement.scale * calibrated[0] / 2 + 1
    columns = np.abs(np.arange(width) - (width - 1) / 2) < placement.scale * calibrated[1] / 2 + 1
    outside = ~(rows[:, None] & columns)
    if max(left, top) >= 2 and np.median(frame[outside]) > BLACK:
        raise UserError(
            f"{path}: {width}x{height} pixels, but the calibration is of {calibrated[1]}x"
            f"{calibrated[0]}, another shape, and there are no black bars: calibrate for this video"
        )


def crop_box(
    camera: Camera,
    points: Float[np.ndarray, "t v 3"],
    *,
    size: tuple[int, int],
    margin: float,
) -> tuple[int, int, int, int]:
    """Returns (top, left, height, width) of the crop that holds `points` at all times.

    It has the aspect ratio of `size` (height, width), a margin as a fraction, and lies inside the
    picture: it is shifted, and shrunk where it would be larger than the picture.
    """
    places = camera.project(points.reshape(-1, 3))["pixels"]
    places = np.clip(places[np.isfinite(places).all(-1)], -0.5, np.asarray(camera.size[::-1]) - 0.5)
    low, high = places.min(0), places.max(0)
    extent = (high - low) * (1.0 + 2.0 * margin)
    height = max(extent[1], extent[0] * size[0] / size[1])
    height = min(height, camera.size[0], camera.size[1] * size[0] / size[1])
    height, width = max(2, round(height)), max(2, round(height * size[1] / size[0]))
    width = min(width, camera.size[1])
    left, top = np.round((low + high + 1 - (width, height)) / 2).astype(int)
    top = int(np.clip(top, 0, camera.size[0] - height))
    left = int(np.clip(left, 0, camera.size[1] - width))
    return top, left, int(height), int(width)


def read(
    path: Path, box: tuple[int, int, int, int], size: tuple[int, int], *, frames: int
) -> UInt8[np.ndarray, "t h w 3"]:
    """Reads the first `frames` frames of a video, cropped to `box` and resized to `size`.

    Raises:
      UserError: if the video ends before.
    """
    top, left, height, width = box
    result = []
    for frame in video.decode(path):
        if len(result) == frames:
            break
        cut = frame.image[top : top + height, left : left + width]
        result.append(cv2.resize(cut, size[::-1], interpolation=cv2.INTER_AREA))
    if len(result) < frames:
        raise UserError(f"{path}: can be decoded up to frame {len(result) - 1} of {frames} only")
    return np.stack(result)


def shrink(frames: UInt8[np.ndarray, "t h w *c"], factor: int) -> UInt8[np.ndarray, "t hh ww *c"]:
    """Makes pictures smaller by a whole factor: rounded means of blocks."""
    if factor == 1:
        return frames
    size = (frames.shape[2] // factor, frames.shape[1] // factor)
    return np.stack([cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in frames])
