"""Temporal losses: the sign of flow, what confidence removes, key points that move along."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psrjax.errors import UserError
from psrjax.losses import style, temporal
from psrjax.ops import local_affine, thin_plate


def shifted(columns):
    picture = np.random.default_rng(0).uniform(size=(1, 12, 16, 3)).astype(np.float32)
    flow = np.zeros((1, 12, 16, 2), np.float32)
    flow[..., 0] = columns
    return tuple(map(jnp.asarray, (picture, np.roll(picture, columns, 2), flow)))


def test_a_frame_that_moved_right_is_brought_back_by_the_flow_from_the_one_before():
    before, now, flow = shifted(3)
    inside = jnp.zeros((1, 12, 16, 1)).at[:, :, :-3].set(1.0)
    assert float(temporal.flow_warp(now, before, flow, inside)) < 1e-6
    assert float(temporal.flow_warp(now, before, -flow, inside)) > 0.1
    ones = jnp.ones_like(inside)
    whole = temporal.flow_warp(now, before, flow)
    np.testing.assert_allclose(temporal.flow_warp(now, before, flow, ones), whole, rtol=1e-6)


def test_the_confidence_may_move_with_the_frame():
    before, now, flow = shifted(3)
    mask = jnp.zeros((1, 12, 16, 1)).at[:, :, 3:].set(1.0)  # of the later frame
    assert float(temporal.flow_warp(now, before, flow, mask, confidence_moves=True)) < 1e-6 + float(
        temporal.flow_warp(now, before, flow, mask)
    )


def test_the_gradient_reaches_the_confidence():
    before, now, flow = shifted(0)
    mask = jnp.full((1, 12, 16, 1), 0.5)
    slope = jax.grad(lambda m: temporal.flow_warp(now[:, ::-1], before, flow, m))(mask)
    assert float(slope.min()) >= 0 and float(slope.max()) > 0


def test_extrinsic_confidence_leaves_out_occlusions_and_motion_boundaries():
    still = np.zeros((1, 16, 24, 2), np.float32)
    assert (np.asarray(temporal.extrinsic_confidence(*map(jnp.asarray, (still, still)))) == 1).all()
    forward, backward = still.copy(), still.copy()
    forward[:, 4:12, 4:10, 0] = 6  # a square moves right by its width, over what was still
    backward[:, 4:12, 10:16, 0] = -6
    trust = np.asarray(temporal.extrinsic_confidence(*map(jnp.asarray, (forward, backward))))[
        0, ..., 0
    ]
    assert (trust[6:10, 6:8] == 1).all()  # inside the square: there and back again
    assert (trust[5:11, 11:15] == 0).all()  # still ground that the square covers
    assert (trust[6:10, 4] == 0).all()  # the square's edge
    assert (trust[:, 18:] == 1).all()


def test_key_points_that_follow_the_plate_cost_nothing():
    plate = thin_plate.sample(jax.random.key(0), 2)
    moved = {
        "value": jax.random.uniform(jax.random.key(1), (2, 3, 2), minval=-0.8, maxval=0.8),
        "jacobian": jnp.eye(2) + 0.1 * jax.random.normal(jax.random.key(2), (2, 3, 2, 2)),
    }
    points = {
        "value": thin_plate.apply(plate, moved["value"]),
        "jacobian": thin_plate.jacobian(plate, moved["value"]) @ moved["jacobian"],
    }
    assert local_affine.determinant(points["jacobian"]).min() > 0
    for cost in temporal.equivariance(points, moved, plate).values():
        assert float(cost) < 1e-5
    for cost in temporal.equivariance(moved, moved, plate).values():
        assert float(cost) > 1e-3


def test_gram_and_styles_are_the_printed_sums():
    rng = np.random.default_rng(0)
    ours, theirs = (rng.normal(size=(1, 3, 4, 5)) for _ in range(2))

    def naive(x):
        total = np.zeros((5, 5))
        for row in x[0].reshape(-1, 5):
            total += np.outer(row, row)
        return total / 60

    a, b = ({"relu": jnp.asarray(x, jnp.float32)} for x in (ours, theirs))
    error = naive(ours) - naive(theirs)
    np.testing.assert_allclose(style.gram(a["relu"])[0], naive(ours), rtol=1e-4)
    np.testing.assert_allclose(style.style_distance(a, b), np.abs(error).mean(), rtol=1e-4)
    found = style.style_distance(a, b, kind="paper")
    np.testing.assert_allclose(found, (error**2).sum() / 60, rtol=1e-4)
    np.testing.assert_allclose(
        style.feature_distance(a, b), np.abs(ours - theirs).mean(), rtol=1e-4
    )
    with pytest.raises(UserError, match="there are l1gram, paper"):
        style.style_distance(a, b, kind="l2")
