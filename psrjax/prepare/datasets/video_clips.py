"""Clips of published data sets that are videos or folders of pictures: the work on one clip.

With joints it is `preparation.prepare_clip`'s; without, frames and flow alone, for methods that
find their own key points. Masks, clean plates and IUV that lie beside the frames are taken.
"""

import dataclasses
import functools
import glob
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from psrjax.data import codec
from psrjax.errors import UserError
from psrjax.prepare.common import clip_reader
from psrjax.prepare.datasets import adapter
from psrjax.prepare.monocular import body_streams, person_crop, pipeline
from psrjax.vision import densepose
from psrjax.vision.optical_flow import optical_flow

NO_JOINTS = "none"
FLOWS = ("flow", "flow_forward", "flow_confidence")
Views = Iterator[tuple[str, codec.ClipView]]


def streams(options: adapter.DatasetOptions, *, body: bool = False) -> tuple[str, ...]:
    """What every clip holds, by whether there are joints and what the crop allows."""
    found = ["frames", *FLOWS]
    if options.joints != NO_JOINTS:
        found += ["joints", "mask"] + (["background"] if options.crop != "follow" else [])
    return tuple(found + ([*body_streams.STREAMS] if body else []))


def is_video(path: Path) -> bool:
    """Whether a path is a video file or a folder of pictures."""
    return not path.name.startswith(".") and clip_reader.is_video(path)


def listed(folder: Path) -> list[Path]:
    """The videos and folders of pictures in a folder, as people count."""
    inside = (path for path in folder.iterdir() if is_video(path))
    return sorted(inside, key=clip_reader.natural_key)


def joints_beside(video: Path) -> dict[str, str]:
    """Where the joints of a video lie, if they lie beside it: {"joints": path} or nothing.

    `NAME_json/`, `NAME.json`, `NAME.npz`, or OpenPose's `NAME_000000000000_keypoints.json` among
    those of other videos.
    """
    for name in (f"{video.stem}_json", f"{video.stem}.json", f"{video.stem}.npz"):
        if (video.parent / name).exists():
            return {"joints": str(video.parent / name)}
    if (video.parent / f"{video.stem}_{0:012d}_keypoints.json").is_file():
        return {"joints_among": str(video.parent)}
    return {}


def check_crop(options: adapter.DatasetOptions) -> None:
    """Raises UserError for a crop that needs joints where there are none, or has none for them."""
    if options.joints == NO_JOINTS and options.crop not in ("squeeze", "whole"):
        raise UserError(
            f"--crop {options.crop} needs joints, which --joints none leaves out: take --crop "
            "squeeze or whole"
        )
    if options.joints != NO_JOINTS and options.crop == "squeeze":
        raise UserError(
            "--crop squeeze is for frames without joints (--joints none): with joints take --crop "
            "whole, fixed or follow"
        )


def plain(task: adapter.Task, options: adapter.DatasetOptions) -> Views:
    """Frames and flow of one clip, no joints: the whole picture, squeezed or cut about its middle.

    Raises:
      UserError: naming the file, if it is damaged or holds a single frame.
    """
    video = task.files["video"]
    frames, times = [], []
    box = None
    for frame in clip_reader.read_frames(video, fps=options.fps):
        picture = frame.image.shape[:2]
        if box is None:
            box = _whole(picture, options)
        frames.append(clip_reader.crop(frame.image, box, options.size))
        times.append(frame.time)
    yield from frames_only(task, options, np.stack(frames), np.asarray(times), box)


def frames_only(
    task: adapter.Task,
    options: adapter.DatasetOptions,
    frames: UInt8[np.ndarray, "t h w 3"],
    times: Float[np.ndarray, " t"],
    box: tuple[int, int, int, int],
) -> Views:
    """The views of a clip of which there are frames alone."""
    if len(frames) < 2:
        raise UserError(f"{task.files['video']}: one frame is no video; leave it out")
    clip = pipeline.VideoClip(task.files["video"], task.name, split=task.split)
    for piece in pipeline.cut_pieces(clip, times, _how(task, options)):
        own = times[piece.start : piece.stop] - times[piece.start]
        facts = {
            "fps": round(clip_reader.frame_rate(own), 6),
            "first_frame": piece.start,
            "video": Path(clip.video).name,
            "box": list(box),
            **task.facts,
        }
        for start in range(piece.start, piece.stop, pipeline.RUN):
            stop = min(start + pipeline.RUN, piece.stop)
            before = int(start > piece.start)
            run = frames[start - before : stop]
            held = {"frames": run, **optical_flow(run)}
            held = {name: values[before:] for name, values in held.items()}
            yield (
                piece.split,
                codec.ClipView(piece.name, "cam1", held, facts, start=start - piece.start),
            )


def _whole(picture: tuple[int, int], options: adapter.DatasetOptions) -> tuple[int, int, int, int]:
    if options.crop == "squeeze":
        return 0, 0, *picture
    none = np.zeros((1, 26, 3))
    boxes = person_crop.boxes(
        none, [], np.zeros(1), picture, size=options.size, crop="whole", margin=0.0
    )
    return tuple(int(edge) for edge in boxes[0])


def _how(task: adapter.Task, options: adapter.DatasetOptions) -> pipeline.PreparationOptions:
    return pipeline.PreparationOptions(
        size=options.size,
        crop="whole" if options.crop == "squeeze" else options.crop,
        margin=options.margin,
        fps=options.fps,
        seconds=options.seconds,
        holdout=task.facts.get("holdout", 0.0),
        order=task.facts.get("order", "auto"),
    )


