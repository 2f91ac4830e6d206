"""Reads a stored dataset: its clips, and chosen frames of chosen streams.

Access is random: a window of a long clip reads the records that hold it and decodes the frames
wanted. Readers are opened on first use in each process, so a `Source` can be sent to workers.
"""

import functools
import os
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Shaped

from psrjax import io
from psrjax.data import codec, spec, store
from psrjax.errors import UserError
from psrjax.io import foreign
from psrjax.vision.camera import Camera

_ANY_MAKER = (
    "make it with `psrjax prepare`, or use the synthetic dataset (--config.data.path=synthetic)"
)
_MAKERS = {
    "iuv": "give DensePose's files to `psrjax prepare --dataset single_person`, or let `psrjax "
    "prepare --body` render the built-in body on the joints",
    "mesh_label": "`psrjax prepare --body` renders it of the built-in body on the joints, and the "
    "synthetic dataset where data.synthetic.streams names it",
}


@dataclass(frozen=True)
class View:
    """One stored view of a clip; `segments` are its records, {"record", "start"} each."""

    name: str
    frames: int
    fps: float
    size: tuple[int, int]
    meta: Mapping[str, Any]
    segments: tuple[Mapping[str, int], ...]


@dataclass(frozen=True)
class Clip:
    """The views of one scene captured at the same time."""

    name: str
    views: Mapping[str, View]

    @property
    def frames(self) -> int:
        """Number of frames that every view has."""
        return min(view.frames for view in self.views.values())


class DamagedRecordError(UserError):
    """A record cannot be read; the others may be whole."""


