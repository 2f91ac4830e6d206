"""Every parser of foreign files, small valid files for each, and seeded ways to damage them.

python tests/helpers/mutations.py COUNT [SEED] damages files COUNT times, counts what the parsers
answer, and prints the table. It ends with 1 if anything but our own error came out.
"""

import collections
import faulthandler
import io
import json
import pickle
import resource
import signal
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from psrjax.data import codec, video
from psrjax.errors import UserError
from psrjax.importers import first_order_model
from psrjax.inference import batch_transfer, novel_view
from psrjax.io import foreign, read_json
from psrjax.prepare.common import calibration, clip_reader, joint_files, kinect_skeleton, openpose
from psrjax.prepare.datasets import ntu_files, smpl_files
from psrjax.pretrained import torch_files
from psrjax.training import checkpoint
from psrjax.vision import densepose, guidance, smpl

GOLDEN = Path(__file__).parents[1] / "golden"
SIZE, FRAMES = (48, 64), 3
SECONDS, MEMORY = 5.0, 1 << 30  # that one file may take
TOKENS = [
    *(b"NaN", b"-Infinity", b"1e999", b"-1", b"null", b"[]", b"{}", b'""', b"0", b"true"),
    *(b"9" * 30, b"1" * 5000, b"[" * 3000, b'{"a":' * 3000, b"\x00", b"\xff\xfe"),
    *(b"\n", b"&a [*a,*a]", b"!!python/object/apply:os.system ['false']", b"\x80\x04"),
    *(b"PK\x03\x04", b"\xf0\x9f\x92\xa9"),
]  # fmt: skip


@dataclass(frozen=True)
class Parser:
    """A parser: the name of its file, what reads it, and valid contents."""

    file: str
    read: object
    corpus: tuple


