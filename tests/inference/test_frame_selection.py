"""Source frames of a transfer: those without a person's joints are refused."""

import itertools

import numpy as np
import pytest

from psrjax.errors import UserError
from psrjax.inference import frame_selection


def test_source_frames_without_joints_are_told():
    joints = np.ones((3, 26, 3), np.float32)
    frame_selection.require_joints("clip", (0, 4, 9), joints)
    joints[1, :, 2] = 0.0
    with pytest.raises(UserError, match="clip: frame 4 has no valid joint"):
        frame_selection.require_joints("clip", (0, 4, 9), joints)


def poses(offsets):
    """One joint moves along a line, another never."""
    joints = np.ones((len(offsets), 26, 3), np.float32)
    joints[:, 0, 0] = offsets
    return joints


def test_spread_finds_the_frames_that_stand_for_all_poses():
    """By exhaustive search over all pairs: nothing is nearer to all poses on average."""
    offsets = np.concatenate([[9.0], np.linspace(0, 1, 7), np.linspace(4, 5, 5)])
    apart = np.abs(offsets[:, None] - offsets)
    pairs = itertools.combinations(range(len(offsets)), 2)
    least = min(apart[list(pair)].min(0).sum() for pair in pairs)
    found = frame_selection.spread(poses(offsets), 2)
    assert apart[list(found)].min(0).sum() == pytest.approx(least)
    assert 0 not in found  # the pose that is like no other


def test_spread_takes_every_frame_once_and_survives_frames_without_joints():
    joints = poses(np.zeros(5))
    joints[2, :, 2] = 0.0
    assert frame_selection.spread(joints, 5) == (0, 1, 2, 3, 4)
    assert frame_selection.spread(poses(np.arange(3.0)), 1) == (1,)
