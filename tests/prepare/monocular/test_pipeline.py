"""Preparation of a clip: person, windows, masks, flow, background, against known truth."""

import struct

import cv2
import numpy as np
import pytest
import stick_person

from psrjax.data import codec, spec, video
from psrjax.errors import UserError
from psrjax.ops import geometry
from psrjax.prepare.common import clip_reader, detector, masking
from psrjax.prepare.monocular import bystanders, person_crop, pipeline
from psrjax.vision import backgrounds


def clip_of(folder, scene, name="scene.mkv", people=None, **changes):
    """A clip whose joints come from OpenPose files."""
    path = stick_person.write_video(folder / name, scene)
    people = [[one] for one in scene.joints] if people is None else people
    joints = stick_person.write_openpose(folder / f"{path.stem}_json", people)
    return pipeline.VideoClip(str(path), path.stem, str(joints), **changes)


@pytest.fixture(scope="module")
def scene():
    return stick_person.make_scene(20)


@pytest.fixture(scope="module")
def prepared(scene, tmp_path_factory):
    clip = clip_of(tmp_path_factory.mktemp("clip"), scene, meta={"person": "somebody"})
    return pipeline.prepare_clip(clip, pipeline.PreparationOptions(size=(64, 64)))


def in_window(image, box):
    return clip_reader.crop(image, tuple(box), (64, 64))


def test_joints_lie_where_they_were_drawn(scene, prepared):
    top, left, height, width = prepared.report["box"]
    places = geometry.unit_to_pixels(prepared.joints[..., :2], height=64, width=64)
    expected = (scene.joints[..., :2] + 0.5 - [left, top]) * [64 / width, 64 / height] - 0.5
    known = list(range(25))  # BODY_25 has no head top
    np.testing.assert_allclose(places[:, known], expected[:, known], atol=1e-3)
    assert np.abs(places[:, 25] - expected[:, 25]).max() < 0.03 * stick_person.TALL  # guessed
    assert (prepared.joints[:, 25, 2] <= 0.3).all() and prepared.report["filled"]["head top"]


def test_masks_are_the_person(scene, prepared):
    box = prepared.report["box"]
    truth = np.stack([in_window(np.uint8(255) * m, box) for m in scene.masks]) > 127
    overlaps = [backgrounds.overlap(a, b) for a, b in zip(prepared.masks > 127, truth)]
    assert np.mean(overlaps) > 0.85


def test_the_background_is_the_wall_without_the_person(scene, prepared):
    wall = in_window(scene.wall, prepared.report["box"]).astype(int)
    seen = ~in_window(np.uint8(255) * scene.masks.all(0), prepared.report["box"]).astype(bool)
    error = np.abs(prepared.background.astype(int) - wall).max(-1)
    assert np.median(error) <= 1 and np.mean(error[seen] > 12) < 0.05


def test_streams_fulfil_the_contract_and_come_in_runs(prepared, monkeypatch):
    monkeypatch.setattr(pipeline, "RUN", 6)
    runs = list(prepared.views(prepared.pieces[0]))
    assert [run.start for run in runs] == [0, 6, 12, 18]
    monkeypatch.undo()
    (whole,) = prepared.views(prepared.pieces[0])
    for name, values in whole.streams.items():
        if name != "background":
            np.testing.assert_array_equal(np.concatenate([r.streams[name] for r in runs]), values)
    codec.encode(whole)  # checks types and shapes
    batch = {
        "target": whole.streams["frames"],
        "target_joints": whole.streams["joints"],
        "target_flow": whole.streams["flow"],
        "target_mask": whole.streams["mask"][..., None],
        "target_flow_confidence": whole.streams["flow_confidence"][..., None],
        "background": whole.streams["background"],
    }
    spec.check({key: value[None] for key, value in batch.items()}, batch)
    assert not whole.streams["flow"][0].any() and whole.meta["person"] == "somebody"


