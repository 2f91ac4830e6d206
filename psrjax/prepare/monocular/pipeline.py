"""One clip of one person becomes what a data set stores: the pure function that all paths call.

`prepare_clip` reads a video (or a folder of pictures) and its joints, and gives frames, joints,
mask, flow and the clean plate, with a report of what is wrong. It writes nothing and knows no other
clip, so that a loop, several processes and Apache Beam may call it alike.
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
from psrjax.prepare.monocular import bystanders, checks, person_crop, person_tracking
from psrjax.vision import backgrounds

MEDIAPIPE = "mediapipe"
CROPS = ("fixed", "follow", "whole")
FINE = 2  # masks without an estimator are found in pictures so many times as large
RUN = 64  # frames of one run: what is held in memory as streams
_IN_MEMORY = 256 << 20  # bytes of frames; more lie in a temporary file


@dataclass(frozen=True)
class Options:
    """What a user may choose for all clips; every field is a flag of `psrjax prepare`.

    Attributes:
      size: (height, width) of the stored frames.
      crop: "fixed" is one window that holds the person at all times; "follow" goes with the person,
        at one scale; "whole" is the largest window in the middle.
      margin: what a crop leaves around the person, as a fraction of his extent.
      fps: frames a second to keep; 0 keeps every frame at its own time.
      holdout: the fraction of the frames, the last, that becomes a clip of the split "test".
      seconds: clips are cut to pieces of this length; 0 keeps them whole.
      order: the layout of joints out of files, of `preparation_joints.ORDERS`, or "auto".
      joints_size: (height, width) of the picture that joints out of files are of; () is the video.
      body: whether the built-in body is put on the joints, for its parts and the mesh's label (see
        `preparation_body`).
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
        if not 0.0 <= self.holdout < 1.0 or min(self.margin, self.fps, self.seconds) < 0.0:
            raise UserError("holdout lies in [0, 1); margin, fps and seconds are not negative")


