"""Pose metrics, chosen frames and interpolation equal their definitions written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psrjax.errors import UserError
from psrjax.metrics import challenging, interpolation, keypoints


def count(made, truth, **options):
    return keypoints.counts(
        jnp.asarray(made, jnp.float32), jnp.asarray(truth, jnp.float32), **options
    )


@pytest.fixture(scope="module")
def joints():
    random = np.random.default_rng(0)
    truth = np.concatenate(
        [random.uniform(0, 100, (6, 26, 2)), random.random((6, 26, 1))], -1
    ).astype(np.float32)
    made = truth.copy()
    made[..., :2] += random.normal(0, 8, (6, 26, 2))
    made[..., 2] = random.random((6, 26))
    return made, truth


def test_pose_metrics_equal_loops_over_the_joints(joints):
    made, truth = joints
    gaps, ratios, components, tp, fp, fn, missing = [], [], [], 0, 0, 0, []
    for m, t in zip(made, truth):
        seen = t[t[:, 2] >= 0.1]
        side = max(np.ptp(seen[:, 0]), np.ptp(seen[:, 1]))
        missing.append(np.mean([a[2] < 0.1 for a, b in zip(m, t) if b[2] >= 0.1]))
        for a, b in zip(m, t):
            gap = np.hypot(*(a[:2] - b[:2]))
            here, there = a[2] >= 0.1, b[2] >= 0.1
            if here and there:
                gaps.append(gap)
                ratios.append(gap / side)
                components += list(np.abs(a[:2] - b[:2]))
            tp += here and there and gap <= 0.2 * side
            fp += here and not (there and gap <= 0.2 * side)
            fn += there and not here
    precision, recall = tp / (tp + fp), tp / (tp + fn)
    expected = {
        "kp_l2": np.mean(gaps),
        **{f"pck@{a}": 100 * np.mean(np.array(ratios) <= a) for a in (0.2, 0.05, 0.01)},
        "precision": 100 * precision,
        "recall": 100 * recall,
        "f1": 100 * 2 * precision * recall / (precision + recall),
        "akd": np.mean(components),
        "mkr": np.mean(missing),
    }
    counts = jax.jit(keypoints.counts)(jnp.asarray(made), jnp.asarray(truth))
    found = keypoints.scores({name: value.sum() for name, value in counts.items()})
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
    halves = [count(m, t) for m, t in zip(np.split(made, 2), np.split(truth, 2))]
    merged = {name: halves[0][name].sum() + halves[1][name].sum() for name in counts}
    assert keypoints.scores(merged) == pytest.approx(found, rel=1e-6)


def test_f1_is_that_of_psrnets_printed_precision_and_recall():
    total = dict.fromkeys(count(np.zeros((1, 26, 3)), np.zeros((1, 26, 3))), 0.0)
    tp = 1000.0
    total |= {"true_positive": tp, "false_positive": tp / 0.913 - tp}
    total |= {"false_negative": tp / 0.626 - tp}
    found = keypoints.scores(total)
    printed = {"precision": 91.3, "recall": 62.6, "f1": 74.3}  # Table 4, G of k = 1
    assert {name: round(found[name], 1) for name in printed} == printed


@pytest.mark.parametrize("norm", keypoints.NORMS)
def test_pck_depends_on_the_named_length(norm):
    truth = np.zeros((1, 26, 3), np.float32)
    truth[..., 2] = 1
    truth[0, 8, :2] = (0, 40)  # mid-hip; the neck is at 0
    truth[0, 25, :2] = (10, 0)  # head top; the nose is at 0
    length = {"bbox": 40, "torso": 40, "head": 20, "image": 200}[norm]
    made = truth.copy()
    made[0, :, 0] += 0.19 * length
    made[0, :13, 0] += 0.02 * length  # half of them are farther than 0.2
    counts = count(made, truth, norm=norm, size=(100, 200))
    assert keypoints.scores(counts | {k: v.sum() for k, v in counts.items()})["pck@0.2"] == 50.0


def test_joints_of_other_frames_and_unknown_norms_are_refused():
    with pytest.raises(UserError, match="same frames"):
        count(np.zeros((2, 26, 3)), np.zeros((1, 26, 3)))
    with pytest.raises(UserError, match="no norm 'foot'"):
        count(np.zeros((1, 26, 3)), np.zeros((1, 26, 3)), norm="foot")


def test_challenging_frames_are_the_farthest_of_a_loop_over_all_pairs():
    random = np.random.default_rng(1)
    poses, training = (
        np.concatenate([random.normal(size=(n, 26, 2)), random.random((n, 26, 1)) > 0.2], -1)
        for n in (70, 520)
    )
    poses[5, :, 2] = 0
    expected = []
    for p in poses:
        distances = []
        for q in training[::1]:
            common = (p[:, 2] > 0) & (q[:, 2] > 0)
            squares = np.square(p[common, :2] - q[common, :2]).sum(-1)
            distances.append(np.sqrt(26 * squares.mean()) if common.any() else np.inf)
        expected.append(min(distances))
    np.testing.assert_allclose(challenging.pose_distances(poses, training), expected, rtol=1e-4)
    order = [i for i in np.argsort(-np.array(expected), kind="stable") if i != 5]
    chosen = challenging.challenging_frames(poses, training, count=10)
    assert chosen.tolist() == order[:10]


def test_equal_distances_keep_the_order_of_the_frames():
    poses = np.ones((4, 26, 3))
    assert challenging.challenging_frames(poses, poses[:1], count=3).tolist() == [0, 1, 2]


def test_a_straight_motion_is_foretold_and_a_flickering_one_is_not():
    y, x = np.mgrid[:48, :64]
    frames = [127 + 60 * np.sin((x - 1.5 * t) / 4) + 50 * np.cos(y / 5) for t in range(5)]
    video = np.stack(frames)[..., None].repeat(3, -1).clip(0, 255).astype(np.uint8)
    straight = interpolation.interp_psnr(video, video)
    assert straight.shape == (3,) and straight.min() > 28
    flickering = video.copy()
    flickering[[0, 2, 4]] = flickering[[0, 2, 4]] // 2
    assert interpolation.interp_psnr(flickering, video)[[0, 2]].max() < straight.min() - 5


def test_any_interpolator_can_be_given_and_short_clips_are_refused():
    video = np.full((3, 8, 8, 3), 100, np.uint8)
    found = interpolation.interp_psnr(video, video, lambda a, b: a + np.uint8(10))
    np.testing.assert_allclose(found, 20 * np.log10(255 / 10), rtol=1e-5)
    with pytest.raises(UserError, match="at least 3 frames"):
        interpolation.interp_psnr(video[:2], video[:2])
