"""The people of the synthetic dataset: bodies, hair, faces and clothes, each drawn from a seed.

A person is a shaped body and a texture: a function from places on the unshaped body (`canonical`:
metres, x forward, y left, z up) to colours. Hair and clothes also move the surface outward.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from psrjax.synthetic.patterns import pattern, random_pattern
from psrjax.vision import body
from psrjax.vision.body_mesh import ARM_SLOPE

_SKINS = (
    *((0.96, 0.80, 0.69), (0.91, 0.72, 0.58), (0.85, 0.64, 0.49), (0.76, 0.55, 0.40)),
    *((0.62, 0.43, 0.30), (0.48, 0.32, 0.22), (0.36, 0.23, 0.16)),
)
_HAIRS = (
    *((0.09, 0.07, 0.06), (0.20, 0.13, 0.09), (0.35, 0.22, 0.13), (0.50, 0.33, 0.18)),
    *((0.78, 0.62, 0.36), (0.55, 0.24, 0.12), (0.62, 0.61, 0.60), (0.88, 0.80, 0.62)),
)
_EYES = ((0.25, 0.15, 0.08), (0.20, 0.35, 0.50), (0.25, 0.38, 0.22), (0.35, 0.25, 0.12))
_CLOTHS = (
    *((0.80, 0.16, 0.18), (0.93, 0.55, 0.13), (0.95, 0.82, 0.25), (0.26, 0.58, 0.28)),
    *((0.13, 0.50, 0.56), (0.18, 0.36, 0.72), (0.12, 0.16, 0.36), (0.48, 0.25, 0.58)),
    *((0.90, 0.50, 0.62), (0.93, 0.93, 0.90), (0.14, 0.14, 0.15), (0.55, 0.56, 0.58)),
    *((0.62, 0.78, 0.90), (0.66, 0.80, 0.55), (0.85, 0.76, 0.62), (0.50, 0.14, 0.20)),
)
_LEGWEAR = (
    *((0.17, 0.24, 0.40), (0.10, 0.11, 0.14), (0.35, 0.42, 0.55), (0.66, 0.58, 0.44)),
    *((0.32, 0.33, 0.35), (0.28, 0.33, 0.22), (0.50, 0.20, 0.20), (0.85, 0.84, 0.80)),
)
_SHOES = ((0.92, 0.92, 0.92), (0.10, 0.10, 0.11), (0.60, 0.15, 0.15), (0.35, 0.22, 0.14))
HAIR_STYLES = ("none", "short", "swept", "bob", "long", "afro", "bun", "cap")
_LOWER_PARTS = (1, 2, *range(5, 15))  # of DensePose: trunk, feet and legs
_WAIST = 0.985  # where shirt and trousers meet, on the unshaped body


@dataclass(frozen=True)
class Character:
    """One person: the shaped body and its looks (`look`: plain values)."""

    name: str
    model: body.BodyModel
    look: Mapping[str, Any]

    def texture(
        self, points: Float[np.ndarray, "n 3"], parts: Int[np.ndarray, " n"]
    ) -> Float[np.ndarray, "n 3"]:
        """Returns display colours 0..1 at canonical `points` on DensePose `parts` 1..24."""
        color = _skin(points, parts, self.look)
        _cover(color, _legs_cover(points, parts, self.look), _legs_paint(points, self.look))
        _cover(color, _shirt_cover(points, parts, self.look), _shirt_paint(points, self.look))
        _cover(color, *_shoes(points, parts, self.look))
        _cover(color, _hair_cover(points, self.look), _hair_paint(points, self.look))
        return np.clip(color, 0.0, 1.0)

    def clothed(
        self, points: Float[np.ndarray, "n 3"], parts: Int[np.ndarray, " n"]
    ) -> Float[np.ndarray, " n"]:
        """Returns how far shirt or trousers cover those places, 0..1."""
        shirt = _shirt_cover(points, parts, self.look)
        return np.maximum(shirt, _legs_cover(points, parts, self.look))


def make_character(name: str, generator: np.random.Generator) -> Character:
    """Draws a person; everything about them is a function of the generator."""
    look = _random_look(generator)
    build = look["build"]
    lengths = {
        "torso": generator.uniform(0.95, 1.04) * look["tall"],
        "thigh": generator.uniform(0.95, 1.05) * look["tall"],
        "shin": generator.uniform(0.95, 1.05) * look["tall"],
        "upper_arm": generator.uniform(0.94, 1.04) * look["tall"],
        "forearm": generator.uniform(0.94, 1.04) * look["tall"],
        "shoulders": generator.uniform(0.98, 1.08) * (1.02 - 0.12 * look["slender"]),
        "hips": generator.uniform(0.96, 1.04) * (0.98 + 0.08 * look["slender"]),
        "head": generator.uniform(0.97, 1.04),
        "hand": generator.uniform(0.96, 1.06) - 0.05 * look["slender"],
        "foot": generator.uniform(0.97, 1.05) - 0.05 * look["slender"],
    }
    girths = {
        "torso": build * (1.0 - 0.06 * look["slender"]),
        "arm": build * generator.uniform(0.96, 1.06) * (1.04 - 0.14 * look["slender"]),
        "leg": build * generator.uniform(0.96, 1.05),
        "neck": 1.04 - 0.12 * look["slender"],
    }
    template = body.template()
    offsets = _offsets(template.canonical, look)
    return Character(
        name, body.shape(template, lengths=lengths, girths=girths, offsets=offsets), look
    )


def _random_look(generator: np.random.Generator) -> dict[str, Any]:
    def pick(choices):
        return choices[int(generator.integers(len(choices)))]

    slender = float(generator.uniform(0, 1))  # 1: narrow shoulders, wide hips, a bust
    skin = np.array(pick(_SKINS)) * generator.uniform(0.95, 1.04)
    front = random_pattern(generator, _CLOTHS)
    back = random_pattern(generator, _CLOTHS)
    if generator.uniform() < 0.5:  # the same cloth all round, with prints that differ
        back = {**front, "print": pick(("number", "disc", "block", "band", "cross"))}
        front = {**front, "print": pick(("stripe", "heart", "pocket", "ring", "arrow"))}
    return {
        "slender": slender,
        "tall": float(generator.normal(1.0, 0.035) - 0.04 * (slender - 0.5)),
        "build": float(np.clip(generator.normal(1.04, 0.09), 0.90, 1.28)),
        "skin": skin,
        "hair": pick((*HAIR_STYLES, *HAIR_STYLES[1:])),
        "hair_color": np.array(pick(_HAIRS)) * generator.uniform(0.9, 1.1),
        "beard": bool(slender < 0.45 and generator.uniform() < 0.45),
        "eyes": np.array(pick(_EYES)),
        "lips": np.clip(skin * (0.88, 0.60, 0.60), 0, 1) * (1 - 0.05 * slender),
        "front": front,
        "back": back,
        "sleeve": pick((0.0, 0.17, 0.21, 0.24, 0.50, 0.52)),
        "sleeve_color": np.array(pick(_CLOTHS)) if generator.uniform() < 0.35 else None,
        "neckline": pick(("round", "v", "high")),
        "hem": _WAIST - pick((0.0, 0.05, 0.12)),
        "legs": random_pattern(generator, _LEGWEAR, plain=0.6),
        "leg_hem": pick((0.10, 0.10, 0.12, 0.46, 0.58, 0.66)),
        "stripe": bool(generator.uniform() < 0.3),
        "loose": float(generator.uniform(0.004, 0.016)),
        "shoes": np.array(pick(_SHOES)),
        "socks": np.array(pick(_SHOES[:3])),
        "cap_color": np.array(pick(_CLOTHS)),
    }


def _step(value: np.ndarray, low: Any, high: Any) -> np.ndarray:
    ramp = np.clip((value - low) / (high - low), 0.0, 1.0)
    return ramp * ramp * (3 - 2 * ramp)


def _cover(color: np.ndarray, cover: np.ndarray, paint: np.ndarray) -> None:
    """Lays `paint` over `color` in place, as far as `cover` (0..1) says."""
    color += cover[:, None] * (paint - color)


def _near(points: np.ndarray, centre: tuple, radii: tuple) -> np.ndarray:
    """Returns 1 inside an ellipsoid on either side of the body, 0 outside, with a soft rim."""
    folded = np.stack([points[:, 0], np.abs(points[:, 1]), points[:, 2]], -1)
    distance = np.sqrt((((folded - centre) / radii) ** 2).sum(-1))
    return 1 - _step(distance, 0.75, 1.1)


def along_arm(points: np.ndarray) -> np.ndarray:
    """Returns metres from the shoulder along the arm of the unshaped body, 40 degrees out."""
    beyond = np.abs(points[:, 1]) - 0.176
    return (beyond - ARM_SLOPE * (points[:, 2] - 1.428)) / np.hypot(1.0, ARM_SLOPE)


def _on_arm(points: np.ndarray) -> np.ndarray:
    """Returns True on an arm, from the seam of the sleeve on."""
    below = np.abs(points[:, 1]) - 0.176 + (points[:, 2] - 1.428) / ARM_SLOPE
    below = below * ARM_SLOPE / np.hypot(1.0, ARM_SLOPE)  # metres under the arm's axis, if negative
    return (along_arm(points) > 0.012) & (below > -0.066) & (points[:, 2] > 0.8)


def _skin(points: np.ndarray, parts: np.ndarray, look: Mapping[str, Any]) -> np.ndarray:
    color = np.broadcast_to(look["skin"], points.shape).copy()
    head = np.isin(parts, (23, 24))
    hands = np.isin(parts, (3, 4))
    # The gaps between the fingers, which the mesh does not have.
    beyond = along_arm(points) - 0.535
    gaps = np.abs(np.sin(points[:, 0] / 0.0205 * np.pi + 1.2)) < 0.30
    color[hands & (beyond > 0.09) & gaps] *= 0.72
    if head.any():
        color[head] = _face(points[head], color[head], look)
    return color


def _face(points: np.ndarray, color: np.ndarray, look: Mapping[str, Any]) -> np.ndarray:
    front = points[:, 0] > 0.03
    side, height = np.abs(points[:, 1]), points[:, 2]

    def flat(y: float, z: float, width: float, tall: float) -> np.ndarray:
        square = ((side - y) / width) ** 2 + ((height - z) / tall) ** 2
        return front * (1 - _step(np.sqrt(square), 0.7, 1.15))

    _cover(color, 0.30 * flat(0.042, 1.605, 0.026, 0.022), color * (1.0, 0.72, 0.70))
    _cover(color, 0.45 * flat(0.032, 1.648, 0.024, 0.015), color * 0.72)
    _cover(color, flat(0.033, 1.646, 0.0165, 0.0085), np.array([0.95, 0.95, 0.93]))
    _cover(color, flat(0.033, 1.646, 0.0085, 0.0090), look["eyes"])
    _cover(color, flat(0.033, 1.646, 0.0042, 0.0045), np.array([0.03, 0.03, 0.03]))
    _cover(color, 0.8 * flat(0.033, 1.6545, 0.019, 0.0032), look["hair_color"] * 0.6)
    brow = front * (1 - _step(np.abs(side - 0.034), 0.016, 0.024))
    brow = brow * (1 - _step(np.abs(height - 1.671 + 4.0 * (side - 0.034) ** 2), 0.003, 0.0065))
    _cover(color, 0.85 * brow, look["hair_color"] * 0.75)
    _cover(color, 0.6 * flat(0.009, 1.592, 0.006, 0.004), color * 0.45)
    if look["beard"]:
        jaw = _step(points[:, 0], -0.012, 0.02) * (1 - _step(height, 1.578, 1.592))
        jaw = np.maximum(jaw, flat(0.0, 1.584, 0.034, 0.006))
        _cover(color, 0.85 * jaw, look["hair_color"] * 0.9)
    _cover(color, 0.95 * flat(0.0, 1.5655, 0.026, 0.0105), look["lips"])
    _cover(color, 0.8 * flat(0.0, 1.5650, 0.024, 0.0022), look["lips"] * 0.35)
    ear = _near(points, (-0.004, 0.088, 1.630), (0.014, 0.012, 0.022))
    _cover(color, 0.35 * ear, color * (0.75, 0.55, 0.5))
    return color


def _hairline(points: np.ndarray) -> np.ndarray:
    """Returns the height above which a head has hair, by the angle from the face to the back."""
    angle = np.arctan2(np.abs(points[:, 1]), points[:, 0])
    marks = np.radians([0, 25, 50, 68, 84, 100, 125, 180])
    return np.interp(angle, marks, [1.712, 1.708, 1.690, 1.650, 1.662, 1.600, 1.560, 1.545])


def _hair_cover(points: np.ndarray, look: Mapping[str, Any]) -> np.ndarray:
    style = look["hair"]
    head = (points[:, 2] > 1.40) & (np.abs(points[:, 1]) < 0.14)
    line = _hairline(points)
    if style == "none":
        return 0.25 * head * _step(points[:, 2] - line, 0.0, 0.02)  # stubble
    if style == "cap":
        line = np.where(points[:, 0] > -0.06, 1.684, line)
    cover = head * _step(points[:, 2] - line, -0.004, 0.005)
    behind = _step(-points[:, 0], *_behind(style, points))
    length = {"bob": 1.535, "long": 1.32}.get(style)
    if length is not None:
        near_head = np.abs(points[:, 1]) < 0.098
        low = _step(points[:, 2], length, length + 0.02)
        cover = np.maximum(cover, near_head * behind * low)
    return cover


def _behind(style: str, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the depth behind which long hair falls: at the ears on the head, the back below."""
    edge = np.where(points[:, 2] > 1.50, -0.032, 0.035 if style == "long" else 0.02)
    return edge, edge + 0.012


