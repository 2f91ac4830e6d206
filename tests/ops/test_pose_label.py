"""Pose labels show every joint and limb where it is."""

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from psrjax.errors import UserError
from psrjax.ops import geometry, pose, pose_label

COCO = pose.layout("coco18")


def joints(seed=0, missing=()):
    rng = np.random.default_rng(seed)
    made = np.concatenate([rng.uniform(-0.8, 0.8, (1, 26, 2)), np.ones((1, 26, 1))], -1)
    made[:, [COCO.view[i] for i in missing]] = 0.0
    return made.astype(np.float32)


def pixels(made, height, width):
    points = geometry.unit_to_pixels(made[0, list(COCO.view), :2], height=height, width=width)
    return np.asarray(points)


def test_a_disc_is_every_pixel_within_the_radius_and_empty_for_a_missing_joint():
    made = joints(missing=(3,))
    found = np.asarray(pose_label.discs(jnp.asarray(made), height=128, width=96))[0]
    points = pixels(made, 128, 96)
    for y in range(128):
        for x in range(96):
            expected = [np.hypot(x - px, y - py) <= 2.0 for px, py in points]
            expected[3] = False
            np.testing.assert_array_equal(found[y, x], expected)


def test_the_distance_map_of_a_limb_is_its_l1_distance():
    made = joints(seed=1, missing=(4,))
    found = np.asarray(pose_label.limb_distances(jnp.asarray(made), height=64, width=64))[0]
    points = pixels(made, 64, 64)
    for number, (start, end) in enumerate(COCO.limbs):
        if 4 in (start, end):
            np.testing.assert_array_equal(found[..., number], 1.0)
            continue
        canvas = np.full((64, 64), 255, np.uint8)
        ends = [tuple(int(v) for v in np.round(points[i])) for i in (start, end)]
        cv2.line(canvas, *ends, 0)
        expected = cv2.distanceTransform(canvas, cv2.DIST_L1, 3)
        assert np.abs(found[..., number] * 255 * 3 - expected).max() <= 2.0  # rounding of the line


def test_sticks_lie_between_their_joints_in_openpose_colours():
    made = np.zeros((1, 26, 3), np.float32)
    neck, shoulder = (COCO.view[i] for i in (1, 2))
    made[0, neck], made[0, shoulder] = (-0.5, 0.0, 1.0), (0.5, 0.0, 1.0)
    found = np.asarray(pose_label.stick_figure(jnp.asarray(made), height=256, width=256))[0]
    np.testing.assert_allclose(found[127, 127], [0.6, 0, 0], atol=1e-6)  # limb 0 is red
    assert not found[127 - 6].any() and not found[127 + 6].any()  # half its width is 4 pixels
    assert not found[:, : 64 - 6].any() and not found[:, 192 + 6 :].any()


@pytest.mark.parametrize(
    ("start", "end", "color"),
    [
        ("left ankle", "left big toe", (0, 0, 255)),
        ("right ankle", "right heel", (0, 255, 255)),
        ("neck", "middle hip", (255, 0, 0)),
        ("middle hip", "right hip", (0, 255, 85)),
    ],
)
def test_body_25_draws_feet_and_hips_as_openpose_colours_them(start, end, color):
    made = np.zeros((1, 26, 3), np.float32)
    made[0, [pose.NAMES.index(start), pose.NAMES.index(end)]] = (-0.5, 0, 1), (0.5, 0, 1)
    draw = lambda **more: np.asarray(  # noqa: E731
        pose_label.stick_figure(jnp.asarray(made), height=256, width=256, **more)
    )[0]
    np.testing.assert_allclose(draw(figure="body25")[127, 127] * 255, 0.6 * np.array(color), 1e-5)
    assert not draw()[127, 127].any()  # COCO-18 knows no such limb
    made[0, pose.NAMES.index(end), 2] = 0
    assert not draw(figure="body25")[127, 127].any()


def test_labels_have_their_channels_and_range():
    for kind, channels in pose_label.KINDS.items():
        label = np.asarray(pose_label.draw(jnp.asarray(joints()), height=32, width=48, kind=kind))
        assert label.shape == (1, 32, 48, channels) and label.min() >= 0 and label.max() <= 1
    with pytest.raises(UserError, match="no 'mask'; there are hpt21, ccn20"):
        pose_label.draw(jnp.asarray(joints()), height=32, width=32, kind="mask")


def test_the_distance_of_poses_is_that_of_the_joints_both_have():
    one, other = joints(0), joints(1, missing=(0, 5))
    view = [i for n, i in enumerate(COCO.view) if n not in (0, 5)]
    apart = np.square(one[0, view, :2] - other[0, view, :2]).sum(-1).mean() ** 0.5
    np.testing.assert_allclose(
        pose_label.distance(jnp.asarray(one), jnp.asarray(other)), [apart], rtol=1e-5
    )
    assert float(pose_label.distance(jnp.asarray(one), jnp.zeros((1, 26, 3)))[0]) == 2.0