@dataclass(frozen=True)
class Clip:
    """One clip to prepare.

    Attributes:
      video: a video file, or a folder of pictures.
      name: of the clip in the data set.
      joints: "mediapipe", or a file or folder that `preparation_joints.read` knows.
      split: where its frames go; those held out go to "test".
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
    """Frames [start, stop) of a clip, which become the clip `name` of a split."""

    name: str
    split: str
    start: int
    stop: int


@dataclass(frozen=True)
class Prepared:
    """A clip made ready. Arrays of long clips lie in a temporary file; take runs of them.

    Attributes:
      frames, masks: at the stored size.
      joints: x, y in [-1, 1] and confidence; missing 0; those that were filled in have little.
      plate: the clean background; absent where the crop moves.
      times: seconds from the first frame.
      report: JSON-able: what was found and what is wrong (`preparation_checks`).
    """

    clip: Clip
    frames: UInt8[np.ndarray, "t h w 3"]
    masks: UInt8[np.ndarray, "t h w"]
    joints: Float[np.ndarray, "t 26 3"]
    plate: UInt8[np.ndarray, "h w 3"] | None
    times: Float[np.ndarray, " t"]
    pieces: tuple[Piece, ...]
    report: dict[str, Any]

    def views(self, piece: Piece) -> Iterator[codec.ClipView]:
        """The views of one piece to store, run by run, in order."""
        times = self.times[piece.start : piece.stop] - self.times[piece.start]
        facts = {
            "fps": round(clip_reader.rate(times), 6),
            "first_frame": piece.start,
            "video": Path(self.clip.video).name,
            "filled": self.report["filled"],
            "box": self.report["box"],
            **self.clip.meta,
        }
        if not clip_reader.even(times):
            facts["times"] = [round(float(time), 6) for time in times]
        for start in range(piece.start, piece.stop, RUN):
            run = slice(start, min(start + RUN, piece.stop))
            streams = self.streams(run, first=start == piece.start)
            yield codec.ClipView(
                piece.name, self.clip.view, streams, facts, start=start - piece.start
            )

    def streams(self, run: slice, *, first: bool) -> dict[str, np.ndarray]:
        """The streams of a run of frames; with `first`, its flow begins with zeros."""
        before = 0 if first else 1
        frames = np.ascontiguousarray(self.frames[run.start - before : run.stop])
        flow = backgrounds.optical_flow(frames)
        plate = {} if self.plate is None else {"background": self.plate}
        return {
            "frames": frames[before:],
            "mask": np.ascontiguousarray(self.masks[run]),
            "joints": self.joints[run],
            **{name: values[before:] for name, values in flow.items()},
            **plate,
        }


def prepare_clip(
    clip: Clip,
    options: Options = Options(),
    *,
    progress: Callable[[str, int], None] = lambda what, frames: None,
) -> Prepared:
    """Prepares one clip.

    Args:
      clip: what to prepare.
      options: how.
      progress: is told ("read" or "cut", 1) for every frame.

    Raises:
      UserError: naming the file, what is wrong and what to do: damaged, no person, no joints.
    """
    seen = _look(clip, options, progress)
    tracked = person_tracking.inside(seen.person.joints, seen.size)
    if not pose.present(tracked).any():
        raise UserError(
            f"{clip.video}: no person found in any frame; cut the video to where one is to be "
            "seen, or give joints (--joints PATH)"
        )
    filled = person_tracking.guess_head_top(person_tracking.close_gaps(tracked, seen.times))
    boxes = person_crop.boxes(
        filled.joints, seen.masks, seen.times, seen.size,
        size=options.size, crop=options.crop, margin=options.margin,
    )  # fmt: skip
    footage = _footage(clip, options, seen, boxes, filled.joints, progress)
    frames, masks = footage.frames, footage.masks
    in_pixels = person_crop.scaled(filled.joints, boxes, options.size)
    plate = None if options.crop == "follow" else _plate(frames, masks, clip)
    report = checks.report(
        checks.Facts(
            video=clip.video,
            size=seen.size,
            times=seen.times,
            joints=filled.joints,
            filled=filled.filled,
            outside=int((pose.present(seen.person.joints) & ~pose.present(tracked)).sum()),
            others=seen.person.others,
            pieces=seen.person.pieces,
            boxes=boxes,
            stored=options.size,
            camera_motion=footage.camera_motion,
            hole=None if plate is None else float(plate["hole"].mean()),
            notes=seen.notes,
            layout=seen.layout,
        )
    )
    height, width = options.size
    unit = geometry.pixels_to_unit(in_pixels[..., :2], height=height, width=width)
    held = pose.present(in_pixels) & (np.abs(unit) <= 1.0).all(-1)
    unit = np.where(held[..., None], np.concatenate([unit, in_pixels[..., 2:]], -1), 0.0)
    return Prepared(
        clip=clip,
        frames=frames,
        masks=masks,
        joints=unit.astype(np.float32),
        plate=None if plate is None else plate["plate"],
        times=seen.times,
        pieces=pieces(clip, seen.times, options),
        report=report,
    )


@dataclass(frozen=True)
class _Seen:
    """What a first pass over a clip tells. `masks` are PNG at the video's size, or none."""

    size: tuple[int, int]
    times: np.ndarray
    person: person_tracking.Person
    masks: list[bytes]
    notes: list[str]
    layout: str


def _look(clip: Clip, options: Options, progress: Callable[[str, int], None]) -> _Seen:
    """Reads the video once: its times, and the person by MediaPipe or out of files."""
    times: list[float] = []
    numbers: list[int] = []
    size = (0, 0)

    def images() -> Iterator[np.ndarray]:
        nonlocal size
        for shot in clip_reader.shots(clip.video, fps=options.fps):
            size = shot.frame.image.shape[:2]
            times.append(shot.frame.time)
            numbers.append(shot.number)
            progress("read", 1)
            yield shot.frame.image

    if clip.joints == MEDIAPIPE:
        people, masks, spread = [], [], bystanders.Spread()
        for estimate in mediapipe().estimate(spread.watching(images())):
            found = (estimate.joints[:, 2] > 0).any()
            people.append(estimate.joints[None] if found else np.zeros((0, 26, 3), np.float32))
            masks.append(codec.encode_png(estimate.mask))
        person = person_tracking.follow(people)
        share = bystanders.share(spread.kept, person.joints, masks, mediapipe())
        person = dataclasses.replace(person, others=round(share * len(people)))
        return _Seen(size, np.asarray(times), person, masks, [], MEDIAPIPE)
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
    return _Seen(size, np.asarray(times), person, [], read.problems, read.kind)


