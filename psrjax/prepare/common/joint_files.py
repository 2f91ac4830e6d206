"""Reads a clip's joints from files: OpenPose, COCO-17, MMPose, AlphaPose, MediaPipe, NTU, .npz.

The result is always `openpose.People`: the people of each frame as the 26 joints in pixels of the
video.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from psrjax.errors import UserError
from psrjax.io import foreign
from psrjax.prepare.common import clip_reader, kinect_skeleton, letterbox, openpose
from psrjax.prepare.common.openpose import People

LAYOUTS = {  # by number of joints, the likelier first
    14: ("mpii14",), 17: ("coco17",), 18: ("coco18",), 23: ("coco23",),
    25: ("body25", "body25b"), 26: ("halpe26", "body26"), 33: ("mediapipe33",), 133: ("coco23",),
}  # fmt: skip
ORDERS = tuple(dict.fromkeys(name for names in LAYOUTS.values() for name in names))
MAX_LOST = 0.2  # fraction of frames that may lack joints
_INFERRED = 0.3  # confidence of an NTU joint that the Kinect inferred
_KINECT_COLOUR = (1080, 1920)  # height and width of a .skeleton's colour picture

PeopleByFrame = dict[int, list[np.ndarray]]  # {frame: people (k, 3)}


def find(source: str | Path, video: str | Path) -> Path:
    """Finds the file or folder of one video's joints: `source`, or one in it of the video's name.

    Raises:
      UserError: if there is none.
    """
    source, stem = Path(source), Path(video).stem
    if source.is_dir():
        names = [stem, f"{stem}_json", *(f"{stem}{suffix}" for suffix in _READERS)]
        names += [f"results_{stem}.json", stem.removesuffix("_rgb") + ".skeleton"]
        inside = next((source / name for name in names if (source / name).exists()), None)
        if inside is None and not any(source.glob("*.json")):
            raise UserError(
                f"{source}: no joints of {Path(video).name} (looked for {', '.join(names[:4])}, …)"
            )
        return inside or source
    if not source.exists():
        raise UserError(f"{source}: no such file or folder of joints, and not 'mediapipe'")
    return source


def read(
    source: str | Path,
    *,
    frames: int,
    size: tuple[int, int],
    order: str = "auto",
    of: tuple[int, int] | None = None,
) -> People:
    """Reads the people of a clip.

    Args:
      source: a folder of OpenPose JSON, one file a frame; a `.json` of MMPose (demo or inferencer),
        AlphaPose or MediaPipe; an NTU `.skeleton`; a `.npz` or `.npy` of (t, k, 3) or (t, n, k, 3),
        or with "keypoints" (…, k, 2) and "scores" (…, k) as rtmlib gives them.
      frames: the number of frames of the video.
      size: height and width of the video.
      order: the layout of the joints, one of `ORDERS`; "auto" goes by their number, and between
        BODY_25 and BODY_25B by the lengths of bones.
      of: height and width of the picture that the joints refer to, if it is not the video.

    Raises:
      UserError: naming the file, if it cannot be read, or lacks more than `MAX_LOST` of the frames.
    """
    source = Path(source)
    if order != "auto" and order not in ORDERS:
        raise UserError(f"joint order {order!r} is none of auto, {', '.join(ORDERS)}")
    if source.is_dir() and order in ("auto", *openpose.JOINT_KINDS):
        people = openpose.read_openpose(
            source, frames=frames, joints=order, size=of or size, max_lost=MAX_LOST
        )
    else:
        people = _file(source, frames, size if of is None else of, order)
    if of is not None and of != size:
        placement = letterbox.fit(of, size)
        people.frames = [placement.joints(here) for here in people.frames]
    return people


def _file(path: Path, frames: int, size: tuple[int, int], order: str) -> People:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(
            f"{path}: joints are read from a folder of OpenPose JSON or from {', '.join(_READERS)}"
        )
    with foreign.parsing(path, "not whole, or not joints as psrjax knows them"):
        people = reader(path, frames)
    if people and 0 not in people and max(people) == frames:
        people = {number - 1: here for number, here in people.items()}  # counted from one
    problems, lost = _mismatch(path, people, frames)
    listed = [people.get(number, []) for number in range(frames)]
    kind = _kind(path, listed, order)
    if path.suffix.lower() == ".skeleton":
        scale = np.asarray([size[1] / _KINECT_COLOUR[1], size[0] / _KINECT_COLOUR[0], 1.0])
        listed = [[(person * scale).astype(np.float32) for person in here] for here in listed]
    else:
        if kind == "mediapipe33":
            listed = _mediapipe_in_pixels(listed, size)
        listed = openpose.in_pixels(path, listed, size)
    converted = openpose.convert_people(listed, kind)
    return People(converted, kind, dict.fromkeys(range(frames), path), problems, lost)


def _mismatch(path: Path, people: PeopleByFrame, frames: int) -> tuple[list[str], list[int]]:
    """Describes a file's surplus and missing frames, and lists the missing ones."""
    lost = [number for number in range(frames) if number not in people]
    extra = [number for number in people if number >= frames]
    problems = []
    if extra:
        problems.append(
            f"{path}: joints of {len(people)} frames, the video ends at frame {frames - 1}; those "
            "after it are left out"
        )
    if lost:
        problems.append(f"{path}: no joints of {len(lost)} of {frames} frames, first {lost[0]}")
    if len(lost) > MAX_LOST * frames:
        raise UserError(
            f"{problems[-1]}; at most {MAX_LOST:.0%} may be missing: are they of this video?"
        )
    return problems, lost


