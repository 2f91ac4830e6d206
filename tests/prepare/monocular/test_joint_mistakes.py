"""A detector's mistakes are found where they were put, and nowhere in an honest walk."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from psrjax.data import codec, video
from psrjax.ops import pose
from psrjax.prepare.common import detector, openpose
from psrjax.prepare.monocular import joint_mistakes
from psrjax.vision import body

REAL = Path(__file__).parents[4] / "shared" / "media" / "balancing_multiview"
SIZE, SCALE, RATE = (240, 160), 100.0, 25.0
LEGS = ([9, 10, 11, 22, 23, 24], [12, 13, 14, 19, 20, 21])
TIMES = np.arange(60) / RATE


def walk(turn=0.0):
    """Joints (60, 26, 3) in pixels of a walk on the spot, turned by `turn` radians."""
    rest = np.repeat(body.template().joints[None], len(TIMES), 0)
    swing = 0.25 * np.sin(2 * np.pi * TIMES)[:, None]
    for side, (arm, leg) in ((1, ([3, 4], [10, 11, 22, 23, 24])), (-1, ([6, 7], LEGS[1][1:]))):
        rest[:, arm, 0] += side * swing * [0.5, 1.0]
        rest[:, leg, 0] -= side * swing
    across = rest[..., 1] * np.cos(turn) + rest[..., 0] * np.sin(turn)
    x, y = 80 + SCALE * across, 225 - SCALE * rest[..., 2]
    noise = np.random.default_rng(0).normal(0, 0.5, (2, *x.shape))
    return np.stack([x + noise[0], y + noise[1], np.full_like(x, 0.9)], -1).astype(np.float32)


def masks_of(joints):
    found = []
    for person in joints:
        mask = np.zeros(SIZE, np.uint8)
        for a, b in pose.LIMBS:
            ends = [tuple(int(v) for v in person[joint, :2]) for joint in (a, b)]
            cv2.line(mask, *ends, 255, 14)
        found.append(codec.encode_png(mask))
    return found


def exchanged(joints, frames, sides=LEGS):
    spoilt = joints.copy()
    right, left = sides
    for frame in frames:
        spoilt[frame, right + left] = joints[frame, left + right]
    return spoilt


@pytest.mark.parametrize("turn", [0.0, 0.8, np.pi / 2, np.pi])
def test_nothing_is_wrong_with_an_honest_walk(turn):
    joints = walk(turn)
    checked = joint_mistakes.check(joints, masks_of(joints), TIMES)
    assert checked.report() == {}
    np.testing.assert_array_equal(checked.joints, joints)


@pytest.mark.parametrize("rate", [10.0, 15.0, 30.0])
def test_quick_legs_that_pass_one_another_are_not_exchanged(rate):
    """A sprint seen from the side: three steps a second, a metre wide."""
    times = np.arange(60) / rate
    joints = walk(np.pi / 2)
    swing = SCALE * 0.5 * np.sin(3 * np.pi * times)
    for side, leg in zip((1, -1), LEGS):
        joints[:, leg[1:], 0] = 80 + side * swing[:, None] * [0.5, 1, 1.1, 1.1, 0.9]
    assert joint_mistakes.check(joints, [], times).report() == {}


@pytest.mark.parametrize("turn", [0.0, np.pi])  # seen from the front and from the back
def test_legs_exchanged_for_a_moment_are_put_back(turn):
    joints = walk(turn)
    checked = joint_mistakes.check(exchanged(joints, range(20, 31)), [], TIMES)
    assert checked.report() == {"exchanged": {"legs": [[20, 30]]}}
    np.testing.assert_array_equal(checked.joints, joints)


def test_arms_exchanged_in_one_frame_are_put_back():
    joints = walk()
    spoilt = exchanged(joints, [33], ([2, 3, 4], [5, 6, 7]))
    checked = joint_mistakes.check(spoilt, [], TIMES)
    assert checked.report()["exchanged"] == {"arms": [[33, 33]]}
    np.testing.assert_array_equal(checked.joints, joints)


def test_legs_exchanged_slowly_as_by_a_smoothing_detector_are_put_back():
    joints = walk()
    spoilt, other = joints.copy(), exchanged(joints, range(60))
    share = np.interp(np.arange(60), [18, 24, 34, 40], [0, 1, 1, 0])[:, None, None]
    spoilt[:, sum(LEGS, [])] = ((1 - share) * joints + share * other)[:, sum(LEGS, [])]
    checked = joint_mistakes.check(spoilt, [], TIMES)
    ((first, last),) = checked.report()["exchanged"]["legs"]
    assert 20 <= first <= 23 and 35 <= last <= 38
    np.testing.assert_array_equal(checked.joints[24:35], joints[24:35])


def test_a_moment_in_which_the_order_cannot_be_seen_does_not_hide_an_exchange():
    joints = walk()
    joints[26, [9, 12], 0] = joints[26, 8, 0]  # the hips, as from the side
    spoilt = exchanged(joints, range(22, 31))
    spoilt[[21, 31], 10:12] = spoilt[[21, 31], 13:15] = 0.0  # no jump is seen
    spoilt[[21, 31], 19:25] = 0.0
    checked = joint_mistakes.check(spoilt, [], TIMES)
    assert checked.report() == {"exchanged": {"legs": [[22, 30]]}}
    np.testing.assert_array_equal(checked.joints[22:31], joints[22:31])


def test_legs_that_stay_exchanged_are_listed_and_left():
    spoilt = exchanged(walk(), range(22, 60))
    checked = joint_mistakes.check(spoilt, [], TIMES)
    assert checked.report() == {"perhaps exchanged": {"legs": [[22, 59]]}}
    np.testing.assert_array_equal(checked.joints, spoilt)


def test_a_joint_outside_the_mask_is_left_out_unless_the_mask_is_at_fault():
    joints = walk()
    masks = masks_of(joints)
    spoilt = joints.copy()
    spoilt[12:15, 4, :2] = 12, 190  # the right wrist, beside the person
    checked = joint_mistakes.check(spoilt, masks, TIMES)
    assert checked.report()["outside the person"] == {"right wrist": [[12, 14]]}
    assert (checked.joints[12:15, 4] == 0).all()
    kept = np.ones((60, 26), bool)
    kept[12:15, 4] = False
    np.testing.assert_array_equal(checked.joints[kept], joints[kept])
    elsewhere = np.zeros(SIZE, np.uint8)
    elsewhere[:20, :20] = 255
    checked = joint_mistakes.check(joints, [codec.encode_png(elsewhere)] * 60, TIMES)
    assert checked.report() == {}


def test_a_limb_that_is_too_long_loses_its_end():
    joints = walk()
    spoilt = joints.copy()
    spoilt[40, 14, 1] -= 150  # the left ankle above the head
    checked = joint_mistakes.check(spoilt, [], TIMES)
    assert checked.report()["limb too long"]["left ankle"] == [[40, 40]]
    assert (checked.joints[40, 14] == 0).all() and (checked.joints[40, 13] == joints[40, 13]).all()


@pytest.mark.slow
def test_a_real_balancer_whom_mediapipe_turns_around_is_turned_back():
    """Another detector (OpenPose) says which side is which."""
    if not REAL.is_dir():
        pytest.skip("../shared/media/balancing_multiview is absent")
    if not detector.installed():
        pytest.skip("MediaPipe is not installed: psrjax prepare makes its environment")
    film = list(video.decode(REAL / "videos" / "cam02.mp4"))
    with detector.PoseDetector() as mediapipe:
        found = list(mediapipe.detect(frame.image for frame in film))
    joints = np.stack([one.joints for one in found])
    masks = [codec.encode_png(one.mask) for one in found]
    checked = joint_mistakes.check(joints, masks, np.array([frame.time for frame in film]))
    people = openpose.read_openpose(REAL / "pose" / "cam02_json", frames=len(film)).frames
    true = np.stack([max(here, key=openpose.height) for here in people])

    def mistaken(joints):
        """The share of pairs (elbows, wrists, knees, ankles) that lie on the contrary sides."""
        wrong = []
        for pair in ((3, 6), (4, 7), (10, 13), (11, 14)):
            here, there = joints[:, pair], true[:, pair]
            seen = (here[..., 2] > 0).all(1) & (there[..., 2] > 0.3).all(1)
            same, crossed = (
                np.linalg.norm(here[..., :2] - one[..., :2], axis=-1).sum(1)
                for one in (there, there[:, ::-1])
            )
            wrong += (crossed < same)[seen & (np.abs(crossed - same) > 40)].tolist()
        return np.mean(wrong)

    assert mistaken(joints) > 0.25 and mistaken(checked.joints) < 0.02
