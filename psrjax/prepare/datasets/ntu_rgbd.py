"""Adapter of NTU RGB+D as PSR-Net reads it: three views of one action with a posed body.

The body is psrjax's own on each Kinect's skeleton, so no SMPL licence is needed; where an SMPL
model and parameters are given, its mesh is used instead.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from psrjax.data import codec
from psrjax.errors import UserError
from psrjax.io import foreign
from psrjax.prepare.common import kinect_body, kinect_skeleton
from psrjax.prepare.datasets import adapter, ntu_files, smpl_files
from psrjax.prepare.multiview import body_fitting, camera_videos
from psrjax.vision import backgrounds, body, raster, rendering, visibility
from psrjax.vision.camera import Camera
from psrjax.vision.optical_flow import optical_flow

NEAR, FAR = 0.8, 5.2  # metres: a Kinect follows people from 0.8 to 4.5
FINE = 2  # masks and textures are computed at so many times the stored size
LEAST = 4  # frames of a clip at least
_STREAMS = (
    *("frames", "mask", "depth", "flow", "flow_forward", "flow_confidence", "mesh_flow", "face"),
    *("joints", "joints_3d", "background", "prior", "visibility"),
)
Model = body.BodyModel | smpl_files.SmplSurface


def find(root: Path, options: adapter.DatasetOptions) -> adapter.TaskList:
    """Finds the clips that three cameras recorded; opens the folder's lists only."""
    del options
    clips, notes = ntu_files.triplets(root)
    listed = ntu_files.gtnet_list(root) or {}
    tasks = []
    for clip, views in clips.items():
        one = ntu_files.parse_name(next(iter(views.values()))["video"].name)
        files = {
            f"cam{camera}/{role}": str(path)
            for camera, roles in views.items()
            for role, path in roles.items()
        }
        facts = {
            "setup": one.setup,
            "person": f"P{one.person:03d}",
            "repetition": one.repetition,
            "action": f"A{one.action:03d}",
        }
        tasks.append(adapter.Task(clip, listed.get(one.stem, one.split), files, facts))
    return adapter.TaskList(tuple(tasks), notes)


def streams(options: adapter.DatasetOptions) -> tuple[str, ...]:
    """Names the streams of every clip; the charts of `iuv` are known of the built-in body only."""
    return _STREAMS if options.smpl else (*_STREAMS, "iuv")


def meta(options: adapter.DatasetOptions) -> dict[str, Any]:
    """Facts of the whole dataset."""
    faces = len(_model(options).faces)
    count = visibility.neighbour_count(faces)
    return {"near": NEAR, "far": FAR, "faces": faces, "visibility_k": count}


def _model(options: adapter.DatasetOptions) -> Model:
    return smpl_files.surface(options.smpl) if options.smpl else body.template()


@dataclass(frozen=True)
class _KinectView:
    """One camera's part of a clip: the body in scene axes, and the camera at the video's size.

    `rotation` and `translation` take the camera's own axes to the scene's.
    """

    name: str
    files: dict[str, str]
    joints: Float[np.ndarray, "t 26 3"]
    confidence: Float[np.ndarray, "t 26"]
    vertices: Float[np.ndarray, "t v 3"]
    camera: Camera
    depth_camera: Camera
    rotation: Float[np.ndarray, "3 3"]
    translation: Float[np.ndarray, "3"]


