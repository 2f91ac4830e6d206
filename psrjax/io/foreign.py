"""Reads files of strangers: nothing in them runs, and none takes more memory than it is worth."""

import io as bytes_io
import math
import os
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from etils import epath

from psrjax.errors import UserError

MAX_PIXELS = 1 << 27  # of a picture: 400 MB as RGB, four times the largest frame of a camera
_UNPACKED = 1 << 28  # bytes that an archive may unpack to, besides ...
_RATIO = 50  # ... so many times its size; masks of zeros compress a thousandfold
_DEEPEST = 200  # levels of containers in a pickle; Python's hash of tuples recurses without end
_COPIED = 4  # times its own size that a pickle may copy of what it holds
_GROWING = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD")  # pickle operations
_NPY = np.lib.format.MAGIC_PREFIX
_PLAIN = "biufc"  # kinds of NumPy's numbers
_TEXT = "U"  # what NumPy files hold besides


@contextmanager
def parsing(path: str | os.PathLike, expected: str) -> Iterator[None]:
    """Turns whatever a parser raises of a damaged or foreign file into a UserError of one line.

    Args:
      path: the file.
      expected: what it should be, such as "not a whole .skeleton file".
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise UserError(f"{path}: is a folder, not a file") from error
    except PermissionError as error:
        raise UserError(f"{path}: no permission to read it") from error
    except Exception as error:  # parsers of damaged files may raise anything
        reason = " ".join(str(error).split())[:200]
        kind = type(error).__name__
        told = kind if not reason else reason if kind == "ValueError" else f"{kind}: {reason}"
        raise UserError(f"{path}: {expected} ({told})") from error


def check_picture(path: str | os.PathLike) -> None:
    """Raises UserError for what is no picture, or whose pixels would fill the memory.

    Only lengths are read. What Pillow does not know is refused: OpenCV, which decodes pictures,
    believes whatever size stands in a file, and sets memory aside for a PNG's chunks.
    """
    from PIL import Image  # which `psrjax bench` does without, where little is installed

    try:
        with Image.open(path) as picture:
            width, height = picture.size
            if picture.format == "PNG":
                _check_chunks(path)
    except Image.DecompressionBombError as error:
        raise UserError(f"{path}: {error}") from error
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file") from error
    except Exception as error:
        raise UserError(
            f"{path}: not a picture, or damaged; remove it or write it again"
        ) from error
    if width * height > MAX_PIXELS:
        raise UserError(f"{path}: {width}x{height} pixels; at most {MAX_PIXELS:,} are read")


def _check_chunks(path: str | os.PathLike) -> None:
    """Raises ValueError for a PNG one of whose chunks is longer than the file."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(len(b"\x89PNG\r\n\x1a\n"))
        name = b""
        while name != b"IEND" and file.tell() < size:
            length, name = int.from_bytes(file.read(4)), file.read(4)
            if file.seek(length + 4, os.SEEK_CUR) > size:
                raise ValueError("a chunk is longer than the file")


def load_arrays(path: str | os.PathLike) -> Any:
    """Loads an .npz as a dict of arrays, an .npy as an array, or a pickle of arrays.

    Of a pickle of any Python only plain containers and arrays of numbers come out; every other
    object becomes an `Inert` one. Lengths are checked before memory is taken.

    Raises any error of NumPy, zipfile or pickle for damaged files, see `parsing`.
    """
    data = epath.Path(path).read_bytes()
    if zipfile.is_zipfile(bytes_io.BytesIO(data)) or data.startswith(_NPY):
        return _numbers(data)
    return settled(NumbersUnpickler(bytes_io.BytesIO(data)).load())


def load_numbers(path: str | os.PathLike) -> np.ndarray | dict[str, np.ndarray]:
    """Loads an .npz or .npy, as `load_arrays`."""
    return _numbers(epath.Path(path).read_bytes())


