"""A dataset is written whole or not at all, comes back as it was, and TFDS can read it."""

import dataclasses
import errno
import json
import subprocess
import sys

import numpy as np
import pytest

from psrjax import io
from psrjax.data import codec, store
from psrjax.data.source import Source
from psrjax.errors import UserError
from psrjax.vision.camera import Camera


def test_every_stream_comes_back_exactly(dataset_folder, make_view):
    source = Source(dataset_folder, "train")
    written = make_view("b", "cam2")
    for name, values in written.streams.items():
        if codec.STREAMS[name].by_source:
            for other, frames in values.items():
                found = source.read("b", "cam2", name, source=other)
                np.testing.assert_array_equal(found, frames, err_msg=name)
        else:
            found = source.read("b", "cam2", name)
            np.testing.assert_array_equal(found, values, err_msg=name)
            assert found.dtype == values.dtype, name


def test_the_mean_frame_is_of_all_training_frames_of_the_view(dataset_folder, make_view):
    frames = np.concatenate([make_view(clip, "cam3").streams["frames"] for clip in "abc"])
    expected = np.round(frames.astype(np.float64).mean(0))
    np.testing.assert_array_equal(Source(dataset_folder, "test").means["cam3"], expected)


def test_the_manifest_says_what_is_there(dataset_folder):
    manifest = json.loads((dataset_folder / "manifest.json").read_text())
    entry = manifest["splits"]["train"][0]
    assert (entry["clip"], entry["view"], entry["frames"], entry["fps"]) == ("a", "cam1", 12, 25.0)
    assert entry["meta"]["person"] == "a" and manifest["meta"] == {"near": 1.0}
    for split in ("train", "test"):
        for file in manifest["files"][split]:
            assert (dataset_folder / file["name"]).stat().st_size == file["bytes"]


def test_tfds_reads_it_without_tensorflow(dataset_folder):
    views = json.loads((dataset_folder / "manifest.json").read_text())["splits"]["train"]
    examples = sum(len(view["segments"]) for view in views)
    code = (
        "import sys, tensorflow_datasets as tfds\n"
        f"data = tfds.builder_from_directory({str(dataset_folder)!r}).as_data_source('train')\n"
        f"assert len(data) == {examples}, len(data)\n"
        "assert data[0]['clip'] == b'a'\n"
        "from psrjax.data import codec\n"
        "assert codec.decode_array(data[0]['frames'][0]).ndim == 3\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_camera_comes_back_exactly():
    camera = Camera(
        matrix=np.array([[500.1, 0, 32.3], [0, 501.7, 24.9], [0, 0, 1]]),
        rotation=np.eye(3),
        translation=np.array([0.1, 1 / 3, 4.0]),
        distortion=np.array([0.1, -0.2, 0.001, 0.002, 1e-9]),
        size=(24, 32),
    )
    found = codec.decode_camera(codec.encode_camera(camera))
    for name in ("matrix", "rotation", "translation", "distortion"):
        np.testing.assert_array_equal(getattr(found, name), getattr(camera, name))
    assert tuple(found.size) == camera.size
    assert codec.decode_camera(codec.encode_camera(None)) is None


def test_a_long_clip_may_come_in_runs_and_as_encoded_views(tmp_path, make_view):
    whole = make_view("a", "cam1", frames=30)
    runs = []
    for start, stop in ((0, 11), (11, 30)):
        cut = {
            name: values
            if codec.STREAMS[name].coding == codec.STILL
            else {view: frames[start:stop] for view, frames in values.items()}
            if codec.STREAMS[name].by_source
            else values[start:stop]
            for name, values in whole.streams.items()
        }
        runs.append(dataclasses.replace(whole, streams=cut, start=start))
    store.write(tmp_path / "set", {"train": [runs[0], codec.encode(runs[1])]})
    source = Source(tmp_path / "set", "train")
    frames = [0, 7, 8, 10, 11, 12, 29, 3]
    for name in ("frames", "joints", "depth"):
        found = source.read("a", "cam1", name, frames)
        np.testing.assert_array_equal(found, whole.streams[name][frames])
    found = source.read("a", "cam1", "prior", frames, source="cam3")
    np.testing.assert_array_equal(found, whole.streams["prior"]["cam3"][frames])


def test_files_are_kept_to_a_size_and_read_as_one_list(tmp_path, make_view, monkeypatch):
    monkeypatch.setattr(store, "_SHARD_BYTES", 40_000)
    views = [make_view(clip, "cam1") for clip in "abcde"]
    manifest = store.write(tmp_path / "set", {"train": views})
    assert len(manifest["files"]["train"]) > 1
    source = Source(tmp_path / "set", "train")
    for view in views:
        np.testing.assert_array_equal(
            source.read(view.clip, "cam1", "frames"), view.streams["frames"]
        )


def test_views_are_consumed_one_by_one(tmp_path, make_view):
    alive = []

    def views():
        for clip in "abcd":
            assert len(alive) <= 1
            view = make_view(clip, "cam1")
            alive.append(clip)
            yield view
            alive.pop()

    store.write(tmp_path / "set", {"train": views()})


def test_an_interrupted_writer_leaves_nothing(tmp_path, make_view):
    def views():
        yield make_view("a", "cam1")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.write(tmp_path / "set", {"train": views()})
    assert list(tmp_path.iterdir()) == []


def test_a_leftover_of_a_killed_writer_is_removed(tmp_path, make_view):
    (tmp_path / "set.partial").mkdir()
    (tmp_path / "set.partial" / "half").write_text("x")
    store.write(tmp_path / "set", {"train": [make_view("a", "cam1")]})
    assert [path.name for path in tmp_path.iterdir()] == ["set"]
    assert not (tmp_path / "set" / "half").exists()


def test_a_data_set_is_never_written_over(dataset_folder, make_view):
    before = (dataset_folder / "manifest.json").read_bytes()
    with pytest.raises(UserError, match="exists already"):
        store.write(dataset_folder, {"train": [make_view("z", "cam1")]})
    assert (dataset_folder / "manifest.json").read_bytes() == before


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path, make_view, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(io, "write_json", full)
    with pytest.raises(UserError, match="disk is full"):
        store.write(tmp_path / "set", {"train": [make_view("a", "cam1")]})
    assert list(tmp_path.iterdir()) == []


def wrong_shape(view):
    return {**view.streams, "mask": view.streams["mask"][:, 1:]}


def wrong_type(view):
    return {**view.streams, "depth": view.streams["depth"].astype(np.float32)}


def unknown(view):
    return {**view.streams, "smell": view.streams["mask"]}


@pytest.mark.parametrize("change", [wrong_shape, wrong_type, unknown])
def test_a_wrong_stream_is_named_with_its_clip(tmp_path, make_view, change):
    view = make_view("a", "cam1")
    with pytest.raises(UserError, match="clip 'a', view 'cam1', stream '(mask|depth|smell)'"):
        store.write(tmp_path / "set", {"train": [dataclasses.replace(view, streams=change(view))]})
    assert list(tmp_path.iterdir()) == []


def test_views_with_other_streams_twice_the_same_or_none_are_refused(tmp_path, make_view):
    view = make_view("a", "cam1")
    fewer = {name: values for name, values in view.streams.items() if name != "depth"}
    poorer = dataclasses.replace(make_view("b", "cam1"), streams=fewer)
    for views, message in (([view, poorer], "'depth'"), ([view, view], "twice"), ([], "no clip")):
        with pytest.raises(UserError, match=message):
            store.write(tmp_path / "set", {"train": views})
