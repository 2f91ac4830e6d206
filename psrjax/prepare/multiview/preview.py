"""Draws a prepared recording for inspection: joints, outline, depth and mask."""

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from psrjax.vision.drawing import OUTLINE, draw_joints


def draw(
    frames: UInt8[np.ndarray, "t h w 3"],
    joints: Float[np.ndarray, "t 26 3"],
    face: Int[np.ndarray, "t h w"],
    depth: Float[np.ndarray, "t h w"],
    mask: UInt8[np.ndarray, "t h w"],
    *,
    enlarge: int = 3,
) -> UInt8[np.ndarray, "t hh ww 3"]:
    """Draws side by side joints and outline on the frame, depth over the frame, and the mask.

    Joints of low confidence (filled in) are hollow.
    """
    height, width = (side * enlarge for side in frames.shape[1:3])
    panels = []
    for frame, points, faces, near, person in zip(frames, joints, face, depth, mask):
        large = cv2.resize(frame, (width, height), interpolation=cv2.INTER_CUBIC)
        on = cv2.resize((faces >= 0).astype(np.float32), (width, height)) > 0.5
        edges, _ = cv2.findContours(on.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        drawn = cv2.drawContours(large.copy(), edges, -1, OUTLINE, 1, cv2.LINE_AA)
        draw_joints(drawn, points)
        coded = cv2.resize(near.astype(np.float32), (width, height))
        span = near[near > 0]
        low, high = (float(span.min()), float(span.max())) if span.size else (0.0, 1.0)
        fraction = np.clip((coded - low) / max(high - low, 1e-3), 0, 1)
        tint = cv2.applyColorMap((255 * fraction).astype(np.uint8), cv2.COLORMAP_TURBO)[..., ::-1]
        over = np.where(on[..., None], (0.35 * large + 0.65 * tint).astype(np.uint8), large)
        grey = np.repeat(cv2.resize(person, (width, height))[..., None], 3, -1)
        outlined = cv2.drawContours(grey, edges, -1, OUTLINE, 1)
        panels.append(np.concatenate([drawn, over, outlined], 1))
    return np.stack(panels)