def _kind(path: Path, listed: Sequence[Sequence[np.ndarray]], order: str) -> str:
    people = [person for here in listed for person in here]
    counts = sorted({len(person) for person in people})
    if not counts:
        raise UserError(f"{path}: nobody in any frame; run the pose detector again")
    if len(counts) > 1 or counts[0] not in LAYOUTS:
        raise UserError(
            f"{path}: people of {counts} joints; known are {', '.join(map(str, LAYOUTS))}, the "
            "same in every frame"
        )
    candidates = LAYOUTS[counts[0]]
    if path.suffix.lower() == ".skeleton":
        return "ntu25"
    if order != "auto":
        if order not in candidates:
            raise UserError(
                f"{path}: people of {counts[0]} joints, which are not {order}'s; they may be "
                f"{' or '.join(candidates)}"
            )
        return order
    if len(candidates) == 1 or counts[0] == 26:
        return candidates[0]
    cut = [person[:25] for person in people]
    return min(candidates, key=lambda kind: openpose.implausibility(cut, kind))


def _mediapipe_in_pixels(
    listed: list[list[np.ndarray]], size: tuple[int, int]
) -> list[list[np.ndarray]]:
    """Scales MediaPipe's landmarks, which are fractions though some lie outside [0, 1]."""
    people = [person for here in listed for person in here]
    already_pixels = np.nanmedian(np.abs([person[:, :2] for person in people])) > 2.0
    return listed if already_pixels else openpose.scaled(listed, size)


def _json(path: Path, count: int) -> PeopleByFrame:
    """Reads MMPose, AlphaPose or MediaPipe, told apart by their keys."""
    value = json.loads(path.read_text(encoding="utf-8-sig"))
    if isinstance(value, Mapping):
        for key in ("instance_info", "predictions", "frames", "landmarks", "poses"):
            if key in value:
                value = value[key]
                break
    if isinstance(value, Mapping):  # by frame number
        value = [value[key] for key in sorted(value, key=_number)]
    if not isinstance(value, list):
        raise ValueError("expected a list of frames")
    if value and isinstance(value[0], Mapping) and "image_id" in value[0]:
        return _alphapose(value, count)
    people: PeopleByFrame = {}
    for index, frame in enumerate(value):
        numbered = isinstance(frame, Mapping) and "frame_id" in frame
        people[int(frame["frame_id"]) if numbered else index] = _in_frame(frame)
    return people


def _number(name: Any) -> int:
    return int("".join(filter(str.isdigit, str(name))) or "0")


