"""Short clips of one rendered person, and writers of them in the forms that data sets come in."""

import dataclasses
import json

import cv2
import numpy as np

from psrjax.data import recording_views, synthetic, video, world_film
from psrjax.ops import body, raster

RATE = 25.0


def wall(size, seed=0):
    """A still background of soft blobs."""
    small = np.random.default_rng(seed).integers(0, 110, (6, 8, 3), np.uint8)
    return cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC)


def painted(vertices, camera, seed=0):
    """{"frames", "mask", "iuv"} of a posed body in the colours of its parts before a wall."""
    model = body.template()
    colours = np.random.default_rng(seed).integers(120, 256, (25, 3), np.uint8)
    seen = [raster.render(now, model.faces, camera) for now in vertices]
    mask = np.stack([picture.face >= 0 for picture in seen])
    part = np.stack([model.face_part[picture.face] for picture in seen])
    frames = np.where(mask[..., None], colours[part], wall(camera.size, seed))
    iuv = np.stack([recording_views.iuv(model, picture) for picture in seen])
    return {"frames": frames, "mask": mask, "iuv": iuv}


def clip(frames=16, size=(64, 64), person=0):
    """Somebody who acts before one camera: `painted`, and "joints" (t, 26, 2) in pixels."""
    world = synthetic.options({"frames": frames, "fps": RATE, "size": size})
    specs = synthetic.clip_specs(world)["train"]
    spec = next(spec for spec in specs if spec.person == person)
    spec = dataclasses.replace(spec, facing=0.0)
    joints = synthetic.joints_of(world, spec)
    camera = world_film.rig(0, 0, 1, size)["cam1"]
    seen = camera.project(joints)["pixels"]
    return painted(body.pose(body.template(), joints), camera, person) | {"joints": seen}


def write_openpose(folder, stem, joints, *, name="{stem}_{number:012d}_keypoints.json"):
    """OpenPose's JSON of BODY_25, a file a frame."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, points in enumerate(joints):
        flat = np.concatenate([points[:25], np.full((25, 1), 0.9)], 1).ravel().tolist()
        people = [{"person_id": [-1], "pose_keypoints_2d": flat, "face_keypoints_2d": []}]
        text = json.dumps({"version": 1.3, "people": people})
        (folder / name.format(stem=stem, number=number)).write_text(text)


def write_pictures(folder, frames, name="{:05d}.png"):
    """A folder of pictures, RGB or gray."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames):
        bgr = frame[..., ::-1] if frame.ndim == 3 else frame
        data = cv2.imencode(".png", np.ascontiguousarray(bgr))[1]  # whatever the name says
        (folder / name.format(number)).write_bytes(data.tobytes())


def write_mp4(path, frames, fps=RATE):
    """A small H.264 video."""
    path.parent.mkdir(parents=True, exist_ok=True)
    video.write(path, frames, fps=fps)
