"""The motion of the people of the synthetic dataset: smooth controls, then joints.

An action is a path of the body over the floor, a stepping rhythm and a table of channels (how far
each arm is raised, the trunk leans, …). Feet stand still while they bear weight; the knees follow
by inverse kinematics; the hips come down as far as the legs must reach.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter1d

from psrjax.vision.body import BodyModel
from psrjax.vision.bone_frames import swing

ACTIONS = ("walk", "wave", "throw", "squat", "turn", "dance")
_ARM = ("raise", "ahead", "elbow", "twist")  # radians; see `_arm_joints`
CHANNELS = (
    *("drop", "forward", "sideways"),  # metres, of the hips
    *("pitch", "roll", "hip_turn", "chest_turn"),  # radians, of the trunk
    *("head_turn", "head_pitch", "head_roll"),
    *(f"left_{name}" for name in _ARM),
    *(f"right_{name}" for name in _ARM),
)
_X, _Y, _Z = range(3)
_STANCE = 0.60  # of a stride, a foot bears weight
_FOOT_PITCH = PchipInterpolator(  # over a stride: lands on the heel, rolls, leaves from the toes
    [-0.15, 0.0, 0.10, 0.36, 0.60, 0.74, 0.90, 1.0, 1.1],
    [0.2, -0.26, 0.0, 0.0, 0.62, 0.45, -0.20, -0.26, 0.0],
)


@dataclass(frozen=True)
class Motion:
    """The controls of a clip, each a function of the frame.

    Attributes:
      place: (t, 2) metres, the body's place on the floor.
      yaw: (t,) radians, its direction; 0 is +x.
      phase: (t,) strides taken so far; the feet alternate by it.
      lift: (t,) 0..1, how much the feet leave the floor in mid-stride.
      stagger: metres by which the left foot stands before the right one.
      width: metres added to the stance's width.
      channels: {name of CHANNELS: (t,)}.
    """

    place: np.ndarray
    yaw: np.ndarray
    phase: np.ndarray
    lift: np.ndarray
    stagger: float
    width: float
    channels: dict[str, np.ndarray]


def single_action(
    action: str, frames: int, fps: float, facing: float, generator: np.random.Generator
) -> Motion:
    """Draws one action, cut from its middle so that it shows at once; `facing` in radians."""
    time = np.arange(frames) / fps
    return _MOTIONS[action](time, facing, generator)


def action_sequence(
    frames: int, fps: float, facing: float, generator: np.random.Generator
) -> Motion:
    """Draws many actions one after the other, blended, with turns on the spot."""
    time = np.arange(frames) / fps
    parts, weights = [], []
    start = -generator.uniform(0.5, 2.0)
    yaw_times, yaw_values = [-10.0, start], [facing, facing]
    names = list(generator.permutation(ACTIONS))
    while start < time[-1] + 1.0:
        if not names:
            names = list(generator.permutation(ACTIONS))
        end = start + generator.uniform(2.6, 4.2)
        action = names.pop()
        part = _MOTIONS[action](time - start, 0.0, generator)
        parts.append(part)
        weights.append(_ease((time - start) / 0.7 + 0.5) * _ease((end - time) / 0.7 + 0.5))
        yaw_times += [end - 0.9, end + 0.6]
        yaw_values += [yaw_values[-1], yaw_values[-1] + _turn(action, generator)]
        start = end
    yaw = PchipInterpolator(yaw_times, yaw_values)(time)
    total = np.sum(weights, 0)
    channels = {
        name: sum(w * part.channels[name] for w, part in zip(weights, parts)) / total
        for name in CHANNELS
    }
    angle = 2 * np.pi * (time / 9.0 + generator.uniform())
    place = 0.22 * np.stack([np.cos(angle), np.sin(1.7 * angle)], -1)
    moving = np.abs(np.gradient(yaw, time)) + 2.0 * np.linalg.norm(
        np.gradient(place, time, axis=0), axis=-1
    )
    lift = np.clip(gaussian_filter1d(moving, 0.25 * fps, mode="nearest") / 0.6, 0.25, 1.0)
    phase = generator.uniform() + 0.85 * time
    return Motion(place, yaw, phase, lift, 0.0, 0.03, channels)


def _turn(action: str, generator: np.random.Generator) -> float:
    reach = 1.6 * np.pi if action == "turn" else 0.6 * np.pi
    return generator.choice((-1.0, 1.0)) * generator.uniform(0.5, 1.0) * reach


def _ease(value: np.ndarray) -> np.ndarray:
    ramp = np.clip(value, 0.0, 1.0)
    return ramp**3 * (10 - 15 * ramp + 6 * ramp**2) + 1e-6


def _standing(time: np.ndarray, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Draws a body at rest: arms hanging, weight moving a little from foot to foot, breath."""
    phase = generator.uniform(0, 2 * np.pi)
    sway = np.sin(2 * np.pi * 0.35 * time + phase)
    channels = {name: np.zeros_like(time) for name in CHANNELS}
    channels["drop"] += 0.008 + 0.004 * np.cos(2 * (2 * np.pi * 0.35 * time + phase))
    channels["sideways"] += 0.018 * sway
    channels["roll"] += -0.03 * sway
    channels["pitch"] += 0.03 + 0.01 * np.sin(2 * np.pi * 0.5 * time)
    channels["head_turn"] += generator.normal(0, 0.15) + 0.12 * np.sin(1.3 * time + phase)
    channels["head_pitch"] += generator.normal(0, 0.06)
    for side in ("left", "right"):
        channels[f"{side}_raise"] += generator.uniform(0.16, 0.26) + 0.02 * sway
        channels[f"{side}_ahead"] += generator.uniform(0.1, 0.5)
        channels[f"{side}_elbow"] += generator.uniform(0.35, 0.55)
    return channels


