"""Prepares one monocular clip of one person for a dataset.

`prepare_clip` reads a video (or a folder of pictures) and its joints, and returns frames, joints,
masks, flow and the clean background, with a report of problems. It writes nothing and depends on
no other clip, so that a loop, several processes and Apache Beam may call it alike.
"""

import dataclasses
import functools
import math
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from psrjax.data import codec
from psrjax.errors import UserError
from psrjax.ops import geometry, pose
from psrjax.prepare.common import clip_reader, detector, joint_files, masking
from psrjax.prepare.monocular import (
    bystanders,
    checks,
    joint_mistakes,
    person_crop,
    person_tracking,
)
from psrjax.vision import backgrounds
from psrjax.vision.optical_flow import optical_flow

MEDIAPIPE = "mediapipe"
CROPS = ("fixed", "follow", "whole")
FINE = 2  # masks without a detector are found at this multiple of the stored size
RUN = 64  # frames whose streams are held in memory at once
_IN_MEMORY = 256 << 20  # bytes of frames; larger arrays lie in a temporary file


@dataclass(frozen=True)
class PreparationOptions:
    """Options of all clips of a dataset; every field is a flag of `psrjax prepare`.

    Attributes:
      size: (height, width) of the stored frames.
      crop: "fixed" is one window that holds the person at all times; "follow" moves with the
        person, at one scale; "whole" is the largest centred window.
      margin: space around the person, as a fraction of their extent.
      fps: frames a second to keep; 0 keeps every frame at its own time.
      holdout: the fraction of the frames, the last, that becomes a clip of the split "test".
      seconds: length of the pieces that clips are cut into; 0 keeps them whole.
      order: the layout of joints in files, one of `joint_files.ORDERS`, or "auto".
      joints_size: (height, width) of the picture the joints in files refer to; () is the video.
      body: whether to render the built-in body on the joints (see `body_streams`).
    """

    size: tuple[int, int] = (128, 128)
    crop: str = "fixed"
    margin: float = 0.08
    fps: float = 0.0
    holdout: float = 0.0
    seconds: float = 0.0
    order: str = "auto"
    joints_size: tuple[int, int] | tuple[()] = ()
    body: bool = False

    def __post_init__(self):
        if self.crop not in CROPS:
            raise UserError(f"crop {self.crop!r} is none of {', '.join(CROPS)}")
        if min(self.size) < 16:
            raise UserError(f"size {self.size}: frames of less than 16 pixels are too small")
        clip_reader.check_rate(self.fps)
        lengths = (self.margin, self.seconds)
        if not 0.0 <= self.holdout < 1.0 or not all(0.0 <= each < math.inf for each in lengths):
            raise UserError("holdout lies in [0, 1); margin and seconds are not negative")


@dataclass(frozen=True)
class VideoClip:
    """One clip to prepare.

    Attributes:
      video: a video file, or a folder of pictures.
      name: of the clip in the dataset.
      joints: "mediapipe", or a file or folder that `joint_files.read` accepts.
      split: of its frames; those held out go to "test".
      view: the name of the camera.
      meta: JSON-able facts to store with it.
    """

    video: str
    name: str
    joints: str = MEDIAPIPE
    split: str = "train"
    view: str = "cam1"
    meta: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Piece:
    """Frames [start, stop) of a clip, stored as the clip `name` of a split."""

    name: str
    split: str
    start: int
    stop: int


@dataclass(frozen=True)
class PreparedClip:
    """A prepared clip. Arrays of long clips are memory-mapped; read them in runs.

    Attributes:
      frames, masks: at the stored size.
      joints: x, y in [-1, 1] and confidence; missing ones are 0, interpolated ones have little.
      background: the clean background; None where the crop moves.
      times: seconds from the first frame.
      report: JSON-able measurements and problems (see `checks`).
    """

    clip: VideoClip
    frames: UInt8[np.ndarray, "t h w 3"]
    masks: UInt8[np.ndarray, "t h w"]
    joints: Float[np.ndarray, "t 26 3"]
    background: UInt8[np.ndarray, "h w 3"] | None
    times: Float[np.ndarray, " t"]
    pieces: tuple[Piece, ...]
    report: dict[str, Any]

    def views(self, piece: Piece) -> Iterator[codec.ClipView]:
        """Yields one piece's frames to store, run by run, in order."""
        times = self.times[piece.start : piece.stop] - self.times[piece.start]
        facts = {
            "fps": round(clip_reader.frame_rate(times), 6),
            "first_frame": piece.start,
            "video": Path(self.clip.video).name,
            "filled": self.report["filled"],
            "box": self.report["box"],
            **self.clip.meta,
        }
        if not clip_reader.evenly_timed(times):
            facts["times"] = [round(float(time), 6) for time in times]
        for start in range(piece.start, piece.stop, RUN):
            run = slice(start, min(start + RUN, piece.stop))
            streams = self.streams(run, first=start == piece.start)
            yield codec.ClipView(
                piece.name, self.clip.view, streams, facts, start=start - piece.start
            )

    def streams(self, run: slice, *, first: bool) -> dict[str, np.ndarray]:
        """Returns the streams of a run of frames; with `first`, its flow begins with zeros."""
        before = 0 if first else 1
        frames = np.ascontiguousarray(self.frames[run.start - before : run.stop])
        flow = optical_flow(frames)
        return {
            "frames": frames[before:],
            "mask": np.ascontiguousarray(self.masks[run]),
            "joints": self.joints[run],
            **{name: values[before:] for name, values in flow.items()},
            **({} if self.background is None else {"background": self.background}),
        }


