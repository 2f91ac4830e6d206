"""Building datasets of many clips: repeated, interrupted, and with defective files."""

import dataclasses
import errno
import functools
import json
import re
import shutil
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import av
import numpy as np
import pytest
import stick_person

from psrjax import io
from psrjax.data import codec, inspection, sampling, store, video
from psrjax.data.source import Source
from psrjax.errors import UserError
from psrjax.prepare.monocular import dataset_builder, pipeline, planning, result_page

SMALL = pipeline.PreparationOptions(size=(32, 32))
FRAMES = 10


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Three videos with their joints: one.mkv, two.mkv, three.mkv and a folder for each's JSON."""
    folder = tmp_path_factory.mktemp("videos")
    for number, name in enumerate(("one", "two", "three")):
        scene = stick_person.make_scene(FRAMES, walk=1.0 + number)
        stick_person.write_video(folder / f"{name}.mkv", scene)
        stick_person.write_openpose(folder / name, [[one] for one in scene.joints])
    return folder


def clips_of(folder, *names, **changes):
    return [
        pipeline.VideoClip(str(folder / f"{name}.mkv"), name, str(folder / name), **changes)
        for name in names
    ]


prepare = functools.partial(dataset_builder.prepare, options=SMALL, processes=1)


def fingerprint(directory):
    """Modification times and sizes of a dataset's files, except its report."""
    return {
        path.relative_to(directory): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in directory.rglob("*")
        if path.is_file() and path.name != "prepare.json"
    }


@pytest.fixture(scope="module")
def made(videos, tmp_path_factory):
    """A dataset of two clips, and the summary of its making."""
    directory = tmp_path_factory.mktemp("made") / "set"
    return directory, prepare(clips_of(videos, "one", "two"), directory)


def test_a_dataset_holds_what_was_prepared_clip_by_clip(made, videos):
    directory, summary = made
    assert summary["new"] == 2 and not summary["failed"]
    assert inspection.check(directory) == []
    source = Source(directory, "train")
    for clip in clips_of(videos, "one", "two"):
        alone = pipeline.prepare_clip(clip, SMALL)
        (view,) = alone.views(alone.pieces[0])
        for stream, values in view.streams.items():
            np.testing.assert_array_equal(source.read(clip.name, "cam1", stream), values)
    total = sum(source.read(name, "cam1", "frames").sum(0, dtype=int) for name in ("one", "two"))
    np.testing.assert_array_equal(source.means["cam1"], np.round(total / (2 * FRAMES)))


def test_the_body_on_the_joints_gives_parts_and_a_mesh_label(videos, tmp_path):
    directory = tmp_path / "set"
    options = dataclasses.replace(SMALL, body=True, holdout=0.2)
    dataset_builder.prepare(clips_of(videos, "one"), directory, options, processes=1)
    for split, frames in (("train", 8), ("test", 2)):
        source = Source(directory, split)
        sampling.require(source, ("target_iuv", "target_mesh_label", "background"))
        clip = source.clips[0].name
        iuv, label = source.read(clip, "cam1", "iuv"), source.read(clip, "cam1", "mesh_label")
        mask = source.read(clip, "cam1", "mask") > 127
        assert len(iuv) == len(label) == frames
        assert not iuv[~mask].any() and (iuv[mask][:, 0] > 0).mean() > 0.5
        on = (label != 128).any(-1)
        assert (on & mask).sum() / (on | mask).sum() > 0.5


def test_a_dataset_without_body_parts_names_both_ways_to_them(made):
    source = Source(made[0], "train")
    with pytest.raises(UserError, match="DensePose's files.*single_person.*prepare --body"):
        sampling.require(source, ("target_iuv",))
    with pytest.raises(UserError, match="prepare --body.*data.synthetic.streams"):
        sampling.require(source, ("target_mesh_label",))
    with pytest.raises(UserError, match="prepared with body=False, now True"):
        dataset_builder.prepare([], made[0], dataclasses.replace(SMALL, body=True))


