"""Small clips of known truth: a stick person in front of a patterned wall."""

import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from psrjax.data import video

SIZE = (96, 128)  # height, width
TALL = 66.0


@dataclass(frozen=True)
class StickScene:
    """Frames and their truth: joints (t, 26, 3) in pixels, masks (t, h, w) bool, the wall."""

    frames: np.ndarray
    joints: np.ndarray
    masks: np.ndarray
    wall: np.ndarray


def wall(size=SIZE, seed=0):
    """Draws a wall with many distinct corners."""
    small = np.random.default_rng(seed).integers(40, 140, (size[0] // 8, size[1] // 8, 3))
    return cv2.resize(small.astype(np.uint8), size[::-1], interpolation=cv2.INTER_CUBIC)


def person(x, y, swing, tall=TALL):
    """Returns the 26 joints of somebody standing at (x, y); arms swing by radians."""
    joints = np.zeros((26, 3))

    def put(index, dx, up):
        joints[index] = x + dx * tall, y - up * tall, 0.9

    put(25, 0, 1.0), put(0, 0, 0.90), put(1, 0, 0.82), put(8, 0, 0.52)
    for side, (shoulder, elbow, wrist, hip, knee, ankle, eye, ear, big, small, heel) in (
        (-1, (2, 3, 4, 9, 10, 11, 15, 17, 22, 23, 24)),
        (1, (5, 6, 7, 12, 13, 14, 16, 18, 19, 20, 21)),
    ):
        put(eye, side * 0.02, 0.94), put(ear, side * 0.04, 0.93)
        put(shoulder, side * 0.11, 0.82), put(hip, side * 0.065, 0.52)
        angle = side * swing
        put(elbow, side * 0.11 + 0.17 * np.sin(angle), 0.82 - 0.17 * np.cos(angle))
        put(wrist, side * 0.11 + 0.32 * np.sin(angle), 0.82 - 0.32 * np.cos(angle))
        put(knee, side * 0.07, 0.28), put(ankle, side * 0.075, 0.04), put(heel, side * 0.07, 0.0)
        put(big, side * 0.10, 0.0), put(small, side * 0.12, 0.0)
    return joints


def draw(frame, joints, tall=TALL, shade=255):
    """Draws a person into a frame and returns the mask."""
    mask = np.zeros(frame.shape[:2], np.uint8)
    at = np.round(joints[:, :2]).astype(int)
    thick = {"limb": max(1, round(0.07 * tall)), "torso": max(1, round(0.1 * tall))}
    for a, b in ((2, 3), (3, 4), (5, 6), (6, 7), (9, 10), (10, 11), (12, 13), (13, 14),
                 (11, 22), (14, 19), (0, 1)):  # fmt: skip
        cv2.line(mask, at[a].tolist(), at[b].tolist(), 1, thick["limb"])
    cv2.fillConvexPoly(mask, cv2.convexHull(at[[2, 5, 12, 9]]), 1)
    cv2.circle(mask, at[0].tolist(), round(0.075 * tall), 1, -1)
    rows, columns = np.nonzero(mask)
    cloth = 30 * ((rows // 3 + np.round(columns - joints[8, 0]).astype(int) // 3) % 2)
    frame[rows, columns] = np.stack([shade - cloth, 60 + cloth, 200 - cloth], -1)
    return mask > 0


def make_scene(frames=16, *, size=SIZE, walk=2.0, others=(), tall=TALL):
    """Draws somebody walking and swinging the arms; `others` stand at (x, height in pixels)."""
    background = wall(size)
    pictures, joints, masks = [], [], []
    for time in range(frames):
        picture = background.copy()
        for x, other_tall in others:
            draw(picture, person(x, size[0] - 8, 0.1, other_tall), other_tall, shade=120)
        here = person(size[1] * 0.35 + walk * time, size[0] - 6, 0.3 + 0.05 * time, tall)
        masks.append(draw(picture, here, tall))
        pictures.append(picture)
        joints.append(here)
    return StickScene(np.stack(pictures), np.stack(joints), np.stack(masks), background)


def write_video(path, scene, **options):
    """Writes the scene without loss (a `.mkv`) or as H.264."""
    lossless = Path(path).suffix == ".mkv"
    video.write(path, scene.frames, lossless=lossless, **{"fps": 10.0, **options})
    return Path(path)


def write_openpose(folder, people):
    """Writes one BODY_25 file a frame; `people` is a list of frames of lists of (26, 3)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for number, here in enumerate(people):
        listed = [
            {"person_id": [-1], "pose_keypoints_2d": np.asarray(one)[:25].ravel().tolist()}
            for one in here
        ]
        name = f"clip_{number:012d}_keypoints.json"
        (folder / name).write_text(json.dumps({"version": 1.3, "people": listed}))
    return folder
