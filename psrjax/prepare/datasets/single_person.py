"""Adapter of one person's long clip and the clips to imitate, as HPT and D2G-Net train on.

`ROOT/NAME.mp4` or D2G-Net's own folder `ROOT/NAME/{NAME/ frames, openpose_json/, densepose/, mask/,
bg.jpg}`; `ROOT/sources/` holds the clips to imitate, in either form.
"""

from pathlib import Path

from psrjax.prepare.datasets import adapter, video_clips
from psrjax.prepare.monocular import body_streams

HOLDOUT = 0.1  # of the clip, at its end
SOURCES = "sources"
_PARTS = {"joints": "openpose_json", "densepose": "densepose", "mask": "mask"}
_BACKGROUNDS = ("bg.jpg", "bg.png")


def find(root: Path, options: adapter.DatasetOptions) -> adapter.TaskList:
    """Finds the person's clip and those in `sources/`, which are the split "source"."""
    tasks = [
        adapter.Task(name, "train", files, {"holdout": HOLDOUT})
        for name, files in _clips(root, options).items()
    ]
    notes = []
    if len(tasks) > 1:
        notes.append(f"{len(tasks)} clips of the person: each is trained on but for its end")
    if (root / SOURCES).is_dir():
        sources = _clips(root / SOURCES, options)
        tasks += [adapter.Task(name, "source", files) for name, files in sources.items()]
    return adapter.TaskList(tuple(tasks), tuple(notes))


def _clips(folder: Path, options: adapter.DatasetOptions) -> dict[str, dict[str, str]]:
    """{name: files} of the videos and D2G-Net folders in a folder."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name != SOURCES and (path / path.name).is_dir():
            found[path.name] = _folder(path, options)
    for video in video_clips.list_videos(folder):
        if video.name not in found and video.name != SOURCES:
            found[video_clips.clip_name(video)] = video_clips.clip_files(video, options)
    return found


def _folder(path: Path, options: adapter.DatasetOptions) -> dict[str, str]:
    """Files of a D2G-Net folder; its flow, which is of other frame sizes, is not read."""
    files = {"video": str(path / path.name)}
    for role, name in _PARTS.items():
        if (path / name).is_dir() and not (role == "joints" and options.joints):
            files[role] = str(path / name)
    background = next((path / name for name in _BACKGROUNDS if (path / name).is_file()), None)
    return files | ({"background": str(background)} if background else {})


def streams(options: adapter.DatasetOptions) -> tuple[str, ...]:
    """Names the streams of every clip."""
    return video_clips.streams(options, body=True)


def views(task: adapter.Task, options: adapter.DatasetOptions) -> video_clips.Views:
    """Yields one clip; the mesh label, and IUV without DensePose, are of the built-in body.

    Raises UserError as `video_clips` does.
    """
    options = video_clips.with_detector(options)
    return video_clips.with_joints(task, options, lift=body_streams.lift_prepared)


ADAPTER = adapter.DatasetAdapter(
    name="single_person",
    # HPT: the largest square in the middle, 256 x 256.
    defaults=adapter.DatasetOptions(size=(256, 256), crop="whole"),
    crops=("whole", "fixed"),
    uses=("size", "crop", "margin", "joints", "fps"),
    find=find,
    streams=streams,
    views=views,
)
