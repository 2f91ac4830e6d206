"""Inspection of datasets, as functions and by `psrjax data` and `psrjax prepare`."""

import dataclasses
import json
import os
import re
import subprocess
import sys

import cv2
import numpy as np
import pytest
import stick_person

from psrjax.data import inspection, store, video
from psrjax.errors import UserError

VIEWS = ("cam1", "cam2", "cam3")
FLOWS = ("flow", "flow_forward", "mesh_flow", "flow_confidence")


def still_at_first(view):
    """The view with flow that is zero at its first frame, as in the contract."""
    streams = dict(view.streams)
    for name in FLOWS:
        streams[name] = np.concatenate([0 * streams[name][:1], streams[name][1:]])
    streams["joints"] = streams["joints"].copy()
    return dataclasses.replace(view, streams=streams)


@pytest.fixture
def write(tmp_path, make_view):
    """Writes a dataset of one clip of three views, one stream of the first of them changed."""

    def written(change=lambda streams: None, **meta):
        views = [still_at_first(make_view("a", name)) for name in VIEWS]
        change(views[0].streams)
        views[0] = dataclasses.replace(views[0], meta={**views[0].meta, **meta})
        store.write(tmp_path / "set", {"train": views})
        return tmp_path / "set"

    return written


def test_statistics_are_those_of_the_arrays(dataset_folder, make_view):
    found = inspection.stats(dataset_folder)
    train = found["splits"]["train"]
    assert (train["clips"], train["views"], train["frames"]) == (3, 9, 108)
    assert train["sizes"] == {"32x24": 9} and train["fps"] == [25.0]
    assert train["seconds"] == pytest.approx(108 / 25, abs=0.01)
    every = [make_view(clip, name).streams for clip in "abcd" for name in VIEWS]
    for stream in ("frames", "flow", "mask", "joints"):
        values = np.stack([streams[stream] for streams in every]).astype(np.float64)
        told = found["ranges"][stream]
        np.testing.assert_allclose(
            [told["low"], told["high"], told["mean"]],
            [values.min(), values.max(), values.mean()],
            atol=1e-3,
        )
    assert found["joints"]["missing"] == {"right elbow": 1.0}
    assert found["bytes"] == sum(p.stat().st_size for p in dataset_folder.rglob("*") if p.is_file())


def test_a_good_data_set_has_nothing_wrong(write):
    assert inspection.check(write()) == []


def outside(streams):
    streams["joints"][5, 2, 0] = 1.5


def unsure(streams):
    streams["joints"][5, 2, 2] = 2.0


def ghost(streams):
    streams["joints"][4, 3] = 0.5, 0.5, 0.0


def moving_start(streams):
    streams["flow"] = streams["flow"] + np.float16(1)


def infinite(streams):
    streams["flow"] = streams["flow"].copy()
    streams["flow"][7, 0, 0] = np.inf


def empty_mask(streams):
    streams["mask"] = 0 * streams["mask"]


def deep(streams):
    streams["depth"] = streams["depth"] + np.float16(2)


WRONG = {
    "frame 5: a joint outside .*right shoulder": outside,
    "frame 5: a confidence outside .*right shoulder": unsure,
    "frame 4: a missing joint that is not zero: right elbow": ghost,
    "flow is not zero at the clip's first frame": moving_start,
    "'target_flow': holds values that are not finite": infinite,
    "no frame has a person's mask": empty_mask,
    "'target_depth': values .* the contract says 0.0..1.0": deep,
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_wrong_is_named_with_its_clip_and_view(write, message):
    (found,) = inspection.check(write(WRONG[message]))
    assert re.search(f"train, clip 'a', view 'cam1': .*{message}", found)


def test_times_that_do_not_increase_are_named(write):
    (found,) = inspection.check(write(times=[0.0, 0.1, 0.1]))
    assert "3 times for 12 frames" in found


def test_a_damaged_record_is_named_and_the_rest_is_checked(write):
    directory = write()
    (records,) = directory.glob("*.array_record*")
    data = bytearray(records.read_bytes())
    picture = data.index(b"\x28\xb5\x2f\xfd")  # how Zstandard begins
    data[picture : picture + 64] = bytes(64)
    records.write_bytes(bytes(data))
    found = inspection.check(directory)
    assert found and all(str(directory) in line or "damaged" in line for line in found)


def test_pictures_show_every_view(write, tmp_path):
    sheet, movie = inspection.show(write(), tmp_path / "pictures")
    picture = cv2.imread(str(sheet))
    assert picture.shape[0] > 3 * 160
    shown = video.read(movie)
    assert len(shown.frames) == 12 and shown.frames.shape[2] > 4 * 256


def test_a_folder_that_is_no_data_set_is_named(tmp_path):
    for look in (inspection.stats, inspection.check, lambda d: inspection.show(d, d)):
        with pytest.raises(UserError, match="no dataset there"):
            look(tmp_path)


# The commands.


def psrjax(*arguments, **options):
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    code = "from psrjax.cli.main import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=300, **options
    )


def test_videos_become_a_data_set_and_the_bad_one_is_named(tmp_path):
    for name, walk in (("one", 1.0), ("zwei ü", 2.0)):
        scene = stick_person.make_scene(10, walk=walk)
        stick_person.write_video(tmp_path / f"{name}.mkv", scene)
        stick_person.write_openpose(tmp_path / f"{name}_json", [[one] for one in scene.joints])
    (tmp_path / "bad.mp4").write_bytes(b"")
    stick_person.write_openpose(tmp_path / "bad", [[one] for one in scene.joints])
    names = ["one.mkv", "zwei ü.mkv", "bad.mp4"]
    options = ("--joints=.", "--to=new set", "--size=32", "--holdout=0.5", "--processes=1")
    done = psrjax("prepare", *names, *options, cwd=tmp_path)
    assert done.returncode == 2
    assert "1 of 3 left out: bad.mp4: " in done.stderr and "2 clips in new set" in done.stdout
    assert (tmp_path / "new set/prepare.html").is_file()
    done = psrjax("data", "stats", "new set", "--json", cwd=tmp_path)
    told = json.loads(done.stdout)
    frames = {split: one["frames"] for split, one in told["splits"].items()}
    assert frames == {"train": 10, "test": 10}
    streams = ("frames", "mask", "joints", "background", "flow", "flow_forward", "flow_confidence")
    assert set(told["streams"]) == set(streams)


def test_a_damaged_data_set_ends_the_check_with_two(write):
    directory = write(outside)
    done = psrjax("data", "check", directory)
    assert done.returncode == 2 and "1 things are wrong; first: train, clip 'a'" in done.stderr
    done = psrjax("data", "look", directory)
    assert done.returncode == 2 and "psrjax data stats|check|show DIR" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to=x"], "name the input"),
        (["a.mp4", "--to=x", "--cameras=a"], "--cameras is not a flag for videos"),
        (["nowhere.mp4", "--to=x"], "nowhere.mp4: no such file"),
    ],
)
def test_a_mistaken_command_is_one_line(arguments, message, tmp_path):
    done = psrjax("prepare", *arguments, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