def views(
    task: adapter.Task, options: adapter.DatasetOptions
) -> Iterator[tuple[str, codec.ClipView]]:
    """Yields the three views of one clip.

    Raises:
      UserError: naming the file, if a video or skeleton is damaged or nobody is tracked.
    """
    model = _model(options)
    kinects, rate, frames = _kinect_views(task, options, model)
    renderings = {one.name: _render(one, options, model, frames) for one in kinects}
    transferred = rendering.all_pairs(
        {name: one.frames for name, one in renderings.items()},
        {name: one.faces for name, one in renderings.items()},
        model,
        rendering.neighbours(model),
        masks={name: one.masks for name, one in renderings.items()},
        targets={name: one.streams["face"] for name, one in renderings.items()},
    )
    facts = {"fps": rate, "near": NEAR, "far": FAR, "kind": "ntu_rgbd", **task.facts}
    facts |= {} if options.smpl else {"body": {"girths": {}}}
    for kinect in kinects:
        rendered = renderings[kinect.name]
        pictures = camera_videos.shrink(rendered.frames, FINE)
        mask = camera_videos.shrink(rendered.masks, FINE)
        person = backgrounds.grow(mask > 32, 1.0)
        stored = {
            "frames": pictures,
            "mask": mask,
            "depth": rendering.encode_depth(rendered.streams["metres"], near=NEAR, far=FAR),
            "joints": rendering.stored_joints(kinect.joints, kinect.confidence, rendered.camera),
            "joints_3d": kinect.joints.astype(np.float32),
            "background": backgrounds.clean_background(pictures, person)["background"],
            **optical_flow(pictures),
            **rendered.streams,
            **transferred[kinect.name],
        }
        stored = {name: stored[name] for name in streams(options)}
        yield task.split, codec.ClipView(task.name, kinect.name, stored, facts, rendered.camera)


@dataclass(frozen=True)
class _Rendering:
    """One camera's frames, faces and masks, finer than stored since people are small in them.

    `streams` is the output of `rendering.render_view` at the stored size, `camera` of that size.
    """

    camera: Camera
    frames: UInt8[np.ndarray, "t hh ww 3"]
    faces: Int[np.ndarray, "t hh ww"]
    masks: UInt8[np.ndarray, "t hh ww"]
    streams: dict[str, np.ndarray]


def _render(
    view: _KinectView, options: adapter.DatasetOptions, model: Model, frames: int
) -> _Rendering:
    box = (0, 0, *view.camera.size)
    if options.crop != "squeeze":
        box = camera_videos.crop_box(
            view.camera, view.vertices, size=options.size, margin=options.margin
        )
    camera = view.camera.windowed(box, options.size)
    streams = rendering.render_view(model, view.vertices, camera)
    if not (streams["face"] >= 0).any():
        raise UserError(f"{view.files['skeleton']}: the person is never in the picture")
    fine_camera = camera.resized(FINE * options.size[0], FINE * options.size[1])
    fine = camera_videos.read(Path(view.files["video"]), box, fine_camera.size, frames=frames)
    faces = np.stack([raster.render(v, model.faces, fine_camera).face for v in view.vertices])
    masks = _depth_masks(view, frames, fine_camera) if "depth" in view.files else None
    if masks is None:
        reach = max(2.0, body_fitting.REACH * fine.shape[1])
        masks = np.uint8(255) * backgrounds.person_masks(fine, faces >= 0, reach=reach)
    return _Rendering(camera, fine, faces, masks, streams)


