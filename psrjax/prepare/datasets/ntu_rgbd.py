"""NTU RGB+D as PSR-Net reads it: three views of one action, a body posed from each camera's joints.

The body is psrjax's own on the Kinect's skeleton, so no SMPL licence is needed; where an SMPL model
and parameters are given, its mesh is used instead. Files: `raw_ntu_files`; geometry: `raw_kinect`.
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
from psrjax.prepare.common import kinect_body, kinect_skeleton
from psrjax.prepare.datasets import adapter, ntu_files, smpl_files
from psrjax.prepare.multiview import body_fitting, camera_videos
from psrjax.vision import backgrounds, body, raster, rendering, visibility
from psrjax.vision.camera import Camera
from psrjax.vision.optical_flow import optical_flow

NEAR, FAR = 0.8, 5.2  # metres: a Kinect follows people from 0.8 to 4.5
FINE = 2  # masks and textures are of pictures so many times as large as the stored ones
LEAST = 4  # frames of a clip
_STREAMS = (
    *("frames", "mask", "depth", "flow", "flow_forward", "flow_confidence", "mesh_flow", "face"),
    *("joints", "joints_3d", "background", "prior", "visibility"),
)


def find(root: Path, options: adapter.DatasetOptions) -> adapter.TaskList:
    """The triplets of a folder; nothing is opened but its lists."""
    del options
    clips, notes = ntu_files.triplets(root)
    listed = ntu_files.gtnet_list(root) or {}
    tasks = []
    for clip, views in clips.items():
        one = ntu_files.sample(next(iter(views.values()))["video"].name)
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
    """What every clip holds; with SMPL there is no `iuv`, whose charts are the built-in body's."""
    return _STREAMS if options.smpl else (*_STREAMS, "iuv")


def meta(options: adapter.DatasetOptions) -> dict[str, Any]:
    """Facts of the whole data set."""
    faces = len(_smpl(options).faces if options.smpl else body.template().faces)
    count = visibility.neighbour_count(faces)
    return {"kind": "ntu_rgbd", "near": NEAR, "far": FAR, "faces": faces, "visibility_k": count}


@dataclass(frozen=True)
class _View:
    """One camera's part of a clip: its body in the room, and its camera at the videos' size."""

    name: str
    files: dict[str, str]
    joints: Float[np.ndarray, "t 26 3"]
    confidence: Float[np.ndarray, "t 26"]
    vertices: Float[np.ndarray, "t v 3"]
    camera: Camera
    depth: Camera  # of the depth pictures
    turn: Float[np.ndarray, "3 3"]  # from the camera's own axes into the room's
    shift: Float[np.ndarray, "3"]


def views(
    task: adapter.Task, options: adapter.DatasetOptions
) -> Iterator[tuple[str, codec.ClipView]]:
    """The three views of one clip.

    Raises:
      UserError: naming the file: a damaged video or skeleton, nobody tracked.
    """
    model = _smpl(options) if options.smpl else body.template()
    filmed, rate, frames = _filmed(task, options, model)
    seen = {one.name: _look(one, options, model, frames) for one in filmed}
    told = rendering.all_pairs(
        {name: look.fine for name, look in seen.items()},
        {name: look.fine_face for name, look in seen.items()},
        model,
        rendering.neighbours(model),
        masks={name: look.fine_mask for name, look in seen.items()},
        targets={name: look.rendered["face"] for name, look in seen.items()},
    )
    facts = {"fps": rate, "near": NEAR, "far": FAR, "kind": "ntu_rgbd", **task.facts}
    facts |= {} if options.smpl else {"body": {"girths": {}}}
    for one in filmed:
        look = seen[one.name]
        pictures = camera_videos.shrink(look.fine, FINE)
        mask = camera_videos.shrink(look.fine_mask, FINE)
        person = backgrounds.grow(mask > 32, 1.0)
        held = {
            "frames": pictures,
            "mask": mask,
            "depth": rendering.encode_depth(look.rendered["metres"], near=NEAR, far=FAR),
            "joints": rendering.stored_joints(one.joints, one.confidence, look.camera),
            "joints_3d": one.joints.astype(np.float32),
            "background": backgrounds.clean_background(pictures, person)["background"],
            **optical_flow(pictures),
            **look.rendered,
            **told[one.name],
        }
        held = {name: held[name] for name in streams(options)}
        yield task.split, codec.ClipView(task.name, one.name, held, facts, look.camera)


@dataclass(frozen=True)
class _Look:
    """What a camera sees: pictures, faces and masks finer than they are stored, since people are
    small in a Kinect's picture, and what `recording_views.render_view` gives at the stored size.
    """

    camera: Camera
    fine: UInt8[np.ndarray, "t hh ww 3"]
    fine_face: Int[np.ndarray, "t hh ww"]
    fine_mask: UInt8[np.ndarray, "t hh ww"]
    rendered: dict[str, np.ndarray]


