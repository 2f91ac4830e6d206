"""Eq. 1: heads at the driving clip's extremes come to lie at the target's extremes."""

import numpy as np
import pytest

from psrjax.errors import UserError
from psrjax.ops import pose, pose_normalization

NOSE, ANKLES = 0, [pose.NAMES.index(n) for n in ("right ankle", "left ankle")]


def clip(heads, ankles=None, seed=0):
    """A person whose nose and ankles have these y; all else is anywhere."""
    rng = np.random.default_rng(seed)
    joints = np.concatenate(
        [rng.uniform(-1, 1, (len(heads), 26, 2)), np.ones((len(heads), 26, 1))], -1
    )
    joints[:, NOSE, 1] = heads
    joints[:, ANKLES, 1] = np.reshape(heads if ankles is None else ankles, (-1, 1))
    return joints.astype(np.float32)


LONG = np.repeat([-0.4, 0.0, 0.4], 20)  # long enough that smoothing leaves the ends alone


def test_the_extremes_of_the_driving_clip_become_those_of_the_target():
    target = clip([-0.7, -0.5, -0.3])
    moved = pose_normalization.normalize(clip(LONG), target)[:, NOSE, 1]
    np.testing.assert_allclose(moved[[0, 30, 59]], [-0.7, -0.5, -0.3], atol=1e-6)


def test_all_joints_of_a_frame_move_alike_and_only_vertically():
    driving = clip(LONG)
    driving[:, 5] = 0.0  # a missing joint stays missing
    moved = pose_normalization.normalize(driving, clip([-0.9, 0.2]))
    np.testing.assert_array_equal(moved[..., [0, 2]], driving[..., [0, 2]])
    np.testing.assert_array_equal(moved[:, 5], 0.0)
    shift = np.delete(moved[..., 1] - driving[..., 1], 5, axis=1)
    np.testing.assert_allclose(shift, shift[:, :1].repeat(25, 1), atol=1e-6)


def test_the_ankle_rule_looks_at_the_ankles():
    driving, target = clip(LONG, ankles=LONG / 2), clip([0.0, 0.1], ankles=[0.7, 0.9])
    moved = pose_normalization.normalize(driving, target, rule="ankle")
    np.testing.assert_allclose(moved[[0, 59]][:, ANKLES, 1], [[0.7] * 2, [0.9] * 2], atol=1e-6)


def test_a_still_head_goes_to_where_another_still_one_is_and_is_not_shaken():
    driving = clip(0.5 + 0.02 * np.sin(np.arange(40)))
    moved = pose_normalization.normalize(driving, clip([-0.24, -0.16]))
    shift = (moved - driving)[..., 1]
    np.testing.assert_allclose(shift, shift[0, 0], atol=1e-6)
    assert moved[:, NOSE, 1].mean() == pytest.approx(-0.2, abs=1e-3)


@pytest.mark.parametrize("swapped", [False, True])
def test_a_still_head_is_not_stretched_to_a_squatting_ones_range_nor_the_reverse(swapped, caplog):
    still, squatting = clip(-0.5 + 0.02 * np.sin(np.arange(40))), clip(LONG)
    driving, target = (squatting, still) if swapped else (still, squatting)
    caplog.set_level("WARNING", logger="absl")
    assert pose_normalization.normalize(driving, target) is driving
    assert "over 2.0%" in caplog.text and "over 40.0%" in caplog.text


def test_one_constant_shift_is_that_of_the_mean():
    target = clip([-0.7, -0.3])
    driving = clip(LONG)
    moved = pose_normalization.normalize(driving, target, position="constant")
    np.testing.assert_allclose((moved - driving)[..., 1], -0.5, atol=1e-6)


def test_frames_without_the_nose_use_eyes_or_ears_and_without_a_head_their_neighbours():
    driving = clip(LONG)
    eyes = [pose.NAMES.index(n) for n in ("right eye", "left eye")]
    driving[10, eyes, 1] = driving[10, NOSE, 1] = -0.4
    whole = pose_normalization.normalize(driving, clip([0, 1]))
    driving[10, NOSE] = 0.0
    np.testing.assert_allclose(pose_normalization.normalize(driving, clip([0, 1]))[11], whole[11])
    driving[10, [NOSE, *eyes, 17, 18]] = 0.0
    np.testing.assert_allclose(pose_normalization.normalize(driving, clip([0, 1]))[11], whole[11])


def test_a_clip_without_a_head_is_told():
    driving = clip(LONG)
    driving[:, [0, 15, 16, 17, 18]] = 0.0
    with pytest.raises(
        UserError, match=r"driving clip has no head \(nose, eyes or ears\) in any of"
    ):
        pose_normalization.normalize(driving, clip([0, 1]))
    assert pose_normalization.normalize(driving, clip([0, 1]), rule="none") is driving


def test_another_joint_set_is_told():
    with pytest.raises(UserError, match="has 21 joints, the training clip 26"):
        pose_normalization.check_same_joints(clip(LONG)[:, :21], clip(LONG))
    without_eyes = pose.convert(pose.convert(clip(LONG), "body26", "mpii14"), "mpii14", "body26")
    with pytest.raises(UserError, match="never shows nose, .*another joint set"):
        pose_normalization.check_same_joints(without_eyes, clip(LONG))
    pose_normalization.check_same_joints(clip(LONG, seed=3), clip(LONG))


def test_unknown_words_are_told():
    with pytest.raises(UserError, match="no rule 'toe'; there are head, ankle, none"):
        pose_normalization.normalize(clip(LONG), clip(LONG), rule="toe")
