"""Footage of one person for transfer: a stored clip, a video, a folder of pictures or one picture.

All are asked alike: some keys of the contract, at some frames. A stored clip gives every key that
its dataset holds; files give "source" and "target", the frames themselves.
"""

import abc
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Float, UInt8

from psrjax import io
from psrjax.data import codec, sampling, spec, store
from psrjax.data.source import Clip, Source
from psrjax.errors import UserError
from psrjax.prepare.common import clip_reader, detector
from psrjax.prepare.monocular import dataset_builder, pipeline
from psrjax.synthetic import dataset
from psrjax.vision import guidance

FITS = ("exact", "crop")
FRAMES = ("source", "target")  # the keys that are the frames themselves
_ASPECT = 0.02  # how much a shape may be off before it counts as another one
_PERSON_FRAMES = 8  # frames, spread over a clip, in which a person is looked for
_DETECTION_SIDE = 1920  # pixels of these at most: they are kept as they were filmed
_LEAST_CONTRAST = 2.0  # gray levels; a frame that varies less shows nothing
_CACHE_BYTES = 512 * 2**20  # of frames of the run's size that are kept of a file


class Footage(abc.ABC):
    """Frames of one person, with their times and annotations.

    Attributes:
      name: for messages and titles.
      times: (t,) seconds at which the frames are shown, the first at 0.
      audio: a file whose sound goes with the frames, or "".
    """

    name: str
    times: Float[np.ndarray, " t"]
    audio: str = ""

    @property
    def frames(self) -> int:
        """The number of frames."""
        return len(self.times)

    @abc.abstractmethod
    def read(self, keys: Iterable[str], frames: Sequence[int]) -> sampling.Sample:
        """Reads {key: array} of wire type without the batch axis, at the run's size.

        Raises:
          UserError: if this footage cannot give a key, naming it and what to do.
        """

    @abc.abstractmethod
    def require(self, keys: Iterable[str]) -> None:
        """Raises UserError, as `read` does, before anything is read."""

    @abc.abstractmethod
    def background(self, frames: Sequence[int]) -> UInt8[np.ndarray, "t h w 3"]:
        """Reads the background: a dataset's clean background; a file's frames, over and over.

        Raises:
          UserError: if a dataset holds no background.
        """

    @abc.abstractmethod
    def show_person(self) -> list[bool] | None:
        """Tells of frames spread over the clip whether they show a person; None if unknown."""


class StoredFootage(Footage):
    """One view of a clip of a stored dataset."""

    def __init__(self, source: Source, clip: Clip, view: str, size: tuple[int, int]):
        entry = clip.views[view]
        self.name = f"{clip.name}:{view}" if len(clip.views) > 1 else clip.name
        known = entry.meta.get("times")
        self.times = np.asarray(known if known else np.arange(entry.frames) / entry.fps)
        self._source, self._clip, self._view = source, clip, view
        self._crop = sampling.Augmentation(crop=size)
        have = entry.size
        if have[0] < size[0] or have[1] < size[1]:
            raise UserError(
                f"{source.directory}: its frames are {have[1]}x{have[0]}, the run's "
                f"{size[1]}x{size[0]}: prepare the footage at that size (psrjax prepare --size)"
            )
        if have != tuple(size):
            logging.warning(
                "%s: the middle %dx%d of its %dx%d frames is taken, the size of the run's frames",
                *(self.name, *size[::-1], *have[::-1]),
            )

    def require(self, keys: Iterable[str]) -> None:
        """See the base class."""
        for key in keys:
            stream = sampling.stream(key)
            if stream in codec.STREAMS and codec.STREAMS[stream].by_source:
                raise UserError(
                    f"this method reads {key!r}, which belongs to two views of one scene: name "
                    "them with --clip, --source_view and --target_view instead"
                )
        sampling.require(self._source, keys)

    def read(self, keys: Iterable[str], frames: Sequence[int]) -> sampling.Sample:
        """See the base class."""
        keys = tuple(keys)
        frames = tuple(int(frame) for frame in frames)
        window = sampling.Window(self._clip.name, self._view, self._view, frames[0], frames, frames)
        images = [key for key in keys if "h w" in spec.KEYS[key].axes]
        side = "source" if any(key.startswith("source") for key in keys) else "target"
        # Joints move with a crop in units of the frames: these are read for their size.
        sample = sampling.assemble(self._source, window, keys if images else (*keys, side))
        sample = sampling.augment(sample, self._crop)
        return {key: sample[key] for key in keys}

    def background(self, frames: Sequence[int]) -> UInt8[np.ndarray, "t h w 3"]:
        """See the base class."""
        self.require(("background",))
        background = self.read(("background",), (0,))["background"]
        return np.broadcast_to(background, (len(frames), *background.shape))

    def show_person(self) -> list[bool] | None:
        """See the base class."""
        frames = _spread(self.frames)
        for key in ("target_mask", "target_joints"):
            if sampling.stream(key) in self._source.streams:
                found = self.read((key,), frames)[key]
                return [bool((frame[..., -1] > 0).any()) for frame in found]
        return None