def test_flow_carries_the_person_from_frame_to_frame(scene, prepared):
    (view,) = prepared.views(prepared.pieces[0])
    scale = 64 / prepared.report["box"][3]
    body = prepared.masks[10] > 200
    sure = view.streams["flow_confidence"][10] > 200
    step = view.streams["flow"][10][body & sure].astype(float)
    expected = -2.0 * scale  # he walks two pixels a frame to the right; small pictures damp it
    assert 0.5 < np.median(step[:, 0]) / expected < 1.2
    assert abs(np.median(step[:, 1])) < 0.2
    room = (prepared.masks[8:12].max(0) < 10) & sure
    assert np.abs(view.streams["flow"][10][room].astype(float)).mean() < 0.1


def test_the_same_clip_gives_the_same_bits(scene, prepared, tmp_path):
    again = pipeline.prepare_clip(
        clip_of(tmp_path, scene, meta={"person": "somebody"}),
        pipeline.PreparationOptions(size=(64, 64)),
    )
    for name in ("frames", "masks", "joints", "background", "times"):
        np.testing.assert_array_equal(getattr(again, name), getattr(prepared, name))


def test_a_clip_too_long_for_memory_gives_the_same_or_says_that_there_is_no_room(
    scene, prepared, tmp_path, monkeypatch
):
    monkeypatch.setattr(pipeline, "_IN_MEMORY", 1000)
    clip = clip_of(tmp_path, scene, meta={"person": "somebody"})
    found = pipeline.prepare_clip(clip, pipeline.PreparationOptions(size=(64, 64)))
    assert isinstance(found.frames, np.memmap)
    for name in ("frames", "masks", "background"):
        np.testing.assert_array_equal(getattr(found, name), getattr(prepared, name))

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pipeline.os, "posix_fallocate", full)
    with pytest.raises(UserError, match="no room for .* GB of frames.*TMPDIR"):
        pipeline.prepare_clip(clip, pipeline.PreparationOptions(size=(64, 64)))


@pytest.mark.parametrize("crop", pipeline.CROPS)
@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_a_joint_s_pixel_in_the_video_is_at_the_joint_in_the_window(crop, size):
    """A white dot on a black scene marks one joint; it is where the window's joints say."""
    scene = stick_person.make_scene(10, walk=5.0)
    boxes = person_crop.boxes(
        scene.joints.astype(np.float32), [], np.arange(10) / 25, stick_person.SIZE,
        size=size, crop=crop, margin=0.1,
    )  # fmt: skip
    places = person_crop.to_windows(scene.joints.astype(np.float32), boxes, size)
    assert len({tuple(box) for box in boxes[:, 2:]}) == 1  # one scale
    for time in (0, 4, 9):
        x, y = np.round(scene.joints[time, 8, :2]).astype(int)
        black = np.zeros((*stick_person.SIZE, 3), np.uint8)
        black[y - 1 : y + 2, x - 1 : x + 2] = 255
        shown = clip_reader.crop(black, tuple(boxes[time]), size).astype(float)[..., 0]
        rows, columns = np.indices(size)
        centre = (columns * shown).sum() / shown.sum(), (rows * shown).sum() / shown.sum()
        assert np.abs(np.asarray(centre) - places[time, 8, :2]).max() < 1.0


def test_a_fixed_window_holds_the_person_at_all_times_and_a_followed_one_goes_along():
    scene = stick_person.make_scene(12, walk=4.0)
    known = dict(
        masks=[], times=np.arange(12) / 25, picture=stick_person.SIZE, size=(64, 64), margin=0.1
    )
    joints = scene.joints.astype(np.float32)
    fixed = person_crop.boxes(joints, crop="fixed", **known)
    assert (fixed == fixed[0]).all()
    follow = person_crop.boxes(joints, crop="follow", **known)
    assert follow[0, 2] < fixed[0, 2] and np.ptp(follow[:, 1]) > 15
    for boxes in (fixed, follow):
        places = person_crop.to_windows(joints, boxes, (64, 64))[:, :25, :2]
        assert places.min() > -1 and places.max() < 64
    scales = joints[:, 0, 0] - follow[:, 1]
    assert np.ptp(scales) < np.ptp(joints[:, 0, 0]) / 2  # he stays near the middle


