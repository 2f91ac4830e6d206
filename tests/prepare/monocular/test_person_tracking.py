"""Tracking of the main person, interpolation of gaps, and joint files of every kind."""

import json

import numpy as np
import pytest
import stick_person

from psrjax.errors import UserError
from psrjax.ops import pose
from psrjax.prepare.common import joint_files
from psrjax.prepare.monocular import person_tracking

SIZE = stick_person.SIZE


def frames(count=8, x=40.0, tall=stick_person.TALL):
    return [
        stick_person.person(x + 2 * time, 90, 0.1, tall).astype(np.float32) for time in range(count)
    ]


def test_the_tallest_is_followed_whatever_the_order_in_the_files():
    tall, small = frames(), frames(x=100, tall=35)
    people = [np.stack([a, b] if t % 2 else [b, a]) for t, (a, b) in enumerate(zip(tall, small))]
    found = person_tracking.follow(people)
    np.testing.assert_array_equal(found.joints, np.stack(tall))
    assert found.others == 8 and found.pieces == 1


def test_someone_much_smaller_is_not_several_people():
    people = [np.stack([a, b]) for a, b in zip(frames(), frames(x=100, tall=20))]
    assert person_tracking.follow(people).others == 0


def test_who_leaves_and_comes_back_elsewhere_is_the_same():
    nobody = np.zeros((0, 26, 3), np.float32)
    before, after = frames(5), frames(5, x=110)
    people = [one[None] for one in before] + [nobody] * 20 + [one[None] for one in after]
    found = person_tracking.follow(people)
    assert found.pieces == 2 and not found.joints[5:25].any()
    np.testing.assert_array_equal(found.joints[25:], np.stack(after))


def test_two_who_cross_keep_their_names():
    left = [stick_person.person(20 + 5 * t, 90, 0.1).astype(np.float32) for t in range(16)]
    right = [stick_person.person(95 - 5 * t, 90, 0.1, 50).astype(np.float32) for t in range(16)]
    people = [np.stack([b, a]) for a, b in zip(left, right)]
    np.testing.assert_array_equal(person_tracking.follow(people).joints, np.stack(left))


def test_short_gaps_are_interpolated_linearly_and_marked():
    joints = np.stack(frames(12))
    times = np.arange(12) / 25.0
    holed = joints.copy()
    holed[4:6, 7] = 0.0
    filled = person_tracking.close_gaps(holed, times)
    np.testing.assert_allclose(filled.joints[..., :2], joints[..., :2], atol=1e-4)
    assert filled.filled.sum() == 2 and filled.filled[4:6, 7].all()
    np.testing.assert_allclose(filled.joints[4:6, 7, 2], 0.9 * person_tracking.FILLED)


def test_gaps_are_interpolated_by_time_not_by_number():
    joints = np.stack(frames(3))
    joints[:, 0, 0] = 0.0, 0.0, 10.0
    joints[1, 0] = 0.0
    filled = person_tracking.close_gaps(joints, np.array([0.0, 0.15, 0.2]))
    np.testing.assert_allclose(filled.joints[1, 0, 0], 7.5, rtol=1e-5)


def test_long_gaps_and_open_ends_stay_missing():
    joints = np.stack(frames(20))
    joints[:3, 0] = joints[-3:, 1] = joints[5:14, 2] = 0.0
    filled = person_tracking.close_gaps(joints, np.arange(20) / 25.0)
    np.testing.assert_array_equal(filled.joints, joints)
    assert not filled.filled.any()


@pytest.mark.parametrize("unseen", [(), (17,), (15, 17), (0, 15, 16, 17)])
def test_the_top_of_the_head_is_extrapolated_from_its_visible_parts(unseen):
    joints = np.stack(frames(4, x=60.0))
    truth = joints[:, 25, :2].copy()
    joints[:, [25, *unseen]] = 0.0
    guessed = person_tracking.guess_head_top(
        person_tracking.FilledJoints(joints, np.zeros((4, 26), bool))
    )
    if len(unseen) == 4:
        assert not guessed.joints[:, 25].any() and not guessed.filled.any()
        return
    assert np.abs(guessed.joints[:, 25, :2] - truth).max() < 0.06 * stick_person.TALL
    assert guessed.filled[:, 25].all() and (guessed.joints[:, 25, 2] <= 0.3).all()
    np.testing.assert_array_equal(guessed.joints[:, :25], joints[:, :25])


def test_a_seen_top_of_the_head_stays():
    joints = np.stack(frames(4))
    before = person_tracking.FilledJoints(joints, np.zeros((4, 26), bool))
    np.testing.assert_array_equal(person_tracking.guess_head_top(before).joints, joints)


