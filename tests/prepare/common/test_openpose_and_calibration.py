"""Readers of OpenPose JSON and of calibrations."""

import json

import cv2
import numpy as np
import pytest

from psrjax.errors import UserError
from psrjax.ops import pose
from psrjax.prepare.common import calibration, openpose
from psrjax.vision import body


def _write(folder, frames, start=0, digits=4):
    folder.mkdir(parents=True, exist_ok=True)
    for number, people in enumerate(frames, start=start):
        listed = [{"pose_keypoints_2d": np.asarray(p, float).ravel().tolist()} for p in people]
        name = f"clip_{number:0{digits}d}_keypoints.json"
        (folder / name).write_text(json.dumps({"version": 1.3, "people": listed}))


def _person(kind, turn=0.4, confidence=0.8):
    """A standing man seen from some side, in the joint order `kind`, in pixels."""
    joints = body.template().joints
    across = np.cos(turn) * joints[:, 1] + np.sin(turn) * joints[:, 0]
    places = np.stack([400 + 200 * across, 500 - 220 * joints[:, 2]], -1)
    seen = np.concatenate([places, np.full((26, 1), confidence)], -1)
    return pose.convert(seen, "body26", kind)


@pytest.mark.parametrize("kind", ["body25", "body25b", "coco18"])
@pytest.mark.parametrize("turn", [0.0, 0.7, 1.4, 3.0])
def test_the_joint_order_is_recognised_by_plausible_bones(tmp_path, kind, turn):
    _write(tmp_path, [[_person(kind, turn)]] * 3)
    people = openpose.read_openpose(tmp_path, frames=3)
    assert people.kind == kind
    wrist = _person("body26", turn)[4]
    np.testing.assert_allclose(people.frames[1][0, 4], wrist, rtol=1e-5)


def test_the_user_may_say_the_joint_order(tmp_path):
    _write(tmp_path, [[_person("body25b")]] * 2)
    assert openpose.read_openpose(tmp_path, frames=2, joints="body25").kind == "body25"
    with pytest.raises(UserError, match="25 joints.*coco18 has 18"):
        openpose.read_openpose(tmp_path, frames=2, joints="coco18")


def test_people_may_be_absent_and_joints_missing_or_not_finite(tmp_path):
    person = _person("body25")
    person[4] = 0.0
    person[7, 0] = np.nan
    _write(tmp_path, [[], [person], [person, _person("body25")]])
    people = openpose.read_openpose(tmp_path, frames=3)
    assert [len(frame) for frame in people.frames] == [0, 1, 2]
    assert (people.frames[1][0, [4, 7]] == 0).all()
    assert (people.frames[1][0, 2] > 0).all()


def test_numbers_may_start_at_one(tmp_path):
    people = [[_person("body25", confidence=0.5 + 0.1 * i)] for i in range(4)]
    _write(tmp_path, people, start=1, digits=12)
    read = openpose.read_openpose(tmp_path, frames=4)
    assert not read.problems
    np.testing.assert_allclose([f[0, 0, 2] for f in read.frames], [0.5, 0.6, 0.7, 0.8], rtol=1e-5)


