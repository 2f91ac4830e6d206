"""One person, one long clip, and the clips to imitate beside it: what HPT and D2G-Net train on.

`ROOT/NAME.mp4` or D2G-Net's own folder `ROOT/NAME/{NAME/ frames, openpose_json/, densepose/, mask/,
bg.jpg}`; `ROOT/sources/` holds the clips to imitate, in either form.
"""

from pathlib import Path

from psrjax.prepare.datasets import adapter, video_clips, video_folder
from psrjax.prepare.monocular import body_streams

HOLDOUT = 0.1  # of the clip, at its end
SOURCES = "sources"
_PARTS = {"joints": "openpose_json", "densepose": "densepose", "mask": "mask"}
_PLATES = ("bg.jpg", "bg.png")


def find(root: Path, options: adapter.DatasetOptions) -> adapter.TaskList:
    """The person's clip and those in `sources/`, which go to the split "source"."""
    tasks = [
        adapter.Task(name, "train", files, {"holdout": HOLDOUT})
        for name, files in _clips(root, options).items()
    ]
    notes = []
    if len(tasks) > 1:
        notes.append(f"{len(tasks)} clips of the person: each is trained on but for its end")
    if (root / SOURCES).is_dir():
        beside = _clips(root / SOURCES, options)
        tasks += [adapter.Task(name, "source", files) for name, files in beside.items()]
    return adapter.TaskList(tuple(tasks), tuple(notes))


def _clips(folder: Path, options: adapter.DatasetOptions) -> dict[str, dict[str, str]]:
    """{name: its files} of the videos and D2G-Net folders in a folder."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name != SOURCES and (path / path.name).is_dir():
            found[path.name] = _folder(path, options)
    for video in video_clips.listed(folder):
        if video.name not in found and video.name != SOURCES:
            name = video.stem if video.is_file() else video.name
            beside = video_clips.joints_beside(video) if not options.joints else {}
            found[name] = {"video": str(video), **beside}
    return found


def _folder(path: Path, options: adapter.DatasetOptions) -> dict[str, str]:
    """A D2G-Net folder. Its flow is left: it is of other frames' sizes, and found anew."""
    files = {"video": str(path / path.name)}
    for role, name in _PARTS.items():
        if (path / name).is_dir() and not (role == "joints" and options.joints):
            files[role] = str(path / name)
    plate = next((path / name for name in _PLATES if (path / name).is_file()), None)
    return files | ({"background": str(plate)} if plate else {})


def streams(options: adapter.DatasetOptions) -> tuple[str, ...]:
    """What every clip holds."""
    return video_clips.streams(video_folder.defaulted(options), body=True)


def views(task: adapter.Task, options: adapter.DatasetOptions) -> video_clips.Views:
    """One clip with everything that HPT and D2G-Net read; the mesh label, and IUV where there is no
    DensePose, from the built-in body on the joints.

    Raises:
      UserError: naming the file, as `raw_videos` does.
    """
    return video_clips.with_joints(task, video_folder.defaulted(options), acted=body_streams.lift_prepared)


ADAPTER = adapter.DatasetAdapter(
    name="single_person",
    # HPT: the largest square in the middle, 256 x 256.
    defaults=adapter.DatasetOptions(size=(256, 256), crop="whole"),
    crops=("whole", "fixed"),
    uses=("size", "crop", "margin", "joints", "fps"),
    find=find,
    streams=streams,
    views=views,
    meta=video_clips.meta("single_person"),
)