def test_previews_and_the_page_stand_beside_it(made):
    directory, _ = made
    for name in ("one", "two"):
        preview = video.read(directory / "previews" / f"{name}.mp4")
        assert len(preview.frames) == FRAMES
    page = result_page.write(directory).read_text()
    assert "too short" in page and 'src="previews/one.mp4"' in page and "Left out" not in page


def test_a_detectors_mistakes_are_mended_and_shown_by_frame(made, videos, tmp_path):
    joints = stick_person.make_scene(FRAMES, walk=2.0).joints
    arms = [2, 3, 4], [5, 6, 7]
    joints[4:6, sum(arms, [])] = joints[4:6, arms[1] + arms[0]]
    stick_person.write_openpose(tmp_path / "two", [[one] for one in joints])
    clip = dataclasses.replace(clips_of(videos, "two")[0], joints=str(tmp_path / "two"))
    summary = prepare([clip], tmp_path / "set")
    assert summary["clips"]["two"]["mistakes"] == {"exchanged": {"arms": [[4, 5]]}}
    stored, true = (
        Source(d, "train").read("two", "cam1", "joints") for d in (tmp_path / "set", made[0])
    )
    np.testing.assert_array_equal(stored, true)
    page = result_page.write(tmp_path / "set").read_text()
    assert "joints mistaken" in page and "arms 4–5." in page and "some of these frames" in page
    assert "some of these frames" not in result_page.write(made[0]).read_text()


def test_a_second_run_does_nothing(made, videos, monkeypatch):
    directory, _ = made
    before = fingerprint(directory)
    monkeypatch.setattr(dataset_builder, "prepare_one", None)
    again = prepare(clips_of(videos, "two", "one"), directory)
    assert again["new"] == 0 and set(again["clips"]) == {"one", "two"}
    assert fingerprint(directory) == before
    assert not directory.with_name("set.work").exists()


def telling(called, real):
    """`real`, which also records its clips."""
    return lambda clip, *rest: (called.append(clip.name), real(clip, *rest))


def test_a_new_video_is_added_and_the_others_are_copied(made, videos, tmp_path, monkeypatch):
    directory = shutil.copytree(made[0], tmp_path / "set")
    old = Source(directory, "train").read("one", "cam1", "frames")
    called = []
    real = dataset_builder.prepare_one
    monkeypatch.setattr(dataset_builder, "prepare_one", telling(called, real))
    summary = prepare(clips_of(videos, "three"), directory)
    assert called == ["three"] and summary["new"] == 1
    source = Source(directory, "train")
    assert {clip.name for clip in source.clips} == {"one", "two", "three"}
    np.testing.assert_array_equal(source.read("one", "cam1", "frames"), old)
    assert (directory / "previews" / "one.mp4").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


def test_a_video_that_changed_is_prepared_anew(videos, tmp_path):
    for suffix in (".mkv", ""):
        source = videos / f"one{suffix}"
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / f"one{suffix}")
    prepare(clips_of(tmp_path, "one"), tmp_path / "set")
    scene = stick_person.make_scene(FRAMES, walk=0.0)
    stick_person.write_video(tmp_path / "one.mkv", scene)
    stick_person.write_openpose(tmp_path / "one", [[one] for one in scene.joints])
    summary = prepare(clips_of(tmp_path, "one"), tmp_path / "set")
    assert summary["new"] == 1
    shown = Source(tmp_path / "set", "train").read("one", "cam1", "mask")
    assert np.abs(shown[0].astype(int) - shown[-1]).mean() < 40