def load_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Loads an .npz, as `load_arrays`."""
    return _npz(epath.Path(path).read_bytes())


def _numbers(data: bytes) -> np.ndarray | dict[str, np.ndarray]:
    if data.startswith(_NPY):
        return _npy(bytes_io.BytesIO(data), len(data))
    return _npz(data)


def check_unpacked(archive: zipfile.ZipFile, size: int) -> None:
    """Raises ValueError for an archive that would unpack to far more than its `size` bytes."""
    total = sum(member.file_size for member in archive.infolist())
    if total > _UNPACKED + _RATIO * size:
        raise ValueError(f"{size} bytes that would unpack to {total}")


def _npz(data: bytes) -> dict[str, np.ndarray]:
    found = {}
    with zipfile.ZipFile(bytes_io.BytesIO(data)) as archive:
        check_unpacked(archive, len(data))
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            try:
                with archive.open(member) as stored:
                    found[name] = _npy(stored, member.file_size)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
    return found


def _npy(file: Any, size: int) -> np.ndarray:
    version = np.lib.format.read_magic(file)
    readers: dict[tuple, Callable] = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"version {version} of .npy; its arrays are of no plain type")
    shape, fortran, kind = readers[version](file)
    if kind.kind not in _PLAIN + _TEXT:
        raise ValueError(f"holds no plain array of numbers, but {kind}")
    needed = math.prod(shape) * kind.itemsize
    if min(shape, default=0) < 0 or needed != size - file.tell():
        raise ValueError(f"{size - file.tell()} bytes of an array {shape} of {kind}")
    return np.ndarray(shape, kind, bytearray(file.read()), order="F" if fortran else "C")


class Inert:
    """A harmless stand-in for any object of a pickle that is not known; keeps its state."""

    name = ""

    def __init__(self, *arguments: Any):
        self.state: Any = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state


class CheckedUnpickler(pickle.Unpickler):
    """Unpickles what subclasses name in `find_class`, after a look at every operation.

    The next pickle of `file` is refused, with the place, where it is cut off, nested beyond reason,
    or would have the unpickler set aside memory for what is not in it.

    Raises:
      pickle.UnpicklingError: for such a pickle.
    """

    def __init__(self, file: bytes_io.BytesIO):
        start = file.tell()
        _check_operations(file)
        self._budget = _COPIED * (file.tell() - start) + 4096
        file.seek(start)
        super().__init__(file, encoding="latin1")

    def copying(self, make: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps a function that copies its arguments, so that a file cannot repeat it for ever."""

        def counted(*arguments: Any) -> Any:
            self._budget -= sum(len(each) for each in arguments if hasattr(each, "__len__"))
            if self._budget < 0:
                raise pickle.UnpicklingError("it copies itself again and again")
            return make(*arguments)

        return counted


def _check_operations(file: bytes_io.BytesIO) -> None:
    depths, place = _Depths(), file.tell()
    try:
        for operation, argument, at in pickletools.genops(file):
            place = at
            depths.follow(operation, argument)
    except Exception as error:  # genops raises ValueError, and others of damaged arguments
        raise pickle.UnpicklingError(f"damaged at byte {place}: {error}") from error


class _Depths:
    """The stack and the memo of an unpickler, with the depth of each object instead of itself."""

    _MARK = -1

    def __init__(self):
        self._stack: list[int] = []
        self._memo: dict[int, int] = {}

    def follow(self, operation: pickletools.OpcodeInfo, argument: Any) -> None:
        """Does what an operation does. Raises ValueError or IndexError if none should."""
        name = operation.name
        if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            number = len(self._memo) if name == "MEMOIZE" else int(argument)
            if number > 2 * len(self._memo) + 256:  # the unpickler makes a table of that length
                raise ValueError(f"object {number} of {len(self._memo)}")
            self._memo[number] = self._stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self._stack.append(self._memo[int(argument)])
        elif name == "DUP":
            self._stack.append(self._stack[-1])
        elif name == "MARK":
            self._stack.append(self._MARK)
        elif name == "POP":
            self._stack.pop()
        else:
            self._make(operation)

    def _make(self, operation: pickletools.OpcodeInfo) -> None:
        before, inside = operation.stack_before, []
        if pickletools.markobject in before:
            while (top := self._stack.pop()) != self._MARK:
                inside.append(top)
            before = before[: before.index(pickletools.markobject)]
        taken = [self._stack.pop() for _ in before]
        if not operation.stack_after:
            return
        grown = -1  # the depth of an object that takes others in
        if taken and operation.name in _GROWING:
            grown = taken.pop()
        depth = max(inside + taken, default=-1) + 1
        if depth > _DEEPEST:
            raise ValueError(f"more than {_DEEPEST} levels of containers")
        self._stack.append(max(depth, grown))