class Source:
    """One split of a stored dataset.

    Attributes:
      directory: the folder of the dataset, local or gs://.
      split: the name of the split.
      streams: names of the stored streams (see `codec.STREAMS`).
      meta: facts of the whole dataset (near, far, …).
      clips: every clip, in the order in which they were written.
      means: {view: (h, w, 3) uint8}, the mean training frame of each view.
    """

    def __init__(self, directory: str | os.PathLike, split: str):
        self.directory = io.absolute(directory)
        self.split = split
        manifest = store.read_manifest(self.directory)
        with foreign.parsing(self.directory / store.MANIFEST, "damaged; prepare the dataset again"):
            if split not in manifest["splits"]:
                raise UserError(
                    f"{directory}: no split {split!r}; there are {', '.join(manifest['splits'])}"
                )
            self.streams = tuple(manifest["streams"])
            self.meta = manifest["meta"]
            self.clips = _clips(manifest["splits"][split])
            self._files = manifest["files"][split]
        statistics = store.read_statistics(self.directory)
        self.means = {key.removeprefix("mean/"): mean for key, mean in statistics.items()}
        self._by_name = {clip.name: clip for clip in self.clips}
        self._check_files()

    def __getstate__(self) -> dict[str, Any]:
        cached = ("_records", "_features")
        return {name: value for name, value in self.__dict__.items() if name not in cached}

    def clip(self, name: str) -> Clip:
        """Returns the clip of that name.

        Raises:
          UserError: if this split has none.
        """
        if name not in self._by_name:
            raise UserError(f"{self.directory}, split {self.split!r}: no clip {name!r}")
        return self._by_name[name]

    def load(self, clip: str, view: str, frames: Sequence[int]) -> "LoadedFrames":
        """Reads the records that hold `frames` of a view; they are decoded on demand.

        Raises:
          UserError: if there is no such clip, view or frame, or a record is damaged.
        """
        views = self.clip(clip).views
        if view not in views:
            raise UserError(
                f"{self.directory}, clip {clip!r}: no view {view!r}, only {list(views)}"
            )
        entry = views[view]
        if not len(frames) or min(frames) < 0 or max(frames) >= entry.frames:
            raise UserError(
                f"{self.directory}, clip {clip!r}, view {view!r}: it has frames 0 to "
                f"{entry.frames - 1}, asked for {list(frames)}"
            )
        starts = [segment["start"] for segment in entry.segments]
        wanted = sorted({int(np.searchsorted(starts, frame, side="right")) - 1 for frame in frames})
        examples = {starts[i]: self._stored(entry.segments[i]["record"], clip) for i in wanted}
        return LoadedFrames(self, clip, view, tuple(int(frame) for frame in frames), examples)

    def read(
        self,
        clip: str,
        view: str,
        stream: str,
        frames: Sequence[int] | None = None,
        *,
        source: str = "",
    ) -> Shaped[np.ndarray, "..."]:
        """Reads (t, …) frames of one stream, by default all; `background` has no time axis.

        `prior` and `visibility` are of one `source` view. Raises UserError as `load` does, and for
        a stream that the dataset does not hold.
        """
        frames = range(self.clip(clip).views[view].frames) if frames is None else frames
        return self.load(clip, view, frames).read(stream, source=source)

    def encoded(self, clip: str, view: str) -> Iterator[codec.EncodedView]:
        """Yields the records of a view as they are stored, in order, for another dataset.

        Raises UserError as `load` does.
        """
        entry = self.clip(clip).views[view]
        for segment in entry.segments:
            example = self._example(segment["record"], clip)
            yield codec.restored(
                clip, view, segment["start"], self.streams, example, meta=entry.meta
            )

    def require(self, stream: str, why: str) -> None:
        """Raises UserError, with the command that makes it, if the dataset lacks a stream."""
        if stream not in self.streams:
            raise UserError(
                f"{self.directory}: the dataset holds no {stream!r} "
                f"({codec.STREAMS[stream].meaning}), {why}: {_MAKERS.get(stream, _ANY_MAKER)}"
            )

    @functools.cached_property
    def _features(self) -> Any:
        return codec.features(self.streams)

    @functools.cached_property
    def _records(self) -> "_Records":
        return _Records([(self.directory / file["name"], file["records"]) for file in self._files])

    def _example(self, record: int, clip: str) -> dict[str, Any]:
        try:
            return self._features.deserialize_example_np(self._records.read(record))
        except Exception as error:  # protobuf and Riegeli have no common exception
            raise self._damaged(record, clip, error) from error

    def _stored(self, record: int, clip: str) -> Mapping[str, Any]:
        try:
            return codec.read_example(self._records.read(record))
        except Exception as error:  # as above
            raise self._damaged(record, clip, error) from error

    @property
    def records(self) -> int:
        """The number of records of the split."""
        return sum(file["records"] for file in self._files)

    def _damaged(self, record: int, clip: str, error: Exception) -> "DamagedRecordError":
        return DamagedRecordError(
            f"{self._records.path(record)}: record {record} (clip {clip!r}) is damaged "
            f"({str(error).splitlines()[0] if str(error) else type(error).__name__}); "
            "prepare the dataset again"
        )

    def _check_files(self) -> None:
        for file in self._files:
            path = self.directory / file["name"]
            size = path.stat().length if path.is_file() else -1
            if size != file["bytes"]:
                state = "missing" if size < 0 else f"{size} bytes"
                raise UserError(
                    f"{path}: {state}, the manifest says {file['bytes']} bytes: the file is cut "
                    "off or was changed; prepare the dataset again"
                )
        for number in range(len(self._files)):
            self._records.check(number)


