"""One wrong camera of several is found and measured; honest ones are never blamed."""

from dataclasses import replace

import numpy as np
import pytest
import recordings

from psrjax.prepare.multiview import camera_agreement, cross_view_tracking

SIZE = (960, 720)
BOUND = 0.015 * 960
NOISE = 2.0  # pixels: a detector's


def ring(*degrees):
    return {f"cam{i}": recordings.look(angle, size=SIZE) for i, angle in enumerate(degrees, 1)}


FOUR = ring(-40, 35, 100, 160)


def detected(cameras, seed=0):
    """Joints of a walking man as a detector gives them: with noise, and a bias of each view."""
    rng = np.random.default_rng(seed)
    joints = recordings.walk(14)
    views = [
        camera.project(joints)["pixels"]
        + rng.normal(0, NOISE, (14, 26, 2))
        + rng.normal(0, NOISE, (1, 26, 2))
        for camera in cameras.values()
    ]
    return np.concatenate([np.stack(views), np.full((len(cameras), 14, 26, 1), 0.8)], -1)


def find(joints, cameras):
    return camera_agreement.find_odd(joints, cameras, bound=BOUND)


@pytest.mark.parametrize("degrees", [(-40, 35), (-40, 35, 160), (0, 10, 180), (-40, 35, 100, 160)])
def test_honest_cameras_are_not_blamed(degrees):
    for seed in range(3):
        cameras = ring(*degrees)
        assert find(detected(cameras, seed), cameras) is None


def test_a_turned_camera_is_named_with_the_numbers_before_and_after():
    truth = recordings.turned(FOUR["cam3"], 3.0)
    odd = find(detected({**FOUR, "cam3": truth}), FOUR)
    assert odd is not None and odd.name == "cam3" and not odd.is_shifted(BOUND)
    apart = truth.project(recordings.walk(14))["pixels"]
    apart = np.linalg.norm(apart - FOUR["cam3"].project(recordings.walk(14))["pixels"], axis=-1)
    assert odd.distance == pytest.approx(np.median(apart), rel=0.1)
    assert set(odd.after) == {"cam1", "cam2", "cam4"}
    assert max(odd.after.values()) < 2.5 * NOISE < 3 * max(odd.after.values()) < odd.distance
    assert f"cam3 {odd.before['cam3']:.1f}" in str(odd)


def test_a_constant_offset_is_measured_and_taken_off():
    joints = detected(FOUR)
    joints[1, ..., :2] += (9.0, -14.0)  # as where a picture was cut after it was calibrated
    odd = find(joints, FOUR)
    assert odd is not None and odd.name == "cam2" and odd.is_shifted(BOUND)
    np.testing.assert_allclose(odd.offset, (9.0, -14.0), atol=1.0)
    mended = {**FOUR, "cam2": camera_agreement.shifted(FOUR["cam2"], odd.offset)}
    assert find(joints, mended) is None
    assert max(cross_view_tracking.medians(joints, mended).values()) < 2.5 * NOISE


def test_a_camera_of_another_lens_is_no_constant_offset():
    wrong = FOUR["cam4"].matrix * [[1.1, 1, 1], [1, 1.1, 1], [1, 1, 1]]
    odd = find(detected(FOUR), {**FOUR, "cam4": replace(FOUR["cam4"], matrix=wrong)})
    assert odd is not None and odd.name == "cam4" and not odd.is_shifted(BOUND)


def test_of_three_one_is_blamed_only_beyond_the_bound():
    three = ring(-40, 35, 160)
    joints = detected(three)
    joints[2, ..., 1] += 8.0
    assert max(cross_view_tracking.medians(joints, three).values()) < BOUND
    assert find(joints, three) is None  # any two of three agree better than all
    joints[2, ..., 1] += 60.0
    odd = find(joints, three)
    assert odd is not None and odd.name == "cam3"