def test_an_interrupted_run_leaves_no_dataset_and_goes_on_where_it_was(
    videos, tmp_path, monkeypatch
):
    real = dataset_builder.prepare_one
    called = []

    def interrupted(clip, options, folder, progress):
        called.append(clip.name)
        if clip.name == "two":
            (folder.with_name(folder.name + ".partial")).mkdir(parents=True)
            raise KeyboardInterrupt
        real(clip, options, folder, progress)

    monkeypatch.setattr(dataset_builder, "prepare_one", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(clips_of(videos, "one", "two"), tmp_path / "set")
    assert not (tmp_path / "set").exists()
    called.clear()
    monkeypatch.setattr(dataset_builder, "prepare_one", telling(called, real))
    summary = prepare(clips_of(videos, "one", "two"), tmp_path / "set")
    assert called == ["two"] and summary["new"] == 1 and len(summary["clips"]) == 2
    assert inspection.check(tmp_path / "set") == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


def test_an_exchange_that_was_cut_off_loses_nothing(made, videos, tmp_path):
    shutil.copytree(made[0], tmp_path / "set.old")
    (tmp_path / "set.next").mkdir()
    (tmp_path / "set.next" / "half").write_text("")
    summary = prepare(clips_of(videos, "one", "two"), tmp_path / "set")
    assert summary["new"] == 0 and (tmp_path / "set" / store.MANIFEST).is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


def test_a_full_disk_keeps_what_is_done_and_says_how_to_go_on(videos, tmp_path, monkeypatch):
    real = dataset_builder._write_one

    def full(prepared, lifted, folder):
        if prepared.clip.name == "two":
            raise OSError(errno.ENOSPC, "No space left on device")
        real(prepared, lifted, folder)

    monkeypatch.setattr(dataset_builder, "_write_one", full)
    with pytest.raises(UserError, match="disk is full.*then run the same again: 1 clips are kept"):
        prepare(clips_of(videos, "one", "two"), tmp_path / "set")
    assert not (tmp_path / "set").exists()
    monkeypatch.undo()
    assert prepare(clips_of(videos, "one", "two"), tmp_path / "set")["new"] == 1


def test_a_disk_that_fills_up_at_the_end_leaves_the_old_dataset(
    made, videos, tmp_path, monkeypatch
):
    directory = shutil.copytree(made[0], tmp_path / "set")
    before = fingerprint(directory)
    real = store.write

    def full(folder, splits, **options):
        if Path(folder).name == "set.next":
            raise io.DiskFullError(f"{folder}: the disk is full")
        return real(folder, splits, **options)

    monkeypatch.setattr(store, "write", full)
    with pytest.raises(UserError, match="disk is full"):
        prepare(clips_of(videos, "three"), directory)
    assert fingerprint(directory) == before
    monkeypatch.undo()
    monkeypatch.setattr(dataset_builder, "prepare_one", None)  # it is done already
    assert len(prepare(clips_of(videos, "three"), directory)["clips"]) == 3


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: (d / "manifest.json").unlink(), "exists and is no dataset"),
        (lambda d: edit(d, format=0), "format 0, this version reads"),
        (lambda d: edit(d, meta={"kind": "recording"}), "another kind"),
    ],
)
def test_a_folder_of_something_else_is_left_alone(made, videos, tmp_path, spoil, message):
    directory = shutil.copytree(made[0], tmp_path / "set")
    spoil(directory)
    before = fingerprint(directory)
    with pytest.raises(UserError, match=message):
        prepare(clips_of(videos, "one"), directory)
    assert fingerprint(directory) == before


def edit(directory, **changes):
    manifest = json.loads((directory / "manifest.json").read_text())
    del manifest["checksum"]  # as older versions wrote it
    (directory / "manifest.json").write_text(json.dumps(manifest | changes))


def test_other_options_are_not_mixed_in(made, videos):
    with pytest.raises(UserError, match=r"prepared with size=\[32, 32\], now \[48, 48\]"):
        dataset_builder.prepare(
            clips_of(videos, "one"),
            made[0],
            pipeline.PreparationOptions(size=(48, 48)),
            processes=1,
        )


def test_two_runs_do_not_write_the_same_dataset(videos, tmp_path):
    with io.locked(tmp_path / "set.work", "psrjax prepare"):
        with pytest.raises(UserError, match="another `psrjax prepare` is at work"):
            prepare(clips_of(videos, "one"), tmp_path / "set")


def test_a_set_that_is_cut_off_or_damaged_is_never_read_as_whole(made, tmp_path):
    directory = shutil.copytree(made[0], tmp_path / "set")
    records = next(directory.glob("*.array_record*"))
    records.write_bytes(records.read_bytes()[:-100])
    (problem,) = inspection.check(directory)
    assert "cut off or was changed" in problem and records.name in problem