def _hair_paint(points: np.ndarray, look: Mapping[str, Any]) -> np.ndarray:
    angle = np.arctan2(points[:, 1], points[:, 0])
    strand = 0.10 * np.sin(23 * angle + 40 * points[:, 2]) + 0.06 * np.sin(61 * angle)
    color = look["hair_color"] * (1 + strand[:, None])
    if look["hair"] == "cap":
        cap = points[:, 2] > 1.680 + 0.15 * np.minimum(points[:, 0] + 0.06, 0.0)
        seams = 1 - 0.18 * (np.abs(np.sin(3 * angle)) < 0.12)
        return np.where(cap[:, None], look["cap_color"] * seams[:, None], color)
    return color


def _shirt_cover(points: np.ndarray, parts: np.ndarray, look: Mapping[str, Any]) -> np.ndarray:
    arms, head = _on_arm(points), np.isin(parts, (23, 24))
    cover = ~head * _step(points[:, 2], look["hem"] - 0.004, look["hem"] + 0.004)
    from_neck = np.hypot(points[:, 0] + 0.012, points[:, 1])
    top = {"round": 0.088, "v": 0.084, "high": 0.070}[look["neckline"]]
    bare = (points[:, 2] > 1.41) * (1 - _step(from_neck, top, top + 0.008))
    if look["neckline"] == "v":
        edge = 1.335 + 1.5 * np.abs(points[:, 1])
        vee = (points[:, 0] > 0.02) * _step(points[:, 2], edge, edge + 0.008)
        bare = np.maximum(bare, vee * (np.abs(points[:, 1]) < 0.085))
    cover = cover * (1 - bare)
    on_arm = along_arm(points)
    sleeve = arms * (1 - _step(on_arm, look["sleeve"] - 0.004, look["sleeve"] + 0.004))
    return np.where(arms, sleeve, cover)