def with_joints(
    task: adapter.Task,
    options: adapter.DatasetOptions,
    *,
    acted: Callable[[pipeline.PreparedClip], body_streams.LiftedBody] | None = None,
) -> Views:
    """Everything that `preparation.prepare_clip` gives of one clip, and what lies beside it.

    Roles of `task.files`: "video"; "joints", or "joints_among" those of other clips, else
    `options.joints`; "mask" and "densepose", folders of a picture a frame; "background".

    Args:
      task: the clip.
      options: how.
      acted: puts a body on what was prepared, for `preparation_body.STREAMS`; its IUV is taken
        where no DensePose lies there.

    Raises:
      UserError: naming the file, as `preparation.prepare_clip` does.
    """
    with tempfile.TemporaryDirectory() as scratch:
        joints = task.files.get("joints") or options.joints
        if "joints_among" in task.files:
            joints = _chosen(Path(task.files["joints_among"]), Path(task.files["video"]), scratch)
        clip = pipeline.VideoClip(
            task.files["video"], task.name, joints, split=task.split, meta=dict(task.facts)
        )
        prepared = pipeline.prepare_clip(clip, _how(task, options))
    prepared = _with_given(prepared, task)
    charts = _charts(prepared, task) if "densepose" in task.files else None
    performance = acted(prepared) if acted else None
    for piece in prepared.pieces:
        views = prepared.views(piece)
        if performance is not None:
            views = body_streams.add_body_streams(views, piece.start, performance, prepared.masks, charts)
        yield from ((piece.split, view) for view in views)


def _chosen(folder: Path, video: Path, scratch: str) -> str:
    """A folder of the JSON files of one video alone, out of one that holds several videos'."""
    chosen = Path(scratch) / f"{video.stem}_json"
    chosen.mkdir()
    digits = "[0-9]" * 12
    for path in folder.glob(f"{glob.escape(video.stem)}_{digits}_keypoints.json"):
        (chosen / path.name).symlink_to(path.resolve())
    return str(chosen)


def _with_given(prepared: pipeline.PreparedClip, task: adapter.Task) -> pipeline.PreparedClip:
    """With the masks and the clean plate that lie beside the frames, in place of those found."""
    box, size = tuple(prepared.report["box"]), prepared.frames.shape[1:3]
    if "mask" in task.files:
        paths = _one_a_frame(Path(task.files["mask"]), len(prepared.frames), prepared)
        masks = np.stack([clip_reader.crop(_mask(path), box, size) for path in paths])
        prepared = dataclasses.replace(prepared, masks=masks)
    if "background" in task.files and prepared.background is not None:
        plate = _picture(Path(task.files["background"]), cv2.IMREAD_COLOR)
        plate = clip_reader.crop(cv2.cvtColor(plate, cv2.COLOR_BGR2RGB), box, size)
        prepared = dataclasses.replace(prepared, plate=plate)
    return prepared


def _charts(prepared: pipeline.PreparedClip, task: adapter.Task) -> UInt8[np.ndarray, "t h w 3"]:
    folder = Path(task.files["densepose"])
    paths = _numbered(folder, densepose.list_files(folder), len(prepared.frames), prepared)
    reverse = densepose.reversed_order(paths)
    box, video = tuple(prepared.report["box"]), tuple(prepared.report["video_size"])
    size = prepared.frames.shape[1:3]
    return np.stack([
        densepose.crop(densepose.read(path, reverse=reverse), box, video, size) for path in paths
    ])  # fmt: skip


def _one_a_frame(folder: Path, frames: int, prepared: pipeline.PreparedClip) -> list[Path]:
    inside = [p for p in folder.iterdir() if p.suffix.lower() in clip_reader.PICTURES]
    return _numbered(folder, inside, frames, prepared)


def _numbered(
    folder: Path, paths: list[Path], frames: int, prepared: pipeline.PreparedClip
) -> list[Path]:
    if len(paths) != frames:
        raise UserError(
            f"{folder}: {len(paths)} pictures, {prepared.clip.video} has {frames} frames: there "
            "must be one a frame"
        )
    return sorted(paths, key=clip_reader.natural_key)


def _mask(path: Path) -> UInt8[np.ndarray, "h w"]:
    """A person's mask: gray, colour or alpha; whatever its largest value, beyond its half."""
    picture = _picture(path, cv2.IMREAD_UNCHANGED)
    if picture.ndim == 3:
        alpha = picture.shape[-1] == 4 and np.ptp(picture[..., 3]) > 0
        picture = picture[..., 3] if alpha else picture[..., :3].max(-1)
    top = int(picture.max())
    return np.where(picture > top / 2, np.uint8(255), np.uint8(0)) if top else picture * 0


def _picture(path: Path, how: int) -> np.ndarray:
    picture = cv2.imdecode(np.fromfile(path, np.uint8), how)
    if picture is None:
        raise UserError(f"{path}: not a picture, or damaged; write it again")
    return picture


def views(task: adapter.Task, options: adapter.DatasetOptions) -> Views:
    """One clip with joints where there are some, else without (`options.joints` "none")."""
    if options.joints == NO_JOINTS:
        return plain(task, options)
    return with_joints(task, options)


def no_facts(kind: str, options: adapter.DatasetOptions) -> dict[str, Any]:
    """`DatasetAdapter.meta` of a set that has none of its own."""
    del options
    return {"kind": kind}


def meta(kind: str) -> Callable[[adapter.DatasetOptions], dict[str, Any]]:
    """`no_facts` of a kind."""
    return functools.partial(no_facts, kind)
