"""Datasets of videos: read in their true layouts, split as they say, with what methods read."""

import shutil
from pathlib import Path

import numpy as np
import person_clips
import pytest
from PIL import Image

from psrjax.data import sampling
from psrjax.data.source import Source
from psrjax.errors import UserError
from psrjax.methods import internet
from psrjax.prepare.common import lifting
from psrjax.prepare.datasets import adapter, build, dance_fashion, video_folder
from psrjax.vision.backgrounds import overlap


def squares(count, size=32, seed=0):
    """Frames of a square that moves one pixel a frame."""
    frames = np.full((count, size, size, 3), 30 * seed + 20, np.uint8)
    for number, frame in enumerate(frames):
        frame[8:16, number : number + 8] = 250, 100, 50
    return frames


def build_set(name, root, directory, **options):
    return build.build(name, root, directory, adapter.DatasetOptions(**options), processes=1)


@pytest.fixture(scope="module")
def fashion(tmp_path_factory):
    """first-order-motion's layout: folders, an mp4, a gif, a strip, and a list of pairs."""
    root = tmp_path_factory.mktemp("fashion")
    for split, names in (("train", ("a", "b", "c")), ("test", ("d",))):
        for seed, name in enumerate(names):
            person_clips.write_pictures(root / split / name, squares(12, seed=seed), "{:d}.png")
    person_clips.write_mp4(root / "train" / "id1#x#000#100.mp4", squares(12), fps=30.0)
    pages = [Image.fromarray(frame) for frame in squares(12)]
    pages[0].save(root / "train" / "e.gif", save_all=True, append_images=pages[1:], duration=40)
    strip = np.concatenate(list(squares(12)), axis=1)
    Image.fromarray(strip).save(root / "test" / "f.png")
    (root / "fashion256.csv").write_text("distance,source,driving,frame\n1.0,d,f.png,3\n")
    return root


def test_fashion_in_all_its_forms_gives_what_internet_reads(fashion, tmp_path):
    summary = build_set("dance_fashion", fashion, tmp_path / "set", size=(32, 32))
    assert summary["clips"] == 7 and not summary["failed"]
    assert "fashion256.csv: a list of pairs to animate, not part of the dataset" in summary["notes"]
    train, test = (Source(tmp_path / "set", split) for split in ("train", "test"))
    assert {c.name for c in train.clips} == {"a", "b", "c", "id1#x#000#100", "e"}
    assert {c.name for c in test.clips} == {"d", "f"}
    for source, name in ((train, "b"), (test, "d"), (test, "f")):
        seed = {"b": 1}.get(name, 0)
        np.testing.assert_array_equal(source.read(name, "cam1", "frames"), squares(12, seed=seed))
        assert source.clip(name).views["cam1"].fps == 30.0
    assert train.clip("id1#x#000#100").views["cam1"].meta["identity"] == "id1"
    sampling.require(train, internet.Method(temporal="b").reads)


def test_frames_are_sorted_as_people_count_and_squeezed_to_the_size(fashion, tmp_path):
    build_set("dance_fashion", fashion, tmp_path / "set", size=(16, 32))
    frames = Source(tmp_path / "set", "train").read("a", "cam1", "frames")
    left = [np.flatnonzero(frame[6, :, 0] > 200)[0] for frame in frames]
    assert left == list(range(12)) and frames.shape[1:3] == (16, 32)


def test_without_splits_the_fifth_is_drawn_as_first_order_motion_draws_it(tmp_path):
    for number in range(10):
        person_clips.write_pictures(tmp_path / f"v{number}", squares(2))
    found = dance_fashion.find(tmp_path, adapter.DatasetOptions())
    # sklearn.model_selection.train_test_split(range(10), random_state=0, test_size=0.2)[1]
    assert [task.name for task in found.tasks if task.split == "test"] == ["v2", "v8"]


def test_lists_of_addresses_split_a_folder(tmp_path):
    for name in ("A1+x", "B2", "C3"):
        (tmp_path / f"{name}.mp4").write_bytes(b"not read here")
    (tmp_path / "fashion_train.txt").write_text(
        "https://x.org/i/A1%2Bx.mp4\nhttps://x.org/B2.mp4\n"
    )
    (tmp_path / "fashion_test.txt").write_text("https://x.org/C3.mp4\nhttps://x.org/gone.mp4\n")
    found = dance_fashion.find(tmp_path, adapter.DatasetOptions())
    splits = {task.name: task.split for task in found.tasks}
    assert splits == {"A1+x": "train", "B2": "train", "C3": "test"}
    assert found.notes == ("1 videos of the lists are not there",)


