"""Renders short clips of one person, and writes them in the layouts of published datasets."""

import dataclasses
import json
import pickle

import cv2
import numpy as np

from psrjax.data import video
from psrjax.prepare.common import lifting
from psrjax.synthetic import clip_rendering, dataset
from psrjax.vision import body, raster, rendering

RATE = 25.0


def wall(size, seed=0):
    """A still background of soft blobs."""
    small = np.random.default_rng(seed).integers(0, 110, (6, 8, 3), np.uint8)
    return cv2.resize(small, size[::-1], interpolation=cv2.INTER_CUBIC)


def render(vertices, camera, seed=0):
    """{"frames", "mask", "iuv"} of a posed body in the colours of its parts before a wall."""
    model = body.template()
    colours = np.random.default_rng(seed).integers(120, 256, (25, 3), np.uint8)
    seen = [raster.render(now, model.faces, camera) for now in vertices]
    mask = np.stack([picture.face >= 0 for picture in seen])
    part = np.stack([model.face_part[picture.face] for picture in seen])
    frames = np.where(mask[..., None], colours[part], wall(camera.size, seed))
    iuv = np.stack([rendering.iuv(model, picture) for picture in seen])
    return {"frames": frames, "mask": mask, "iuv": iuv}


def clip(frames=16, size=(64, 64), person=0):
    """Renders an acting person: as `render`, and "joints" (t, 26, 2) in pixels."""
    world = dataset.make_config({"frames": frames, "fps": RATE, "size": size})
    specs = dataset.clip_specs(world)["train"]
    spec = next(spec for spec in specs if spec.person == person)
    spec = dataclasses.replace(spec, facing=0.0)
    joints = dataset.joints_of(world, spec)
    camera = clip_rendering.rig(0, 0, 1, size)["cam1"]
    seen = camera.project(joints)["pixels"]
    return render(body.pose(body.template(), joints), camera, person) | {"joints": seen}


def write_openpose(folder, stem, joints, *, name="{stem}_{number:012d}_keypoints.json"):
    """Writes OpenPose's JSON of BODY_25, one file per frame."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, points in enumerate(joints):
        flat = np.concatenate([points[:25], np.full((25, 1), 0.9)], 1).ravel().tolist()
        people = [{"person_id": [-1], "pose_keypoints_2d": flat, "face_keypoints_2d": []}]
        text = json.dumps({"version": 1.3, "people": people})
        (folder / name.format(stem=stem, number=number)).write_text(text)


def write_pictures(folder, frames, name="{:05d}.png"):
    """Writes a folder of pictures, RGB or gray."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(frames):
        bgr = frame[..., ::-1] if frame.ndim == 3 else frame
        data = cv2.imencode(".png", np.ascontiguousarray(bgr))[1]  # whatever the name says
        (folder / name.format(number)).write_bytes(data.tobytes())


def write_mp4(path, frames, fps=RATE):
    """Writes a small H.264 video."""
    path.parent.mkdir(parents=True, exist_ok=True)
    video.write(path, frames, fps=fps)


def write_person(root, frames=20):
    """Writes one person's folder with DensePose's PNG, and a source clip; returns both clips."""
    made = clip(frames=frames)
    write_pictures(root / "anna" / "anna", made["frames"], "frame{:05d}.png")
    write_openpose(
        root / "anna" / "openpose_json", "", made["joints"], name="frame{number:05d}_keypoints.json"
    )
    # The authors' files hold I, U, V as blue, green, red: write_pictures turns RGB about.
    write_pictures(root / "anna" / "densepose", made["iuv"][..., ::-1], "frame{:05d}_IUV.png")
    write_pictures(root / "anna" / "mask", np.uint8(255) * made["mask"])
    cv2.imwrite(str(root / "anna" / "bg.jpg"), wall((64, 64))[..., ::-1])
    (root / "anna" / "texture.jpg").write_bytes(b"made anew")
    other = clip(person=1)
    write_mp4(root / "sources" / "bert.mp4", other["frames"])
    write_openpose(root / "sources" / "bert_json", "bert", other["joints"])
    return made, other


def write_iper(root, frames=8):
    """Writes two clips in impersonator's layout: PNG named .jpg, pickles of protocol 2."""
    made = {}
    for name, swing in (("001/9/1", 0.3), ("002/1/2", 0.6)):
        pose = np.zeros((frames, 72))
        pose[:, 0] = np.pi  # upright in a picture whose y goes down
        pose[:, 3 * 16 + 2] = -1.1 + swing * np.linspace(0, 1, frames)  # left shoulder
        pose[:, 3 * 17 + 2] = 1.1
        cams = np.tile([0.85, 0.02, 0.1], (frames, 1))
        joints = lifting.smpl_joints(pose)
        far = np.array([0.02, 0.1, 60.0])
        focal = 60.0 * 0.85 / 2 * 64
        camera = lifting.telephoto(1.0, (64, 64))
        matrix = np.array([[focal, 0, 31.5], [0, focal, 31.5], [0, 0, 1]])
        camera = dataclasses.replace(camera, matrix=matrix)
        made[name] = render(body.pose(body.template(), joints + far), camera)
        write_pictures(root / "images" / name, made[name]["frames"], "{:03d}.jpg")
        folder = root / "smpls" / name
        folder.mkdir(parents=True)
        shape = np.zeros((frames, 10), np.float32)
        content = {"cams": cams.astype(np.float32), "pose": pose, "shape": shape}
        (folder / "pose_shape.pkl").write_bytes(pickle.dumps(content, protocol=2))
    (root / "train.txt").write_text("001/9/1\n")
    (root / "val.txt").write_text("002/1/2\n")
    return made