# Bad videos and bad joints: each is reported by name, and the others are prepared.


def truncated(path):
    scene = stick_person.make_scene(40)
    video.write(path.with_suffix(".mp4"), scene.frames)
    data = path.with_suffix(".mp4").read_bytes()
    path.with_suffix(".mp4").write_bytes(data[: len(data) * 2 // 3])
    return path.with_suffix(".mp4")


def empty(path):
    path.write_bytes(b"")
    return path


def sound_only(path):
    path = path.with_suffix(".m4a")
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def text(path):
    path.write_text("not a video")
    return path


def folder_of_nothing(path):
    folder = path.with_suffix("")
    folder.mkdir()
    (folder / "0.png").write_bytes(b"")
    return folder


def changing(path):
    folder = path.with_suffix("")
    folder.mkdir()
    scene = stick_person.make_scene(2)
    for number, size in ((0, 96), (1, 64)):
        (folder / f"{number}.png").write_bytes(codec.encode_png(scene.frames[number][:size]))
    return folder


BAD_VIDEOS = {
    "cut off": (truncated, "cut off|damaged"),
    "empty": (empty, "the file is empty"),
    "sound only": (sound_only, "holds no video, only audio"),
    "no video": (text, "not a video, or damaged"),
    "broken picture": (folder_of_nothing, "0.png: not a picture"),
    "changing size": (changing, "frame 1 is 128x64"),
}


@pytest.mark.parametrize("kind", BAD_VIDEOS)
def test_a_bad_video_is_named_and_the_rest_is_prepared(kind, videos, tmp_path):
    make, message = BAD_VIDEOS[kind]
    bad = make(tmp_path / "bad.mkv")
    clips = [pipeline.VideoClip(str(bad), "bad", str(videos / "one")), *clips_of(videos, "one")]
    summary = prepare(clips, tmp_path / "set")
    assert re.search(message, summary["failed"]["bad"]) and str(bad) in summary["failed"]["bad"]
    assert set(summary["clips"]) == {"one"} and inspection.check(tmp_path / "set") == []
    page = result_page.write(tmp_path / "set").read_text()
    assert "Left out" in page and bad.name in page


def test_nothing_but_bad_videos_is_an_error_and_no_dataset(videos, tmp_path):
    bad = empty(tmp_path / "bad.mp4")
    with pytest.raises(UserError, match="no clip could be prepared.*bad.mp4.*empty"):
        prepare([pipeline.VideoClip(str(bad), "bad", str(videos / "one"))], tmp_path / "set")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.mp4"]


def joints_of(folder, change):
    scene = stick_person.make_scene(FRAMES)
    people = [[one.copy()] for one in scene.joints]
    return stick_person.write_video(folder / "a.mkv", scene), stick_person.write_openpose(
        folder / "a", change(people)
    )


def nan(people):
    for here in people[2:4]:
        here[0][4] = np.nan
    return people


def far_away(people):
    for here in people[2:4]:
        here[0][4, :2] = 5000.0
    return people


@pytest.mark.parametrize("change", [nan, far_away])
def test_joints_that_are_no_numbers_or_outside_are_missing_and_reported(change, tmp_path):
    path, joints = joints_of(tmp_path, change)
    text = "\n".join(child.read_text() for child in joints.iterdir())
    assert ("NaN" in text) == (change is nan)
    summary = prepare([pipeline.VideoClip(str(path), "a", str(joints))], tmp_path / "set")
    stored = Source(tmp_path / "set", "train").read("a", "cam1", "joints")
    assert np.isfinite(stored).all() and np.abs(stored[..., :2]).max() <= 1
    filled = summary["clips"]["a"]["filled"]["right wrist"]
    assert filled == [[2, 3]] and (stored[2:4, 4, 2] <= 0.3).all()
    outside = summary["clips"]["a"]["joints_outside"]
    assert outside == (2 if change is far_away else 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda people: people[:5], "5 of 10 frames have no readable JSON"),
        (lambda people: [[] for _ in people], "nobody in any frame"),
    ],
)
def test_joints_of_too_few_frames_or_of_nobody_are_reported(change, message, tmp_path):
    path, joints = joints_of(tmp_path, change)
    with pytest.raises(UserError, match=message):
        prepare([pipeline.VideoClip(str(path), "a", str(joints))], tmp_path / "set")


