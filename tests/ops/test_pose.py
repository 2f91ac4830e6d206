"""The table of joints: layouts as data_formats lists them, conversions, mirror images."""

import numpy as np
import pytest

from psrjax.errors import UserError
from psrjax.ops import pose

COCO_17 = (
    *("nose", "left eye", "right eye", "left ear", "right ear", "left shoulder"),
    *("right shoulder", "left elbow", "right elbow", "left wrist", "right wrist", "left hip"),
    *("right hip", "left knee", "right knee", "left ankle", "right ankle"),
)


def random_joints(count=26, seed=0):
    generator = np.random.default_rng(seed)
    joints = generator.uniform(-1, 1, (4, count, 3)).astype(np.float32)
    joints[..., 2] = generator.uniform(0.2, 1, joints.shape[:-1])
    return joints


def test_coco_17_has_coco_s_order():
    names = [pose.NAMES[row] for row in pose.LAYOUTS["coco17"].view]
    assert tuple(names) == COCO_17


def test_coco_18_is_body_25_without_the_middle_hip_and_the_feet():
    joints = random_joints()
    expected = joints[:, [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18]]
    np.testing.assert_array_equal(pose.convert(joints, "body26", "coco18"), expected)


def test_the_14_joints_are_head_top_neck_then_coco_18():
    joints = random_joints()
    coco = pose.convert(joints, "body26", "coco18")
    fourteen = pose.convert(joints, "body26", "mpii14")
    np.testing.assert_array_equal(fourteen[:, 0], joints[:, 25])
    np.testing.assert_array_equal(fourteen[:, 1:], coco[:, 1:14])


def test_ntu_25_has_left_and_right_where_the_kinect_has_them():
    joints = random_joints()
    ntu = pose.convert(joints, "body26", "ntu25")
    one_based = {
        5: 5,
        6: 6,
        7: 7,
        9: 2,
        10: 3,
        11: 4,
        13: 12,
        14: 13,
        15: 14,
        17: 9,
        18: 10,
        19: 11,
    }
    for kinect, ours in one_based.items():
        np.testing.assert_array_equal(ntu[:, kinect - 1], joints[:, ours])
    np.testing.assert_array_equal(ntu[:, 20], joints[:, 1])  # spine-shoulder is the neck


def test_body_25b_s_neck_and_middle_hip_are_means():
    theirs = random_joints(25)
    ours = pose.convert(theirs, "body25b", "body26")
    np.testing.assert_allclose(ours[:, 1, :2], theirs[:, [5, 6], :2].mean(1), atol=1e-6)
    np.testing.assert_allclose(ours[:, 8, :2], theirs[:, [11, 12], :2].mean(1), atol=1e-6)
    np.testing.assert_array_equal(ours[:, 25], theirs[:, 18])
    np.testing.assert_array_equal(ours[:, 19:25], theirs[:, 19:25])


@pytest.mark.parametrize("name", pose.LAYOUTS)
def test_what_a_layout_knows_comes_back_unchanged(name):
    theirs = pose.convert(random_joints(), "body26", name)
    again = pose.convert(pose.convert(theirs, name, "body26"), "body26", name)
    kept = again[..., 2] > 0
    single = [i for i, row in enumerate(pose.LAYOUTS[name].view) if isinstance(row, int)]
    same = kept[:, single]
    assert same.mean() > 0.7
    np.testing.assert_allclose(again[:, single, :2][same], theirs[:, single, :2][same], atol=1e-6)


def test_a_missing_joint_never_enters_a_mean():
    theirs = random_joints(17)
    theirs[:, 5] = 0  # the left shoulder
    ours = pose.convert(theirs, "coco17", "body26")
    assert (ours[:, 1] == 0).all() and (ours[:, 5] == 0).all()
    assert (ours[:, 8, 2] > 0).all()


def test_confidence_of_a_mean_is_the_lowest():
    theirs = random_joints(17)
    ours = pose.convert(theirs, "coco17", "body26")
    np.testing.assert_array_equal(ours[:, 1, 2], theirs[:, [5, 6], 2].min(1))


@pytest.mark.parametrize("name", pose.LAYOUTS)
def test_flipping_swaps_sides_and_twice_is_nothing(name):
    joints = pose.convert(random_joints(), "body26", name)
    flipped = pose.flip(joints, name)
    np.testing.assert_array_equal(pose.flip(flipped, name), joints)
    assert sorted(pose.layout(name).mirror) == list(range(pose.layout(name).count))


def test_flip_puts_the_left_wrist_where_the_right_one_s_image_is():
    joints = random_joints()
    flipped = pose.flip(joints)
    left, right = pose.NAMES.index("left wrist"), pose.NAMES.index("right wrist")
    np.testing.assert_array_equal(flipped[:, left, 0], -joints[:, right, 0])
    np.testing.assert_array_equal(flipped[:, left, 1:], joints[:, right, 1:])


@pytest.mark.parametrize("name", pose.LAYOUTS)
def test_limbs_of_one_side_have_a_twin_on_the_other(name):
    layout = pose.layout(name)
    limbs = {frozenset(limb) for limb in layout.limbs}
    assert limbs and max(max(limb) for limb in limbs) < layout.count
    twins = {frozenset(layout.mirror[joint] for joint in limb) for limb in limbs}
    assert twins == limbs


def test_bare_points_convert_alike():
    points = np.random.default_rng(0).normal(size=(3, 26, 3))
    ntu = pose.convert_points(points, "ntu25")
    np.testing.assert_array_equal(ntu[:, 4], points[:, 5])
    np.testing.assert_allclose(ntu[:, 1], points[:, [1, 8]].mean(1))


def test_unknown_layouts_and_wrong_counts_are_named():
    with pytest.raises(UserError, match="coco18"):
        pose.layout("coco19")
    with pytest.raises(UserError, match="17 joints, not 26"):
        pose.convert(random_joints(), "coco17", "body26")