def _spread(count: int) -> list[int]:
    """Numbers of frames in which a person is looked for."""
    return np.unique(np.linspace(0, count - 1, _PERSON_FRAMES).round().astype(int)).tolist()


class VideoFootage(Footage):
    """A video, a folder of pictures or one picture, brought to the run's size.

    A file is decoded once, when it is opened: its frames are kept as far as `_CACHE_BYTES` go. Only
    those of a longer one, behind these, are decoded again when they are read.
    """

    def __init__(self, path: Path, size: tuple[int, int], fit: str):
        self.name = path.name
        self._path, self._size, self._fit = path, size, fit
        self._is_picture = path.is_file() and path.suffix.lower() in clip_reader.PICTURES
        self.audio = "" if self._is_picture or path.is_dir() else os.fspath(path)
        self._cache: list[np.ndarray] = []  # the first frames
        self._spread: dict[int, np.ndarray] = {}  # frames in which a person may be looked for
        self._window: dict[int, np.ndarray] = {}  # later frames, of the last call of `read`
        self._rest, self._next = self._decode(), 0
        self.times = self._open()

    def _open(self) -> Float[np.ndarray, " t"]:
        """Checks that the file is whole, of one size and of the right shape; returns its times."""
        times, every, image = [], 1, np.zeros(())
        room = _CACHE_BYTES // (3 * self._size[0] * self._size[1])
        for number, frame in enumerate(self._decode()):
            if not times:
                self._check_shape(frame.image.shape)
            times.append(frame.time)
            if number < room:
                self._cache.append(self._fitted(frame))
            steps = -(-max(frame.image.shape) // _DETECTION_SIDE)
            image = np.ascontiguousarray(frame.image[::steps, ::steps])
            if number % every == 0:  # the length is not known yet: every second one goes
                self._spread[number] = image
                if len(self._spread) > 2 * _PERSON_FRAMES:
                    every *= 2
                    self._spread = {n: i for n, i in self._spread.items() if n % every == 0}
        self._spread[len(times) - 1] = image
        return np.asarray(times)

    def _decode(self) -> Iterator[clip_reader.ClipFrame]:
        if self._is_picture:
            yield clip_reader.ClipFrame(clip_reader.read_picture(self._path), 0.0, 0)
        else:
            yield from clip_reader.read_frames(self._path)

    def _check_shape(self, shape: Sequence[int]) -> None:
        (height, width), (rows, columns) = shape[:2], self._size
        if self._fit == "exact" and abs(width / height * rows / columns - 1.0) > _ASPECT:
            raise UserError(
                f"{self._path}: {width}x{height} is of another shape than the run's "
                f"{columns}x{rows}: cut it to that shape, or let --fit=crop take its middle"
            )

    def _fitted(self, frame: clip_reader.ClipFrame) -> UInt8[np.ndarray, "h w 3"]:
        return guidance.fit_frames(frame.image[None], self._size)[0]

    def require(self, keys: Iterable[str]) -> None:
        """See the base class."""
        for key in keys:
            if key not in FRAMES:
                raise UserError(
                    f"{self._path}: this method also reads {key!r} ({spec.KEYS[key].meaning}): "
                    "make a dataset of it with psrjax prepare, and give its folder"
                )

    def read(self, keys: Iterable[str], frames: Sequence[int]) -> sampling.Sample:
        """See the base class."""
        keys = tuple(keys)
        self.require(keys)
        later = {frame for frame in frames if frame >= len(self._cache)}
        # What comes before a window was the end of the one before it.
        self._window = {n: image for n, image in self._window.items() if n in later}
        missing = later - set(self._window)
        if missing and min(missing) < self._next:
            self._rest, self._next = self._decode(), 0
        while missing:
            frame = next(self._rest)
            if self._next in missing:
                self._window[self._next] = self._fitted(frame)
                missing.remove(self._next)
            self._next += 1
        images = [self._cache[n] if n < len(self._cache) else self._window[n] for n in frames]
        return dict.fromkeys(keys, np.stack(images))

    def background(self, frames: Sequence[int]) -> UInt8[np.ndarray, "t h w 3"]:
        """See the base class."""
        return self.read(("target",), [frame % self.frames for frame in frames])["target"]

    def show_person(self) -> list[bool] | None:
        """See the base class; asks MediaPipe where `psrjax prepare` has installed it."""
        known = np.array(sorted(self._spread))
        numbers = dict.fromkeys(known[np.abs(known - n).argmin()] for n in _spread(self.frames))
        images = [self._spread[number] for number in numbers]
        found = [bool(image.std((0, 1)).max() >= _LEAST_CONTRAST) for image in images]
        if not any(found) or detector.installed():
            return [shows and _mediapipe(image) for shows, image in zip(found, images)]
        logging.info("%s: nobody looked for a person (MediaPipe is not installed)", self._path)
        return found


def _mediapipe(image: UInt8[np.ndarray, "h w 3"]) -> bool:
    (found,) = pipeline.shared_detector().detect([image])
    return bool((found.joints[:, 2] > 0).any())


def open_footage(
    place: str,
    config: Mapping[str, Any],
    *,
    size: tuple[int, int],
    fit: str = "exact",
    split: str = "",
    reads: Iterable[str] = (),
) -> Footage:
    """Opens the footage at a place.

    Args:
      place: a video, a folder of pictures, a picture; or a dataset's "DIR", "DIR:CLIP" or
        "DIR:CLIP:VIEW"; "synthetic" is the dataset of the run. By default the first clip of
        `split`, and its first view.
      config: the run's config; `data` is read.
      size: (height, width) of the frames to give.
      fit: of files: "exact" only scales; "crop" first takes the largest middle of the right shape.
      split: by default the run's evaluation split.
      reads: keys that will be read. A video without them, such as joints, is first made into a data
        set in the cache (`psrjax prepare`, with MediaPipe), cut to hold the person.

    Raises:
      UserError: if there is no such place, or it is of another shape or too small.
    """
    if fit not in FITS:
        raise UserError(f"--fit={fit}: it is one of {', '.join(FITS)}")
    path = Path(place)
    if path.is_file() or (path.is_dir() and clip_reader.is_video(path)):
        if set(reads) <= set(FRAMES):
            return VideoFootage(path, size, fit)
        return _prepared(path, size)
    folder, *names = _parts(place)
    is_synthetic = folder == dataset.SYNTHETIC
    directory = dataset.resolve_path(config["data"])["path"] if is_synthetic else folder
    if not Path(directory).is_dir():
        raise UserError(f"{place}: no such video, picture or dataset")
    split = split or config["data"]["eval_split"]
    source, clip = _clip(directory, names[0] if names else "", split)
    view = names[1] if len(names) > 1 else next(iter(clip.views))
    if view not in clip.views:
        raise UserError(f"{place}: no view {view!r}, there are {', '.join(clip.views)}")
    return StoredFootage(source, clip, view, size)


def _prepared(path: Path, size: tuple[int, int]) -> StoredFootage:
    """Makes a dataset of a video in the cache; it keeps its sound."""
    state = path.stat()
    described = f"{path.resolve()} {state.st_mtime_ns} {state.st_size} {size}"
    key = hashlib.sha256(described.encode()).hexdigest()[:16]
    directory = io.cache_folder() / f"driving-{key}"
    clip = pipeline.VideoClip(os.fspath(path), path.stem)
    dataset_builder.prepare([clip], directory, pipeline.PreparationOptions(size=size))
    source = Source(directory, clip.split)
    footage = StoredFootage(source, source.clips[0], clip.view, size)
    footage.audio = os.fspath(path) if path.is_file() else ""
    return footage


def _parts(place: str) -> list[str]:
    """Splits a place into the folder, which may hold colons, and up to two names."""
    names: list[str] = []
    while (
        place != dataset.SYNTHETIC and not Path(place).is_dir() and ":" in place and len(names) < 2
    ):
        place, _, name = place.rpartition(":")
        names.insert(0, name)
    return [place, *names]


def _clip(directory: str, name: str, split: str) -> tuple[Source, Clip]:
    splits = tuple(store.read_manifest(directory)["splits"])
    if not name:
        source = Source(directory, split if split in splits else splits[0])
        return source, source.clips[0]
    sources = [Source(directory, each) for each in splits]
    for source in sources:
        if any(clip.name == name for clip in source.clips):
            return source, source.clip(name)
    known = [clip.name for source in sources for clip in source.clips]
    shown = ", ".join(known[:8]) + (" …" if len(known) > 8 else "")
    raise UserError(f"{directory}: no clip {name!r}; there are {shown}")


def require_person(footage: Footage) -> None:
    """Looks for a person in frames spread over the footage.

    Raises:
      UserError: if none of them shows one.
    """
    found = footage.show_person()
    if found is not None and not any(found):
        raise UserError(
            f"{footage.name}: no person in any of {len(found)} frames spread over it; give footage "
            "that shows one, whole and large"
        )