def test_a_missing_and_a_broken_file_are_named_and_tolerated(tmp_path):
    _write(tmp_path, [[_person("body25")]] * 12)
    (tmp_path / "clip_0003_keypoints.json").unlink()
    whole = (tmp_path / "clip_0007_keypoints.json").read_text()
    (tmp_path / "clip_0007_keypoints.json").write_text(whole[: len(whole) // 2])
    people = openpose.read_openpose(tmp_path, frames=12)
    assert people.lost == [3, 7]
    assert "frame 3" in people.problems[0]
    assert "clip_0007_keypoints.json" in people.problems[1]
    assert len(people.frames[3]) == len(people.frames[7]) == 0


def test_too_many_missing_files_are_refused(tmp_path):
    _write(tmp_path, [[_person("body25")]] * 5)
    with pytest.raises(UserError, match="7 of 12 frames have no readable JSON"):
        openpose.read_openpose(tmp_path, frames=12)


def test_more_files_than_frames_are_named(tmp_path):
    _write(tmp_path, [[_person("body25")]] * 6)
    people = openpose.read_openpose(tmp_path, frames=4)
    assert len(people.frames) == 4
    assert "clip_0004_keypoints.json" in people.problems[0]


def test_fractions_of_the_image_become_pixels(tmp_path):
    person = _person("body25")
    fractions = (person[:, :2] + 0.5) / (800, 600)
    _write(tmp_path, [[np.concatenate([fractions, person[:, 2:]], -1)]])
    read = openpose.read_openpose(tmp_path, frames=1, size=(600, 800))
    np.testing.assert_allclose(read.frames[0][0, :25], person, atol=1e-3)
    with pytest.raises(UserError, match="size is not known"):
        openpose.read_openpose(tmp_path, frames=1)


@pytest.mark.parametrize("count", [15, 26])
def test_unknown_numbers_of_joints_are_refused(tmp_path, count):
    _write(tmp_path, [[np.ones((count, 3)) * 5]])
    with pytest.raises(UserError, match=f"people of \\[{count}\\] joints"):
        openpose.read_openpose(tmp_path, frames=1)


QUALISYS = """<?xml version='1.0' encoding='ASCII'?>
<calibration source="x.qca.txt"><cameras><camera serial="cam_7" viewrotation="0">
<fov_video bottom="1919" left="0" right="1087" top="0"/>
<transform {axes} x="{x}" y="{y}" z="{z}"/>
<intrinsic centerPointU="{u}" centerPointV="{v}" focalLengthU="{fu}" focalLengthV="{fv}"
 radialDistortion1="-0.05" radialDistortion2="0.1" radialDistortion3="0.0"
 tangentalDistortion1="0.001" tangentalDistortion2="0.002"/></camera></cameras></calibration>"""


def test_qualisys_and_opencv_files_project_as_opencv_does(tmp_path):
    turn = cv2.Rodrigues(np.array([1.2, -0.4, 0.3]))[0]
    centre = np.array([0.5, -2.0, -3.0])
    matrix = np.array([[1600.0, 0, 530.5], [0, 1610.0, 955.25], [0, 0, 1]])
    lens = np.array([-0.05, 0.1, 0.001, 0.002])
    axes = np.diag([1.0, -1.0, -1.0]) @ turn
    numbers = {f"r{i + 1}{j + 1}": axes[i, j] for i in range(3) for j in range(3)}
    text = QUALISYS.format(
        axes=" ".join(f'{key}="{value!r}"' for key, value in numbers.items()).replace(
            "np.float64(", ""
        ).replace(")", ""),
        **dict(zip("xyz", 1000 * centre)),
        u=64 * 530.5, v=64 * 955.25, fu=64 * 1600.0, fv=64 * 1610.0,
    )  # fmt: skip
    (tmp_path / "a.qca.txt").write_text(text)
    entry = {"K": matrix.tolist(), "dist": lens.tolist(), "R": turn.tolist()}
    entry["t"] = (-turn @ centre).tolist()
    rodrigues = entry | {"R": cv2.Rodrigues(turn)[0].ravel().tolist(), "image_size": [1088, 1920]}
    (tmp_path / "a.json").write_text(json.dumps({"cam07": entry, "other": rodrigues}))
    points = (
        centre + (turn.T @ np.random.default_rng(0).uniform((-1, -1, 3), (1, 1, 5), (9, 3)).T).T
    )
    truth = cv2.projectPoints(points, cv2.Rodrigues(turn)[0], -turn @ centre, matrix, lens)[0][:, 0]
    qualisys = calibration.read_calibration(tmp_path / "a.qca.txt")["cam_7"]
    opencv = calibration.read_calibration(tmp_path / "a.json")
    for camera in (qualisys, *opencv.values()):
        np.testing.assert_allclose(camera.project(points)["pixels"], truth, atol=1e-6)
    assert qualisys.size == opencv["other"].size == (1920, 1088)
    assert opencv["cam07"].size == (0, 0)
    assert calibration.same_name("cam_07", "Cam07") and not calibration.same_name("cam1", "cam2")


def _entry(**changes):
    good = {"K": np.diag([900.0, 900, 1]).tolist(), "R": np.eye(3).tolist(), "t": [0, 0, 1]}
    return {name: value for name, value in (good | changes).items() if value is not None}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (_entry(K=None), "has no matrix"),
        (_entry(R=(2 * np.eye(3)).tolist()), "not a rotation"),
        (_entry(R=np.diag([1.0, 1, -1]).tolist()), "not a rotation"),
        (_entry(t=[0, float("nan"), 0]), "must be finite"),
        (_entry(K=np.diag([-5.0, 5, 1]).tolist()), "focal lengths"),
        (_entry(t=[1, 2]), "camera 'one'"),
        (_entry(dist=[0, 0, 0, 0, 0, 1.0]), "k1 k2 p1 p2 k3"),
        ("text", "expected an object of cameras"),
    ],
)
def test_an_impossible_camera_is_named(tmp_path, entry, message):
    (tmp_path / "bad.json").write_text(json.dumps({"one": entry}))
    with pytest.raises(UserError, match=message) as caught:
        calibration.read_calibration(tmp_path / "bad.json")
    assert "bad.json" in str(caught.value)


@pytest.mark.parametrize("name", ["cut.json", "cut.qca.txt"])
def test_a_calibration_cut_short_is_named(tmp_path, name):
    (tmp_path / name).write_text('{"cam1": {"K": [[1' if name.endswith("json") else "<calibration>")
    with pytest.raises(UserError, match=f"{name}: not a whole"):
        calibration.read_calibration(tmp_path / name)