def prepare_clip(
    clip: VideoClip,
    options: PreparationOptions = PreparationOptions(),
    *,
    progress: Callable[[str, int], None] = lambda what, frames: None,
) -> PreparedClip:
    """Prepares one clip.

    Args:
      clip: the clip.
      options: of the dataset.
      progress: called with ("read" or "crop", 1) for every frame.

    Raises:
      UserError: naming the file, what is wrong and what to do: damaged, no person, no joints.
    """
    seen = _first_pass(clip, options, progress)
    tracked = person_tracking.drop_outside(seen.person.joints, seen.size)
    if not pose.present(tracked).any():
        raise UserError(
            f"{clip.video}: no person found in any frame; cut the video to where one is "
            "visible, or give joints (--joints PATH)"
        )
    checked = joint_mistakes.check(tracked, seen.masks, seen.times)
    filled = person_tracking.guess_head_top(person_tracking.close_gaps(checked.joints, seen.times))
    boxes = person_crop.boxes(
        filled.joints, seen.masks, seen.times, seen.size,
        size=options.size, crop=options.crop, margin=options.margin,
    )  # fmt: skip
    cropped = _second_pass(clip, options, seen, boxes, filled.joints, progress)
    frames, masks = cropped.frames, cropped.masks
    in_pixels = person_crop.to_windows(filled.joints, boxes, options.size)
    found = None if options.crop == "follow" else _clean_background(frames, masks, clip)
    report = checks.report(
        checks.ClipFacts(
            video=clip.video,
            size=seen.size,
            times=seen.times,
            joints=filled.joints,
            filled=filled.filled,
            outside=int((pose.present(seen.person.joints) & ~pose.present(tracked)).sum()),
            others=seen.person.others,
            pieces=seen.person.pieces,
            mistakes=checked,
            boxes=boxes,
            stored=options.size,
            camera_motion=cropped.camera_motion,
            hole=None if found is None else float(found["hole"].mean()),
            notes=seen.notes,
            layout=seen.layout,
        )
    )
    height, width = options.size
    unit = geometry.pixels_to_unit(in_pixels[..., :2], height=height, width=width)
    held = pose.present(in_pixels) & (np.abs(unit) <= 1.0).all(-1)
    unit = np.where(held[..., None], np.concatenate([unit, in_pixels[..., 2:]], -1), 0.0)
    return PreparedClip(
        clip=clip,
        frames=frames,
        masks=masks,
        joints=unit.astype(np.float32),
        background=None if found is None else found["background"],
        times=seen.times,
        pieces=cut_pieces(clip, seen.times, options),
        report=report,
    )


@dataclass(frozen=True)
class _FirstPass:
    """The result of reading a clip once. `masks` are PNG at the video's size, or none."""

    size: tuple[int, int]
    times: np.ndarray
    person: person_tracking.TrackedPerson
    masks: list[bytes]
    notes: list[str]
    layout: str


def _first_pass(
    clip: VideoClip, options: PreparationOptions, progress: Callable[[str, int], None]
) -> _FirstPass:
    """Reads a clip's times, and its person by MediaPipe or from files."""
    times: list[float] = []
    numbers: list[int] = []
    size = (0, 0)

    def images() -> Iterator[np.ndarray]:
        nonlocal size
        for frame in clip_reader.read_frames(clip.video, fps=options.fps):
            size = frame.image.shape[:2]
            times.append(frame.time)
            numbers.append(frame.number)
            progress("read", 1)
            yield frame.image

    if clip.joints == MEDIAPIPE:
        people, masks, sample = [], [], bystanders.FrameSample()
        for detection in shared_detector().detect(sample.passing(images())):
            found = (detection.joints[:, 2] > 0).any()
            people.append(detection.joints[None] if found else np.zeros((0, 26, 3), np.float32))
            masks.append(codec.encode_png(detection.mask))
        person = person_tracking.follow(people)
        fraction = bystanders.bystander_fraction(
            sample.kept, person.joints, masks, shared_detector()
        )
        person = dataclasses.replace(person, others=round(fraction * len(people)))
        return _FirstPass(size, np.asarray(times), person, masks, [], MEDIAPIPE)
    source = joint_files.find(clip.joints, clip.video)
    for _ in images():
        pass
    read = joint_files.read(
        source,
        frames=numbers[-1] + 1,
        size=size,
        order=options.order,
        of=options.joints_size or None,
    )
    person = person_tracking.follow([read.frames[number] for number in numbers])
    return _FirstPass(size, np.asarray(times), person, [], read.problems, read.kind)