@functools.cache
def mediapipe() -> detector.Estimator:
    """This process's estimator, started on first use; its pipe closes when the process ends."""
    return detector.Estimator()


@dataclass(frozen=True)
class _Footage:
    """A clip at the stored size, and how far its room moves (a fraction of the width)."""

    frames: np.ndarray
    masks: np.ndarray
    camera_motion: float


def _footage(
    clip: Clip,
    options: Options,
    seen: _Seen,
    boxes: np.ndarray,
    joints: np.ndarray,
    progress: Callable[[str, int], None],
) -> _Footage:
    """A second pass over the video: its windows, and masks by frames where there are none yet.

    These are found in pictures `FINE` times as large where the stored ones are small.
    """
    follows = options.crop == "follow"
    if seen.masks:
        frames, masks = _cut(clip, options, seen, boxes, options.size, progress)
        return _Footage(frames, masks, 0.0 if follows else masking.camera_motion(frames, masks))
    fine = FINE if max(options.size) < 256 else 1
    size = (options.size[0] * fine, options.size[1] * fine)
    frames, _ = _cut(clip, options, seen, boxes, size, progress)
    places = person_crop.scaled(joints, boxes, size)
    drawn = masking.silhouettes(places, size)
    moved = 0.0 if follows else masking.camera_motion(frames, np.uint8(255) * drawn)
    still = not follows and moved < checks.MOVING
    find = masking.against_room if still else masking.by_colour
    masks = find(frames, places)
    return _Footage(_smaller(frames, options.size), _smaller(masks, options.size), moved)


def _cut(
    clip: Clip,
    options: Options,
    seen: _Seen,
    boxes: np.ndarray,
    size: tuple[int, int],
    progress: Callable[[str, int], None],
) -> tuple[np.ndarray, np.ndarray]:
    """Frames and masks, cropped and of `size`; masks are empty where none are known."""
    frames = _array((len(seen.times), *size, 3))
    masks = _array((len(seen.masks), *size))
    shots = clip_reader.shots(clip.video, fps=options.fps)
    for index, shot in enumerate(shots):
        box = tuple(int(edge) for edge in boxes[index])
        frames[index] = clip_reader.cut(shot.frame.image, box, size)
        if seen.masks:
            masks[index] = clip_reader.cut(codec.decode_png(seen.masks[index]), box, size)
        progress("cut", 1)
    return frames, masks


def _smaller(pictures: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if pictures.shape[1:3] == size:
        return pictures
    result = _array((len(pictures), *size, *pictures.shape[3:]))
    for index, picture in enumerate(pictures):
        result[index] = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA)
    return result


def _array(shape: tuple[int, ...]) -> np.ndarray:
    """Zeros, uint8; what is large lies in a temporary file that nobody else sees.

    Its room is taken at once: a disk that fills up later would end the process without a word.
    """
    if (size := math.prod(shape)) <= _IN_MEMORY:
        return np.zeros(shape, np.uint8)
    file = tempfile.TemporaryFile()
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise UserError(
            f"{tempfile.gettempdir()}: no room for {size / 1e9:.1f} GB of frames: make room, set "
            "TMPDIR to another disk, or cut the video to shorter ones"
        ) from error
    return np.memmap(file, np.uint8, "r+", shape=shape)


def _plate(frames: np.ndarray, masks: np.ndarray, clip: Clip) -> dict[str, np.ndarray]:
    chosen = masking.sampled(len(frames))
    radius = max(1, round(frames.shape[1] / 64))
    person = backgrounds.grow(np.asarray(masks[chosen]) > 32, radius)
    if person.all(axis=(1, 2)).all():
        raise UserError(
            f"{clip.video}: the person covers the whole picture in every frame; film from further "
            "away, or --crop whole"
        )
    return backgrounds.clean_plate(np.asarray(frames[chosen]), person)


def pieces(clip: Clip, times: Float[np.ndarray, " t"], options: Options) -> tuple[Piece, ...]:
    """How a clip is cut: into pieces of `seconds`, or its end held out for the split "test".

    A rest shorter than half a piece belongs to the piece before it.
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