def _alphapose(rows: Sequence[Mapping[str, Any]], count: int) -> PeopleByFrame:
    """Reads one row a person; frames in which nobody was found have no row.

    Names of pictures that are no frames' numbers, such as IMG_20240115_123001.jpg, stand in order
    where each of the `count` frames has one.
    """
    names = sorted({str(row["image_id"]) for row in rows}, key=clip_reader.natural_key)
    stems = (re.search(r"(\d+)\D*$", name.rpartition(".")[0] or name) for name in names)
    numbers = {name: int(found[1]) if found else -1 for name, found in zip(names, stems)}
    least = min(numbers.values())
    if not 0 <= least <= count or len(set(numbers.values())) < len(names):
        if len(names) != count:
            raise ValueError(
                f"{len(names)} pictures from {names[0]!r} to {names[-1]!r}, which are not numbers "
                f"of the video's {count} frames, nor one for each"
            )
        numbers = {name: number for number, name in enumerate(names)}
    first = 1 if max(numbers.values()) == count and 0 not in numbers.values() else 0
    people: PeopleByFrame = {number: [] for number in range(count)}
    for row in rows:
        number = numbers[str(row["image_id"])] - first
        people.setdefault(number, []).append(_flat(row["keypoints"]))
    return people


def _in_frame(frame: Any) -> list[np.ndarray]:
    """Reads the people of one frame in any of the known forms."""
    if frame is None or (isinstance(frame, Mapping) and not frame) or frame == []:
        return []
    if isinstance(frame, Mapping):
        for key in ("instances", "people", "pose_landmarks", "landmarks", "landmark"):
            if key in frame:
                return _in_frame(frame[key])
        return [_person(frame)]
    first = frame[0]
    if isinstance(first, Mapping) and "x" in first:
        return [_landmarks(frame)]
    if isinstance(first, Mapping):
        return [_person(one) for one in frame]
    if np.ndim(first) == 1 and len(first) in (3, 4, 5):
        return [_landmarks([dict(zip("xyz", mark), visibility=mark[-1]) for mark in frame])
                if len(first) > 3 else np.asarray(frame, np.float32)]  # fmt: skip
    return [person for one in frame for person in _in_frame(one)]


def _landmarks(marks: Sequence[Mapping[str, float]]) -> np.ndarray:
    return np.asarray([(m["x"], m["y"], m.get("visibility", 1.0)) for m in marks], np.float32)


def _person(one: Mapping[str, Any]) -> np.ndarray:
    if "pose_keypoints_2d" in one:
        return _flat(one["pose_keypoints_2d"])
    places = np.asarray(one["keypoints"], np.float32)
    if places.ndim == 1 or "keypoint_scores" not in one:
        return _flat(one["keypoints"])
    scores = np.asarray(one["keypoint_scores"], np.float32).reshape(-1, 1)
    return np.concatenate([places[:, :2], scores], 1)


def _flat(values: Any) -> np.ndarray:
    return np.asarray(values, np.float32).reshape(-1, 3)


def _skeleton(path: Path, _: int) -> PeopleByFrame:
    """Reads an NTU file: the person in the colour picture, with confidences by tracking state."""
    one = kinect_skeleton.read_skeleton(path)
    sure = np.asarray((0.0, _INFERRED, 1.0), np.float32)[one.state]
    rows = np.concatenate([one.colour, sure[..., None]], -1).astype(np.float32)
    return {t: [person] if person[:, 2].any() else [] for t, person in enumerate(rows)}


def _arrays(path: Path, _: int) -> PeopleByFrame:
    joints = foreign.load_numbers(path)
    if isinstance(joints, dict):
        values = joints
        key = next((k for k in ("joints", "keypoints", "poses") if k in values), None)
        joints = values[key or next(iter(values))]
        score = next((k for k in ("scores", "keypoint_scores") if k in values), None)
        if score:
            joints = np.concatenate([joints[..., :2], values[score][..., None]], -1)
    if joints.ndim == 3:
        joints = joints[:, None]
    if joints.ndim != 4 or joints.shape[-1] not in (3, 4):
        raise ValueError(f"an array {joints.shape}; expected (t, k, 3) or (t, n, k, 3)")
    if joints.shape[-1] == 4:  # MediaPipe's x, y, z, visibility
        joints = joints[..., [0, 1, 3]]
    people = np.asarray(joints, np.float32)
    return {t: [one for one in here if (one[:, 2] > 0).any()] for t, here in enumerate(people)}


_READERS: Mapping[str, Callable[[Path, int], PeopleByFrame]] = {
    ".json": _json,
    ".skeleton": _skeleton,
    ".npz": _arrays,
    ".npy": _arrays,
}
