"""Files of strangers: only plain numbers come out, and none takes more memory than it is worth."""

import collections
import io
import pickle
import resource
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from psrjax.errors import UserError
from psrjax.io import foreign
from psrjax.prepare.common import clip_reader, joint_files
from psrjax.prepare.datasets import smpl_files
from psrjax.pretrained import torch_files
from psrjax.vision import densepose, guidance, smpl

RECONSTRUCT = np.empty(0).__reduce__()[0]
MIB = 1 << 20


class Made:
    """Pickles as a call of a function, with a state."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


def array_of(kind, data, shape=(1,)):
    return Made(RECONSTRUCT, (np.ndarray, (0,), b"b"), (1, shape, kind, False, data))


def kind_of(code, *state):
    return Made(np.dtype, (code, False, True), (3, *state))


STRUCTURED = kind_of("V8", "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 8, 0)
CRAFTED = {
    "objects": array_of(np.dtype("O"), [1]),
    "an address in a structure": array_of(STRUCTURED, b"A" * 8),
    "a plain type that becomes a structure": array_of(
        kind_of("f8", "<", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 8, 0), b"A" * 8
    ),
    "an array inside a type": array_of(
        kind_of("V8", "|", (np.dtype("O"), (1,)), None, None, 8, 8, 0), b"A" * 8
    ),
    "text": array_of(np.dtype("U2"), b"A" * 8),
    "more numbers than bytes": array_of(np.dtype("f8"), b"A" * 8, (1 << 40,)),
    "a negative length": array_of(np.dtype("f8"), b"A" * 8, (-1,)),
    "a scalar that is an object": Made(np.float64(0).__reduce__()[0], (np.dtype("O"), b"A" * 8)),
}


@pytest.mark.parametrize("read", [smpl.load_smpl, smpl_files.load, densepose.read])
@pytest.mark.parametrize("what", CRAFTED)
def test_only_plain_numbers_come_out_of_a_pickle(what, read, tmp_path):
    path = tmp_path / "crafted.pkl"
    path.write_bytes(pickle.dumps({"iuv": CRAFTED[what], "v_template": CRAFTED[what]}, 2))
    with pytest.raises(UserError, match=r"crafted\.pkl: "):
        read(path)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", ["<f4", ">f8", "u1", "?", "<i8", "<c8"])
def test_arrays_and_numbers_of_every_protocol_are_read(kind, protocol, tmp_path):
    values = (np.arange(24) % 7).astype(kind).reshape(2, 3, 4)
    held = {"a": values, "b": np.asfortranarray(values), "c": [values[0, 0, 1], 3, "x"]}
    held["d"] = (values[:0], held["a"])
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(held, protocol))
    found = foreign.load_arrays(tmp_path / "a.pkl")
    for name in "ab":
        np.testing.assert_array_equal(found[name], held[name])
        assert found[name].dtype == values.dtype
    assert found["c"] == held["c"] and found["d"][0].shape == (0, 3, 4)


def test_a_sparse_matrix_whose_indices_point_elsewhere_is_refused(tmp_path):
    state = {"data": np.ones(1), "indices": np.array([10**9]), "indptr": np.array([0, 1, 1])}
    matrix = type("csc_matrix", (), {"__module__": __name__})
    globals()["csc_matrix"] = matrix
    one = matrix()
    for shape in ((3, 2), (1 << 20, 1 << 20)):
        vars(one).update(state, _shape=shape)
        (tmp_path / "a.pkl").write_bytes(pickle.dumps({"v_template": one}))
        with pytest.raises(UserError, match=r"a\.pkl: v_template is not an array"):
            smpl.load_smpl(tmp_path / "a.pkl")


def npz(**members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return file.getvalue()


def npy(shape, kind="<f8", data=b""):
    file = io.BytesIO()
    header = {"descr": kind, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + data


def tensor(size, stride, stored=4):
    """A .pth of PyTorch's format with one tensor of `stored` numbers."""
    file = io.BytesIO()
    storage = (
        b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    )
    dimensions = [b"(" + b"".join(b"J" + struct.pack("<i", n) for n in each) + b"t"
                  for each in (size, stride)]  # fmt: skip
    rebuilt = b"ctorch._utils\n_rebuild_tensor_v2\n(%sJ%stQK\x00%s%s\x89}tR" % (
        storage, struct.pack("<i", stored), *dimensions)  # fmt: skip
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}X\x01\x00\x00\x00w" + rebuilt + b"s.")
        archive.writestr("a/data/0", np.zeros(stored, "f4").tobytes())
    return file.getvalue()