def test_a_strip_of_no_squares_a_single_frame_and_a_cut_video_are_told(fashion, tmp_path):
    root = tmp_path / "raw"
    person_clips.write_pictures(root / "train" / "whole", squares(5))
    person_clips.write_pictures(root / "train" / "single", squares(1))
    person_clips.write_pictures(root / "test" / "other", squares(5))
    Image.fromarray(np.zeros((32, 70, 3), np.uint8)).save(root / "train" / "strip.png")
    (root / "train" / "cut.mp4").write_bytes(b"\0" * 100)
    summary = build_set("dance_fashion", root, tmp_path / "set", size=(32, 32))
    assert summary["clips"] == 2 and set(summary["failed"]) == {"single", "strip", "cut"}
    assert "no row of square frames" in summary["failed"]["strip"]
    assert "one frame is no video" in summary["failed"]["single"]
    assert "cut.mp4" in summary["failed"]["cut"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three videos with OpenPose's JSON: one in a folder of its own, two among one another."""
    root = tmp_path_factory.mktemp("folder")
    for person, name in enumerate(("dance a", "b#000#100", "b#100#200")):
        made = person_clips.clip(person=person)
        person_clips.write_mp4(root / f"{name}.mp4", made["frames"])
        here = root / f"{name}_json" if person == 0 else root
        person_clips.write_openpose(here, name, made["joints"])
    return root


def test_a_folder_of_videos_is_cut_and_no_video_is_on_two_sides(folder, tmp_path):
    summary = build_set("video_folder", folder, tmp_path / "set", size=(48, 48), seconds=0.3)
    assert summary["clips"] == 3 and not summary["failed"], summary
    splits = {s: Source(tmp_path / "set", s) for s in ("train", "test")}
    origins = {
        split: {clip.views["cam1"].meta["origin"] for clip in source.clips}
        for split, source in splits.items()
    }
    assert not origins["train"] & origins["test"] and len(splits["train"].clips) >= 2
    for source in splits.values():
        for clip in source.clips:
            assert 0.15 <= clip.frames / clip.views["cam1"].fps <= 0.45
            joints = source.read(clip.name, "cam1", "joints")
            assert (joints[:, 1:15, 2] > 0).mean() > 0.9
    sampling.require(splits["train"], ("source", "target", "target_joints", "target_mask"))


def test_splits_hold_a_tenth_each_whatever_the_order():
    videos = {Path(f"v{number}.mp4"): 3.0 + number % 2 for number in range(163)}
    origins = {video: video.stem for video in videos}
    splits = video_folder.by_hash(videos, origins)
    turned = video_folder.by_hash(dict(reversed(videos.items())), dict(reversed(origins.items())))
    assert splits == turned
    total = sum(videos.values())
    for split, share in (("train", 0.8), ("validation", 0.1), ("test", 0.1)):
        held = sum(count for video, count in videos.items() if splits[video] == split)
        assert abs(held / total - share) < 0.02
    three = {Path(f"{name}.mp4"): 1.0 for name in "abc"}
    assert set(video_folder.by_hash(three, {v: v.stem for v in three}).values()) == {
        "train", "validation", "test",
    }  # fmt: skip


def test_lists_decide_and_one_video_in_two_is_refused(tmp_path):
    for name in "abc":
        person_clips.write_pictures(tmp_path / name, squares(2))
    (tmp_path / "train.txt").write_text("a\n")
    (tmp_path / "val.txt").write_text("b.mp4\n")
    found = video_folder.find(tmp_path, adapter.DatasetOptions())
    assert {t.name: t.split for t in found.tasks} == {"a": "train", "b": "validation"}
    assert found.notes == ("c is in no list",)
    (tmp_path / "test.txt").write_text("a\n")
    with pytest.raises(UserError, match="test.txt: 'a' is also in the list of 'train'"):
        video_folder.find(tmp_path, adapter.DatasetOptions())


@pytest.fixture(scope="module")
def person(tmp_path_factory):
    """One person's folder, its clip and the source clip beside it."""
    root = tmp_path_factory.mktemp("person")
    made, other = person_clips.write_person(root)
    return root, made, other


def test_one_person_is_split_in_time_with_the_source_clips_beside(person, tmp_path):
    root, made, other = person
    summary = build_set("single_person", root, tmp_path / "set", size=(64, 64))
    assert not summary["failed"], summary
    splits = {s: Source(tmp_path / "set", s) for s in ("train", "test", "source")}
    frames = {s: source.clips[0].frames for s, source in splits.items()}
    assert frames == {"train": 18, "test": 2, "source": 16}
    held = splits["train"]
    clip = held.clips[0].name
    np.testing.assert_array_equal(held.read(clip, "cam1", "iuv"), made["iuv"][:18])
    label = held.read(clip, "cam1", "mesh_label")
    assert overlap((label != 128).any(-1), made["mask"][:18]) > 0.6
    np.testing.assert_array_equal(held.read(clip, "cam1", "mask") > 127, made["mask"][:18])
    background = held.read(clip, "cam1", "background").astype(int)
    assert np.abs(background - person_clips.wall((64, 64))).mean() < 3
    sampling.require(held, ("target_iuv", "target_joints", "background", "target_flow"))


def test_where_there_is_no_densepose_the_bodys_own_is_rendered(person, tmp_path):
    root, _, other = person
    build_set("single_person", root, tmp_path / "set", size=(64, 64))
    source = Source(tmp_path / "set", "source")
    found = source.read(source.clips[0].name, "cam1", "iuv")
    true = other["iuv"]
    on = (found[..., 0] > 0) & (true[..., 0] > 0)
    assert overlap(found[..., 0] > 0, true[..., 0] > 0) > 0.6
    assert (found[..., 0] == true[..., 0])[on].mean() > 0.6  # of 24 parts


def test_too_few_pictures_of_iuv_are_told(person, tmp_path):
    root = tmp_path / "raw"
    shutil.copytree(person[0], root)
    (root / "anna" / "densepose" / "frame00003_IUV.png").unlink()
    summary = build_set("single_person", root, tmp_path / "set", size=(64, 64))
    assert "densepose: 19 pictures" in summary["failed"]["anna"] and summary["clips"] == 1


@pytest.fixture(scope="module")
def iper(tmp_path_factory):
    """A folder of two clips, and the clips."""
    root = tmp_path_factory.mktemp("iper")
    made = person_clips.write_iper(root)
    return root, made


def test_iper_gives_joints_and_charts_by_smpls_angles(iper, tmp_path):
    root, made = iper
    summary = build_set("iper", root, tmp_path / "set", size=(64, 64))
    assert summary["clips"] == 2 and not summary["failed"], summary
    for split, name in (("train", "001/9/1"), ("test", "002/1/2")):
        source = Source(tmp_path / "set", split)
        clip = source.clips[0]
        assert clip.name == name.replace("/", "_")
        iuv = source.read(clip.name, "cam1", "iuv")
        true = made[name]["iuv"]
        assert overlap(iuv[..., 0] > 0, true[..., 0] > 0) > 0.75
        on = (iuv[..., 0] > 0) & (true[..., 0] > 0)
        assert (iuv[..., 0] == true[..., 0])[on].mean() > 0.9
        sampling.require(source, ("target_iuv", "target_joints", "background", "target_flow"))


def test_smpl_at_rest_stretches_its_arms_and_bends_as_told():
    rest = lifting.smpl_joints(np.zeros((1, 72)))[0]
    left, right = rest[[5, 6, 7]], rest[[2, 3, 4]]
    assert (np.diff(left[:, 0]) > 0.2).all() and (np.diff(right[:, 0]) < -0.2).all()
    np.testing.assert_allclose(left[:, 1], left[0, 1], atol=1e-9)
    assert rest[14, 1] < rest[13, 1] < rest[12, 1] < rest[8, 1] < rest[1, 1] < rest[25, 1]
    assert rest[0, 2] > rest[17:19, 2].mean()  # the nose is before the ears
    bent = np.zeros((1, 72))
    bent[0, 3 * 16 + 2] = -np.pi / 2  # left arm down
    bent[0, 3 * 4] = np.pi / 2  # left shin back
    found = lifting.smpl_joints(bent)[0]
    np.testing.assert_allclose(found[6, :1], found[5, :1], atol=1e-9)
    assert found[7, 1] < found[6, 1] < found[5, 1]
    assert found[14, 2] < found[13, 2] - 0.3
    lengths = [np.linalg.norm(j[b] - j[a]) for j in (rest, found) for a, b in ((5, 6), (13, 14))]
    np.testing.assert_allclose(lengths[:2], lengths[2:])


def test_a_pickle_that_is_cut_or_of_other_frames_is_told(iper, tmp_path):
    root = tmp_path / "raw"
    shutil.copytree(iper[0], root)
    path = root / "smpls" / "001" / "9" / "1" / "pose_shape.pkl"
    path.write_bytes(path.read_bytes()[:-300])
    summary = build_set("iper", root, tmp_path / "set", size=(64, 64))
    assert str(path) in summary["failed"]["001_9_1"] and summary["clips"] == 1
