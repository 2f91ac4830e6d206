"""Any frames of any stream can be read; what is missing or damaged is named, never returned."""

import json
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest

from psrjax.data import codec, inspection, store
from psrjax.data.source import Source
from psrjax.errors import UserError


def test_chosen_frames_come_in_the_order_asked_for(dataset_folder):
    frames = Source(dataset_folder, "train").read("a", "cam2", "frames", [11, 0, 8, 0])
    assert frames[:, 0, 0].tolist() == [[2, 11, 0], [2, 0, 0], [2, 8, 0], [2, 0, 0]]


@pytest.mark.parametrize("frames_of_a_record", [1, 2, 8])
def test_a_window_may_begin_anywhere_and_has_every_stream(
    tmp_path, make_view, monkeypatch, frames_of_a_record
):
    monkeypatch.setattr(codec, "SEGMENT", frames_of_a_record)
    view = make_view("a", "cam1")
    store.write(tmp_path / "set", {"train": [view]})
    source, frames = Source(tmp_path / "set", "train"), (9, 2, 5)
    for name, stored in view.streams.items():
        if name in ("prior", "visibility"):
            found = source.read("a", "cam1", name, frames, source="cam2")
            stored = stored["cam2"]
        else:
            found = source.read("a", "cam1", name, frames)
        expected = stored if name == "background" else stored[list(frames)]
        np.testing.assert_array_equal(found, expected, err_msg=name)
        assert found.dtype == expected.dtype


def test_a_background_is_stored_once_for_a_view(tmp_path, make_view):
    examples = codec.encode(make_view("a", "cam1")).examples
    assert len(examples) > 1
    assert [bool(example["background"]) for example in examples] == [True] + [False] * (
        len(examples) - 1
    )


def test_a_thread_that_reads_imports_nothing(dataset_folder):
    """An import in a reader's thread meets those of the main thread, and TFDS's stops both."""
    code = (
        "import sys\n"
        "from psrjax.data.source import Source\n"
        f"source = Source({str(dataset_folder)!r}, 'train')\n"
        "before = set(sys.modules)\n"
        "source.read('a', 'cam1', 'frames', [0, 5])\n"
        "assert not set(sys.modules) - before, set(sys.modules) - before\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_records_are_read_as_tfds_reads_them(dataset_folder):
    source = Source(dataset_folder, "train")
    features = codec.features(source.streams)
    record = source._records.read(3)
    expected, found = features.deserialize_example_np(record), codec.read_example(record)
    for name, value in expected.items():
        if name == "joints" or name == "joints_3d":
            np.testing.assert_array_equal(value.ravel(), np.float32(found[name]))
        elif isinstance(value, list | np.ndarray):
            assert list(value) == list(found[name])
        else:
            assert [value] == list(found[name])


def test_clips_list_their_views_and_facts(dataset_folder):
    source = Source(dataset_folder, "train")
    assert [clip.name for clip in source.clips] == ["a", "b", "c"]
    clip = source.clip("b")
    assert list(clip.views) == ["cam1", "cam2", "cam3"] and clip.frames == 12
    assert clip.views["cam1"].size == (24, 32) and clip.views["cam1"].fps == 25.0
    assert source.meta == {"near": 1.0}


def test_a_source_can_be_sent_to_another_process(dataset_folder):
    source = Source(dataset_folder, "train")
    before = source.read("c", "cam1", "depth", [3])
    np.testing.assert_array_equal(
        pickle.loads(pickle.dumps(source)).read("c", "cam1", "depth", [3]), before
    )


@pytest.fixture
def copy(dataset_folder, tmp_path):
    return shutil.copytree(dataset_folder, tmp_path / "copy")


def record_file(directory):
    return next(directory.glob("clips-train.array_record*"))


def test_a_cut_off_file_is_named_even_if_its_size_is_as_it_was(copy):
    path = record_file(copy)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=f"{path.name}.*cut off"):
        Source(copy, "train")
    path.write_bytes(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))
    with pytest.raises(UserError, match=f"{path.name}.*damaged"):
        Source(copy, "train")
    path.unlink()
    with pytest.raises(UserError, match=f"{path.name}.*missing"):
        Source(copy, "train")