def test_joints_outside_the_picture_or_not_numbers_are_missing():
    joints = stick_person.person(40, 90, 0.1).astype(np.float32)[None]
    joints[0, 4, 0] = -3.0
    joints[0, 7, 1] = SIZE[0] + 20
    joints[0, 3, 0] = np.nan
    kept = person_tracking.drop_outside(joints, SIZE)
    assert not kept[0, [3, 4, 7]].any()
    others = [index for index in range(26) if index not in (3, 4, 7)]
    np.testing.assert_array_equal(kept[0, others], joints[0, others])


# Independent of ops.pose: where each kind of file keeps the left wrist, right knee, nose, left eye.
NAMED = {
    "coco17": (17, {"left wrist": 9, "right knee": 14, "nose": 0, "left eye": 1}),
    "coco18": (18, {"left wrist": 7, "right knee": 9, "nose": 0, "left eye": 15}),
    "body25": (25, {"left wrist": 7, "right knee": 10, "nose": 0, "left eye": 16}),
    "body25b": (25, {"left wrist": 9, "right knee": 14, "nose": 0, "left eye": 1}),
    "coco23": (23, {"left wrist": 9, "right knee": 14, "nose": 0, "left eye": 1}),
    "halpe26": (26, {"left wrist": 9, "right knee": 14, "nose": 0, "left eye": 1}),
    "mediapipe33": (33, {"left wrist": 15, "right knee": 26, "nose": 0, "left eye": 2}),
    "ntu25": (25, {"left wrist": 6, "right knee": 17}),
}
OURS = {"left wrist": 7, "right knee": 10, "nose": 0, "left eye": 16}
FEET = {  # left big toe, left small toe, left heel, right big toe, right heel
    "coco23": (17, 18, 19, 20, 22),
    "halpe26": (20, 22, 24, 21, 25),
    "mediapipe33": (31, None, 29, 32, 30),
    "body25b": (19, 20, 21, 22, 24),
}


@pytest.mark.parametrize("kind", NAMED)
def test_the_table_puts_named_joints_where_each_format_has_them_and_back(kind):
    ours = stick_person.person(40, 90, 0.4).astype(np.float32)
    count, places = NAMED[kind]
    theirs = pose.convert(ours, "body26", kind)
    assert theirs.shape == (count, 3)
    back = pose.convert(theirs, kind, "body26")
    for name, place in places.items():
        np.testing.assert_allclose(theirs[place], ours[OURS[name]], atol=1e-5)
    feet = zip((19, 20, 21, 22, 24), FEET.get(kind, (None,) * 5))
    known = [OURS[name] for name in places if (kind, name) != ("ntu25", "nose")]
    for index, place in feet:
        if place is not None and kind != "mediapipe33":
            np.testing.assert_allclose(theirs[place], ours[index], atol=1e-5)
            known.append(index)
    np.testing.assert_allclose(back[known], ours[known], atol=1e-5)


def rows(people):
    return np.stack(people)[:, None]


def theirs(kind, people):
    return pose.convert(np.stack(people).astype(np.float32), "body26", kind)


def mmpose(path, people):
    info = [
        {"frame_id": number + 1, "instances": [
            {"keypoints": one[:, :2].tolist(), "keypoint_scores": one[:, 2].tolist(),
             "bbox": [[0, 0, 1, 1]]}]}
        for number, one in enumerate(theirs("coco17", people))
    ]  # fmt: skip
    path.write_text(json.dumps({"meta_info": {}, "instance_info": info}))


def inferencer(path, people):
    listed = [
        [{"keypoints": one[:, :2].tolist(), "keypoint_scores": one[:, 2].tolist()}]
        for one in theirs("halpe26", people)
    ]
    path.write_text(json.dumps(listed))


def alphapose(path, people):
    listed = [
        {"image_id": f"{number}.jpg", "keypoints": one.ravel().tolist(), "score": 2.0}
        for number, one in enumerate(theirs("coco17", people))
    ]
    path.write_text(json.dumps(listed))


def mediapipe(path, people):
    scale = np.array([SIZE[1], SIZE[0]])
    listed = [
        [{"x": x, "y": y, "z": 0.0, "visibility": float(c)}
         for (x, y), c in zip((one[:, :2] + 0.5) / scale, one[:, 2])]
        for one in theirs("mediapipe33", people)
    ]  # fmt: skip
    path.write_text(json.dumps({"frames": [{"pose_landmarks": one} for one in listed]}))


def mediapipe_array(path, people):
    one = theirs("mediapipe33", people)
    places = (one[..., :2] + 0.5) / np.array([SIZE[1], SIZE[0]])
    np.save(path, np.concatenate([places, 0 * one[..., 2:], one[..., 2:]], -1))


def rtmlib(path, people):
    one = theirs("coco17", people)[:, None]
    np.savez(path, keypoints=one[..., :2], scores=one[..., 2])


