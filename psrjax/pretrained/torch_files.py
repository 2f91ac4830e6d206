"""Reads files of `torch.save` without PyTorch, and runs nothing that is in them.

Both formats are read: the zip archive of PyTorch 1.6 and later, and the row of pickles before it.
Tensors become NumPy arrays; every class but those that a file of tensors needs is refused.
"""

import collections
import datetime
import io
import math
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from psrjax.io import foreign

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
    ("collections", "OrderedDict"): lambda *given: _Ordered(*given),
    ("collections", "defaultdict"): collections.defaultdict,
    ("datetime", "datetime"): datetime.datetime,
    ("_codecs", "encode"): lambda text, _: text.encode("latin1"),  # how bytes are written
    ("builtins", "dict"): dict,
    ("builtins", "list"): list,
    ("builtins", "set"): set,
}


class _Storage:
    """The numbers behind one or more tensors; filled in once the file has come to them."""

    def __init__(self, kind: Any, count: Any):
        if kind not in _TYPES.values() or not isinstance(count, int) or count < 0:
            raise pickle.UnpicklingError("its numbers are of no known type")
        self.kind, self.count = np.dtype(kind), count
        self.data = np.empty(0, self.kind)

    @property
    def bytes(self) -> int:
        return self.count * self.kind.itemsize


class _Tensor(foreign.Placeholder):
    """A view of a storage."""

    def __init__(self, storage: Any, offset: Any, size: Any, stride: Any):
        if not isinstance(storage, _Storage):
            raise pickle.UnpicklingError("it holds a tensor without numbers")
        self.storage, self.offset, self.size, self.stride = storage, offset, size, stride

    def array(self) -> np.ndarray:
        """Returns the tensor's numbers, of which each is in it once at most."""
        last = self.offset + sum(
            (n - 1) * step for n, step in zip(self.size, self.stride, strict=True)
        )
        if 0 in self.size:
            return np.zeros(self.size, self.storage.kind)
        if self.offset < 0 or min(self.stride, default=0) < 0 or last >= len(self.storage.data):
            raise ValueError("a tensor reaches beyond its numbers")
        if math.prod(self.size) > len(self.storage.data):
            raise ValueError("a tensor repeats its numbers")
        steps = [step * self.storage.kind.itemsize for step in self.stride]
        flat = self.storage.data[self.offset :]
        return np.lib.stride_tricks.as_strided(flat, self.size, steps, writeable=False)


class _Ordered(collections.OrderedDict):
    """A state dict without the attributes that PyTorch gives it, which nobody needs."""

    def __setstate__(self, state: Any) -> None:
        pass


class _Reader(foreign.CheckedUnpickler):
    def __init__(self, file: io.BytesIO, storages: dict[Any, _Storage]):
        super().__init__(file)
        self._storages = storages

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _CONTAINERS:
            return self.copying(_CONTAINERS[module, name])
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
    """Loads the object in a PyTorch file, its tensors as read-only NumPy arrays.

    Raises:
      UserError: naming the file, if it is missing, damaged, or holds more than tensors in dicts,
        lists, numbers, strings and dates.
    """
    with foreign.parsing(path, "cannot be read as a PyTorch file"):
        file = io.BytesIO(Path(path).read_bytes())
        return foreign.settled(_read_zip(file) if zipfile.is_zipfile(file) else _read_pickles(file))


def _read_zip(file: io.BytesIO) -> Any:
    storages: dict[Any, _Storage] = {}
    with zipfile.ZipFile(file) as archive:
        foreign.check_unpacked(archive, len(file.getbuffer()))
        pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
        if len(pickles) != 1:
            raise ValueError("it is a zip archive without data.pkl, such as TorchScript's")
        root = pickles[0].removesuffix("data.pkl")
        found = _Reader(io.BytesIO(archive.read(pickles[0])), storages).load()
        for key, storage in storages.items():
            _fill(storage, archive.read(f"{root}data/{key}"))
    return found


def _read_pickles(file: io.BytesIO) -> Any:
    file.seek(0)
    storages: dict[Any, _Storage] = {}
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
        _fill(storage, file.read(storage.bytes))
    return found


def _fill(storage: _Storage, data: bytes) -> None:
    if len(data) != storage.bytes:
        raise EOFError("the file is cut off")
    storage.data = np.frombuffer(data, storage.kind) if data else storage.data
