"""Adapter of iPER (Liu et al., ICCV 2019) in impersonator's layout, as D2G-Net reads it.

`images/ACTOR/CLOTHES/MOTION/*.jpg` (some releases hold PNG under that name) or
`*_video_release/ACTOR_CLOTHES_MOTION.mp4`; `smpls/…/pose_shape.pkl` and `kps.pkl`; `train.txt` and
`val.txt` with lines such as `001/9/1`.
"""

import dataclasses
import re
import tempfile
from pathlib import Path

import numpy as np
from jaxtyping import Float

from psrjax.errors import UserError
from psrjax.ops import geometry, pose
from psrjax.prepare.common import clip_reader, lifting
from psrjax.prepare.datasets import adapter, smpl_files, video_clips
from psrjax.prepare.monocular import body_streams, pipeline
from psrjax.vision import smpl
from psrjax.vision.camera import Camera

_NAME = re.compile(r"(\d+)_(\d+)_(\d+)$")
_LISTS = {"train": "train.txt", "test": "val.txt"}
# The 19 joints of `kps.pkl` (LSP's 14 and the face) as indices of the 26.
_KEYPOINTS = (11, 10, 9, 12, 13, 14, 4, 3, 2, 5, 6, 7, 1, 25, 0, 16, 15, 18, 17)
_RATE = 30.0


def find(root: Path, options: adapter.DatasetOptions) -> adapter.TaskList:
    """Finds the clips of the lists; without lists all are for training."""
    del options
    clips = {**_videos(root), **_folders(root)}
    splits = _splits(root)
    tasks, notes = [], []
    for name, video in sorted(clips.items()):
        split = splits.get(name, "" if splits else "train")
        if not split:
            notes.append(f"{name} is in no list")
            continue
        files = {"video": str(video)}
        person, clothes, motion = name.split("_")
        parameters = root / "smpls" / person / clothes / motion
        for role, file in (("smpl", "pose_shape.pkl"), ("keypoints", "kps.pkl")):
            if (parameters / file).is_file():
                files[role] = str(parameters / file)
        if "smpl" not in files:
            notes.append(f"{name}: no {parameters / 'pose_shape.pkl'}")
        facts = {"person": person, "clothes": clothes, "motion": motion}
        tasks.append(adapter.Task(name, split, files, facts))
    return adapter.TaskList(tuple(tasks), tuple(notes))


def _videos(root: Path) -> dict[str, Path]:
    inside = [*root.glob("*_video_release/*.mp4"), *root.glob("*.mp4")]
    return {path.stem: path for path in inside if _NAME.match(path.stem)}


def _folders(root: Path) -> dict[str, Path]:
    inside = (root / "images").glob("*/*/*")
    return {"_".join(path.parts[-3:]): path for path in inside if path.is_dir()}


def _splits(root: Path) -> dict[str, str]:
    found = {}
    for split, file in _LISTS.items():
        if (root / file).is_file():
            lines = (root / file).read_text().split()
            found |= {line.strip("/").replace("/", "_"): split for line in lines}
    return found


def streams(options: adapter.DatasetOptions) -> tuple[str, ...]:
    """Names the streams of every clip."""
    return video_clips.streams(options, body=True)


