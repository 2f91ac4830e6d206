"""Writes stored datasets: ArrayRecord files that TFDS reads, a manifest and statistics.

Everything goes to `<directory>.partial`, the manifest last; then the folder is renamed. So a folder
with a manifest is a whole dataset, and an interrupted run leaves nothing that looks like one.
TFDS's own `GeneratorBasedBuilder` is not used to write: it holds up to 1 GB in memory and needs
TensorFlow beyond that; here one example at a time is held, and the layout is the same.
"""

import errno
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]

from psrjax import io
from psrjax.data import codec
from psrjax.errors import UserError
from psrjax.io import foreign

FORMAT = 2  # of the manifest, the features and their coding
MANIFEST = "manifest.json"
_CHECKSUM = "checksum"  # of the rest of the manifest
STATISTICS = "statistics.npz"
TRAIN_SPLIT = "train"  # the split that the mean frames of the views are computed on
NAME = "clips"  # the TFDS name of every dataset

_SHARD_BYTES = 256 << 20
_READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"  # random access reads ahead in vain
_WRITER_OPTIONS = "group_size:1,uncompressed"  # compressed streams do not shrink further


def write(
    directory: str | os.PathLike,
    splits: Mapping[str, Iterable[codec.ClipView | codec.EncodedView]],
    *,
    meta: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes a whole dataset and returns its manifest.

    Args:
      directory: the new folder; must not exist, or be empty.
      splits: {name of split: views of clips}; consumed one by one, so a generator may render them.
        All must hold the same streams. A long clip may come in runs of frames, in order.
      meta: JSON-able facts of the whole dataset: near, far, faces of the mesh, …

    Raises:
      UserError: if the directory is in use, a split is empty, a clip is not as it must be, or the
        disk is full. Nothing is left behind then.
    """
    directory = require_free(directory)
    partial = directory.with_name(directory.name + ".partial")
    with disk_errors(directory):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            manifest = _write_all(partial, splits, dict(meta or {}))
            partial.replace(directory)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return manifest


def require_free(directory: str | os.PathLike) -> Path:
    """Returns the absolute path of a new or empty folder.

    Raises:
      UserError: if something is there already, or it is in a bucket.
    """
    if io.is_remote(directory):
        raise UserError(
            f"{directory}: datasets are written to a disk: name a folder, then `gcloud storage cp "
            f"-r FOLDER {directory}`"
        )
    directory = Path(os.path.abspath(directory))
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"{directory}: exists already; remove it or name another folder")
    return directory


def _write_all(
    directory: Path, splits: Mapping[str, Iterable[Any]], meta: dict[str, Any]
) -> dict[str, Any]:
    means = _MeanFrames()
    writers: dict[str, _SplitWriter] = {}
    streams: tuple[str, ...] = ()
    for split, views in splits.items():
        writers[split] = _SplitWriter(directory, split)
        for view in views:
            encoded = codec.encode(view) if isinstance(view, codec.ClipView) else view
            streams = streams or encoded.streams
            writers[split].add(encoded, streams)
            if split == TRAIN_SPLIT:
                means.add(encoded)
        writers[split].close()
    _write_tfds_metadata(directory, streams, writers)
    arrays: dict[str, Any] = means.result()
    np.savez_compressed(directory / STATISTICS, **arrays)
    manifest = {
        "format": FORMAT,
        "streams": list(streams),
        "meta": meta,
        "splits": {split: list(writer.views.values()) for split, writer in writers.items()},
        "files": {split: writer.files for split, writer in writers.items()},
    }
    manifest[_CHECKSUM] = io.checksum(manifest)
    io.write_json(directory / MANIFEST, manifest)
    return manifest


class _SplitWriter:
    """Writes the examples of one split into files of a bounded size and lists them."""

    def __init__(self, directory: Path, split: str):
        self._directory = directory
        self._split = split
        self._features: Any = None
        self._writer: Any = None
        self._records = 0  # in all files
        self.files: list[dict[str, Any]] = []
        self.views: dict[tuple[str, str], dict[str, Any]] = {}

    def add(self, view: codec.EncodedView, streams: tuple[str, ...]) -> None:
        where = f"split {self._split!r}, clip {view.clip!r}, view {view.view!r}"
        if view.streams != streams:
            odd = sorted(set(view.streams) ^ set(streams))
            raise UserError(f"{where}: stream {odd[0]!r} is not in every view of the dataset")
        height, width, _ = view.frame_sum.shape
        fresh = {
            "clip": view.clip,
            "view": view.view,
            "frames": 0,
            "fps": view.meta.get("fps", 0.0),
            "size": [height, width],
            "meta": dict(view.meta),
            "segments": [],
        }
        entry = self.views.setdefault((view.clip, view.view), fresh)
        if view.start != entry["frames"] or entry["size"] != fresh["size"] or not view.frames:
            raise UserError(
                f"{where}: frames {view.start}..{view.start + view.frames} of size {fresh['size']} "
                f"after {entry['frames']} frames of size {entry['size']}: twice, a gap or empty"
            )
        self._features = self._features or codec.features(streams)
        for example in view.examples:
            entry["segments"].append({"record": self._records, "start": int(example["start"])})
            self._write(self._features.serialize_example(example))
        entry["frames"] += view.frames

    def _write(self, record: bytes) -> None:
        if self._writer is None:
            name = f"{NAME}-{self._split}.array_record-{len(self.files):05d}"
            self.files.append({"name": name, "records": 0, "bytes": 0, "payload": 0})
            path = os.fspath(self._directory / name)
            self._writer = array_record_module.ArrayRecordWriter(path, _WRITER_OPTIONS)
        self._writer.write(record)
        self._records += 1
        self.files[-1]["records"] += 1
        self.files[-1]["payload"] += len(record)
        if self.files[-1]["payload"] >= _SHARD_BYTES:
            self._finish_file()

    def _finish_file(self) -> None:
        self._writer.close()
        self._writer = None
        path = self._directory / self.files[-1]["name"]
        reader = open_records(path)
        whole = reader.ok() and reader.num_records() == self.files[-1]["records"]
        reader.close()
        if not whole:  # the writer reports no error of the disk: this check does
            raise OSError(errno.ENOSPC, "the file is not whole")
        self.files[-1]["bytes"] = path.stat().st_size

    def close(self) -> None:
        if not self.views:
            raise UserError(f"split {self._split!r}: no clip to write")
        if self._writer is not None:
            self._finish_file()
        for file in self.files:
            whole_name = f"{file['name']}-of-{len(self.files):05d}"
            (self._directory / file["name"]).rename(self._directory / whole_name)
            file["name"] = whole_name


class _MeanFrames:
    """Accumulates the mean frame of each view; none for a view of several sizes."""

    def __init__(self):
        self._sums: dict[str, np.ndarray] = {}
        self._counts: dict[str, int] = {}
        self._mixed: set[str] = set()

    def add(self, view: codec.EncodedView) -> None:
        total = self._sums.setdefault(view.view, np.zeros(view.frame_sum.shape, np.uint64))
        if total.shape != view.frame_sum.shape:
            self._mixed.add(view.view)
            return
        total += view.frame_sum
        self._counts[view.view] = self._counts.get(view.view, 0) + view.frames

    def result(self) -> dict[str, np.ndarray]:
        return {
            f"mean/{view}": np.round(total / self._counts[view]).astype(np.uint8)
            for view, total in self._sums.items()
            if view not in self._mixed
        }


def _write_tfds_metadata(
    directory: Path, streams: tuple[str, ...], writers: Mapping[str, _SplitWriter]
) -> None:
    folder: Any = directory  # TFDS asks for its own class of paths
    template = tfds.core.ShardedFileTemplate(
        data_dir=folder, dataset_name=NAME, filetype_suffix="array_record"
    )
    tfds.folder_dataset.write_metadata(
        data_dir=directory,
        features=codec.features(streams),
        split_infos=[
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[file["records"] for file in writer.files],
                num_bytes=sum(file["payload"] for file in writer.files),
                filename_template=template.replace(split=split),
            )
            for split, writer in writers.items()
        ],
        filename_template=template,
        check_data=False,
        description="Clips of people, written by psrjax.data.store.",
        disable_shuffling=True,
    )


@contextmanager
def disk_errors(directory: Path) -> Iterator[None]:
    """Turns errors of the disk into a UserError, or DiskFullError, about `directory`."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or "No space left" in str(error) or "quota" in str(error):
            raise io.DiskFullError(
                f"{directory}: the disk is full: make room, or write elsewhere"
            ) from error
        if isinstance(error, PermissionError):
            raise UserError(f"{directory}: no permission to write there") from error
        raise


def open_records(path: str | os.PathLike) -> Any:
    """Opens an ArrayRecord file for random access; ArrayRecord itself reads gs://."""
    return array_record_module.ArrayRecordReader(os.fspath(path), _READER_OPTIONS)


def read_manifest(directory: str | os.PathLike) -> dict[str, Any]:
    """Reads the manifest of a stored dataset.

    Raises:
      UserError: if there is none, it is of another format, or a bit of it changed.
    """
    path = io.absolute(directory) / MANIFEST
    if not path.is_file():
        raise UserError(
            f"{directory}: no dataset there (no {MANIFEST}); `psrjax prepare` makes one, and "
            "--config.data.path=synthetic needs none"
        )
    manifest = io.read_json(path)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        found = manifest.get("format") if isinstance(manifest, dict) else "none"
        raise UserError(f"{path}: format {found}, this version reads {FORMAT}; prepare it again")
    # Datasets of older versions have none.
    content = {key: value for key, value in manifest.items() if key != _CHECKSUM}
    if _CHECKSUM in manifest and manifest[_CHECKSUM] != io.checksum(content):
        raise UserError(f"{path}: not as it was written, bits of it changed; prepare it again")
    return manifest


def read_statistics(directory: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads {"mean/<view>": (h, w, 3) uint8}. Raises UserError if missing or damaged."""
    path = io.absolute(directory) / STATISTICS
    with foreign.parsing(path, "damaged; prepare the dataset again"):
        return foreign.load_npz(path)