class NumbersUnpickler(CheckedUnpickler):
    """Unpickles containers and NumPy's numbers; all else becomes `Inert`, of its own name.

    No object of NumPy is made while the file is read: its own functions trust what they are given.
    `settled` makes the arrays.
    """

    def __init__(self, file: bytes_io.BytesIO):
        super().__init__(file)
        data = staticmethod(self.copying(_bytes))
        self._array: Any = type("_Array", (_Array,), {"bytes_of": data})

    def find_class(self, module: str, name: str) -> Any:
        """Returns a stand-in for every class and function that the file names."""
        # New ones each time: a pickle may set attributes of what it names.
        array = self._array
        known: dict[tuple[str, str], Any] = {
            ("numpy._core.multiarray", "_reconstruct"): lambda *_: array(),
            ("numpy._core.multiarray", "scalar"): lambda kind, data: array.of(
                data, kind, ()
            ).array()[()],
            ("numpy._core.numeric", "_frombuffer"): lambda *given: array.of(*given),
            ("numpy", "ndarray"): array,
            ("numpy", "dtype"): type("_Kind", (_Kind,), {}),
            ("_codecs", "encode"): lambda text, *_: array.bytes_of(text),
            ("__builtin__", "bytes"): lambda: b"",  # Python 3's empty ones, for Python 2
            ("copy_reg", "_reconstructor"): lambda kind, *_: kind(),  # Python 2's way
            ("copyreg", "_reconstructor"): lambda kind, *_: kind(),
        }
        found = known.get((module.replace("numpy.core", "numpy._core"), name))
        return type(name, (Inert,), {"name": name}) if found is None else found


class Placeholder:
    """Stands for an array until the file is read."""

    def array(self) -> np.ndarray:
        """Returns the array."""
        raise NotImplementedError


class _Kind:
    """Stands for a dtype; a plain one, or the file is refused."""

    def __init__(self, code: Any, *_: Any):
        found = np.dtype(code) if isinstance(code, str) and len(code) < 8 else None
        if found is None or found.kind not in _PLAIN:
            raise pickle.UnpicklingError(f"it holds no numbers, but {str(code)[:40]}")
        self.kind = found

    def __setstate__(self, state: Any) -> None:
        order, *further = state[1:]
        if order not in ("<", ">", "=", "|") or any(further[:3]):
            raise pickle.UnpicklingError("it holds arrays of no plain type")
        self.kind = self.kind.newbyteorder(order)


class _Array(Placeholder):
    """An array of a pickle; its numbers are a view of the pickle's bytes until it is asked for."""

    bytes_of: Callable[[Any], bytes]

    def __init__(self, *_: Any):
        self._made = np.empty(0)

    @classmethod
    def of(cls, data: Any, kind: Any, shape: Any, order: str = "C") -> "_Array":
        found = cls()
        found.__setstate__((1, shape, kind, order == "F", data))
        return found

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        data = self.bytes_of(data)
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        if not isinstance(kind, _Kind) or min(shape, default=0) < 0:
            raise pickle.UnpicklingError("it holds arrays of no plain type")
        flat = np.frombuffer(data, kind.kind) if len(data) else np.empty(0, kind.kind)
        self._made = flat.reshape(shape, order="F" if fortran else "C")

    def array(self) -> np.ndarray:
        return self._made.copy("K") if self._made.ndim else self._made[()]


def _bytes(data: Any) -> Any:
    return data.encode("latin1") if isinstance(data, str) else data


def settled(value: Any) -> Any:
    """Replaces stand-ins by their arrays, everywhere in what a pickle held."""
    return _settle(value, {})


def _settle(value: Any, done: dict[int, Any]) -> Any:
    if id(value) in done:
        return done[id(value)]
    if isinstance(value, Placeholder):
        done[id(value)] = value.array()
    elif isinstance(value, Mapping):
        done[id(value)] = found = {}
        found.update({key: _settle(each, done) for key, each in value.items()})
    elif isinstance(value, list):
        done[id(value)] = found = []
        found.extend(_settle(each, done) for each in value)
    elif isinstance(value, tuple):
        done[id(value)] = tuple(_settle(each, done) for each in value)
    elif isinstance(value, Inert):
        done[id(value)] = value
        value.state = _settle(value.state, done)
    else:
        return value
    return done[id(value)]