def shared(levels):
    """Lists of twice the list before: small in memory, endless for those who walk it."""
    found = []
    for _ in range(levels):
        found = [found, found]
    return found


BOMBS = {
    "memo.pkl": b"\x80\x02]r\xff\xff\xff\x0f.",  # 10 bytes: a table of 2^28 objects
    "bytes.pkl": b"\x80\x05\x96" + struct.pack("<Q", 1 << 34) + b".",
    "tuples.pkl": b"\x80\x02}" + b")" + b"\x85" * 200_000 + b"K\x00s.",  # as a dict's key
    "copies.pkl": b"\x80\x02cnumpy\ndtype\n0X" + struct.pack("<I", MIB) + b"a" * MIB + b"q\x010]"
    + b"c_codecs\nencode\nh\x01X\x06\x00\x00\x00latin1\x86Ra" * 4000 + b".",
    "long.npz": npz(verts=npy((1 << 33,)), faces=npy((2, 3), "<i4", b"0" * 24)),
    "zeros.npz": npz(verts=npy((1 << 27,), "u1", b"") + bytes(1 << 27),
                     faces=npy((1 << 28,), "u1", b"") + bytes(1 << 28)),
    "long.npy": npy((1 << 33,)),
    "stride.pth": tensor((30_000, 30_000), (0, 0)),
    "beyond.pth": tensor((30_000, 30_000), (1, 1)),
    "pictures.png": b"",  # below
}  # fmt: skip


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


BOMBS["pictures.png"] = (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0))
    + chunk(b"IDAT", zlib.compress(bytes(1000)))
    + chunk(b"IEND", b"")
)
READERS = {
    ".pkl": [smpl.load_smpl, smpl_files.load, densepose.read, torch_files.load],
    ".npz": [smpl.load_smpl, guidance.read_mesh],
    ".npy": [lambda path: joint_files.read(path, frames=2, size=(8, 8)), densepose.read],
    ".pth": [torch_files.load],
    ".png": [densepose.read],
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_takes_no_more_memory_than_it_is_worth(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(BOMBS[name])
    for read in READERS[path.suffix]:
        tracemalloc.start()
        with pytest.raises(UserError, match=name):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 64 * MIB + 3 * path.stat().st_size
        tracemalloc.stop()


@pytest.mark.parametrize("length", [805_306_685, 4_294_967_295])
def test_a_png_whose_chunk_is_longer_than_the_file_is_refused_before_it_is_decoded(
    length, tmp_path
):
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 11, 3), np.uint8)).save(path)
    assert clip_reader.read_picture(path).shape == (9, 11, 3)
    path.write_bytes(path.read_bytes() + b"what follows the end does not matter")
    assert clip_reader.read_picture(path).shape == (9, 11, 3)
    data = bytearray(path.read_bytes())
    place = data.index(b"IDAT")
    data[place - 4 : place] = length.to_bytes(4)
    path.write_bytes(data)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match="not a picture, or damaged"):
        clip_reader.read_picture(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_what_is_shared_is_walked_once(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"iuv": shared(90)}))
    assert len(foreign.load_arrays(tmp_path / "a.pkl")["iuv"]) == 2


def test_state_dicts_with_metadata_are_read_as_arrays(tmp_path):
    (tmp_path / "a.pth").write_bytes(tensor((2, 2), (2, 1)))
    found = torch_files.load(tmp_path / "a.pth")
    np.testing.assert_array_equal(found["w"], np.zeros((2, 2), np.float32))
    # The format before the archive: a row of pickles, of an ordered dict with attributes.
    state = collections.OrderedDict(a=1)
    state.__dict__["_metadata"] = {"version": 1}
    row = [0x1950A86A20F9469CFC6C, 1001, {}, state, []]
    (tmp_path / "b.pth").write_bytes(b"".join(pickle.dumps(each, 2) for each in row))
    assert torch_files.load(tmp_path / "b.pth") == {"a": 1}


_CODE = """
import sys
from psrjax.prepare.datasets import smpl_files
from psrjax.errors import UserError
try:
    print(smpl_files.load(sys.argv[1]))
except UserError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_crafted_file_does_not_end_the_process(tmp_path):
    path = tmp_path / "crafted.pkl"
    path.write_bytes(pickle.dumps({"pose": CRAFTED["an address in a structure"]}, 2))
    limit = lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # noqa: E731
    done = subprocess.run([sys.executable, "-c", _CODE, path], capture_output=True,
                          preexec_fn=limit, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "holds no numbers" in done.stdout