def _place(time: np.ndarray, facing: float, generator: np.random.Generator) -> dict[str, Any]:
    spot = generator.uniform(-0.22, 0.22, 2)
    return {
        "place": np.broadcast_to(spot, (len(time), 2)).copy(),
        "yaw": np.full(len(time), facing),
        "phase": np.full(len(time), 0.3),
        "lift": np.zeros(len(time)),
        "stagger": generator.uniform(-0.04, 0.04),
        "width": generator.uniform(0.02, 0.07),
    }


def _walk(time: np.ndarray, facing: float, generator: np.random.Generator) -> Motion:
    channels = _standing(time, generator)
    speed, rhythm = generator.uniform(0.75, 1.05), generator.uniform(0.80, 0.95)
    phase = generator.uniform() + rhythm * time
    swing_left = -np.sin(2 * np.pi * phase)  # the left leg leads at phase 0
    reach = generator.uniform(0.40, 0.62)
    for side, sign in (("left", 1.0), ("right", -1.0)):
        channels[f"{side}_raise"] = np.sqrt(0.14**2 + (reach * swing_left) ** 2)
        channels[f"{side}_ahead"] = np.arctan2(sign * reach * swing_left, 0.14)
        channels[f"{side}_elbow"] = 0.50 + 0.22 * sign * swing_left
    channels["drop"] = 0.020 + 0.012 * np.cos(4 * np.pi * phase)
    channels["sideways"] = 0.024 * np.cos(2 * np.pi * (phase - 0.3))
    channels["hip_turn"] = -0.12 * np.cos(2 * np.pi * phase)
    channels["chest_turn"] = 0.14 * np.cos(2 * np.pi * phase)
    channels["pitch"] = np.full_like(time, 0.06)
    channels["roll"] = 0.02 * np.cos(2 * np.pi * (phase - 0.3))
    middle = 0.5 * (time[0] + time[-1])
    heading = facing + generator.uniform(-0.35, 0.35)
    along = speed * (time - middle)
    ground = _place(time, heading, generator)
    ground["place"] = 0.5 * ground["place"] + along[:, None] * (np.cos(heading), np.sin(heading))
    ground |= {"phase": phase, "lift": np.ones_like(time), "stagger": 0.0, "width": -0.03}
    return Motion(**ground, channels=channels)


def _wave(time: np.ndarray, facing: float, generator: np.random.Generator) -> Motion:
    channels = _standing(time, generator)
    side = generator.choice(("left", "right"))
    beat = 2 * np.pi * (generator.uniform(1.2, 1.7) * time + generator.uniform())
    both = generator.uniform() < 0.3
    for arm in ("left", "right") if both else (side,):
        high = generator.uniform(1.45, 2.0)
        channels[f"{arm}_raise"] = high + 0.10 * np.sin(beat)
        channels[f"{arm}_ahead"] = np.full_like(time, generator.uniform(0.1, 0.5))
        channels[f"{arm}_elbow"] = 1.15 + 0.45 * np.sin(beat + 0.4)
        channels[f"{arm}_twist"] = np.full_like(time, -1.35)
    channels["roll"] += (0.05 if side == "right" else -0.05) * np.sin(0.5 * beat)
    return Motion(**_place(time, facing, generator), channels=channels)