def _shirt_paint(points: np.ndarray, look: Mapping[str, Any]) -> np.ndarray:
    front = points[:, 0] > -0.006
    arms = _on_arm(points)
    across = np.where(arms, points[:, 0], points[:, 1])
    up = np.where(arms, 1.40 - along_arm(points), points[:, 2])
    place = np.stack([across, up], -1)
    printed = np.where(arms, -1.0, 1.0)
    ahead = pattern(look["front"], place, printed)
    behind = pattern(look["back"], place * (-1, 1), printed)
    color = np.where(front[:, None], ahead, behind)
    if look["sleeve_color"] is not None:
        color[arms] = look["sleeve_color"]
    cuff = arms & (along_arm(points) > look["sleeve"] - 0.018)
    color[cuff] *= 0.75
    return color


def _legs_cover(points: np.ndarray, parts: np.ndarray, look: Mapping[str, Any]) -> np.ndarray:
    below = np.isin(parts, _LOWER_PARTS) & (points[:, 2] < _WAIST + 0.03)
    return below * _step(points[:, 2], look["leg_hem"] - 0.004, look["leg_hem"] + 0.004)


def _legs_paint(points: np.ndarray, look: Mapping[str, Any]) -> np.ndarray:
    color = pattern(look["legs"], points[:, 1:], np.full(len(points), -1.0))
    if look["stripe"]:
        outer = np.abs(points[:, 1]) - (0.172 - 0.02 * (0.9 - points[:, 2]))
        side = (np.abs(points[:, 0] + 0.002) < 0.012) & (outer > -0.03)
        color = np.where(side[:, None], 0.9, color)
    belt = (points[:, 2] > _WAIST - 0.028) & (points[:, 2] < _WAIST + 0.01)
    color[belt] *= 0.55
    return color