def parsers():
    """Lists {name: Parser}; `video` and `picture` are read by FFmpeg, OpenCV and Pillow."""
    rng = np.random.default_rng(0)
    points = rng.uniform(5, 40, (FRAMES, 17, 3)).round(1)
    joints = partial(joint_files.read, frames=FRAMES, size=SIZE)
    camera = {"K": [[50.0, 0, 32], [0, 50, 24], [0, 0, 1]], "R": np.eye(3).tolist(),
              "t": [0.0, 0, 2], "dist": [0.1, 0, 0, 0], "image_size": [64, 48]}  # fmt: skip
    person = {"pose_keypoints_2d": rng.uniform(1, 40, 75).round(1).tolist()}
    arrays = {"keypoints": points[:, None, :, :2], "scores": points[:, None, :, 2] / 40}
    mesh = {"verts": rng.normal(size=(2, 4, 3)), "faces": np.array([[0, 1, 2], [1, 2, 3]])}
    poses = {
        "pose": rng.normal(size=(FRAMES, 72)),
        "betas": np.zeros(10),
        "trans": np.zeros((3, 3)),
    }
    example = codec.encode_array(rng.integers(0, 9, (6, 8, 3)).astype(np.uint8))
    jsons = [
        [{"image_id": f"{n}.jpg", "keypoints": p.ravel().tolist()} for n, p in enumerate(points)],
        [{"frame_id": n, "instances": [
            {"keypoints": p[:, :2].tolist(), "keypoint_scores": [1] * 17}]}
            for n, p in enumerate(points)],
        {"meta_info": {}, "instance_info": [{"frame_id": n + 1, "instances": [
            {"keypoints": p[:, :2].tolist(), "keypoint_scores": [1.0] * 17}]}
            for n, p in enumerate(points)]},
    ]  # fmt: skip
    pasted = {"labels": np.ones((4, 5)), "uv": np.zeros((2, 4, 5)), "bbox": [1, 1, 6, 5],
              "size": [8, 9]}  # fmt: skip
    qualisys = (
        '<calibration><cameras><camera serial="1" model="a" viewrotation="0">'
        '<fov_video left="0" top="0" right="63" bottom="47"/>'
        '<transform x="1" y="2" z="3" r11="1" r12="0" r13="0" r21="0" '
        'r22="1" r23="0" r31="0" r32="0" r33="1"/>'
        '<intrinsic focallength="5" '
        'sensorMinU="0" sensorMaxU="4096" sensorMinV="0" sensorMaxV="3072" '
        'focalLengthU="3000" focalLengthV="3000" centerPointU="2048" centerPointV="1536" skew="0" '
        'radialDistortion1="0" radialDistortion2="0" radialDistortion3="0" '
        'tangentalDistortion1="0" tangentalDistortion2="0"/></camera></cameras></calibration>'
    )
    body = {name: rng.normal(size=shape) for name, shape in (
        ("v_template", (4, 3)), ("shapedirs", (4, 3, 2)), ("posedirs", (4, 3, 9)),
        ("J_regressor", (2, 4)), ("weights", (4, 2)))}  # fmt: skip
    body |= {"kintree_table": np.array([[0, 0], [0, 1]]), "f": np.array([[0, 1, 2]])}
    official = first_order_model.read_config(GOLDEN / "first_order_model.yaml")
    text = lambda value: json.dumps(value).encode()  # noqa: E731
    return {
        "json": Parser("a.json", read_json, (text(jsons), b"{}", b'"\\ud800"')),
        "camera": Parser(
            "a.json", lambda p: novel_view._camera(str(p), SIZE), (text({"a": camera}),)
        ),
        "calibration": Parser("a.json", calibration.read_calibration, (text({"a": camera}),)),
        "qualisys": Parser("a.qca.txt", calibration.read_calibration, (qualisys.encode(),)),
        "openpose": Parser(
            "000000000000_keypoints.json",
            lambda p: openpose.read_openpose(p.parent, frames=1, size=SIZE),
            (text({"version": 1.3, "people": [person]}),),
        ),
        "joints.json": Parser("a.json", joints, tuple(map(text, jsons))),
        "joints.npz": Parser("a.npz", joints, (npz(arrays), npz({"arr_0": points}))),
        "joints.npy": Parser("a.npy", joints, (npy(points), npy(points.astype(np.float32)))),
        "skeleton": Parser("a.skeleton", kinect_skeleton.read_skeleton, (skeleton(),)),
        "ntu list": Parser(
            ntu_files.GTNET_LIST, lambda p: ntu_files.gtnet_list(p.parent),
            (text({"train": {"C001": ["S001C001P001R001A001.avi"]}, "test": {}}),),
        ),
        "ntu missing": Parser(
            "a_missing_skeletons.txt", lambda p: ntu_files.missing(p.parent),
            (b"Missing skeletons\n\nS001C002P005R002A008\n",),
        ),
        "smpl parameters": Parser(
            "a.npz", lambda p: smpl_files.read(p, FRAMES), (npz(poses), *pickles(poses))
        ),
        "smpl model": Parser("a.pkl", smpl.load_smpl, (npz(body), *pickles(body))),
        "mesh": Parser("a.npz", guidance.read_mesh, (npz(mesh),)),
        "densepose": Parser(
            "a.pkl", densepose.read,
            (npy(np.zeros((4, 5, 3), np.uint8)), *pickles({"iuv": np.zeros((3, 4, 5), np.uint8)}),
             *pickles(pasted)),
        ),
        "pickle": Parser(
            "a.pkl", foreign_arrays, pickles({"a": np.arange(4.0), "b": [1, "x", (2,)]})
        ),
        "torch": Parser(
            "a.pth", torch_files.load,
            (tensors(), (GOLDEN / "first_order_model.zip.pth").read_bytes()[:200_000]),
        ),
        "yaml": Parser(
            "a.yaml", first_order_model.read_config,
            ((GOLDEN / "first_order_model.yaml").read_bytes(),),
        ),
        "run": Parser(
            "config.json", lambda p: checkpoint.read_run_config(p.parent),
            (text(official.to_dict()),),
        ),
        "pairs": Parser(
            "a.csv", lambda p: batch_transfer.find("", "", str(p)),
            (b"source,driving\na.jpg,b.mp4\n,c.mp4\n",),
        ),
        "record": Parser("a.rec", record, (example,)),
        "picture": Parser("a.png", clip_reader.read_picture, pictures()),
        "video": Parser("a.mp4", watch, videos()),
    }  # fmt: skip


def foreign_arrays(path):
    """`foreign.load_arrays` as its callers wrap it."""
    with foreign.parsing(path, "no arrays"):
        return foreign.load_arrays(path)


def record(path):
    """`codec.decode_array`, whose ValueError the store wraps."""
    with foreign.parsing(path, "no array"):
        return codec.decode_array(path.read_bytes())


def watch(path):
    """Decodes at most 40 frames: a repeated frame is no bomb, but takes its time."""
    return sum(1 for _, _ in zip(video.decode(path), range(40)))


def npz(arrays):
    """An .npz."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npy(array):
    """An .npy."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def pickles(value):
    """A value in three protocols."""
    return tuple(pickle.dumps(value, protocol) for protocol in (0, 2, 4))


def tensors():
    """An archive as PyTorch writes it: a state dict of one tensor."""
    state = pickle.dumps({}, 2)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", state)
        archive.writestr("archive/data/0", b"\0" * 16)
    return file.getvalue()


def skeleton():
    """Two frames of one Kinect skeleton."""
    joint = "0.1 0.2 2.5 100 120 400 300 0 0 0 1 2\n"
    body = "72057594037931101 0 1 1 1 1 0 0.05 -0.3 2\n25\n" + joint * 25
    return ("2\n" + ("1\n" + body) * 2).encode()


