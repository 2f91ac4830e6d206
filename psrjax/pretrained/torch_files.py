"""Reads files of `torch.save` without PyTorch, and runs nothing that is in them.

Both formats are read: the zip archive of PyTorch 1.6 and later, and the row of pickles before it.
Tensors become NumPy arrays; every class but those that a file of tensors needs is refused.
"""

import collections
import datetime
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from psrjax.errors import UserError

_TYPES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
_MAGIC = 0x1950A86A20F9469CFC6C  # begins the older format
_CONTAINERS = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): collections.defaultdict,
    ("datetime", "datetime"): datetime.datetime,
    ("_codecs", "encode"): lambda text, _: text.encode("latin1"),  # how bytes are written
    ("builtins", "dict"): dict,
    ("builtins", "list"): list,
    ("builtins", "set"): set,
}


class _Storage:
    """The numbers behind one or more tensors; filled in once the file has come to them."""

    def __init__(self, kind: type, count: int):
        self.kind, self.count = np.dtype(kind), count
        self.data = np.empty(0, self.kind)


class _Tensor:
    """A view of a storage."""

    def __init__(self, storage: _Storage, offset: int, size: tuple, stride: tuple):
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def array(self) -> np.ndarray:
        """Copies the tensor's numbers."""
        last = self.offset + sum(
            (n - 1) * step for n, step in zip(self.size, self.stride, strict=True)
        )
        if 0 in self.size:
            return np.zeros(self.size, self.storage.kind)
        if self.offset < 0 or min(self.stride, default=0) < 0 or last >= len(self.storage.data):
            raise ValueError("a tensor reaches beyond its numbers")
        steps = [step * self.storage.kind.itemsize for step in self.stride]
        flat = self.storage.data[self.offset :]
        return np.lib.stride_tricks.as_strided(flat, self.size, steps).copy()


class _Reader(pickle.Unpickler):
    def __init__(self, file: Any, storages: dict[str, _Storage]):
        super().__init__(file, encoding="latin1")
        self._storages = storages

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _CONTAINERS:
            return _CONTAINERS[module, name]
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *_: _Tensor(storage, offset, size, stride)
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        if module in ("torch", "torch.cuda") and name in _TYPES:
            return _TYPES[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}, which is no tensor")

    def persistent_load(self, reference: tuple) -> _Storage:
        _, kind, key, _, count, *_ = reference
        return self._storages.setdefault(key, _Storage(kind, count))


def load(path: str | os.PathLike) -> Any:
    """Loads the object in a PyTorch file, its tensors as NumPy arrays.

    Raises:
      UserError: naming the file, if it is missing, damaged, or holds more than tensors in dicts,
        lists, numbers, strings and dates.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        with path.open("rb") as file:
            found = _read_zip(file) if zipfile.is_zipfile(file) else _read_pickles(file)
    except (
        *(pickle.UnpicklingError, zipfile.BadZipFile, EOFError, KeyError, IndexError, OSError),
        *(ValueError, TypeError, AttributeError, ImportError, OverflowError, MemoryError),
    ) as error:
        raise UserError(f"{path}: cannot be read as a PyTorch file ({error})") from error
    return found


def _read_zip(file: Any) -> Any:
    storages: dict[str, _Storage] = {}
    with zipfile.ZipFile(file) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
        if len(pickles) != 1:
            raise ValueError("it is a zip archive without data.pkl, such as TorchScript's")
        root = pickles[0].removesuffix("data.pkl")
        found = _Reader(io.BytesIO(archive.read(pickles[0])), storages).load()
        for key, storage in storages.items():
            storage.data = _numbers(archive.read(f"{root}data/{key}"), storage)
    return _with_arrays(found)


def _read_pickles(file: Any) -> Any:
    file.seek(0)
    storages: dict[str, _Storage] = {}
    if _Reader(file, {}).load() != _MAGIC:
        raise ValueError("it does not begin as one")
    for _ in ("version", "machine"):
        _Reader(file, {}).load()
    found = _Reader(file, storages).load()
    for key in _Reader(file, {}).load():
        storage = storages[key]
        count = int(np.frombuffer(file.read(8), np.int64)[0])
        if count != storage.count:
            raise ValueError("its numbers are not as many as announced")
        storage.data = _numbers(file.read(count * storage.kind.itemsize), storage)
    return _with_arrays(found)


def _numbers(data: bytes, storage: _Storage) -> np.ndarray:
    if len(data) != storage.count * storage.kind.itemsize:
        raise EOFError("the file is cut off")
    return np.frombuffer(data, storage.kind)


def _with_arrays(found: Any) -> Any:
    if isinstance(found, _Tensor):
        return found.array()
    if isinstance(found, dict):
        return {key: _with_arrays(value) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return type(found)(_with_arrays(value) for value in found)
    return found