def _shoes(
    points: np.ndarray, parts: np.ndarray, look: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    feet, shins = np.isin(parts, (5, 6)), (parts >= 11) & (parts <= 14)
    sock = (feet | shins) & (points[:, 2] < 0.20)
    shoe = (feet | shins) & (points[:, 2] < 0.088)
    cover = np.where(shoe, 1.0, sock * (look["leg_hem"] > 0.2))
    sole = (points[:, 2] < 0.018)[:, None]
    laces = (np.abs(np.sin(points[:, 0] * 160)) < 0.5) & (points[:, 0] > 0.05)
    laces &= (points[:, 0] < 0.12) & (points[:, 2] > 0.045)
    color = np.where(sole, 0.5 * look["shoes"] + 0.35, look["shoes"])
    color = np.where(laces[:, None], 0.85 - 0.5 * look["shoes"], color)
    return cover, np.where(shoe[:, None], color, look["socks"])


def _offsets(points: np.ndarray, look: Mapping[str, Any]) -> np.ndarray:
    """Returns the metres by which hair, clothes and soft tissue move each vertex outward."""
    low = points[:, 2] < 1.47
    on_arm = along_arm(points)
    arm = (np.abs(points[:, 1]) > 0.19) & (points[:, 2] > 0.9)
    shirt = low * ~arm * _step(points[:, 2], look["hem"] - 0.02, look["hem"] + 0.01)
    sleeve = arm * (1 - _step(on_arm, look["sleeve"] - 0.02, look["sleeve"] + 0.01))
    legs = ~arm * (points[:, 2] <= look["hem"])
    legs = legs * _step(points[:, 2], look["leg_hem"] - 0.02, look["leg_hem"] + 0.01)
    narrow = np.exp(-(((points[:, 2] - 1.09) / 0.10) ** 2))
    moved = shirt * (0.6 + 0.8 * narrow) * look["loose"] + 0.8 * sleeve * look["loose"]
    moved += legs * look["loose"] * (0.5 + 0.9 * (points[:, 2] < 0.55))
    moved += 0.004 * (points[:, 2] < 0.09)
    heavy = max(look["build"] - 1.05, 0.0)
    moved += 0.40 * heavy * _bump(points, (0.10, 0.0, 1.07), 0.10)
    moved += 0.030 * look["slender"] * _bump(points, (0.115, 0.070, 1.305), 0.042)
    return moved + _hair_offsets(points, look)


def _bump(points: np.ndarray, centre: tuple, radius: float) -> np.ndarray:
    folded = np.stack([points[:, 0], np.abs(points[:, 1]), points[:, 2]], -1)
    return np.exp(-((folded - centre) ** 2).sum(-1) / (2 * radius**2))


def _hair_offsets(points: np.ndarray, look: Mapping[str, Any]) -> np.ndarray:
    style = look["hair"]
    thick = {"none": 0.0, "short": 0.008, "swept": 0.016, "bob": 0.018, "long": 0.017}
    thick |= {"afro": 0.050, "bun": 0.008, "cap": 0.012}
    moved = _hair_cover(points, look) * thick[style]
    if style == "swept":
        moved *= 0.7 + 0.8 * _step(points[:, 0], 0.02, 0.09)
    if style == "bun":
        moved += 0.050 * _bump(points, (-0.09, 0.0, 1.715), 0.024)
    if style == "cap":
        rim = _bump(points, (0.095, 0.0, 1.694), 0.020) + _bump(points, (0.085, 0.03, 1.694), 0.020)
        moved += 0.045 * np.minimum(rim, 1.0) * (points[:, 2] > 1.682)
    return moved