def pictures():
    """The same picture in four formats."""
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (9, 11, 3), np.uint8))
    found = []
    for kind in ("png", "jpeg", "webp", "gif"):
        file = io.BytesIO()
        picture.save(file, kind)
        found.append(file.getvalue())
    return tuple(found)


def videos():
    """Three containers of three small frames."""
    frames = np.random.default_rng(2).integers(0, 256, (3, 16, 16, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / name for name in ("a.mp4", "a.mkv", "a.avi")]
        for path in paths:
            video.write(path, frames, lossless=path.suffix != ".mp4")
        return tuple(path.read_bytes() for path in paths)


def damaged(data, rng):
    """Damages bytes one to four times: bits, bytes, tokens, pieces cut out, doubled or cut off."""
    data = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        place = int(rng.integers(0, len(data) + 1))
        length = int(min(rng.integers(1, 1 + 2 ** rng.integers(0, 12)), 4096))
        what = rng.integers(8)
        if what <= 1 and place < len(data):
            data[place] ^= 1 << int(rng.integers(8))
        elif what == 2:
            data[place : place + 1] = rng.integers(0, 256, 1, np.uint8).tobytes()
        elif what == 3:
            token = TOKENS[int(rng.integers(len(TOKENS)))]
            data[place : place + (len(token) if rng.integers(2) else 0)] = token
        elif what == 4:
            del data[place : place + length]
        elif what == 5:
            data[place:place] = data[place : place + length]
        elif what == 6:
            data[place : place + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\x80", b"\0" * 4])
        elif rng.integers(4) == 0:
            del data[place:]
    return bytes(data)


class TooLong(BaseException):
    """A parser took more than `SECONDS`; no `except Exception` keeps it."""


def answer(parser, data, folder):
    """Returns "read", "refused", or what else came out, of one file."""

    def late(*_):
        raise TooLong

    path = folder / parser.file
    path.write_bytes(data)
    faulthandler.dump_traceback_later(10 * SECONDS, exit=True)  # of what no signal interrupts
    signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of this process, not of a busy machine
    try:
        parser.read(path)
        return "read"
    except UserError as error:
        return "refused" if "\n" not in str(error) else f"two lines: {error}"
    except TooLong:
        return f"longer than {SECONDS:g} s"
    except BaseException as error:  # which is what is looked for
        return f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        faulthandler.cancel_dump_traceback_later()


def fuzz(count, seed, folder, names=(), keep=None):
    """Damages files in turn; returns {parser: Counter of answers}; `keep` gets some that fail."""
    known = parsers()
    chosen = list(names or known)
    rng = np.random.default_rng(seed)
    counts = {name: collections.Counter() for name in chosen}
    for name in chosen:
        (folder / name).mkdir(exist_ok=True)
    for number in range(count):
        name = chosen[number % len(chosen)]
        corpus = known[name].corpus
        data = damaged(corpus[int(rng.integers(len(corpus)))], rng)
        before = peak()
        found = answer(known[name], data, folder / name)
        if peak() - before > MEMORY:
            found = "more than 1 GiB"
        counts[name][found[:160]] += 1
        if found not in ("read", "refused") and keep and counts[name][found[:160]] <= 3:
            (keep / f"{name.replace(' ', '_')}-{number}").write_bytes(data)
    return counts


def peak():
    """The most memory that this process has taken, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def table(counts):
    """The counts as text; and whether nothing but our own error came out."""
    lines = [f"{'parser':16} {'inputs':>8} {'read':>8} {'refused':>8} {'other':>6}"]
    total = collections.Counter()
    for name, found in counts.items():
        other = {k: v for k, v in found.items() if k not in ("read", "refused")}
        row = (sum(found.values()), found["read"], found["refused"], sum(other.values()))
        total.update(dict(zip("irfo", row)))
        lines.append(f"{name:16} {row[0]:8} {row[1]:8} {row[2]:8} {row[3]:6}")
        lines += [f"    {number} x {what}" for what, number in other.items()]
    lines.append("{:16} {:8} {:8} {:8} {:6}".format("all", *(total[key] for key in "irfo")))
    return "\n".join(lines), not total["o"]


if __name__ == "__main__":
    began = time.monotonic()
    with tempfile.TemporaryDirectory(
        dir="/dev/shm" if Path("/dev/shm").is_dir() else None
    ) as place:
        kept = Path(tempfile.mkdtemp(prefix="psrjax-fuzz-"))
        seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
        text, good = table(fuzz(int(sys.argv[1]), seed, Path(place), sys.argv[3:], kept))
    print(f"{text}\n{time.monotonic() - began:.0f} s, seed {seed}; failures in {kept}")
    sys.exit(not good)
