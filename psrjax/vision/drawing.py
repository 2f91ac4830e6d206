"""Draws what a stored dataset holds: joints, masks, flow and body parts over frames."""

from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from psrjax.ops import geometry, pose

LEFT, RIGHT, MIDDLE = (80, 220, 120), (255, 120, 80), (250, 230, 90)
OUTLINE = (255, 40, 160)
HEIGHT = 256  # of a panel, about
_TINT = 0.15 * np.array([255, 40, 160], np.float32)  # behind a person who is cut out


def flow_range(flow: Float[np.ndarray, "t h w 2"]) -> float:
    """Pixels a frame that all but the fastest half percent of the pixels move at most."""
    return float(np.percentile(np.linalg.norm(flow.astype(np.float32), axis=-1), 99.5))


def one_frame(streams: Mapping[str, np.ndarray], index: int) -> dict[str, np.ndarray]:
    """One frame of streams; the plate is that of all frames."""
    return {name: s if name == "background" else s[index] for name, s in streams.items()}


def panel(
    streams: Mapping[str, np.ndarray], *, fastest: float = 1.0
) -> UInt8[np.ndarray, "hh ww 3"]:
    """One picture of what streams of a data set hold at one frame, side by side.

    Joints and the mask's outline on the frame; the person cut out; the flow, whose hue is its
    direction and whose light is its length up to `fastest` pixels, grey where both directions
    disagree; body parts; the mesh's label; the plate. What is not among the streams is left out.
    """
    frame = streams["frames"]
    times = max(1, round(HEIGHT / frame.shape[0]))
    size = (frame.shape[1] * times, frame.shape[0] * times)
    large = cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC)
    shown = [large.copy()]
    if "mask" in streams:
        soft = cv2.resize(streams["mask"], size).astype(np.float32)[..., None] / 255.0
        solid = (soft[..., 0] > 0.5).astype(np.uint8)
        edges, _ = cv2.findContours(solid, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(shown[0], edges, -1, OUTLINE, 1, cv2.LINE_AA)
        shown.append(np.uint8(large * soft + _TINT * (1.0 - soft)))
    if "joints" in streams:
        draw_joints(shown[0], streams["joints"])
    if "flow" in streams:
        sure = streams.get("flow_confidence", np.full(frame.shape[:2], 255, np.uint8))
        shown.append(cv2.resize(_flow_colours(streams["flow"], sure, fastest), size))
    if "iuv" in streams:
        parts = cv2.applyColorMap(np.uint8(10 * streams["iuv"][..., 0]), cv2.COLORMAP_TURBO)
        shown.append(cv2.resize(parts[..., ::-1], size, interpolation=cv2.INTER_NEAREST))
    if "mesh_label" in streams:
        shown.append(cv2.resize(streams["mesh_label"], size, interpolation=cv2.INTER_NEAREST))
    if "background" in streams:
        shown.append(cv2.resize(streams["background"], size, interpolation=cv2.INTER_CUBIC))
    return np.concatenate(shown, axis=1)


def _flow_colours(flow: np.ndarray, confidence: np.ndarray, fastest: float) -> np.ndarray:
    length, angle = cv2.cartToPolar(*np.moveaxis(flow.astype(np.float32), -1, 0).copy())
    hsv = np.stack(
        [
            np.uint8(angle * 90 / np.pi),
            confidence,
            np.uint8(255 * np.clip(length / fastest, 0.0, 1.0)),
        ],
        axis=-1,
    )
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def draw_joints(image: UInt8[np.ndarray, "h w 3"], joints: Float[np.ndarray, "26 3"]) -> None:
    """Draws a person's joints into a picture; those of low confidence (filled in) are hollow."""
    height, width = image.shape[:2]
    places = geometry.unit_to_pixels(joints[:, :2], height=height, width=width)
    sure = [(int(round(x)), int(round(y))) for x, y in np.clip(places, -4096, 4096)]
    for one, other in pose.LIMBS:
        if joints[one, 2] > 0 and joints[other, 2] > 0:
            cv2.line(image, sure[one], sure[other], _color(other), 1, cv2.LINE_AA)
    for joint, place in enumerate(sure):
        if joints[joint, 2] > 0:
            hollow = joints[joint, 2] <= 0.3
            cv2.circle(image, place, 3, _color(joint), 1 if hollow else -1, cv2.LINE_AA)


def _color(joint: int) -> tuple[int, int, int]:
    name = pose.NAMES[joint]
    return LEFT if name.startswith("left") else RIGHT if name.startswith("right") else MIDDLE


def grid(videos: Mapping[str, np.ndarray], *, columns: int = 8) -> np.ndarray:
    """A picture of a comparison: one row for each label, `columns` frames spread over its time.

    Args:
      videos: {label: (t h w 3) uint8}; the last frame of a shorter one is repeated.
      columns: how many frames to show, at most.

    Returns:
      (rows * h, columns * w, 3) uint8.
    """
    length = max(len(video) for video in videos.values())
    chosen = np.unique(np.linspace(0, length - 1, min(columns, length)).round().astype(int))
    rows = [np.concatenate(list(v[np.minimum(chosen, len(v) - 1)]), 1) for v in videos.values()]
    return np.concatenate(rows, 0)
