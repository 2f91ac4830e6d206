"""Folds of clothes in the synthetic dataset: fixed on the cloth, and deep or flat by the pose.

No still texture of a person can show them; a function of the pose can.
"""

import numpy as np
from jaxtyping import Float

from psrjax.synthetic.characters import along_arm

# Of BODY_25: shoulder, elbow, wrist, hip, knee, ankle.
_SIDES = {"left": (5, 6, 7, 12, 13, 14), "right": (2, 3, 4, 9, 10, 11)}
_NECK, _HIPS = 1, 8
_FULL = 0.6 * np.pi  # radians at which a joint has bent the cloth as far as it goes
_PERIOD = 0.115  # metres from fold to fold
_DEEPEST = 0.5  # of the cloth's light, that a full bend's darkest fold takes away


def bends(joints: Float[np.ndarray, "t 26 3"]) -> Float[np.ndarray, "t 8"]:
    """Returns how far each joint bends the cloth around it, 0..1.

    Left shoulder, elbow, thigh and knee, then the right ones. `joints` are in metres; they may be
    moved and turned.
    """
    down = joints[:, _HIPS] - joints[:, _NECK]
    found = []
    for shoulder, elbow, wrist, hip, knee, ankle in _SIDES.values():
        for first, middle, last in ((shoulder, elbow, wrist), (hip, knee, ankle)):
            upper, lower = joints[:, middle] - joints[:, first], joints[:, last] - joints[:, middle]
            found += [_angle(down, upper), _angle(upper, lower)]
    return np.clip(np.stack(found, -1) / _FULL, 0.0, 1.0)


def shade(
    points: Float[np.ndarray, "n 3"], bend: Float[np.ndarray, " 8"]
) -> Float[np.ndarray, " n"]:
    """Returns the change of light of cloth at canonical `points`: -0.5 .. 0.25 of it, 0 unbent.

    A raised arm pulls the shirt into folds that fan out from its shoulder, a bent elbow or knee
    presses sleeve and trouser leg into rings, a raised thigh the trousers' top.
    """
    arm = along_arm(points)
    sleeve = np.abs(points[:, 1]) > 0.19
    change = np.zeros(len(points))
    for number, sign in enumerate((1.0, -1.0)):
        shoulder, elbow, thigh, knee = bend[4 * number : 4 * number + 4]
        here = _near(-sign * points[:, 1], 0.0, 0.10)
        pull = (points[:, 2] + sign * points[:, 1]) / np.sqrt(2.0)
        trunk = _near(0.95 - points[:, 2], 0.0, 0.03) * _near(-sign * points[:, 1], 0.10, 0.12)
        change += shoulder * trunk * ~sleeve * _ridges(pull)
        change += elbow * here * sleeve * _near(np.abs(arm - 0.24), 0.16, 0.08) * _ridges(arm)
        legs, up = here * (points[:, 2] < 0.97), points[:, 2]
        change += thigh * legs * _near(np.abs(up - 0.86), 0.12, 0.06) * _ridges(up)
        rings = _ridges(up + 0.5 * _PERIOD)
        change += knee * legs * _near(np.abs(up - 0.50), 0.17, 0.08) * rings
    return _DEEPEST * np.clip(change, -1.0, 0.5)


def _angle(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    cosine = (first * second).sum(-1) / (
        np.linalg.norm(first, axis=-1) * np.linalg.norm(second, axis=-1)
    )
    return np.arccos(np.clip(cosine, -1.0, 1.0))


def _ridges(along: np.ndarray) -> np.ndarray:
    """Returns narrow bright ridges and wide dark valleys, -1 .. 0.5."""
    return 0.75 * np.cos(2 * np.pi * along / _PERIOD) - 0.25


def _near(value: np.ndarray, limit: float, soft: float) -> np.ndarray:
    """Returns 1 where `value` is below `limit`, falling to 0 within `soft` beyond it."""
    return np.clip(1.0 - (value - limit) / soft, 0.0, 1.0)