def test_a_flipped_byte_is_an_error_that_names_file_and_clip(copy):
    path = record_file(copy)
    data = bytearray(path.read_bytes())
    place = data.find(b"\x28\xb5\x2f\xfd") + 40  # inside clip a's first compressed stream
    data[place] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(UserError, match=f"{path.name}: record 0 .clip 'a'. is damaged"):
        Source(copy, "train").read("a", "cam1", "frames")


def test_a_folder_that_is_no_data_set_says_what_makes_one(tmp_path):
    with pytest.raises(UserError, match="psrjax prepare"):
        Source(tmp_path, "train")


def test_another_format_is_refused(copy):
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    with pytest.raises(UserError, match="format 99"):
        Source(copy, "train")


def flipped(path, place, bit):
    """Flips a bit of a file; returns what was in it."""
    whole = path.read_bytes()
    data = bytearray(whole)
    data[place] ^= 1 << bit
    path.write_bytes(bytes(data))
    return whole


def test_a_flipped_bit_of_the_manifest_is_found(copy):
    path, generator = copy / "manifest.json", np.random.default_rng(0)
    before = json.loads(path.read_text())
    del before["checksum"]
    for place in generator.choice(path.stat().st_size, 200, replace=False):
        whole = flipped(path, place, generator.integers(8))
        try:
            found = store.read_manifest(copy)
            assert {key: found[key] for key in before} == before  # a bit of the checksum's own name
        except UserError as error:
            assert "manifest.json" in str(error)
        path.write_bytes(whole)


def test_a_manifest_without_a_key_is_named(copy):
    path = copy / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["checksum"]  # as older versions wrote it
    for changes in ({"splits": {"train": [{}]}}, {"files": 3}, {"streams": None}):
        path.write_text(json.dumps(manifest | changes))
        with pytest.raises(UserError, match=r"manifest\.json: damaged"):
            Source(copy, "train")


@pytest.mark.slow
def test_a_flipped_bit_of_any_file_of_a_dataset_is_found_or_harmless(copy):
    def content():
        return [source.read(clip.name, view, stream)
                for source in inspection.sources(copy).values() for clip in source.clips
                for view in clip.views for stream in source.streams
                if not codec.STREAMS[stream].by_source]  # fmt: skip

    names = ("manifest.json", "statistics.npz")
    files = sorted({*(copy / name for name in names), *copy.glob("*.array_record*")})
    sizes = [path.stat().st_size for path in files]
    generator, before = np.random.default_rng(0), content()
    counts = {"harmless": 0, "found": 0, "silent": 0}
    for place in generator.choice(sum(sizes), 200, replace=False):
        number = int(np.searchsorted(np.cumsum(sizes), place, side="right"))
        path = files[number]
        whole = flipped(path, place - sum(sizes[:number]), generator.integers(8))
        try:
            wrong = inspection.check(copy)
            same = all(np.array_equal(a, b) for a, b in zip(content(), before, strict=True))
            counts["found" if wrong else "harmless" if same else "silent"] += 1
        except UserError:
            counts["found"] += 1
        path.write_bytes(whole)
    print(f"200 flipped bits of {sum(sizes)} bytes: {counts}")
    assert not counts["silent"]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("z", "cam1", "frames", [0]), "no clip 'z'"),
        (("a", "cam9", "frames", [0]), "no view 'cam9'"),
        (("a", "cam1", "frames", [12]), "frames 0 to 11"),
        (("a", "cam1", "frames", [-1]), "frames 0 to 11"),
    ],
)
def test_what_is_not_there_is_named(dataset_folder, asked, message):
    with pytest.raises(UserError, match=message):
        Source(dataset_folder, "train").read(*asked)


def test_a_source_view_that_was_not_prepared_is_named(dataset_folder):
    with pytest.raises(UserError, match="no prior from source view 'cam1', only from"):
        Source(dataset_folder, "train").read("a", "cam1", "prior", [0], source="cam1")


def test_an_unknown_split_lists_the_splits(dataset_folder):
    with pytest.raises(UserError, match="no split 'validation'; there are train, test"):
        Source(dataset_folder, "validation")
