"""Parsers: a damaged or hostile file ends with one line that names it, whatever it holds."""

import json

import numpy as np
import pytest

from psrjax import io
from psrjax.data import video
from psrjax.errors import UserError
from psrjax.prepare.common import (
    calibration,
    clip_reader,
    joint_files,
    kinect_skeleton,
    openpose,
)
from psrjax.prepare.datasets import adapter, ntu_files, smpl_files
from psrjax.prepare.monocular import pipeline
from psrjax.vision import guidance

DEEP = "[" * 100_000 + "]" * 100_000
HUGE = "1" + "0" * 400
SIZE = (64, 48)


def joints(path):
    return joint_files.read(path, frames=3, size=SIZE)


def openpose_of(path):
    return openpose.read_openpose(path.parent, frames=1, size=SIZE)


FOREIGN = {
    "deep.json": (DEEP, [io.read_json, joints, calibration.read_calibration]),
    "0_keypoints.json": (DEEP, [openpose_of]),
    "ntu_nvs.json": (DEEP, [lambda path: ntu_files.gtnet_list(path.parent)]),
    "digits.json": ("[" + "1" * 5000 + "]", [io.read_json, joints]),
    "huge.json": (
        json.dumps([{"image_id": f"{HUGE}.jpg", "keypoints": [1, 2, 3] * 17}]), [joints]
    ),
    "frame.json": (json.dumps([{"frame_id": float("inf"), "keypoints": [[1, 2]]}]), [joints]),
    "none.json": ('[{"frame_id": null, "instances": 5}]', [joints]),
    "camera.json": (
        json.dumps({"a": {"K": np.eye(3).tolist(), "R": [0, 0, 0], "t": [0, 0, 0],
                          "image_size": [float("inf"), 1]}}), [calibration.read_calibration]
    ),
    "viewrotation.txt": (
        '<a><camera viewrotation="x"/></a>', [calibration.read_calibration]
    ),
    "short.skeleton": ("2 1 1", [joints, kinect_skeleton.read_skeleton]),
    "huge.skeleton": (f"{HUGE} 0", [kinect_skeleton.read_skeleton]),
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_text_is_named_in_one_line(name, tmp_path):
    text, readers = FOREIGN[name]
    (tmp_path / name).write_text(text)
    for read in readers:
        with pytest.raises(UserError, match=name) as told:
            read(tmp_path / name)
        assert "\n" not in str(told.value)


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("position", range(40, 600, 40))
def test_a_flipped_bit_in_joints_or_a_mesh_is_told(position, tmp_path):
    arrays = {
        "keypoints": np.ones((3, 1, 17, 3)),
        "verts": np.ones((2, 3, 3)),
        "faces": [[0, 1, 2]],
    }
    path = saved(tmp_path / "joints.npz", **arrays)
    data = bytearray(path.read_bytes())
    data[position] ^= 4
    path.write_bytes(bytes(data))
    for read in (joints, guidance.read_mesh):
        try:
            read(path)
        except UserError as error:
            assert "joints.npz" in str(error)


def test_smpl_parameters_that_are_no_numbers_are_told(tmp_path):
    for pose in (np.array("a"), np.zeros(0), np.zeros((0, 72)), np.array(5.0)):
        path = saved(tmp_path / "a.npz", pose=pose, betas=np.zeros(10))
        with pytest.raises(UserError, match=r"a\.npz"):
            smpl_files.read(path, 1)


NAMES = {
    "IMG_20240115_123001.jpg": [f"IMG_20240115_{123001 + n}.jpg" for n in range(3)],
    "frame numbers": ["0.jpg", "1.jpg", "2.jpg"],
    "from one": ["1.jpg", "2.jpg", "3.jpg"],
    "two cameras' shots": ["a_7.jpg", "b_7.jpg", "c_1.jpg"],
    "no digits": ["a.jpg", "b.jpg", "c.jpg"],
}


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_alphaposes_pictures_stand_in_order_whatever_their_names(names, tmp_path):
    rows = [
        {"image_id": name, "keypoints": [10.0 + n, 20.0, 0.9] * 17} for n, name in enumerate(names)
    ]
    (tmp_path / "a.json").write_text(json.dumps(rows[::-1]))
    found = joints(tmp_path / "a.json").frames
    assert [round(float(frame[0, 2, 0])) for frame in found] == [10, 11, 12]


def test_alphaposes_pictures_of_another_video_are_refused(tmp_path):
    rows = [{"image_id": "IMG_20240115_123001.jpg", "keypoints": [1.0, 2.0, 0.9] * 17}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    with pytest.raises(UserError, match=r"a\.json: .*not numbers of the video's 3 frames"):
        joints(tmp_path / "a.json")


@pytest.mark.parametrize("fps", [1e300, -1.0, float("nan"), float("inf")])
def test_a_rate_beyond_reason_is_refused(fps):
    for options in (pipeline.PreparationOptions, adapter.DatasetOptions):
        with pytest.raises(UserError, match="fps"):
            options(fps=fps)
    with pytest.raises(UserError, match="fps"):
        next(clip_reader.read_frames("video.mp4", fps=fps))
    with pytest.raises(UserError, match="margin and seconds"):
        pipeline.PreparationOptions(margin=float("nan"))


def test_a_gap_of_days_is_not_filled_frame_by_frame(tmp_path):
    path = tmp_path / "pause.mkv"
    times = np.array([0.0, 0.04, 0.08, 35 * 86400.0])
    video.write(path, np.zeros((4, 16, 16, 3), np.uint8), times=times, lossless=True)
    with pytest.raises(UserError, match=r"pause\.mkv: 3024000 seconds lie between frames 2 and 3"):
        for _ in clip_reader.read_frames(path, fps=25.0):
            pass
    assert len(list(clip_reader.read_frames(path))) == 4
