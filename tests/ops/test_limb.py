"""Limbs: maps, masks and transforms are those of a plain loop over joints and pixels."""

import jax.numpy as jnp
import numpy as np
import pytest

from psrjax.ops import geometry, limb, pose

HEIGHT, WIDTH = 40, 32
VIEW = pose.layout("mpii14").view


def joints(seed, *lead, low=0.15, high=0.85):
    """Random poses well inside the picture, all joints there."""
    rng = np.random.default_rng(seed)
    pixels = rng.uniform(low, high, (*lead, 26, 2)) * (WIDTH, HEIGHT)
    unit = geometry.pixels_to_unit(pixels, height=HEIGHT, width=WIDTH)
    return np.concatenate([unit, np.ones((*lead, 26, 1))], -1).astype(np.float32)


def pixels_of(poses):
    return geometry.unit_to_pixels(poses[..., VIEW, :2], height=HEIGHT, width=WIDTH)


def test_joint_maps_are_gaussians_at_the_joints():
    poses = joints(0, 2)
    poses[0, 4] = 0.0  # a missing wrist
    poses[1, 25, :2] = 1.5  # a head outside
    maps = np.asarray(limb.joint_maps(jnp.asarray(poses), height=HEIGHT, width=WIDTH))
    deviation = max(3.5 * HEIGHT / 256, 0.7)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for b in range(2):
        for j, point in enumerate(pixels_of(poses[b])):
            away = (x - point[0]) ** 2 + (y - point[1]) ** 2
            gone = (b, VIEW[j]) in {(0, 4), (1, 25)}
            truth = 0 * away if gone else np.exp(-away / (2 * deviation**2))
            np.testing.assert_allclose(maps[b, ..., j], truth, atol=1e-5)


def test_the_prior_is_the_log_of_limbs_and_of_what_they_leave():
    poses = joints(1)
    poses[6] = 0.0  # without the left elbow both parts of the left arm are unknown
    prior = np.asarray(limb.limb_prior(jnp.asarray(poses), height=HEIGHT, width=WIDTH))
    points, scale = pixels_of(poses), HEIGHT / 256
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    masks = np.zeros((HEIGHT, WIDTH, 10))
    for number, members in enumerate(limb.LIMBS):
        if 6 in members:
            continue
        if len(members) == 2:
            start, end, aside = points[members[0]], points[members[1]], 11.0
        else:
            start, end, aside = points[[2, 5]].mean(0), points[[8, 11]].mean(0), 13.0
        dx, dy = end - start
        angle = np.arctan2(dy, dx)
        offset = np.stack([x, y], -1) - (start + end) / 2
        along = offset @ [np.cos(angle), np.sin(angle)]
        across = offset @ [-np.sin(angle), np.cos(angle)]
        ahead = max((dx**2 + dy**2) / 1.5, 5 * scale**2)
        masks[..., number] = np.exp(-0.5 * (along**2 / ahead + across**2 / (aside * scale) ** 2))
    truth = np.concatenate([1 - masks.max(-1, keepdims=True), masks], -1)
    np.testing.assert_allclose(np.exp(prior), truth, atol=1e-4)


def test_transforms_are_least_squares_similarities_from_target_to_source():
    source, target = joints(2), joints(3)
    source[3] = 0.0  # without the right elbow, the right arm has one joint for each part
    found = limb.limb_transforms(*map(jnp.asarray, (source, target)), height=HEIGHT, width=WIDTH)
    matrix, there, here = np.asarray(found["matrix"]), pixels_of(source), pixels_of(target)
    assert np.asarray(found["present"]).all()
    for number, members in enumerate(limb.LIMBS):
        members = [j for j in members if j != 3]
        have, want = here[members], there[members]
        if len(members) == 1:
            truth = np.concatenate([np.eye(2), (want - have).T], 1)
        else:
            x, y = have.T
            ones, zeros = np.ones_like(x), np.zeros_like(x)
            rows = np.concatenate(
                [np.stack([x, -y, ones, zeros], 1), np.stack([y, x, zeros, ones], 1)]
            )
            a, b, dx, dy = np.linalg.lstsq(rows, want.T.ravel(), rcond=None)[0]
            truth = np.array([[a, -b, dx], [b, a, dy]])
        np.testing.assert_allclose(matrix[number], truth, atol=2e-3)
        if len(members) == 2:  # then nothing is left over
            moved = have @ matrix[number, :, :2].T + matrix[number, :, 2]
            np.testing.assert_allclose(moved, want, atol=1e-3)


def test_a_limb_without_common_joints_is_told():
    source, target = joints(4), joints(5)
    source[2], target[3] = 0.0, 0.0  # right shoulder here, right elbow there
    found = limb.limb_transforms(*map(jnp.asarray, (source, target)), height=HEIGHT, width=WIDTH)
    assert [bool(p) for p in found["present"]] == [number != 1 for number in range(10)]
    np.testing.assert_allclose(found["matrix"][1], np.eye(2, 3), atol=1e-6)


def test_limbs_are_warped_by_their_own_transforms():
    rng = np.random.default_rng(6)
    image = rng.normal(size=(1, 10, HEIGHT, WIDTH, 3)).astype(np.float32)
    matrix = np.tile(np.eye(2, 3, dtype=np.float32), (1, 2, 10, 1, 1))
    matrix[0, 1, 4, :, 2] = (3, -2)  # out(x, y) = limb(x + 3, y - 2)
    out = np.asarray(limb.warp_limbs(jnp.asarray(image), jnp.asarray(matrix))).reshape(
        2, HEIGHT, WIDTH, 10, 3
    )
    np.testing.assert_allclose(out[0], np.moveaxis(image[0], 0, 2), atol=1e-4)
    np.testing.assert_allclose(out[1, 2:, :-3, 4], image[0, 4, :-2, 3:], atol=1e-4)
    np.testing.assert_allclose(out[1, ..., 5, :], image[0, 5], atol=1e-4)


@pytest.mark.parametrize("factor", (0.5, 2.0))
def test_alignment_gives_the_driving_person_the_others_size_and_place(factor):
    own = joints(7, 3)
    driving = own.copy()
    driving[..., :2] = factor * own[..., :2] + (0.1, -0.2)
    driving[0, 4] = 0.0
    found = limb.aligned(driving, own)
    own[0, 4] = 0.0
    np.testing.assert_allclose(found, own, atol=1e-5)


def test_without_a_torso_nothing_is_aligned():
    driving = joints(8, 2)
    driving[..., 2, :] = 0.0
    np.testing.assert_array_equal(limb.aligned(driving, joints(9, 2)), driving)