def test_a_window_reaches_beyond_the_picture_only_for_the_person():
    joints = stick_person.person(64, 93, 0.1, 88.0).astype(np.float32)[None].repeat(3, 0)
    known = dict(
        masks=[], times=np.arange(3.0), picture=stick_person.SIZE, size=(64, 64), crop="fixed"
    )
    box = person_crop.boxes(joints, margin=0.3, **known)[0]
    assert box[0] == 0 and box[2] == stick_person.SIZE[0]
    scene = stick_person.make_scene(3, size=(96, 256), walk=90.0)
    wide = person_crop.boxes(
        scene.joints.astype(np.float32), margin=0.0, **(known | {"picture": (96, 256)})
    )[0]
    assert wide[2] > 96 and wide[0] < 0  # black bars, for he walks farther than the picture is tall


def test_a_clip_cropped_to_follow_has_no_background(scene, tmp_path):
    clip = clip_of(tmp_path, scene)
    found = pipeline.prepare_clip(clip, pipeline.PreparationOptions(size=(48, 48), crop="follow"))
    assert found.background is None
    (view,) = found.views(found.pieces[0])
    assert "background" not in view.streams


@pytest.mark.parametrize("shift", [0.0, 0.5, 3.0])
def test_camera_motion_is_measured(shift):
    wide = stick_person.wall((96, 192))
    offsets = np.arange(9) * shift
    frames = [
        cv2.warpAffine(wide, np.float32([[1, 0, -offset], [0, 1, 0]]), (128, 96))
        for offset in offsets
    ]
    masks = np.zeros((9, 96, 128), np.uint8)
    moved = masking.camera_motion(np.stack(frames), masks)
    np.testing.assert_allclose(moved, 4 * shift / 128, atol=0.003)


def test_masks_where_the_camera_moves_follow_the_colours(scene):
    frames = np.stack([np.roll(f, 3 * t, axis=1) for t, f in enumerate(scene.frames[:4])])
    truth = np.stack([np.roll(m, 3 * t, axis=1) for t, m in enumerate(scene.masks[:4])])
    joints = scene.joints[:4].astype(np.float32)
    joints[..., 0] += 3 * np.arange(4)[:, None]
    masks = masking.masks_by_colour(frames, joints)
    assert np.mean([backgrounds.overlap(a > 0, b) for a, b in zip(masks, truth)]) > 0.75


def test_stature_is_read_off_the_limbs(scene):
    found = masking.stature(scene.joints.astype(np.float32))
    assert abs(found - stick_person.TALL) < 0.1 * stick_person.TALL


def test_uneven_times_are_kept(scene, tmp_path):
    times = np.cumsum([0.0, *([0.033, 0.067] * 10)])[:20]
    path = tmp_path / "phone.mp4"
    video.write(path, scene.frames, times=times)
    joints = stick_person.write_openpose(tmp_path / "json", [[one] for one in scene.joints])
    found = pipeline.prepare_clip(pipeline.VideoClip(str(path), "phone", str(joints)))
    (view,) = found.views(found.pieces[0])
    np.testing.assert_allclose(view.meta["times"], times, atol=1e-4)
    assert not found.report["even_times"]


def test_a_rate_chooses_what_is_shown_at_its_ticks(scene, tmp_path):
    times = np.array([0.0, 0.1, 0.15, 0.2, 0.5, 0.6])
    video.write(tmp_path / "a.mp4", scene.frames[:6], times=times)
    found = list(clip_reader.read_frames(tmp_path / "a.mp4", fps=10.0))
    assert [frame.number for frame in found] == [0, 1, 3, 3, 3, 4, 5]
    np.testing.assert_allclose([frame.time for frame in found], np.arange(7) / 10)