def _throw(time: np.ndarray, facing: float, generator: np.random.Generator) -> Motion:
    channels = _standing(time, generator)
    arm, sign = (("right", 1.0), ("left", -1.0))[int(generator.integers(2))]
    other = "left" if arm == "right" else "right"
    period = generator.uniform(1.3, 1.7)
    moment = (time / period + generator.uniform(0.0, 0.25)) % 1.0

    def keys(*values: float) -> np.ndarray:
        """Interpolates ready, wind up, release, follow through, ready; periodic and smooth."""
        marks = np.array([0.0, 0.34, 0.56, 0.72, 1.0])
        rounds = np.concatenate([marks[:-1] - 1, marks[:-1], marks + 1])
        table = np.concatenate([values[:-1], values[:-1], values])
        return PchipInterpolator(rounds, table)(moment)

    channels[f"{arm}_raise"] = keys(0.7, 1.65, 1.75, 0.75, 0.7)
    channels[f"{arm}_ahead"] = keys(0.9, -0.35, 1.15, 1.75, 0.9)
    channels[f"{arm}_elbow"] = keys(1.3, 1.75, 0.55, 0.45, 1.3)
    channels[f"{arm}_twist"] = keys(-0.3, -1.35, -0.9, -0.2, -0.3)
    channels[f"{other}_raise"] = keys(0.5, 1.15, 0.6, 0.45, 0.5)
    channels[f"{other}_ahead"] = keys(0.8, 1.35, 0.6, 0.1, 0.8)
    channels[f"{other}_elbow"] = keys(0.9, 0.45, 0.95, 0.9, 0.9)
    channels["chest_turn"] = sign * keys(-0.1, -0.65, 0.30, 0.50, -0.1)
    channels["hip_turn"] = sign * keys(0.0, -0.30, 0.15, 0.25, 0.0)
    channels["head_turn"] = sign * keys(0.1, 0.6, -0.25, -0.4, 0.1)
    channels["pitch"] = keys(0.05, -0.10, 0.16, 0.28, 0.05)
    channels["forward"] = keys(0.0, -0.09, 0.07, 0.10, 0.0)
    channels["drop"] = keys(0.02, 0.035, 0.05, 0.06, 0.02)
    ground = _place(time, facing, generator)
    ground |= {"stagger": sign * 0.30, "width": 0.06}
    return Motion(**ground, channels=channels)


def _squat(time: np.ndarray, facing: float, generator: np.random.Generator) -> Motion:
    channels = _standing(time, generator)
    period = generator.uniform(1.6, 2.2)
    turn = 2 * np.pi * (time / period + generator.uniform(0.0, 0.3))
    down = 0.5 - 0.5 * np.cos(turn)
    depth = generator.uniform(0.28, 0.42)
    channels["drop"] = 0.01 + depth * down
    channels["forward"] = -0.22 * depth * down / 0.4
    channels["pitch"] = 0.04 + 0.62 * down * depth / 0.4
    channels["head_pitch"] = -0.35 * down
    for side in ("left", "right"):
        channels[f"{side}_raise"] = 0.25 + 1.25 * down
        channels[f"{side}_ahead"] = 0.5 + 0.9 * _ease(2 * down)
        channels[f"{side}_elbow"] = 0.45 - 0.1 * down
    ground = _place(time, facing, generator)
    ground["width"] = generator.uniform(0.10, 0.20)
    return Motion(**ground, channels=channels)