def views(task: adapter.Task, options: adapter.DatasetOptions) -> video_clips.Views:
    """Yields one clip: joints of `kps.pkl`, else of SMPL's angles; IUV of the body so posed.

    Raises:
      UserError: naming the file, if it is damaged or of another number of frames.
    """
    if Path(task.files["video"]).is_dir():
        options = dataclasses.replace(options, fps=_RATE)
    if "smpl" not in task.files or options.joints:
        options = video_clips.with_detector(options)
        yield from video_clips.with_joints(task, options, lift=body_streams.lift_prepared)
        return
    picture, frames = _measure(task.files["video"])
    parameters = smpl_files.read(task.files["smpl"], frames)
    if parameters.cameras is None:
        raise UserError(f"{task.files['smpl']}: no cams; iPER's pose_shape.pkl has them")
    scale = float(np.median(parameters.cameras[:, 0]))
    placed = _placed(parameters, parameters.cameras, scale, options)
    camera = _camera(picture, scale)
    joints = _keypoints(task, frames, picture)
    if joints is None:
        confidence = np.ones((frames, pose.COUNT, 1))
        joints = np.concatenate([camera.project(placed)["pixels"], confidence], -1)
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file, joints.astype(np.float32))
        file.flush()
        of_file = dataclasses.replace(
            task, files={**task.files, "joints": file.name}, facts={**task.facts, "order": "body26"}
        )

        def lift(prepared: pipeline.PreparedClip) -> body_streams.LiftedBody:
            box = tuple(prepared.report["box"])
            return body_streams.LiftedBody(placed, camera.windowed(box, options.size))

        yield from video_clips.with_joints(of_file, options, lift=lift)


def _measure(video: str) -> tuple[tuple[int, int], int]:
    """((height, width), number of frames) of a clip."""
    frames = 0
    for frame in clip_reader.read_frames(video):
        size, frames = frame.image.shape[:2], frames + 1
    return size, frames


def _placed(
    parameters: smpl_files.SmplParameters,
    cameras: Float[np.ndarray, "t 3"],
    scale: float,
    options: adapter.DatasetOptions,
) -> Float[np.ndarray, "t 26 3"]:
    """Joints in the axes of `_camera`: metres where the weak perspective has its median scale.

    They are of the built-in body, at the place of SMPL's own skeleton if its file is given.
    """
    joints = lifting.smpl_joints(parameters.pose)
    if options.smpl:
        model = smpl_files.surface(options.smpl).model
        still = np.zeros((len(joints), 3))
        own = smpl.joints(model, parameters.pose, parameters.betas, still)
        joints = joints + (own[:, [1, 2, 16, 17]] - joints[:, [12, 9, 5, 2]]).mean(1)[:, None]
    shift = np.pad(cameras[:, 1:], ((0, 0), (0, 1)))
    relative = cameras[:, :1] / scale
    return relative[:, None] * (joints + shift[:, None]) + (0.0, 0.0, lifting.AWAY)


def _camera(picture: tuple[int, int], scale: float) -> Camera:
    """The distant camera in whose picture a metre is `scale` half widths, as `cams` says."""
    height, width = picture
    focal = lifting.AWAY * scale / 2
    matrix = np.array(
        [[focal * width, 0, (width - 1) / 2], [0, focal * height, (height - 1) / 2], [0, 0, 1]]
    )
    return Camera(matrix, np.eye(3), np.zeros(3), np.zeros(5), picture)


def _keypoints(
    task: adapter.Task, frames: int, picture: tuple[int, int]
) -> Float[np.ndarray, "t 26 3"] | None:
    """Reads the 26 joints of `kps.pkl` in pixels; None if there is no such file."""
    if "keypoints" not in task.files:
        return None
    given = np.asarray(smpl_files.load(task.files["keypoints"]).get("kps", ()), np.float64)
    if given.shape != (frames, len(_KEYPOINTS), 2):
        raise UserError(
            f"{task.files['keypoints']}: kps is {given.shape}, the clip needs ({frames}, "
            f"{len(_KEYPOINTS)}, 2)"
        )
    joints = np.zeros((frames, pose.COUNT, 3))
    joints[:, _KEYPOINTS, :2] = geometry.unit_to_pixels(given, height=picture[0], width=picture[1])
    joints[:, _KEYPOINTS, 2] = np.isfinite(given).all(-1)
    joints[:, 8] = 0.5 * (joints[:, 9] + joints[:, 12])
    return np.nan_to_num(joints)


ADAPTER = adapter.DatasetAdapter(
    name="iper",
    defaults=adapter.DatasetOptions(size=(256, 256), crop="whole"),
    crops=("whole", "fixed"),
    uses=("size", "crop", "margin", "joints", "smpl"),
    find=find,
    streams=streams,
    views=views,
)