def test_television_s_rate_is_not_rounded(scene, tmp_path):
    video.write(tmp_path / "a.mp4", scene.frames, fps=30000 / 1001)
    joints = stick_person.write_openpose(tmp_path / "json", [[one] for one in scene.joints])
    clip = pipeline.VideoClip(str(tmp_path / "a.mp4"), "a", str(joints))
    found = pipeline.prepare_clip(clip)
    (view,) = found.views(found.pieces[0])
    assert abs(view.meta["fps"] - 30000 / 1001) < 1e-3 and "times" not in view.meta


def test_a_rotated_phone_video_is_upright(scene, tmp_path):
    lying = np.rot90(scene.frames, 1, axes=(1, 2))
    path = tmp_path / "phone.mp4"
    video.write(path, lying)
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd") + 4 + 4 + 4 * 5 + 8 + 2 * 4
    one = 1 << 16
    data[header : header + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 96 * one, 0, 1 << 30)
    path.write_bytes(data)
    joints = stick_person.write_openpose(tmp_path / "json", [[one] for one in scene.joints])
    found = pipeline.prepare_clip(pipeline.VideoClip(str(path), "phone", str(joints)))
    assert found.report["video_size"] == list(stick_person.SIZE)
    upright = clip_reader.crop(scene.frames[0], tuple(found.report["box"]), (128, 128))
    assert np.abs(found.frames[0].astype(int) - upright).mean() < 6  # H.264 and no more


