"""Folds of clothes: on cloth only, a function of the pose alone."""

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from psrjax.errors import UserError
from psrjax.synthetic import cloth_folds, dataset

SETTINGS = {
    "kind": "long",
    "size": (96, 72),
    "frames": 2,
    "streams": ("frames", "iuv", "face", "background"),
}


def rendered(folds):
    config = dataset.make_config(SETTINGS | {"folds": folds})
    (spec,) = dataset.clip_specs(config)["train"]
    return config, spec, dataset.render_clip(config, spec)[0].streams


@pytest.fixture
def joints():
    config = dataset.make_config(SETTINGS | {"frames": 60})
    return dataset.joints_of(config, dataset.clip_specs(config)["train"][0])


def test_folds_change_the_light_of_cloth_and_nothing_else():
    config, spec, plain = rendered(0.0)
    _, _, folded = rendered(1.0)
    for name in ("iuv", "face", "background"):
        np.testing.assert_array_equal(plain[name], folded[name])
    changed = (plain["frames"] != folded["frames"]).any(-1)
    part = plain["iuv"][..., 0]
    body = binary_dilation(part > 0, iterations=1, structure=np.ones((1, 3, 3)))
    assert changed.sum() > 50 and not (changed & ~body).any()
    who = dataset.make_person(config.seed, spec.person)
    head = np.isin(part, (23, 24))
    inside = ~binary_dilation(~head, structure=np.ones((1, 3, 3)), border_value=1)
    assert inside.any() and not (changed & inside).any(), who.name


def test_half_as_deep_folds_change_half_the_light():
    points = np.random.default_rng(0).uniform((-0.2, -0.4, 0.1), (0.2, 0.4, 1.5), (500, 3))
    bend = np.linspace(0.05, 0.3, 8)
    whole, half = (cloth_folds.shade(points, share * bend) for share in (1.0, 0.5))
    np.testing.assert_allclose(half, 0.5 * whole, atol=1e-12)
    assert np.abs(whole).max() > 0.05


def test_bends_are_the_joints_angles_wherever_the_body_stands_and_faces(joints):
    found = cloth_folds.bends(joints)
    angle = 0.7
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    np.testing.assert_allclose(cloth_folds.bends(1.3 * joints @ turn.T + (2, -1, 0)), found)
    straight = joints[:1].copy()
    straight[:, 6] = 0.5 * (straight[:, 5] + straight[:, 7])  # the left elbow
    assert cloth_folds.bends(straight)[0, 1] == pytest.approx(0.0, abs=1e-6)
    bent = straight.copy()
    bent[:, 7] = bent[:, 6] + np.cross(bent[:, 6] - bent[:, 5], (0.0, 0.0, 1.0))
    assert cloth_folds.bends(bent)[0, 1] == pytest.approx(90 / 108)
    assert found[:, 1].std() > 0.01


def test_the_same_place_folds_alike_in_every_frame_with_that_pose(joints):
    """What a texture and a function of the pose can learn: no chance, no time."""
    points = np.random.default_rng(1).uniform((-0.2, -0.3, 0.4), (0.2, 0.3, 1.4), (200, 3))
    bends = cloth_folds.bends(np.stack([joints[3], joints[40], joints[3]]))
    first, other, again = (cloth_folds.shade(points, bend) for bend in bends)
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01


def test_a_depth_outside_its_range_is_named():
    with pytest.raises(UserError, match="data.synthetic.folds=2.0"):
        dataset.make_config({"folds": 2.0})