class LoadedFrames:
    """Chosen frames of one view, read but not yet decoded."""

    def __init__(
        self,
        source: Source,
        clip: str,
        view: str,
        frames: tuple[int, ...],
        examples: dict[int, Any],
    ):
        self._source, self._clip, self._view = source, clip, view
        self._frames = frames
        self._examples = examples  # {first frame: example}
        self._starts = sorted(examples)

    @property
    def camera(self) -> Camera | None:
        """The view's camera, or None if it is not stored."""
        return codec.decode_camera(_text(self._examples[self._starts[0]]["camera"][0]))

    def read(
        self, stream: str, *, frames: Sequence[int] | None = None, source: str = ""
    ) -> Shaped[np.ndarray, "..."]:
        """Decodes one stream at `frames` (of those loaded; by default all of them).

        Raises:
          UserError: if the dataset lacks the stream or the source view, or bytes are damaged.
        """
        self._source.require(stream, "which is read here")
        coding = codec.STREAMS[stream].coding
        if coding == codec.STILL:
            image = self._examples[self._starts[0]][stream][0]
            if not image:  # it is stored in the view's first record
                return self._source.load(self._clip, self._view, (0,)).read(stream)
            return self._decode_all([image])[0]
        picked = [self._at(stream, frame, source) for frame in frames or self._frames]
        if coding == codec.TENSOR:
            return np.stack(picked)
        return self._decode_all(picked)

    def _at(self, stream: str, frame: int, source: str) -> Any:
        start = self._starts[int(np.searchsorted(self._starts, frame, side="right")) - 1]
        example = self._examples[start]
        place = frame - start
        if codec.STREAMS[stream].coding == codec.TENSOR:
            return np.array(example[stream], np.float32).reshape(-1, spec.JOINTS, 3)[place]
        if codec.STREAMS[stream].by_source:
            sources = [_text(name) for name in example["sources"]]
            if source not in sources:
                raise UserError(
                    f"{self._source.directory}, clip {self._clip!r}, view {self._view!r}: no "
                    f"{stream} from source view {source!r}, only from {sources}"
                )
            place += sources.index(source) * (len(example[stream]) // len(sources))
        return example[stream][place]

    def _decode_all(self, values: Sequence[bytes]) -> np.ndarray:
        try:
            return codec.decode_arrays(values)
        except (ValueError, TypeError) as error:
            raise DamagedRecordError(
                f"{self._source.directory}, clip {self._clip!r}, view {self._view!r}: a stored "
                f"frame is damaged ({error}); prepare the dataset again"
            ) from error


class _Records:
    """The records of several ArrayRecord files as one list; files are opened on first use."""

    def __init__(self, files: Sequence[tuple[epath.Path, int]]):
        self._files = files
        self._ends = np.cumsum([records for _, records in files])
        self._readers: dict[int, Any] = {}
        self._lock = threading.Lock()

    def path(self, record: int) -> epath.Path:
        return self._files[self._number(record)][0]

    def read(self, record: int) -> bytes:
        number = self._number(record)
        first = int(self._ends[number]) - self._files[number][1]
        return self._reader(number).read([record - first])[0]

    def check(self, number: int) -> None:
        path, records = self._files[number]
        try:
            reader = self._reader(number)
            found = reader.num_records() if reader.ok() else 0
        except RuntimeError as error:
            raise UserError(f"{path}: cannot be read ({error})") from error
        if not found and io.is_remote(path):  # of the right size, as its bucket says
            raise UserError(
                f"{path}: this version of array_record does not read buckets, or lacks the right "
                "to: copy the dataset to a disk (`gcloud storage cp -r`), or mount it (gcsfuse)"
            )
        if found != records:  # a cut-off file opens without an error, with no records in it
            raise UserError(
                f"{path}: {found} readable records, the manifest says {records}: the file is "
                "damaged; prepare the dataset again"
            )

    def _number(self, record: int) -> int:
        return int(np.searchsorted(self._ends, record, side="right"))

    def _reader(self, number: int) -> Any:
        with self._lock:
            if number not in self._readers:
                self._readers[number] = store.open_records(self._files[number][0])
            return self._readers[number]


def _clips(entries: Sequence[Mapping[str, Any]]) -> tuple[Clip, ...]:
    views: dict[str, dict[str, View]] = defaultdict(dict)
    for entry in entries:
        views[entry["clip"]][entry["view"]] = View(
            name=entry["view"],
            frames=entry["frames"],
            fps=entry["fps"],
            size=tuple(entry["size"]),
            meta=entry["meta"],
            segments=tuple(entry["segments"]),
        )
    return tuple(Clip(name, dict(sorted(of_clip.items()))) for name, of_clip in views.items())


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