def _turn_around(time: np.ndarray, facing: float, generator: np.random.Generator) -> Motion:
    channels = _standing(time, generator)
    rate = generator.choice((-1.0, 1.0)) * generator.uniform(1.5, 2.3)
    phase = generator.uniform() + 1.05 * time
    beat = np.sin(2 * np.pi * phase)
    for side, sign in (("left", 1.0), ("right", -1.0)):
        channels[f"{side}_raise"] = 0.42 + 0.12 * sign * beat
        channels[f"{side}_ahead"] = 0.55 + 0.35 * sign * beat
        channels[f"{side}_elbow"] = np.full_like(time, 0.7)
    channels["chest_turn"] = np.full_like(time, 0.12 * rate)
    channels["head_turn"] = np.full_like(time, 0.16 * rate)
    channels["sideways"] = 0.03 * np.cos(2 * np.pi * (phase - 0.3))
    channels["drop"] = 0.025 + 0.010 * np.cos(4 * np.pi * phase)
    ground = _place(time, facing, generator)
    ground["yaw"] = facing + rate * (time - 0.5 * time[-1])
    ground |= {"phase": phase, "lift": np.full_like(time, 0.8), "stagger": 0.0, "width": 0.0}
    return Motion(**ground, channels=channels)


def _dance(time: np.ndarray, facing: float, generator: np.random.Generator) -> Motion:
    channels = _standing(time, generator)
    tempo = generator.uniform(0.9, 1.15)
    phase = generator.uniform() + tempo * time
    beat, half = 2 * np.pi * phase, np.pi * phase
    for side, sign in (("left", 1.0), ("right", -1.0)):
        channels[f"{side}_raise"] = 1.15 + 0.65 * np.sin(half + 0.6 * sign)
        channels[f"{side}_ahead"] = 0.75 + 0.5 * np.sin(beat + sign)
        channels[f"{side}_elbow"] = 1.25 + 0.40 * np.sin(beat + 1.2 * sign)
        channels[f"{side}_twist"] = -0.5 + 0.6 * np.sin(half + 1.5 * sign)
    channels["chest_turn"] = 0.28 * np.sin(beat)
    channels["hip_turn"] = -0.25 * np.sin(beat)
    channels["roll"] = 0.10 * np.cos(beat)
    channels["sideways"] = 0.05 * np.cos(2 * np.pi * (phase - 0.3))
    channels["drop"] = 0.055 + 0.030 * np.cos(2 * beat)
    channels["head_roll"] = 0.12 * np.sin(beat + 0.5)
    channels["head_turn"] = 0.25 * np.sin(half)
    ground = _place(time, facing, generator)
    sway = 0.10 * np.sin(half)[:, None] * (-np.sin(facing), np.cos(facing))
    ground["place"] = ground["place"] + sway
    ground["yaw"] = facing + 0.35 * np.sin(half + generator.uniform(0, 6))
    ground |= {"phase": phase, "lift": np.full_like(time, 0.9), "stagger": 0.0, "width": 0.06}
    return Motion(**ground, channels=channels)


_MOTIONS: dict[str, Callable[..., Motion]] = {
    "walk": _walk,
    "wave": _wave,
    "throw": _throw,
    "squat": _squat,
    "turn": _turn_around,
    "dance": _dance,
}


def joints(model: BodyModel, motion: Motion, fps: float) -> Float[np.ndarray, "t 26 3"]:
    """Returns the 26 joints of a body in motion, world metres (z up, the floor at 0)."""
    rest, channel = model.joints, motion.channels
    feet = {side: _foot(rest, motion, side) for side in ("left", "right")}
    facing = _about(_Z, motion.yaw)
    shift = np.stack([channel["forward"], channel["sideways"], 0 * motion.yaw], -1)
    hips = np.concatenate([motion.place, 0 * motion.yaw[:, None]], -1)
    hips = hips + np.einsum("tij,tj->ti", facing, shift)
    pelvis = facing @ _about(_Z, channel["hip_turn"]) @ _about(_X, 0.4 * channel["roll"])
    hips[:, 2] = _hip_height(rest, hips, pelvis, feet, fps) - channel["drop"]
    trunk = facing @ _about(_Y, channel["pitch"]) @ _about(_X, channel["roll"])
    chest = trunk @ _about(_Z, channel["chest_turn"])
    found = np.zeros((len(motion.yaw), 26, 3))
    found[:, 8] = hips
    found[:, 1] = hips + np.linalg.norm(rest[1] - rest[8]) * trunk[:, :, 2]
    for index in (9, 12):
        found[:, index] = hips + pelvis @ (rest[index] - rest[8])
    for index in (2, 5):
        found[:, index] = found[:, 1] + chest @ (rest[index] - rest[1])
    _put_head(found, rest, chest, channel)
    for side in ("left", "right"):
        _put_arm(found, rest, chest, channel, side)
        _put_leg(found, rest, facing, feet[side], side)
    return found


