"""Renders a tiny multi-view recording: a man and a bystander, three cameras, known truth."""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from psrjax.data import video
from psrjax.ops import pose
from psrjax.vision import body, raster
from psrjax.vision.camera import Camera

FRAMES, RATE, SIZE = 14, 30, (144, 112)
NAMES = ("cam1", "cam2", "cam3")


@dataclass
class RenderedRecording:
    """The folder, and the truth: cameras, joints (t, 26, 3) and masks {camera: (t, h, w)}."""

    root: Path
    cameras: dict[str, Camera]
    joints: np.ndarray
    masks: dict[str, np.ndarray]
    backgrounds: dict[str, np.ndarray]


def look(degrees, distance=3.6, height=1.3, size=SIZE):
    """A camera on a circle around the origin, looking at the hips of a standing man."""
    angle = np.radians(degrees)
    centre = np.array([distance * np.cos(angle), distance * np.sin(angle), height])
    forward = np.array([0.0, 0.0, 0.95]) - centre
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    focal = 1.45 * size[0]
    matrix = np.array([[focal, 0, (size[1] - 1) / 2], [0, focal, (size[0] - 1) / 2], [0, 0, 1.0]])
    lens = np.array([-0.05, 0.12, 0.001, -0.0005, 0.0])
    return Camera(matrix, rotation, -rotation @ centre, lens, size)


def walk(frames=FRAMES):
    """Joints (t, 26, 3) of a man who steps forward and sways his arms."""
    model = body.template()
    time = np.linspace(0.0, 1.0, frames)[:, None]
    joints = np.repeat(model.joints[None], frames, 0)
    joints[..., 0] += 0.7 * (time - 0.5)
    joints[..., 1] += 0.25 * np.sin(4 * time)
    for side, (elbow, wrist) in ((1, (6, 7)), (-1, (3, 4))):
        swing = side * np.sin(6 * time[:, 0])
        joints[:, elbow] += np.stack([0.10 * swing, 0 * swing, 0.01 + 0 * swing], -1)
        joints[:, wrist] += np.stack([0.25 * swing, 0 * swing, 0.03 + 0.06 * swing**2], -1)
    return joints


def render(root, *, names=NAMES, frames=FRAMES, seed=0):
    """Renders the videos and writes the joints (BODY_25B, noisy) and the calibration."""
    generator = np.random.default_rng(seed)
    cameras = {name: look(angle) for name, angle in zip(NAMES, (-40, 35, 160)) if name in names}
    joints = walk(frames)
    other = 0.62 * body.template().joints + (-1.6, 0.8, 0.0)  # a child who stands behind
    model = body.template()
    people = [body.pose(model, joints), np.repeat(body.pose(model, other[None]), frames, 0)]
    color = generator.uniform(60, 255, (25, 3))
    made = RenderedRecording(Path(root), cameras, joints, {}, {})
    for name, camera in cameras.items():
        background = cv2.GaussianBlur(
            generator.uniform(0, 255, (*SIZE, 3)).astype(np.float32), (0, 0), 6
        )
        background = np.clip((background - background.mean()) * 4 + 110, 0, 255)
        bystander = raster.render(people[1][0], model.faces, camera)
        background = np.where(bystander.face[..., None] >= 0, (90, 90, 60), background)
        pictures, masks = [], []
        for now in people[0]:
            seen = raster.render(now, model.faces, camera)
            part = np.where(seen.face >= 0, model.face_part[seen.face], 0)
            masks.append(seen.face >= 0)
            picture = np.where(masks[-1][..., None], color[part], background)
            pictures.append(np.clip(picture + generator.normal(0, 1, picture.shape), 0, 255))
        made.masks[name], made.backgrounds[name] = np.stack(masks), background
        video.write(
            made.root / "videos" / f"{name}.mp4", np.stack(pictures).astype(np.uint8), fps=RATE
        )
        for time in range(frames):
            both = [observed(camera, joints[time], generator), observed(camera, other, generator)]
            write_people(json_file(root, name, time), both[:: 1 if time % 2 else -1])
    write_calibration(root, cameras)
    return made


def observed(camera, joints, generator, noise=0.4):
    """A pose estimator's joints: BODY_25B, a little off, with confidence; a few are missing."""
    pixels = camera.project(joints)["pixels"] + generator.normal(0, noise, (26, 2))
    found = np.concatenate([pixels, generator.uniform(0.5, 0.9, (26, 1))], -1)
    found[generator.uniform(size=26) < 0.03] = 0.0
    return pose.convert(found, "body26", "body25b")


def json_file(root, name, time):
    return Path(root) / "pose" / f"{name}_json" / f"{name}.{time:04d}.json"


def write_people(path, people):
    path.parent.mkdir(parents=True, exist_ok=True)
    listed = [{"pose_keypoints_2d": np.asarray(p, float).ravel().tolist()} for p in people]
    path.write_text(json.dumps({"version": 1.3, "people": listed}))


def write_calibration(root, cameras):
    entries = {
        name: {
            "K": camera.matrix.tolist(),
            "dist_k1k2p1p2": camera.distortion[:4].tolist(),
            "R": camera.rotation.tolist(),
            "t": camera.translation.tolist(),
        }
        for name, camera in cameras.items()
    }
    folder = Path(root) / "calibration"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cameras.json").write_text(json.dumps(entries))


def turned(camera, degrees):
    """The camera with a wrong orientation."""
    angle = np.radians(degrees)
    turn = np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    )
    return replace(camera, rotation=turn @ camera.rotation, translation=turn @ camera.translation)