def _kinect_views(
    task: adapter.Task, options: adapter.DatasetOptions, model: Model
) -> tuple[list[_KinectView], float, int]:
    """The cameras' views in the first camera's axes, their frame rate and common length."""
    by_camera: dict[str, dict[str, str]] = {}
    for key, path in sorted(task.files.items()):
        name, role = key.split("/")
        by_camera.setdefault(name, {})[role] = path
    files = list(by_camera.values())
    infos = [camera_videos.probe(Path(one["video"])) for one in files]
    skeletons = [kinect_skeleton.read_skeleton(Path(one["skeleton"])) for one in files]
    counts = [info.frames for info in infos] + [len(one.state) for one in skeletons]
    frames = min(counts)
    if frames < LEAST or frames < 0.5 * max(counts):
        raise UserError(
            f"{files[0]['video']}: {frames} of up to {max(counts)} frames in the three videos and "
            "skeletons: one is cut off; get it again"
        )
    try:
        skeletons = kinect_body.with_true_sides([one.cut(frames) for one in skeletons])
    except UserError as error:
        raise UserError(f"{files[0]['skeleton']}: {error}") from error
    views: list[_KinectView] = []
    first = None
    for (name, one), info, skeleton in zip(by_camera.items(), infos, skeletons):
        try:
            points = kinect_body.smooth(skeleton.points, skeleton.state, rate=infos[0].rate)
            known = skeleton.state == kinect_body.TRACKED
            first = first or (points, known)
            rotation, translation = kinect_body.align(points, first[0], known & first[1])
        except UserError as error:
            raise UserError(f"{one['skeleton']}: {error}") from error
        own = kinect_body.fit_cameras(skeleton)
        camera = own["colour"].resized(*info.size)
        joints = kinect_body.body_joints(points)
        vertices = _vertices(one, camera, joints, model, options)
        views.append(
            _KinectView(
                name=name,
                files=one,
                joints=joints @ rotation.T + translation,
                confidence=kinect_body.body_confidence(skeleton.state),
                vertices=vertices @ rotation.T + translation,
                camera=_in_scene(camera, rotation, translation),
                depth_camera=own["depth"],
                rotation=rotation,
                translation=translation,
            )
        )
    return views, infos[0].rate, frames


def _in_scene(camera: Camera, rotation: np.ndarray, translation: np.ndarray) -> Camera:
    """A camera of its own axes as one of the scene's, to which the arguments take them."""
    turned = camera.rotation @ rotation.T
    shift = camera.translation - turned @ translation
    return dataclasses.replace(camera, rotation=turned, translation=shift)


def _vertices(
    files: dict[str, str],
    camera: Camera,
    joints: Float[np.ndarray, "t 26 3"],
    model: Model,
    options: adapter.DatasetOptions,
) -> Float[np.ndarray, "t v 3"]:
    """Vertices in the depth camera's axes: of the built-in body, or of SMPL by its parameters."""
    if isinstance(model, body.BodyModel):
        return body.pose(model, joints)
    stem = Path(files["skeleton"]).stem
    parameters = smpl_files.find(options.smpl_parameters, stem)
    seen = joints @ camera.rotation.T + camera.translation
    posed = smpl_files.posed(model, smpl_files.read(parameters, len(joints)), seen)
    return (posed - camera.translation) @ camera.rotation


def _depth_masks(
    view: _KinectView, frames: int, camera: Camera
) -> UInt8[np.ndarray, "t h w"] | None:
    """Masks from `MDepth-*.png`; None if there are fewer of them than frames.

    Some copies count from 0, others from 1, so their order matters, not their numbers.
    """
    paths = sorted(Path(view.files["depth"]).glob("MDepth-*.png"))
    if len(paths) < frames:
        return None
    target = dataclasses.replace(
        camera,
        rotation=camera.rotation @ view.rotation,
        translation=camera.translation + camera.rotation @ view.translation,
    )
    masks = []
    for path in paths[:frames]:
        foreign.check_picture(path)
        picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if picture is None or picture.ndim != 2 or picture.dtype != np.uint16:
            raise UserError(f"{path}: not a whole 16-bit depth picture; get it again")
        sized = view.depth_camera.resized(*picture.shape)
        masks.append(kinect_body.depth_mask(picture / 1000.0, sized, target))
    return np.uint8(255) * np.stack(masks)


ADAPTER = adapter.DatasetAdapter(
    name="ntu_rgbd",
    # As GTNet, from which PSR-Net's numbers come: 128 x 128, the aspect ratio not kept.
    defaults=adapter.DatasetOptions(size=(128, 128), crop="squeeze"),
    crops=("squeeze", "fixed"),
    uses=("size", "crop", "margin", "smpl", "smpl_parameters"),
    find=find,
    streams=streams,
    views=views,
    meta=meta,
)