def test_a_folder_of_pictures_is_a_clip_in_the_order_of_its_numbers(scene, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(scene.frames[:12]):
        (folder / f"{number}.jpg").write_bytes(codec.encode_png(frame))  # a PNG by another name
    read = list(clip_reader.read_frames(folder))
    np.testing.assert_array_equal([frame.image for frame in read], scene.frames[:12])
    np.testing.assert_allclose([frame.time for frame in read], np.arange(12) / 25)
    (folder / "5.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="5.jpg: not a picture"):
        list(clip_reader.read_frames(folder))


def test_pieces_are_cut_by_seconds_or_the_end_is_held_out():
    times = np.arange(100) / 10.0
    clip = pipeline.VideoClip("a.mp4", "a")
    cut = pipeline.cut_pieces(clip, times, pipeline.PreparationOptions(seconds=3.0))
    assert [(p.start, p.stop) for p in cut] == [(0, 30), (30, 60), (60, 100)]  # the rest is short
    assert [p.name for p in cut] == ["a_0", "a_1", "a_2"]
    held = pipeline.cut_pieces(clip, times, pipeline.PreparationOptions(holdout=0.1))
    assert [(p.name, p.split, p.start, p.stop) for p in held] == [
        ("a_train", "train", 0, 90),
        ("a_test", "test", 90, 100),
    ]
    assert pipeline.cut_pieces(clip, times, pipeline.PreparationOptions()) == (
        pipeline.Piece("a", "train", 0, 100),
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop": "round"}, "none of fixed"),
        ({"size": (8, 8)}, "too small"),
        ({"holdout": 1.0}, r"\[0, 1\)"),
        ({"fps": -1.0}, "fps -1: frames per second lie in"),
    ],
)
def test_options_that_make_no_sense_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        pipeline.PreparationOptions(**change)


# Problems of a clip, by their names in the report.


def problems(folder, scene, size=(64, 64), people=None, **options):
    clip = clip_of(folder, scene, people=people)
    report = pipeline.prepare_clip(clip, pipeline.PreparationOptions(size=size, **options)).report
    assert all(problem["detail"] and problem["advice"] for problem in report["problems"])
    return {problem["what"] for problem in report["problems"]}


def test_a_good_clip_has_no_problems(tmp_path):
    assert problems(tmp_path, stick_person.make_scene(60, walk=0.8)) == set()


def test_a_short_clip_and_a_small_person_are_reported(tmp_path, scene):
    assert problems(tmp_path, scene, size=(256, 256)) == {"too short", "too small"}


def test_several_people_are_reported(tmp_path):
    scene = stick_person.make_scene(60, walk=0.3, others=[(100, 50)])
    people = [[one, stick_person.person(100, 88, 0.1, 50)] for one in scene.joints]
    assert "several people" in problems(tmp_path, scene, people=people)


class OneAtATime:
    """A detector of one person only: the tallest component of saturated red."""

    def detect(self, frames):
        for frame in frames:
            red = (frame[..., 0] > 80) & (frame[..., 2] > 150) & (frame[..., 1] < 100)
            count, labels, stats, _ = cv2.connectedComponentsWithStats(red.astype(np.uint8))
            mask = np.zeros(red.shape, np.uint8)
            joints = np.zeros((26, 3), np.float32)
            if count > 1:
                largest = 1 + stats[1:, cv2.CC_STAT_HEIGHT].argmax()
                left, top, width, tall, _ = stats[largest]
                mask = np.uint8(255) * (labels == largest)
                if tall > 10:
                    joints = stick_person.person(left + width / 2, top + tall, 0.1, tall)
            yield detector.Detection(joints.astype(np.float32), mask)


@pytest.mark.parametrize(("others", "seen"), [([], 0.0), ([(100, 50)], 1.0), ([(100, 20)], 0.0)])
def test_bystanders_are_found_with_a_detector_of_one_person(others, seen):
    scene = stick_person.make_scene(20, walk=0.3, others=others)
    sample = bystanders.FrameSample()
    found = list(OneAtATime().detect(sample.passing(scene.frames)))
    assert bystanders.LOOKS <= len(sample.kept) < 2 * bystanders.LOOKS
    share = bystanders.bystander_fraction(
        sample.kept,
        np.stack([one.joints for one in found]),
        [codec.encode_png(one.mask) for one in found],
        OneAtATime(),
    )
    assert share == seen


def test_a_detected_clip_has_its_masks_and_its_problems(tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "shared_detector", OneAtATime)
    scene = stick_person.make_scene(50, walk=0.3, others=[(100, 50)])
    clip = pipeline.VideoClip(str(stick_person.write_video(tmp_path / "a.mkv", scene)), "a")
    found = pipeline.prepare_clip(clip, pipeline.PreparationOptions(size=(64, 64)))
    assert "several people" in {problem["what"] for problem in found.report["problems"]}
    truth = [in_window(np.uint8(255) * m, found.report["box"]) > 127 for m in scene.masks]
    overlaps = [backgrounds.overlap(a > 127, b) for a, b in zip(found.masks, truth)]
    assert np.mean(overlaps) > 0.8


def test_missing_joints_and_a_missing_person_are_reported(tmp_path):
    scene = stick_person.make_scene(60, walk=0.8)
    joints = scene.joints.copy()
    joints[10:30, 7] = 0.0
    people = [[one] for one in joints]
    people[40:50] = [[]] * 10
    assert problems(tmp_path, scene, people=people) >= {"missing joints", "person missing"}


def test_a_moving_camera_is_reported(tmp_path):
    scene = stick_person.make_scene(60, walk=0.0)
    moving = np.stack([np.roll(frame, t // 4, axis=1) for t, frame in enumerate(scene.frames)])
    joints = scene.joints.copy()
    joints[..., 0] += (np.arange(60) // 4)[:, None]
    scene = stick_person.StickScene(moving, joints, scene.masks, scene.wall)
    assert "moving camera" in problems(tmp_path, scene)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_video_rotated_the_wrong_way_is_reported(quarters, tmp_path):
    scene = stick_person.make_scene(12)
    height, width = stick_person.SIZE
    frames = np.rot90(scene.frames, quarters, axes=(1, 2))
    joints = scene.joints.copy()
    for _ in range(quarters):  # counterclockwise: what was right is above
        joints[..., 0], joints[..., 1] = joints[..., 1].copy(), width - 1 - joints[..., 0]
        height, width = width, height
    scene = stick_person.StickScene(np.ascontiguousarray(frames), joints, scene.masks, scene.wall)
    assert "person not upright" in problems(tmp_path, scene)


def test_a_background_that_is_never_visible_is_reported(tmp_path):
    assert "background guessed" in problems(tmp_path, stick_person.make_scene(50, walk=0.0))