def whole_body(path, people):
    one = theirs("coco23", people)
    np.savez(path, np.concatenate([one, np.full((len(one), 110, 3), 5.0, np.float32)], 1))


def skeleton(path, people):
    """NTU's text: the second body is a ghost, the colour picture is 1920 x 1080."""
    scale = np.array([1920 / SIZE[1], 1080 / SIZE[0]])
    words = [str(len(people))]
    for one in theirs("ntu25", people):
        words.append("2")
        for body, size in ((72057594037931101, 1.0), (72057594037931102, 0.2)):
            words += [f"{body} 0 1 1 1 1 0 0.1 0.2 2", "25"]
            for x, y in one[:, :2] * size:
                place = f"{x / 66} {-y / 66} 3.0 100 100 {x * scale[0]} {y * scale[1]}"
                words.append(f"{place} 1 0 0 0 2")
    path.write_text("\n".join(words))


FILES = {
    "mmpose.json": mmpose,
    "inferencer.json": inferencer,
    "alphapose.json": alphapose,
    "mediapipe.json": mediapipe,
    "mediapipe.npy": mediapipe_array,
    "rtmlib.npz": rtmlib,
    "whole.npz": whole_body,
    "S001C001P001R001A001.skeleton": skeleton,
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_gives_the_same_person(name, tmp_path):
    people = frames(6)
    FILES[name](tmp_path / name, people)
    read = joint_files.read(tmp_path / name, frames=6, size=SIZE)
    found = person_tracking.follow(read.frames).joints
    for joint in (2, 4, 5, 7, 9, 10, 11, 12, 13, 14):  # known to all
        np.testing.assert_allclose(found[:, joint, :2], np.stack(people)[:, joint, :2], atol=0.01)
        assert (found[:, joint, 2] > 0.5).all()
    assert not read.problems


def test_joints_of_a_video_are_found_by_its_name(tmp_path):
    stick_person.write_openpose(tmp_path / "one", [[one] for one in frames(3)])
    (tmp_path / "two_json").mkdir()
    (tmp_path / "three.json").write_text("[]")
    for video, found in (("one", "one"), ("two", "two_json"), ("three", "three.json")):
        assert joint_files.find(tmp_path, f"videos/{video}.mp4") == tmp_path / found
    assert joint_files.find(tmp_path / "one", "videos/else.mp4") == tmp_path / "one"


def test_joints_of_a_larger_picture_are_scaled_to_the_video(tmp_path):
    people = frames(4)
    double = [one * [2, 2, 1] + [0.5, 0.5, 0] for one in people]
    stick_person.write_openpose(tmp_path, [[one] for one in double])
    read = joint_files.read(
        tmp_path, frames=4, size=SIZE, of=(SIZE[0] * 2, SIZE[1] * 2)
    )  # fmt: skip
    np.testing.assert_allclose(
        np.stack(read.frames)[:, 0, :25], np.stack(people)[:, :25], atol=1e-3
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "a.json.*not whole"),
        ("a.json", '{"instance_info": 3}', "a.json.*not whole, or not joints"),
        ("a.json", "[[]]", "nobody in any frame"),
        ("a.json", "[[[1, 2, 1], [1, 2, 1]]]", r"people of \[2\] joints"),
        ("a.skeleton", "3 1 7 0 0", "a.skeleton.*not a whole"),
        ("a.npz", "no zip", "a.npz.*not whole"),
        ("a.txt", "", "joints are read from"),
    ],
)
def test_files_without_joints_are_named(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        joint_files.read(tmp_path / name, frames=1, size=SIZE)


def test_a_file_of_another_video_is_refused_and_a_little_more_or_less_is_reported(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, rows(frames(12))[:, :, :25])
    with pytest.raises(UserError, match="no joints of 28 of 40 frames"):
        joint_files.read(path, frames=40, size=SIZE)
    short = joint_files.read(path, frames=13, size=SIZE)
    assert short.lost == [12] and "no joints of 1 of 13 frames" in short.problems[0]
    long = joint_files.read(path, frames=10, size=SIZE)
    assert len(long.frames) == 10 and "ends at frame 9" in long.problems[0]


def test_a_wrong_order_or_source_is_named(tmp_path):
    np.savez(tmp_path / "a.npz", rows(frames(2))[:, :, :17])
    with pytest.raises(UserError, match="17 joints, which are not coco18"):
        joint_files.read(tmp_path / "a.npz", frames=2, size=SIZE, order="coco18")
    with pytest.raises(UserError, match="none of auto"):
        joint_files.read(tmp_path / "a.npz", frames=2, size=SIZE, order="coco19")
    with pytest.raises(UserError, match="no such file"):
        joint_files.find(tmp_path / "none", "a.mp4")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no joints of a.mp4"):
        joint_files.find(tmp_path / "empty", "a.mp4")
