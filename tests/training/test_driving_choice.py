"""Source frames of a transfer: those without a person's joints are refused."""

import numpy as np
import pytest

from psrjax.errors import UserError
from psrjax.training import driving_choice


def test_source_frames_without_joints_are_told():
    joints = np.ones((3, 26, 3), np.float32)
    driving_choice.require_joints("clip", (0, 4, 9), joints)
    joints[1, :, 2] = 0.0
    with pytest.raises(UserError, match="clip: frame 4 has no valid joint"):
        driving_choice.require_joints("clip", (0, 4, 9), joints)