def _about(axis: int, angle: np.ndarray) -> np.ndarray:
    """Returns (t, 3, 3) rotations about an axis."""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    matrix = np.broadcast_to(np.eye(3), (len(angle), 3, 3)).copy()
    matrix[:, first, first] = matrix[:, second, second] = np.cos(angle)
    matrix[:, second, first] = np.sin(angle)
    matrix[:, first, second] = -np.sin(angle)
    return matrix


def _put_head(found: np.ndarray, rest: np.ndarray, chest: np.ndarray, channel: dict) -> None:
    turn, pitch, roll = (channel[f"head_{name}"] for name in ("turn", "pitch", "roll"))
    pitch = pitch - 0.7 * channel["pitch"]  # people look ahead, not where their chest points

    def turned(share: float) -> np.ndarray:
        return (
            chest @ _about(_Z, share * turn) @ _about(_Y, share * pitch) @ _about(_X, share * roll)
        )

    base = rest[[17, 18]].mean(0)
    base = base + 0.35 * (rest[1] - base)
    top_of_neck = found[:, 1] + turned(0.5) @ (base - rest[1])
    for index in (0, 15, 16, 17, 18, 25):
        found[:, index] = top_of_neck + turned(1.0) @ (rest[index] - base)


def _put_arm(
    found: np.ndarray, rest: np.ndarray, chest: np.ndarray, channel: dict, side: str
) -> None:
    """Places an arm.

    Raise: 0 hangs down, pi/2 is level. Ahead: 0 out to the side, pi/2 to the front. Twist turns the
    plane in which the elbow bends; negative turns the forearm up.
    """
    sign = 1.0 if side == "left" else -1.0
    shoulder, elbow, wrist = (5, 6, 7) if side == "left" else (2, 3, 4)
    lift, ahead, bend, twist = (channel[f"{side}_{name}"] for name in _ARM)
    out = np.stack(
        [np.sin(lift) * np.sin(ahead), sign * np.sin(lift) * np.cos(ahead), -np.cos(lift)], -1
    )
    hanging = np.broadcast_to([0.0, sign * np.sin(0.3), -np.cos(0.3)], out.shape)
    front = swing(np.broadcast_to([1.0, 0.0, 0.0], out.shape), hanging, out)
    beside = np.cross(out, front)
    angle = (sign * twist)[:, None]
    front = np.cos(angle) * front + np.sin(angle) * beside
    lower = np.cos(bend)[:, None] * out + np.sin(bend)[:, None] * front
    upper_length = np.linalg.norm(rest[elbow] - rest[shoulder])
    lower_length = np.linalg.norm(rest[wrist] - rest[elbow])
    found[:, elbow] = found[:, shoulder] + upper_length * np.einsum("tij,tj->ti", chest, out)
    found[:, wrist] = found[:, elbow] + lower_length * np.einsum("tij,tj->ti", chest, lower)


def _foot(rest: np.ndarray, motion: Motion, side: str) -> dict[str, np.ndarray]:
    """Returns ankle (t, 3) and rotation (t, 3, 3) of a foot that stands and swings."""
    left = side == "left"
    ankle, big, heel = (14, 19, 21) if left else (11, 22, 24)
    offset = np.array([0.5 * motion.stagger, 0.82 * abs(rest[ankle, 1]) + 0.5 * motion.width])
    offset = offset if left else -offset
    phase = motion.phase + (0.0 if left else 0.5)
    stride = np.floor(phase)
    part = phase - stride
    going = np.clip((part - _STANCE) / (1 - _STANCE), 0.0, 1.0)
    ease = going**3 * (10 - 15 * going + 6 * going**2)
    middle = stride + 0.5 * _STANCE - (0.0 if left else 0.5)  # the body's phase over the foot
    here, there = _standing_at(motion, middle, offset), _standing_at(motion, middle + 1, offset)
    spot = here[0] + ease[:, None] * (there[0] - here[0])
    yaw = here[1] + ease * (there[1] - here[1])
    yaw = yaw + (0.10 if left else -0.10)
    pitch = motion.lift * _FOOT_PITCH(part)
    toe, back = rest[big] - rest[ankle], rest[heel] - rest[ankle]
    toe, back = toe * (1, 0, 1), back * (1, 0, 1)
    toe[2] = back[2] = -rest[ankle, 2]
    toe[0] *= 0.75  # the ball of the foot
    turn = _about(_Z, yaw) @ _about(_Y, pitch)
    flat = np.concatenate([spot, 0 * yaw[:, None]], -1) - _about(_Z, yaw) @ [0, 0, toe[2]]
    pivot = np.where(pitch[:, None] > 0, toe, back)
    ankle_at = flat + np.einsum("tij,tj->ti", _about(_Z, yaw) - turn, pivot)
    ankle_at[:, 2] += motion.lift * 0.065 * np.sin(np.pi * going) ** 2
    return {"ankle": ankle_at, "rotation": turn}