def test_joints_of_more_frames_than_the_video_has_are_noted(tmp_path):
    path, joints = joints_of(tmp_path, lambda people: people + people[:3])
    summary = prepare([pipeline.VideoClip(str(path), "a", str(joints))], tmp_path / "set")
    assert any("video ends at frame 9" in note for note in summary["clips"]["a"]["notes"])


def test_nobody_found_by_the_detector_is_reported(videos, tmp_path, monkeypatch):
    from psrjax.prepare.common import detector

    class Blind:
        def detect(self, frames):
            for frame in frames:
                yield detector.Detection(np.zeros((26, 3), np.float32), frame[..., 0] * 0)

    monkeypatch.setattr(pipeline, "shared_detector", Blind)
    with pytest.raises(UserError, match="one.mkv: no person found in any frame.*--joints"):
        prepare([pipeline.VideoClip(str(videos / "one.mkv"), "one")], tmp_path / "set")


@pytest.mark.parametrize("size", [(97, 131), (96, 131)])
def test_odd_sizes_and_names_of_all_alphabets_work(size, tmp_path):
    scene = stick_person.make_scene(FRAMES, size=size)
    scene = stick_person.StickScene(
        scene.frames[:, : size[0], : size[1]], scene.joints, scene.masks, scene.wall
    )
    folder = tmp_path / "Übung 1 – танец"
    folder.mkdir()
    path = stick_person.write_video(folder / "mein Täñz 舞.mkv", scene)
    stick_person.write_openpose(folder / path.stem, [[one] for one in scene.joints])
    plan = planning.plan(
        [path], folder / "daten satz", joints=str(folder), holdout=0.0
    )  # fmt: skip
    summary = prepare(plan.clips, folder / "daten satz")
    (name,) = summary["clips"]
    assert name == path.stem and inspection.check(folder / "daten satz") == []
    assert (folder / "daten satz" / "previews" / f"{name}.mp4").is_file()
    page = result_page.write(folder / "daten satz").read_text(encoding="utf-8")
    assert "previews/mein%20T" in page and "mein Täñz 舞" in page


# Several processes.


def test_several_processes_give_what_one_gives(made, videos, tmp_path):
    summary = dataset_builder.prepare(
        clips_of(videos, "one", "two"), tmp_path / "set", SMALL, processes=2
    )
    assert summary["new"] == 2
    for name in ("one", "two"):
        for stream in ("frames", "mask", "joints", "flow", "background"):
            np.testing.assert_array_equal(
                Source(tmp_path / "set", "train").read(name, "cam1", stream),
                Source(made[0], "train").read(name, "cam1", stream),
            )


class KillingPool:
    """A pool whose process is killed by every clip named "two"."""

    def __init__(self, processes, **options):
        self.broken = False

    def submit(self, function, clip, options, folder):
        from concurrent.futures import Future

        future = Future()
        self.broken |= clip.name == "two"
        if self.broken:
            future.set_exception(BrokenProcessPool("killed"))
        else:
            function(clip, options, folder)
            future.set_result(None)
        return future

    def shutdown(self, **options):
        pass


def test_a_clip_whose_process_is_killed_is_reported_and_the_others_are_done(
    videos, tmp_path, monkeypatch
):
    monkeypatch.setattr(dataset_builder, "ProcessPoolExecutor", KillingPool)
    summary = dataset_builder.prepare(
        clips_of(videos, "one", "two", "three"), tmp_path / "set", SMALL, processes=2
    )
    assert set(summary["clips"]) == {"one", "three"}
    assert "two.mkv: the process that prepared it was killed" in summary["failed"]["two"]
