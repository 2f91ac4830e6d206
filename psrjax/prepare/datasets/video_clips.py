"""Prepares clips of published datasets that are videos or folders of pictures.

With joints, a clip is prepared by `monocular.pipeline`, with masks, background and IUV that lie
beside the frames; without joints, for methods that find their own keypoints, it is frames and flow.
"""

import dataclasses
import glob
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from psrjax.data import codec
from psrjax.errors import UserError
from psrjax.io import foreign
from psrjax.prepare.common import clip_reader
from psrjax.prepare.datasets import adapter
from psrjax.prepare.monocular import body_streams, person_crop, pipeline
from psrjax.vision import densepose
from psrjax.vision.optical_flow import optical_flow

NO_JOINTS = "none"
FLOWS = ("flow", "flow_forward", "flow_confidence")
Views = Iterator[tuple[str, codec.ClipView]]


def streams(options: adapter.DatasetOptions, *, body: bool = False) -> tuple[str, ...]:
    """Names the streams of every clip; a moving crop has no background."""
    found = ["frames", *FLOWS]
    if options.joints != NO_JOINTS:
        found += ["joints", "mask"] + (["background"] if options.crop != "follow" else [])
    return tuple(found + ([*body_streams.STREAMS] if body else []))


def list_videos(folder: Path) -> list[Path]:
    """Lists the videos and folders of pictures in a folder, in natural order."""
    inside = (p for p in folder.iterdir() if not p.name.startswith(".") and clip_reader.is_video(p))
    return sorted(inside, key=clip_reader.natural_key)


def clip_name(video: Path) -> str:
    """Names a clip after its video file or its folder of pictures."""
    return video.stem if video.is_file() else video.name


def clip_files(video: Path, options: adapter.DatasetOptions) -> dict[str, str]:
    """Returns the `Task.files` of a video and, unless `options` name joints, those beside it.

    They are `NAME_json/`, `NAME.json`, `NAME.npz`, or OpenPose's
    `NAME_000000000000_keypoints.json` among those of other videos.
    """
    files = {"video": str(video)}
    if options.joints:
        return files
    for name in (f"{video.stem}_json", f"{video.stem}.json", f"{video.stem}.npz"):
        if (video.parent / name).exists():
            return files | {"joints": str(video.parent / name)}
    if (video.parent / f"{video.stem}_{0:012d}_keypoints.json").is_file():
        return files | {"joints_among": str(video.parent)}
    return files


def with_detector(options: adapter.DatasetOptions) -> adapter.DatasetOptions:
    """Returns the options with MediaPipe's joints where none are named."""
    return options if options.joints else dataclasses.replace(options, joints=pipeline.MEDIAPIPE)


def check_crop(options: adapter.DatasetOptions) -> None:
    """Raises UserError for a crop that needs joints without joints, or the reverse."""
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


def without_joints(task: adapter.Task, options: adapter.DatasetOptions) -> Views:
    """Yields frames and flow of one clip: the whole picture, squeezed or cut about its middle.

    Raises:
      UserError: naming the file, if it is damaged or holds a single frame.
    """
    frames, times = [], []
    box = None
    for frame in clip_reader.read_frames(task.files["video"], fps=options.fps):
        box = box or _whole_box(frame.image.shape[:2], options)
        frames.append(clip_reader.crop(frame.image, box, options.size))
        times.append(frame.time)
    assert box is not None  # there is a frame: `read_frames` raises otherwise
    yield from frames_and_flow(task, options, np.stack(frames), np.asarray(times), box)


def frames_and_flow(
    task: adapter.Task,
    options: adapter.DatasetOptions,
    frames: UInt8[np.ndarray, "t h w 3"],
    times: Float[np.ndarray, " t"],
    box: tuple[int, int, int, int],
) -> Views:
    """Yields the views of a clip that consists of frames alone.

    Raises:
      UserError: naming the file, if there is a single frame.
    """
    if len(frames) < 2:
        raise UserError(f"{task.files['video']}: one frame is no video; leave it out")
    clip = pipeline.VideoClip(task.files["video"], task.name, split=task.split)
    for piece in pipeline.cut_pieces(clip, times, _preparation_options(task, options)):
        own = times[piece.start : piece.stop] - times[piece.start]
        facts = {
            "fps": round(clip_reader.frame_rate(own), 6),
            "first_frame": piece.start,
            "video": Path(clip.video).name,
            "box": list(box),
            **task.facts,
        }
        for start in range(piece.start, piece.stop, pipeline.RUN):
            before = int(start > piece.start)
            run = frames[start - before : min(start + pipeline.RUN, piece.stop)]
            stored = {"frames": run, **optical_flow(run)}
            stored = {name: values[before:] for name, values in stored.items()}
            first = start - piece.start
            yield piece.split, codec.ClipView(piece.name, "cam1", stored, facts, start=first)


def _whole_box(
    picture: tuple[int, int], options: adapter.DatasetOptions
) -> tuple[int, int, int, int]:
    if options.crop == "squeeze":
        return 0, 0, *picture
    none = np.zeros((1, 26, 3))
    boxes = person_crop.boxes(
        none, [], np.zeros(1), picture, size=options.size, crop="whole", margin=0.0
    )
    top, left, height, width = (int(edge) for edge in boxes[0])
    return top, left, height, width