def _look(
    one: _View,
    options: adapter.DatasetOptions,
    model: body.BodyModel | smpl_files.SmplSurface,
    frames: int,
) -> _Look:
    box = _box(one, options)
    camera = one.camera.windowed(box, options.size)
    rendered = rendering.render_view(model, one.vertices, camera)
    if not (rendered["face"] >= 0).any():
        raise UserError(f"{one.files['skeleton']}: the person is never in the picture")
    fine_camera = camera.resized(FINE * options.size[0], FINE * options.size[1])
    fine = camera_videos.read(Path(one.files["video"]), box, fine_camera.size, frames=frames)
    face = np.stack([raster.render(now, model.faces, fine_camera).face for now in one.vertices])
    mask = _depth_masks(one, frames, fine_camera) if "depth" in one.files else None
    if mask is None:
        reach = max(2.0, body_fitting.REACH * fine.shape[1])
        mask = np.uint8(255) * backgrounds.person_masks(fine, face >= 0, reach=reach)
    return _Look(camera, fine, face, mask, rendered)


def _smpl(options: adapter.DatasetOptions) -> smpl_files.SmplSurface:
    return smpl_files.surface(options.smpl)


def _filmed(
    task: adapter.Task,
    options: adapter.DatasetOptions,
    model: body.BodyModel | smpl_files.SmplSurface,
) -> tuple[list[_View], float, int]:
    """The cameras' views in one room (the first camera's axes), cut to the frames all have."""
    by_camera = {}
    for key, path in task.files.items():
        name, role = key.split("/")
        by_camera.setdefault(name, {})[role] = path
    names = sorted(by_camera)
    files = [by_camera[name] for name in names]
    facts = [camera_videos.probe(Path(one["video"])) for one in files]
    skeletons = [kinect_skeleton.read_skeleton(Path(one["skeleton"])) for one in files]
    counts = [fact.frames for fact in facts] + [len(one.state) for one in skeletons]
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
    filmed: list[_View] = []
    rate = facts[0].rate
    first = None
    for name, one, fact, skeleton in zip(names, files, facts, skeletons):
        try:
            points = kinect_body.smooth(skeleton.points, skeleton.state, rate=rate)
            known = skeleton.state == kinect_body.TRACKED
            first = first or (points, known)
            turn, shift = kinect_body.align(points, first[0], known & first[1])
        except UserError as error:
            raise UserError(f"{one['skeleton']}: {error}") from error
        own = kinect_body.fit_cameras(skeleton)
        camera = own["colour"].resized(*fact.size)
        joints = kinect_body.body_joints(points)
        vertices = _vertices(one, camera, joints, model, options)
        filmed.append(
            _View(
                name=name,
                files=one,
                joints=joints @ turn.T + shift,
                confidence=kinect_body.body_confidence(skeleton.state),
                vertices=vertices @ turn.T + shift,
                camera=_moved(camera, turn, shift),
                depth=own["depth"],
                turn=turn,
                shift=shift,
            )
        )
    return filmed, rate, frames


def _moved(camera: Camera, turn: np.ndarray, shift: np.ndarray) -> Camera:
    """A camera of own axes as one of the room, into which `turn` and `shift` take them."""
    rotation = camera.rotation @ turn.T
    return dataclasses.replace(
        camera, rotation=rotation, translation=camera.translation - rotation @ shift
    )


def _vertices(
    files: dict[str, str],
    camera: Camera,
    joints: Float[np.ndarray, "t 26 3"],
    model: body.BodyModel | smpl_files.SmplSurface,
    options: adapter.DatasetOptions,
) -> Float[np.ndarray, "t v 3"]:
    """The mesh in the depth camera's axes: the built-in body, or SMPL by its parameters."""
    if not options.smpl:
        return body.pose(model, joints)
    stem = Path(files["skeleton"]).stem
    parameters = smpl_files.find(options.smpl_parameters, stem)
    seen = joints @ camera.rotation.T + camera.translation
    posed = smpl_files.posed(model, smpl_files.read(parameters, len(joints)), seen)
    return (posed - camera.translation) @ camera.rotation


def _box(one: _View, options: adapter.DatasetOptions) -> tuple[int, int, int, int]:
    """What is cut out of the picture: all of it, or the window that holds the person throughout."""
    if options.crop == "squeeze":
        return 0, 0, *one.camera.size
    return camera_videos.crop_box(
        one.camera, one.vertices, size=options.size, margin=options.margin
    )


def _depth_masks(one: _View, frames: int, camera: Camera) -> UInt8[np.ndarray, "t h w"] | None:
    """Masks from `MDepth-*.png`; None if there are fewer of them than frames.

    Some copies count from 0, others from 1: their order tells, not their numbers.
    """
    paths = sorted(Path(one.files["depth"]).glob("MDepth-*.png"))
    if len(paths) < frames:
        return None
    target = dataclasses.replace(
        camera,
        rotation=camera.rotation @ one.turn,
        translation=camera.translation + camera.rotation @ one.shift,
    )
    masks = []
    for path in paths[:frames]:
        picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if picture is None or picture.ndim != 2 or picture.dtype != np.uint16:
            raise UserError(f"{path}: not a whole 16-bit depth picture; get it again")
        sized = one.depth.resized(*picture.shape)
        masks.append(kinect_body.depth_mask(picture / 1000.0, sized, target))
    return np.uint8(255) * np.stack(masks)


ADAPTER = adapter.DatasetAdapter(
    name="ntu_rgbd",
    # GTNet, from which PSR-Net's numbers come: 128 x 128, the shape of the picture not kept.
    defaults=adapter.DatasetOptions(size=(128, 128), crop="squeeze"),
    crops=("squeeze", "fixed"),
    uses=("size", "crop", "margin", "smpl", "smpl_parameters"),
    find=find,
    streams=streams,
    views=views,
    meta=meta,
)