def _standing_at(
    motion: Motion, phase: np.ndarray, offset: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns place (t, 2) and yaw (t,) of a foot that the body is over at `phase`."""
    if np.ptp(motion.phase) == 0:
        place, yaw = motion.place, motion.yaw
    else:
        values = [_extended(phase, motion.phase, v) for v in (*motion.place.T, motion.yaw)]
        place, yaw = np.stack(values[:2], -1), values[2]
    cosine, sine = np.cos(yaw), np.sin(yaw)
    forward, side = offset
    across = np.stack([forward * cosine - side * sine, forward * sine + side * cosine], -1)
    return place + across, yaw


def _extended(at: np.ndarray, phase: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Interpolates linearly, and straight on beyond both ends of the clip."""
    inside = np.interp(at, phase, values)
    first = (values[1] - values[0]) / (phase[1] - phase[0])
    last = (values[-1] - values[-2]) / (phase[-1] - phase[-2])
    inside = np.where(at < phase[0], values[0] + first * (at - phase[0]), inside)
    return np.where(at > phase[-1], values[-1] + last * (at - phase[-1]), inside)


def _hip_height(
    rest: np.ndarray, hips: np.ndarray, pelvis: np.ndarray, feet: dict, fps: float
) -> np.ndarray:
    """Returns the height that both legs reach, at most that at rest, smooth in time."""
    height = np.full(len(hips), rest[8, 2] - 0.004)
    for side, (hip, knee, ankle) in {"left": (12, 13, 14), "right": (9, 10, 11)}.items():
        length = np.linalg.norm(rest[knee] - rest[hip]) + np.linalg.norm(rest[ankle] - rest[knee])
        joint = hips + pelvis @ (rest[hip] - rest[8])
        away = ((feet[side]["ankle"] - joint)[:, :2] ** 2).sum(-1)
        reach = np.sqrt(np.maximum((0.992 * length) ** 2 - away, 0.3**2))
        height = np.minimum(height, feet[side]["ankle"][:, 2] + reach - (joint[:, 2] - hips[:, 2]))
    smooth = gaussian_filter1d(height, 0.06 * fps, mode="nearest")
    return np.minimum(smooth, height + 0.01)


def _put_leg(
    found: np.ndarray, rest: np.ndarray, facing: np.ndarray, foot: dict, side: str
) -> None:
    left = side == "left"
    hip, knee, ankle = (12, 13, 14) if left else (9, 10, 11)
    upper = np.linalg.norm(rest[knee] - rest[hip])
    lower = np.linalg.norm(rest[ankle] - rest[knee])
    reach = foot["ankle"] - found[:, hip]
    distance = np.linalg.norm(reach, axis=-1, keepdims=True)
    limit = np.clip(distance, abs(upper - lower) + 0.02, 0.9995 * (upper + lower))
    along = reach / distance
    found[:, ankle] = found[:, hip] + limit * along
    ahead = facing[:, :, 0] + foot["rotation"][:, :, 0]
    ahead = ahead + (0.25 if left else -0.25) * facing[:, :, 1]
    ahead = ahead - (ahead * along).sum(-1, keepdims=True) * along
    ahead = ahead / np.linalg.norm(ahead, axis=-1, keepdims=True)
    cosine = (upper**2 + limit**2 - lower**2) / (2 * upper * limit)
    sine = np.sqrt(np.maximum(1 - cosine**2, 0.0))
    found[:, knee] = found[:, hip] + upper * (cosine * along + sine * ahead)
    for index in (19, 20, 21) if left else (22, 23, 24):
        found[:, index] = found[:, ankle] + foot["rotation"] @ (rest[index] - rest[ankle])
