"""Coding of one view of one clip: streams in memory, on disk, and as TFDS features.

Every frame of a stream is compressed alone (Zstandard), so that a reader decodes only the frames it
wants. 8-bit streams are stored as differences of rows, as small as PNG and read four times as fast.
Colours are RGB.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds
import zstandard
from jaxtyping import Shaped

# Here, not where it is used: TFDS replaces builtins.__import__ while it is imported, which threads
# that read records, and JAX's own late imports beside them, do not survive.
from tensorflow_datasets.proto import tf_example_pb2

from psrjax.errors import UserError
from psrjax.vision.camera import Camera

# Frames of one stored example. Records are read whole, so they are small: 2 frames are read three
# times as fast as 8 where source frames lie scattered.
SEGMENT = 2
IMAGE = "image"  # uint8 frames, the differences of rows compressed, frame by frame
ARRAY = "array"  # any frames, compressed, frame by frame
TENSOR = "tensor"  # float32, stored plainly: short rows
STILL = "still"  # one uint8 image for the whole clip

_PNG_OPTIONS = (cv2.IMWRITE_PNG_COMPRESSION, 1)  # 4 % larger than 6, a third of its time
# Bytes: type code (2), rank (2), rows are differences (2), reserved (2); then the sizes (4 each).
_ARRAY_HEADER = 8
_COMPRESSION = 1  # higher levels are slower to read and no smaller: what is left is noise


@dataclass(frozen=True)
class Stream:
    """Storage of one stream: its coding, the axes after time, its type and its meaning."""

    coding: str
    axes: str
    dtype: str
    meaning: str
    by_source: bool = False


STREAMS: dict[str, Stream] = {
    "frames": Stream(IMAGE, "h w 3", "uint8", "RGB frames"),
    "mask": Stream(IMAGE, "h w", "uint8", "person, 0..255"),
    "iuv": Stream(IMAGE, "h w 3", "uint8", "body part 0..24, u*255, v*255"),
    "depth": Stream(ARRAY, "h w", "float16", "(far - z)/(far - near); 0 off the person"),
    "flow": Stream(ARRAY, "h w 2", "float16", "pixels, t to t-1; 0 at t = 0"),
    "flow_forward": Stream(ARRAY, "h w 2", "float16", "pixels, t-1 to t, stored at t; 0 at t = 0"),
    "flow_confidence": Stream(IMAGE, "h w", "uint8", "forward-backward agreement, 0..255"),
    "mesh_flow": Stream(ARRAY, "h w 2", "float16", "pixels, mesh, t to t-1; 0 off it and at t = 0"),
    "mesh_label": Stream(IMAGE, "h w 3", "uint8", "rendered Laplacian features"),
    "joints": Stream(TENSOR, "26 3", "float32", "x, y in [-1, 1] and confidence; 0 = missing"),
    "joints_3d": Stream(TENSOR, "26 3", "float32", "metres, world axes"),
    "face": Stream(ARRAY, "h w", "int32", "face index of the body mesh, -1 off it"),
    "background": Stream(
        STILL, "h w 3", "uint8", "the scene without the person; none with `prepare --crop=follow`"
    ),
    "prior": Stream(IMAGE, "h w 3", "uint8", "texture transfer from a source view", by_source=True),
    "visibility": Stream(IMAGE, "h w", "uint8", "0 background, 1 seen, 2 occluded", by_source=True),
}


@dataclass(frozen=True)
class ClipView:
    """One view of one clip, or a run of its frames, to be written to a dataset.

    Attributes:
      clip: the clip's name, the same for all views captured at the same time.
      view: the camera's name, such as "cam1".
      streams: {name of STREAMS: array (t, …)}; `background` has no time axis; `prior` and
        `visibility` are {source view: (t, …)}.
      meta: JSON-able facts: fps, person, room, action, near, far, ...
      camera: the camera of this view, if known.
      start: index of the first frame here: long clips may be written in runs, in order.
    """

    clip: str
    view: str
    streams: Mapping[str, Any]
    meta: Mapping[str, Any] = field(default_factory=dict)
    camera: Camera | None = None
    start: int = 0

    @property
    def frames(self) -> int:
        """Number of frames here."""
        return len(self.streams["frames"])


@dataclass(frozen=True)
class EncodedView:
    """An encoded `ClipView`: small and picklable, made by workers and sent to the writer.

    Attributes:
      examples: one dict per segment of at most SEGMENT frames, as the TFDS features need it.
      frame_sum: (h, w, 3) uint32, the sum of the frames, for the mean frame of the view.
    """

    clip: str
    view: str
    meta: Mapping[str, Any]
    start: int
    frames: int
    streams: tuple[str, ...]
    examples: tuple[dict[str, Any], ...]
    frame_sum: np.ndarray


def encode(view: ClipView) -> EncodedView:
    """Checks and encodes one view of a clip.

    Raises:
      UserError: for a stream that does not exist, or whose type or shape is not as STREAMS says.
    """
    for name, values in view.streams.items():
        _check(view, name, values)
    starts = range(0, view.frames, SEGMENT)
    return EncodedView(
        clip=view.clip,
        view=view.view,
        meta=dict(view.meta),
        start=view.start,
        frames=view.frames,
        streams=tuple(sorted(view.streams)),
        examples=tuple(_example(view, start, start + SEGMENT) for start in starts),
        frame_sum=view.streams["frames"].sum(0, dtype=np.uint32),
    )


def restored(
    clip: str,
    view: str,
    start: int,
    streams: tuple[str, ...],
    example: Mapping[str, Any],
    *,
    meta: Mapping[str, Any] | None = None,
) -> EncodedView:
    """Returns one stored example as an `EncodedView`, to be written to another dataset."""
    pictures = [decode_array(data) for data in example["frames"]]
    return EncodedView(
        clip=clip,
        view=view,
        meta=json.loads(example["meta"]) if meta is None else meta,
        start=start,
        frames=len(pictures),
        streams=streams,
        examples=(dict(example),),
        frame_sum=np.asarray(np.sum(pictures, axis=0, dtype=np.uint32)),
    )


def features(streams: Any) -> Any:
    """Returns the TFDS features of a dataset with the named streams.

    Every stream is a sequence of encoded bytes (`Text`, which TFDS returns untouched, without
    TensorFlow), except joints, which are float32 tensors. `prior` and `visibility` hold their
    source views one after the other, in the order of `sources`. A STILL stream is stored in the
    first example of its view, and is empty in the others.
    """
    kinds = {
        IMAGE: lambda: tfds.features.Sequence(tfds.features.Text()),
        ARRAY: lambda: tfds.features.Sequence(tfds.features.Text()),
        STILL: tfds.features.Text,
        TENSOR: lambda: tfds.features.Tensor(shape=(None, 26, 3), dtype=np.float32),
    }
    return tfds.features.FeaturesDict(
        {
            "clip": tfds.features.Text(),
            "view": tfds.features.Text(),
            "meta": tfds.features.Text(),
            "camera": tfds.features.Text(),
            "start": tfds.features.Scalar(np.int64),
            "sources": tfds.features.Sequence(tfds.features.Text()),
            **{name: kinds[STREAMS[name].coding]() for name in sorted(streams)},
        }
    )


def _example(view: ClipView, start: int, stop: int) -> dict[str, Any]:
    by_source = [name for name in view.streams if STREAMS[name].by_source]
    sources = sorted(view.streams[by_source[0]]) if by_source else []
    example: dict[str, Any] = {
        "clip": view.clip,
        "view": view.view,
        "meta": json.dumps(dict(view.meta)),
        "camera": encode_camera(view.camera),
        "start": view.start + start,
        "sources": sources,
    }
    for name, values in view.streams.items():
        coding = STREAMS[name].coding
        if coding == STILL:
            example[name] = b"" if example["start"] else encode_array(values, differences=True)
        elif coding == TENSOR:
            example[name] = np.asarray(values[start:stop], np.float32)
        else:
            runs = [values[source] for source in sources] if name in by_source else [values]
            example[name] = [
                encode_array(frame, differences=coding == IMAGE)
                for run in runs
                for frame in run[start:stop]
            ]
    return example


def _check(view: ClipView, name: str, values: Any) -> None:
    where = f"clip {view.clip!r}, view {view.view!r}, stream {name!r}"
    if name not in STREAMS:
        raise UserError(f"{where}: no such stream; there are {', '.join(STREAMS)}")
    stream = STREAMS[name]
    size = view.streams["frames"].shape[1:3]
    sizes = {"h": size[0], "w": size[1]}
    tail = tuple(sizes[axis] if axis in sizes else int(axis) for axis in stream.axes.split())
    expected = tail if stream.coding == STILL else (view.frames, *tail)
    for array in values.values() if stream.by_source else [values]:
        if tuple(array.shape) != expected or str(array.dtype) != stream.dtype:
            raise UserError(
                f"{where}: {array.dtype} {tuple(array.shape)}, it must be {stream.dtype} {expected}"
            )


def read_example(data: bytes) -> Mapping[str, Any]:
    """Parses a stored example without decoding it: {name: sequence of values}.

    TFDS's own reader makes arrays of all frames, of which a window needs few.

    Raises:
      google.protobuf.message.DecodeError: if the bytes are damaged.
    """
    messages: Any = tf_example_pb2  # protobuf makes its classes on import
    stored = messages.Example.FromString(data).features.feature
    return {name: getattr(value, value.WhichOneof("kind")).value for name, value in stored.items()}


def encode_png(image: Shaped[np.ndarray, "..."]) -> bytes:
    """Encodes uint8 (h, w) or (h, w, 3) RGB as PNG."""
    image = np.ascontiguousarray(image if image.ndim == 2 else image[..., ::-1])
    return cv2.imencode(".png", image, _PNG_OPTIONS)[1].tobytes()


def decode_png(data: bytes) -> Shaped[np.ndarray, "..."]:
    """Decodes PNG to uint8 (h, w) or (h, w, 3) RGB.

    Raises:
      ValueError: if the bytes are not a whole image.
    """
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError("not an image")
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def encode_array(array: Shaped[np.ndarray, "..."], *, differences: bool = False) -> bytes:
    """Compresses an array of any shape and numeric type; type and shape stand in front.

    Args:
      array: the values.
      differences: whether to store each row but the first as its difference from the row above
        (modulo 256 for uint8): natural pictures compress a third better so; integers only.
    """
    array = np.ascontiguousarray(array)
    layout = np.array([array.ndim, differences, 0], "<u2").tobytes()
    header = array.dtype.str[1:].encode().ljust(2) + layout + np.array(array.shape, "<u4").tobytes()
    if differences:
        array = np.concatenate([array[:1], array[1:] - array[:-1]])
    payload = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return header + zstandard.ZstdCompressor(_COMPRESSION, write_checksum=True).compress(payload)


def decode_array(data: bytes) -> Shaped[np.ndarray, "..."]:
    """Inverts `encode_array`.

    Raises:
      ValueError: if the bytes are damaged.
    """
    return decode_arrays([data])[0]


def decode_arrays(several: Sequence[bytes]) -> Shaped[np.ndarray, "t ..."]:
    """Inverts `encode_array` on frames of one stream, stacked along a new first axis.

    Raises:
      ValueError: if bytes are damaged, or the frames differ in type or shape.
    """
    rows = [_stored(data) for data in several]
    first, differences = rows[0]
    frames = np.empty((len(rows), *first.shape), first.dtype)
    for frame, (values, _) in zip(frames, rows, strict=True):
        if values.shape != first.shape or values.dtype != first.dtype:
            raise ValueError(f"a frame is {values.dtype} {values.shape}, the first {first.shape}")
        if differences:
            _sum_rows(values, frame)
        else:
            frame[...] = values
    return frames


def _stored(data: bytes) -> tuple[Shaped[np.ndarray, "..."], bool]:
    """Decompresses the stored values; True if their rows are differences."""
    rank, differences = (int(value) for value in np.frombuffer(data, "<u2", count=2, offset=2))
    shape = np.frombuffer(data, "<u4", count=rank, offset=_ARRAY_HEADER)
    try:
        payload = zstandard.decompress(memoryview(data)[_ARRAY_HEADER + 4 * rank :])
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
    return np.frombuffer(payload, "<" + data[:2].decode().strip()).reshape(shape), bool(differences)


def _sum_rows(rows: Shaped[np.ndarray, "h ..."], to: Shaped[np.ndarray, "h ..."]) -> None:
    """Sums over the rows above; row by row, twice as fast as NumPy's cumulative sum."""
    to[:1] = rows[:1]
    for row in range(1, len(rows)):
        np.add(to[row - 1], rows[row], out=to[row])


def encode_camera(camera: Camera | None) -> str:
    """Encodes a camera as JSON (exact float64), None as the empty string."""
    if camera is None:
        return ""
    arrays = {
        name: np.asarray(getattr(camera, name), np.float64).tolist()
        for name in ("matrix", "rotation", "translation", "distortion")
    }
    return json.dumps({**arrays, "size": [int(side) for side in camera.size]})


def decode_camera(text: str) -> Camera | None:
    """Inverts `encode_camera`."""
    if not text:
        return None
    values = json.loads(text)
    size = tuple(values.pop("size"))
    return Camera(**{name: np.array(value) for name, value in values.items()}, size=size)
