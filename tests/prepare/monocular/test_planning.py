"""Plans of clips: names, and which are held out."""

import shutil

import pytest
import stick_person

from psrjax.errors import UserError
from psrjax.prepare.monocular import dataset_builder, pipeline, planning


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Three videos with their joints."""
    folder = tmp_path_factory.mktemp("videos")
    scene = stick_person.make_scene(10)
    for name in ("one", "two", "three"):
        stick_person.write_video(folder / f"{name}.mkv", scene)
        stick_person.write_openpose(folder / name, [[one] for one in scene.joints])
    return folder


def plan(inputs, directory, **options):
    return planning.plan(inputs, directory, joints="mediapipe", **options)


def test_one_video_is_held_out_in_time_and_several_by_video(videos, tmp_path):
    one = plan([videos / "one.mkv"], tmp_path / "set", holdout=0.25)
    assert one.holdout == 0.25 and [clip.split for clip in one.clips] == ["train"]
    for name in "abcdefgh":
        shutil.copy(videos / "one.mkv", tmp_path / f"{name}.mkv")
    many = plan([tmp_path], tmp_path / "set", holdout=0.25)
    assert many.holdout == 0.0 and [clip.name for clip in many.clips] == list("abcdefgh")
    assert sum(clip.split == "test" for clip in many.clips) == 2
    timed = plan([tmp_path], tmp_path / "set", holdout=0.25, by="time")
    assert timed.holdout == 0.25 and {clip.split for clip in timed.clips} == {"train"}


def test_adding_videos_moves_none_from_one_split_to_the_other(videos, tmp_path):
    names = ["one", "two", "three"]
    both = plan([videos / f"{name}.mkv" for name in names[:2]], tmp_path / "set", holdout=0.4)
    with_joints = [
        pipeline.VideoClip(c.video, c.name, str(videos / c.name), split=c.split) for c in both.clips
    ]
    dataset_builder.prepare(
        with_joints, tmp_path / "set", pipeline.PreparationOptions(size=(32, 32)), processes=1
    )
    more = plan([videos / f"{name}.mkv" for name in names], tmp_path / "set", holdout=0.4)
    before = {clip.name: clip.split for clip in both.clips}
    after = {clip.name: clip.split for clip in more.clips}
    assert before.items() <= after.items() and sorted(before.values()) == ["test", "train"]


def test_videos_of_one_name_carry_their_folders(videos, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(videos / "one.mkv", tmp_path / folder / "one.mkv")
    found = plan([tmp_path / "a", tmp_path / "b"], tmp_path / "set", holdout=0.0)
    assert [clip.name for clip in found.clips] == ["a_one", "b_one"]
    with pytest.raises(UserError, match="second clip of its name"):
        plan([tmp_path / "a", tmp_path / "a" / "one.mkv"], tmp_path / "set", holdout=0.0)
    with pytest.raises(UserError, match="nowhere: no such file"):
        plan([tmp_path / "nowhere"], tmp_path / "set", holdout=0.0)
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="holds no video"):
        plan([tmp_path / "none"], tmp_path / "set", holdout=0.0)
