"""Draws the streams of a dataset: joints, masks, flow and body parts."""

from collections.abc import Mapping

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from psrjax.ops import geometry, pose

LEFT, RIGHT, MIDDLE = (80, 220, 120), (255, 120, 80), (250, 230, 90)
OUTLINE = (255, 40, 160)
HEIGHT = 256  # of a panel, approximately
_TINT = 0.15 * np.array([255, 40, 160], np.float32)  # behind the segmented person


def flow_range(flow: Float[np.ndarray, "t h w 2"]) -> float:
    """Returns the 99.5th percentile of the flow's length in pixels a frame."""
    return float(np.percentile(np.linalg.norm(flow.astype(np.float32), axis=-1), 99.5))


def one_frame(streams: Mapping[str, np.ndarray], index: int) -> dict[str, np.ndarray]:
    """Returns the streams of one frame; the background is that of all frames."""
    return {name: s if name == "background" else s[index] for name, s in streams.items()}


def panel(
    streams: Mapping[str, np.ndarray], *, fastest: float = 1.0
) -> UInt8[np.ndarray, "hh ww 3"]:
    """Draws the streams of a dataset at one frame side by side.

    From left to right: joints and the mask's outline on the frame; the segmented person; the flow
    (its hue is the direction, its brightness the length up to `fastest` pixels, grey where both
    directions disagree); body parts; the mesh's label; the background. Absent streams are skipped.
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
        shown.append((large * soft + _TINT * (1.0 - soft)).astype(np.uint8))
    if "joints" in streams:
        draw_joints(shown[0], streams["joints"])
    if "flow" in streams:
        sure = streams.get("flow_confidence", np.full(frame.shape[:2], 255, np.uint8))
        shown.append(cv2.resize(_flow_colours(streams["flow"], sure, fastest), size))
    if "iuv" in streams:
        parts = cv2.applyColorMap(
            (10 * streams["iuv"][..., 0]).astype(np.uint8), cv2.COLORMAP_TURBO
        )
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
    """Draws a person's joints into a picture; those of low confidence are hollow."""
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
    """Tiles videos for comparison: one row for each, up to `columns` frames spread over time.

    Args:
      videos: {label: (t h w 3) uint8}; the last frame of a shorter one is repeated.
      columns: the largest number of frames.

    Returns:
      (rows * h, columns * w, 3) uint8.
    """
    length = max(len(video) for video in videos.values())
    chosen = np.unique(np.linspace(0, length - 1, min(columns, length)).round().astype(int))
    rows = [np.concatenate(list(v[np.minimum(chosen, len(v) - 1)]), 1) for v in videos.values()]
    return np.concatenate(rows, 0)