def _preparation_options(
    task: adapter.Task, options: adapter.DatasetOptions
) -> pipeline.PreparationOptions:
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
    lift: Callable[[pipeline.PreparedClip], body_streams.LiftedBody] | None = None,
) -> Views:
    """Yields the streams of `pipeline.prepare_clip`, replaced by files that lie beside the video.

    Args:
      task: the clip. Roles of its files: "video"; "joints", or "joints_among" those of other clips,
        else `options.joints`; "mask" and "densepose", folders with a picture per frame;
        "background".
      options: size, crop and further options of the dataset.
      lift: fits a body to the prepared clip, for `body_streams.STREAMS`; its IUV is used where
        there is no "densepose".

    Raises:
      UserError: naming the file, as `pipeline.prepare_clip` does.
    """
    with tempfile.TemporaryDirectory() as scratch:
        joints = task.files.get("joints") or options.joints
        if "joints_among" in task.files:
            joints = _link_joints(
                Path(task.files["joints_among"]), Path(task.files["video"]), scratch
            )
        clip = pipeline.VideoClip(
            task.files["video"], task.name, joints, split=task.split, meta=dict(task.facts)
        )
        prepared = pipeline.prepare_clip(clip, _preparation_options(task, options))
    prepared = _with_given_files(prepared, task)
    iuv = _read_iuv(prepared, task) if "densepose" in task.files else None
    body = lift(prepared) if lift else None
    for piece in prepared.pieces:
        views = prepared.views(piece)
        if body is not None:
            views = body_streams.add_body_streams(views, piece.start, body, prepared.masks, iuv)
        yield from ((piece.split, view) for view in views)


def _link_joints(folder: Path, video: Path, scratch: str) -> str:
    """A folder with the JSON files of one video, linked from one with those of several videos."""
    chosen = Path(scratch) / f"{video.stem}_json"
    chosen.mkdir()
    digits = "[0-9]" * 12
    for path in folder.glob(f"{glob.escape(video.stem)}_{digits}_keypoints.json"):
        (chosen / path.name).symlink_to(path.resolve())
    return str(chosen)


def _with_given_files(prepared: pipeline.PreparedClip, task: adapter.Task) -> pipeline.PreparedClip:
    """The clip with the masks and the background that lie beside the frames."""
    box, size = tuple(prepared.report["box"]), prepared.frames.shape[1:3]
    if "mask" in task.files:
        folder = Path(task.files["mask"])
        paths = [p for p in folder.iterdir() if p.suffix.lower() in clip_reader.PICTURES]
        paths = _one_per_frame(folder, paths, prepared)
        masks = np.stack([clip_reader.crop(_mask(path), box, size) for path in paths])
        prepared = dataclasses.replace(prepared, masks=masks)
    if "background" in task.files and prepared.background is not None:
        picture = _picture(Path(task.files["background"]), cv2.IMREAD_COLOR)
        picture = clip_reader.crop(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), box, size)
        prepared = dataclasses.replace(prepared, background=picture)
    return prepared


def _read_iuv(prepared: pipeline.PreparedClip, task: adapter.Task) -> UInt8[np.ndarray, "t h w 3"]:
    folder = Path(task.files["densepose"])
    paths = _one_per_frame(folder, densepose.list_files(folder), prepared)
    reverse = densepose.reversed_order(paths)
    box, video = tuple(prepared.report["box"]), tuple(prepared.report["video_size"])
    size = prepared.frames.shape[1:3]
    return np.stack([
        densepose.crop(densepose.read(path, reverse=reverse), box, video, size) for path in paths
    ])  # fmt: skip


def _one_per_frame(folder: Path, paths: list[Path], prepared: pipeline.PreparedClip) -> list[Path]:
    if len(paths) != len(prepared.frames):
        raise UserError(
            f"{folder}: {len(paths)} pictures, {prepared.clip.video} has {len(prepared.frames)} "
            "frames: there must be one per frame"
        )
    return sorted(paths, key=clip_reader.natural_key)


def _mask(path: Path) -> UInt8[np.ndarray, "h w"]:
    """Reads a person's mask: gray, colour or alpha above half of its largest value."""
    picture = _picture(path, cv2.IMREAD_UNCHANGED)
    if picture.ndim == 3:
        alpha = picture.shape[-1] == 4 and np.ptp(picture[..., 3]) > 0
        picture = picture[..., 3] if alpha else picture[..., :3].max(-1)
    top = int(picture.max())
    return np.where(picture > top / 2, np.uint8(255), np.uint8(0)) if top else picture * 0


def _picture(path: Path, flags: int) -> np.ndarray:
    foreign.check_picture(path)
    picture = cv2.imdecode(np.fromfile(path, np.uint8), flags)
    if picture is None:
        raise UserError(f"{path}: not a picture, or damaged; write it again")
    return picture


def views(task: adapter.Task, options: adapter.DatasetOptions) -> Views:
    """Yields one clip with joints, or without where `options.joints` is "none"."""
    prepare = without_joints if options.joints == NO_JOINTS else with_joints
    return prepare(task, options)