@functools.cache
def shared_detector() -> detector.PoseDetector:
    """Returns this process's detector, started on first use; it ends with the process."""
    return detector.PoseDetector()


@dataclass(frozen=True)
class _SecondPass:
    """A cropped clip and its camera motion (a fraction of the width)."""

    frames: np.ndarray
    masks: np.ndarray
    camera_motion: float


def _second_pass(
    clip: VideoClip,
    options: PreparationOptions,
    seen: _FirstPass,
    boxes: np.ndarray,
    joints: np.ndarray,
    progress: Callable[[str, int], None],
) -> _SecondPass:
    """Crops a clip's frames and masks; computes masks where the first pass gave none.

    Those are computed at `FINE` times the stored size where that is small.
    """
    follows = options.crop == "follow"
    if seen.masks:
        frames, masks = _crop(clip, options, seen, boxes, options.size, progress)
        return _SecondPass(frames, masks, 0.0 if follows else masking.camera_motion(frames, masks))
    fine = FINE if max(options.size) < 256 else 1
    size = (options.size[0] * fine, options.size[1] * fine)
    frames, _ = _crop(clip, options, seen, boxes, size, progress)
    places = person_crop.to_windows(joints, boxes, size)
    drawn = masking.draw_silhouettes(places, size)
    motion = 0.0 if follows else masking.camera_motion(frames, np.uint8(255) * drawn)
    still = not follows and motion < checks.MOVING
    find = masking.masks_by_background if still else masking.masks_by_colour
    masks = find(frames, places)
    return _SecondPass(_smaller(frames, options.size), _smaller(masks, options.size), motion)


def _crop(
    clip: VideoClip,
    options: PreparationOptions,
    seen: _FirstPass,
    boxes: np.ndarray,
    size: tuple[int, int],
    progress: Callable[[str, int], None],
) -> tuple[np.ndarray, np.ndarray]:
    """Returns frames and masks cropped to `size`; masks are empty where none are known."""
    frames = _array((len(seen.times), *size, 3))
    masks = _array((len(seen.masks), *size))
    for index, frame in enumerate(clip_reader.read_frames(clip.video, fps=options.fps)):
        frames[index] = clip_reader.crop(frame.image, boxes[index], size)
        if seen.masks:
            masks[index] = clip_reader.crop(codec.decode_png(seen.masks[index]), boxes[index], size)
        progress("crop", 1)
    return frames, masks


def _smaller(pictures: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if pictures.shape[1:3] == size:
        return pictures
    result = _array((len(pictures), *size, *pictures.shape[3:]))
    for index, picture in enumerate(pictures):
        result[index] = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA)
    return result


def _array(shape: tuple[int, ...]) -> np.ndarray:
    """Returns uint8 zeros, memory-mapped from an unnamed temporary file if large.

    The space is allocated at once: a disk that fills up later would kill the process.
    """
    if (size := math.prod(shape)) <= _IN_MEMORY:
        return np.zeros(shape, np.uint8)
    file = tempfile.TemporaryFile()
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise UserError(
            f"{tempfile.gettempdir()}: no room for {size / 1e9:.1f} GB of frames: free some, set "
            "TMPDIR to another disk, or cut the video to shorter ones"
        ) from error
    return np.memmap(file, np.uint8, "r+", shape=shape)


def _clean_background(
    frames: np.ndarray, masks: np.ndarray, clip: VideoClip
) -> dict[str, np.ndarray]:
    chosen = masking.sampled(len(frames))
    radius = max(1, round(frames.shape[1] / 64))
    person = backgrounds.grow(np.asarray(masks[chosen]) > 32, radius)
    if person.all(axis=(1, 2)).all():
        raise UserError(
            f"{clip.video}: the person covers the whole picture in every frame; record from "
            "farther away, or use --crop whole"
        )
    return backgrounds.clean_background(np.asarray(frames[chosen]), person)


def cut_pieces(
    clip: VideoClip, times: Float[np.ndarray, " t"], options: PreparationOptions
) -> tuple[Piece, ...]:
    """Cuts a clip into pieces of `seconds`, or holds out its end for the split "test".

    A remainder shorter than half a piece belongs to the piece before it.
    """
    count = len(times)
    if options.seconds:
        number = np.floor((times - times[0]) / options.seconds + 1e-6).astype(int)
        starts = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist()]
        rest = times[-1] - times[starts[-1]]
        if len(starts) > 1 and rest < options.seconds / 2:
            starts.pop()
        ends = [*starts[1:], count]
        digits = len(str(len(starts) - 1))
        return tuple(
            Piece(f"{clip.name}_{i:0{digits}d}", clip.split, a, b)
            for i, (a, b) in enumerate(zip(starts, ends))
        )
    first = round(count * (1.0 - options.holdout))
    if not options.holdout or not 0 < first < count:
        return (Piece(clip.name, clip.split, 0, count),)
    return (
        Piece(f"{clip.name}_{clip.split}", clip.split, 0, first),
        Piece(f"{clip.name}_test", "test", first, count),
    )
