"""Turns a calibrated multi-view recording (videos, OpenPose joints, calibration) into a dataset.

Steps: the person is matched across views and tracked (`cross_view_tracking`), joints are fitted in
space (`joint_fitting`) and a body on them (`body_fitting`); the body is rendered in every view.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from psrjax import io
from psrjax.data import codec, store, video
from psrjax.errors import UserError
from psrjax.ops import pose
from psrjax.prepare.common import letterbox, openpose
from psrjax.prepare.common.result_page import STRIP, write_strip
from psrjax.prepare.multiview import (
    body_fitting,
    camera_agreement,
    camera_videos,
    cross_view_tracking,
    joint_fitting,
    preview,
    result_page,
)
from psrjax.prepare.multiview.body_fitting import Measurements
from psrjax.prepare.multiview.layout import Recording, find
from psrjax.vision import backgrounds, body, rendering, visibility
from psrjax.vision.camera import Camera
from psrjax.vision.optical_flow import optical_flow

MAX_ERROR = 0.015  # of a picture's longer side: the default bound on the reprojection error
SUMMARY = "prepare.json"
FINE = 2  # masks are found at so many times the stored size where that is small
PREVIEW = 384  # approximate height of a preview's panel


@dataclass(frozen=True)
class MultiviewOptions:
    """Options of a recording's preparation; every field is a flag of `psrjax prepare`.

    Attributes:
      size: (height, width) of the stored frames.
      cameras: names of the cameras to use, as they are; by default all that agree.
      calibration: the calibration file; by default the first in the recording's folder.
      joints: order of the joints in the JSON files, "auto" to recognise it.
      max_error: bound on the median reprojection error in pixels of the videos; 0 is `MAX_ERROR`.
      holdout: fraction of the frames, at the end, that becomes the split "test".
      margin: space that a crop leaves around the person, as a fraction of their extent.
      lag: number of frames that the joints run ahead of the videos; None to estimate it.
    """

    size: tuple[int, int] = (128, 128)
    cameras: tuple[str, ...] = ()
    calibration: str = ""
    joints: str = "auto"
    max_error: float = 0.0
    holdout: float = 0.25
    margin: float = 0.08
    lag: int | None = None


def prepare(
    root: Path | str, directory: Path | str, options: MultiviewOptions = MultiviewOptions()
) -> dict[str, Any]:
    """Writes a recording as a stored dataset with splits "train" and "test", and its previews.

    The dataset's folder also holds `prepare.json` (the returned summary, see `summarize`),
    `prepare.html` and `previews/CAMERA.mp4`.

    Raises:
      UserError: for input that cannot be used; the message names the file and what to do.
    """
    directory = store.require_free(directory)
    recording = find(root, cameras=options.cameras, calibration=options.calibration or None)
    clip = build(recording, measure(recording, options), options)
    summary = summarize(clip)
    store.write(directory, stored_splits(clip), meta=clip.meta | {"summary": summary})
    io.write_json(directory / SUMMARY, summary)
    write_previews(clip, directory / result_page.PREVIEWS)
    result_page.write(directory)
    return summary


def measure(recording: Recording, options: MultiviewOptions) -> Measurements:
    """Reads joints and calibration, tracks the person and checks that the views agree.

    Raises:
      UserError: for files that cannot be used, or views that do not agree.
    """
    infos = [camera_videos.probe(files.video) for files in recording.cameras]
    notes = list(recording.notes)
    frames, rate = camera_videos.common(recording, infos, notes)
    cameras, people = {}, {}
    for files, info in zip(recording.cameras, infos):
        known = files.camera if files.camera.size[0] else replace(files.camera, size=info.size)
        placement = letterbox.fit(known.size, info.size)
        if info.size != known.size:
            camera_videos.check_bars(files.video, placement, known.size)
            notes.append(
                f"{files.video.name}: {info.size[1]}x{info.size[0]} pixels, calibrated at "
                f"{known.size[1]}x{known.size[0]}: scaled by {placement.scale:.4f} and centred; "
                "joints are taken to be in the calibrated picture"
            )
        clip = openpose.read_openpose(
            files.joints, frames=frames, joints=options.joints, size=known.size
        )
        notes += clip.problems
        clip.frames = [placement.joints(frame) for frame in clip.frames]
        cameras[files.name] = placement.camera(known, info.size)
        people[files.name] = clip
    longest = max(max(camera.size) for camera in cameras.values())
    bound = options.max_error or MAX_ERROR * longest
    track, cameras, problems = _track_agreeing(
        people, cameras, bound=bound, source=str(recording.calibration), keep=bool(options.cameras)
    )
    errors = cross_view_tracking.check_calibration(
        track.joints, cameras, bound=bound, source=str(recording.calibration)
    )
    views = list(cameras.values())
    joints = cross_view_tracking.reject_outliers(track.joints, views, bound=2 * bound)
    kinds = {name: people[name].kind for name in cameras}
    notes += track.notes
    return Measurements(
        list(cameras), views, joints, rate, frames, errors, bound, kinds, notes, problems
    )


def _track_agreeing(
    people: dict[str, openpose.People],
    cameras: dict[str, Camera],
    *,
    bound: float,
    source: str,
    keep: bool,
) -> tuple[cross_view_tracking.MultiviewTrack, dict[str, Camera], list[dict[str, str]]]:
    """Tracks the person by the cameras that agree; the majority of them stays.

    An odd camera is left out, or its constant offset is taken off; with `keep` it is only reported.

    Returns:
      The person, the cameras that are left, and the problems: {"what", "detail", "advice"}.

    Raises:
      UserError: if the cameras that are left do not see one person alike.
    """
    cameras, problems, most = dict(cameras), [], (len(cameras) - 1) // 2
    while True:
        seen = {name: people[name] for name in cameras}
        track, failure = _try_track(seen, cameras, source)
        joints = track.joints if track else cross_view_tracking.tallest(seen)
        odd = camera_agreement.find_odd(joints, cameras, bound=bound)
        if odd is not None and len(problems) < most:
            problems.append(_mended(odd, cameras, bound=bound, keep=keep))
            if not keep:
                continue
        if failure:
            cross_view_tracking.check_calibration(joints, cameras, bound=bound, source=source)
            raise failure
        assert track is not None
        return track, cameras, problems


def _try_track(
    people: dict[str, openpose.People], cameras: dict[str, Camera], source: str
) -> tuple[cross_view_tracking.MultiviewTrack | None, UserError | None]:
    """Tracks the person in all cameras; returns an error if that fails."""
    try:
        track = cross_view_tracking.track(people, cameras)
    except UserError as error:
        return None, error
    held = (track.joints[..., 2] > 0).any(-1).mean(1)
    if held.min() >= 0.5:
        return track, None
    name = list(cameras)[held.argmin()]
    return None, UserError(
        f"{source}: camera {name!r} sees whom the others see in {held.min():.0%} of the frames "
        "only; leave it out (--cameras), or calibrate again"
    )


def _mended(
    odd: camera_agreement.OddCamera, cameras: dict[str, Camera], *, bound: float, keep: bool
) -> dict[str, str]:
    """Mends or removes a camera in `cameras`, or keeps it, and says so."""
    rest = ",".join(name for name in cameras if name != odd.name)
    all_of_them = ",".join(cameras)
    if keep:
        what, advice = "odd camera", f"calibrate it again, or leave it out (--cameras={rest})"
    elif odd.is_shifted(bound):
        cameras[odd.name] = camera_agreement.shifted(cameras[odd.name], odd.offset)
        what = "camera moved"
        advice = f"the offset was taken off; to keep it, name the cameras (--cameras={all_of_them})"
    else:
        del cameras[odd.name]
        what = "camera left out"
        advice = f"calibrate it again; to keep it, name the cameras (--cameras={all_of_them})"
    return {"what": what, "detail": f"{odd.name}: {odd}", "advice": advice}


@dataclass(frozen=True)
class PreparedRecording:
    """A recording ready to be stored: all frames and streams in memory, at the stored size.

    Attributes:
      boxes: (top, left, height, width) of each camera's crop.
      views: output of `rendering.render_view`, by camera.
      meta: facts of the whole dataset.
    """

    name: str
    measured: Measurements
    options: MultiviewOptions
    boxes: dict[str, tuple[int, int, int, int]]
    cameras: dict[str, Camera]
    frames: dict[str, UInt8[np.ndarray, "t h w 3"]]
    masks: dict[str, UInt8[np.ndarray, "t h w"]]
    views: dict[str, dict[str, np.ndarray]]
    person: body_fitting.FittedBody
    meta: dict[str, Any]

    @property
    def splits(self) -> dict[str, slice]:
        """Frames of each split; the end of the clip is held out."""
        frames = self.measured.frames
        first = round(frames * (1.0 - self.options.holdout))
        if not 0 < first < frames:
            return {"train": slice(0, frames)}
        return {"train": slice(0, first), "test": slice(first, frames)}


def build(
    recording: Recording, measured: Measurements, options: MultiviewOptions
) -> PreparedRecording:
    """Crops the frames, fits a body to the person, and renders it in every view."""
    names, fine = measured.names, FINE if max(options.size) < 256 else 1
    fine_size = (options.size[0] * fine, options.size[1] * fine)
    rough = body.pose(body.template(), body_fitting.fit_joints(measured, 0).joints)
    boxes, crops = {}, []
    kept = [files for files in recording.cameras if files.name in names]
    for files, camera in zip(tqdm(kept, "frames", unit="video"), measured.cameras):
        box = camera_videos.crop_box(camera, rough, size=options.size, margin=options.margin)
        boxes[files.name] = box
        frames = camera_videos.read(files.video, box, fine_size, frames=measured.frames)
        crops.append(body_fitting.ViewFrames(frames, camera.windowed(box, fine_size)))
    person = body_fitting.fit_body(measured, crops, lag=options.lag)
    vertices = body.pose(person.model, person.fit.joints)
    cameras = {n: view.camera.resized(*options.size) for n, view in zip(names, crops)}
    views = {
        name: rendering.render_view(person.model, vertices, camera)
        for name, camera in tqdm(cameras.items(), "views", unit="view")
    }
    return PreparedRecording(
        name=recording.root.resolve().name,
        measured=measured,
        options=options,
        boxes=boxes,
        cameras=cameras,
        frames={n: camera_videos.shrink(v.frames, fine) for n, v in zip(names, crops)},
        masks={
            name: camera_videos.shrink(np.uint8(255) * mask, fine)
            for name, mask in zip(names, person.masks)
        },
        views=views,
        person=person,
        meta={
            "kind": "recording",
            "faces": len(person.model.faces),
            "visibility_k": visibility.neighbour_count(len(person.model.faces)),
            "body": {"girths": dict(person.girths)},
            **rendering.depth_range([view["metres"] for view in views.values()]),
        },
    )


def summarize(clip: PreparedRecording) -> dict[str, Any]:
    """Reports errors of joints and agreement of masks by camera, and what was filled in or cut."""
    measured, person = clip.measured, clip.person
    errors = joint_fitting.fit_errors(
        body_fitting.shifted(measured.joints, person.lag), measured.cameras, person.fit.joints
    )
    agreement = {
        name: np.mean([
            backgrounds.overlap(face >= 0, mask > 127)
            for face, mask in zip(view["face"], clip.masks[name])
        ])
        for name, view in clip.views.items()
    }  # fmt: skip
    return {
        "recording": clip.name,
        "frames": measured.frames,
        "fps": measured.rate,
        "size": list(clip.options.size),
        "joints": measured.kinds,
        "reprojection_error_px": {n: round(e, 2) for n, e in measured.errors.items()},
        "reprojection_bound_px": round(measured.bound, 2),
        "fit_error_px": {
            name: round(float(np.nanmedian(error)), 2)
            for name, error in zip(measured.names, errors)
        },
        "mask_agreement_iou": {n: round(float(value), 4) for n, value in agreement.items()},
        "joints_ahead_of_video_frames": person.lag,
        "girths": dict(person.girths),
        "height_m": round(joint_fitting.height(person.fit.lengths), 3),
        "crops_top_left_height_width": {n: list(box) for n, box in clip.boxes.items()},
        "filled": pose.flagged_runs(person.fit.filled),
        "problems": measured.problems,
        "notes": measured.notes,
    }


def stored_splits(clip: PreparedRecording) -> dict[str, Iterator[codec.ClipView]]:
    """Returns {split: its views} for `store.write`; each split is one clip."""
    near = rendering.neighbours(clip.person.model)
    return {split: _stored_views(clip, split, near) for split in clip.splits}


def _stored_views(
    clip: PreparedRecording, split: str, near: np.ndarray
) -> Iterator[codec.ClipView]:
    where, fit = clip.splits[split], clip.person.fit
    depths = {name: clip.meta[name] for name in ("near", "far")}
    frames = {name: values[where] for name, values in clip.frames.items()}
    faces = {name: view["face"][where] for name, view in clip.views.items()}
    masks = {name: mask[where] for name, mask in clip.masks.items()}
    transferred = rendering.all_pairs(frames, faces, clip.person.model, near, masks=masks)
    facts = {
        "fps": clip.measured.rate,
        "first_frame": where.start,
        "filled": pose.flagged_runs(fit.filled[where]),
        **{name: clip.meta[name] for name in ("kind", "body", "near", "far")},
    }
    for name, camera in tqdm(clip.cameras.items(), f"store {split}", unit="view"):
        view = {stream: values[where] for stream, values in clip.views[name].items()}
        view["mesh_flow"] = np.concatenate([0 * view["mesh_flow"][:1], view["mesh_flow"][1:]])
        streams = {
            "frames": frames[name],
            "mask": masks[name],
            "background": _background(clip, name),
            "depth": rendering.encode_depth(view.pop("metres"), **depths),
            "joints": rendering.stored_joints(fit.joints[where], fit.confidence[where], camera),
            "joints_3d": fit.joints[where].astype(np.float32),
            **view,
            **optical_flow(frames[name]),
            **transferred[name],
        }
        yield codec.ClipView(f"{clip.name}_{split}", name, streams, facts, camera)


def _background(clip: PreparedRecording, name: str) -> UInt8[np.ndarray, "h w 3"]:
    """The clean background by training frames alone: no prior may show what is held back."""
    where = clip.splits["train"]
    person = backgrounds.grow(clip.masks[name][where] > 32, 1.0)
    return backgrounds.clean_background(clip.frames[name][where], person)["background"]


def write_previews(clip: PreparedRecording, folder: Path) -> None:
    """Writes a video and a strip per camera with joints, outline, depth and mask on the frames."""
    depths = {name: clip.meta[name] for name in ("near", "far")}
    fit = clip.person.fit
    for name, camera in tqdm(clip.cameras.items(), "previews", unit="video"):
        panels = preview.draw(
            clip.frames[name],
            rendering.stored_joints(fit.joints, fit.confidence, camera),
            clip.views[name]["face"],
            rendering.encode_depth(clip.views[name]["metres"], **depths),
            clip.masks[name],
            enlarge=max(1, PREVIEW // clip.options.size[0]),
        )
        video.write(folder / f"{name}.mp4", panels, fps=clip.measured.rate)
        chosen = np.linspace(0, len(panels) - 1, STRIP).round().astype(int)
        write_strip(folder / f"{name}.jpg", panels[chosen, :, : panels.shape[2] // 3])
