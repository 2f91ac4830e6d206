"""Reads OpenPose JSON: the people of a clip, in three joint orders."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float

from psrjax.errors import UserError
from psrjax.io import foreign
from psrjax.ops import pose

SEEN = 0.1  # confidence above which a joint counts as seen
JOINT_KINDS = {"body25": 25, "body25b": 25, "coco18": 18}

# Lengths of an adult's bones as fractions of the height (rounded from anthropometry); used only to
# tell joint orders apart, where a wrong order is wrong by factors.
_BONES = {
    (2, 3): 0.17, (3, 4): 0.15, (5, 6): 0.17, (6, 7): 0.15, (2, 5): 0.22, (9, 12): 0.13,
    (9, 10): 0.24, (10, 11): 0.24, (12, 13): 0.24, (13, 14): 0.24, (2, 9): 0.29, (5, 12): 0.29,
    (0, 1): 0.11, (0, 15): 0.03, (0, 16): 0.03, (11, 24): 0.05, (14, 21): 0.05,
}  # fmt: skip


@dataclass
class People:
    """The people of one camera's clip: per frame an array (n, 26, 3) of x, y, confidence in pixels.

    `kind` is the joint order of the files; `problems` names each missing or unreadable file, one
    line each, and `lost` holds the numbers of those frames.
    """

    frames: list[np.ndarray]
    kind: str
    files: dict[int, Path]
    problems: list[str] = field(default_factory=list)
    lost: list[int] = field(default_factory=list)

    def file(self, frame: int) -> str:
        """Returns the name of the file that holds `frame`."""
        return self.files[frame].name if frame in self.files else "no file"


def height(person: Float[np.ndarray, "26 3"]) -> float:
    """Measures the extent of a person's seen joints: the diagonal of their box in pixels."""
    seen = person[person[:, 2] > SEEN, :2]
    return float(np.hypot(*np.ptp(seen, axis=0))) if len(seen) > 1 else 0.0


def read_openpose(
    folder: Path | str,
    *,
    frames: int,
    joints: str = "auto",
    size: tuple[int, int] | None = None,
    max_lost: float = 0.2,
) -> People:
    """Reads a folder of OpenPose JSON, one file a frame, numbered by the last number of its name.

    Numbers may start at 0 or at 1. A frame whose file is missing or broken holds nobody and is
    named in `problems`. Coordinates that all lie in [0, 1] are taken as fractions of the image
    (`--keypoint_scale 3`) and need `size`.

    Args:
      folder: of the `.json` files.
      frames: the number of frames of the video.
      joints: a key of `JOINT_KINDS`, or "auto", which tells BODY_25 from BODY_25B by the
        plausibility of bone lengths over the clip.
      size: height and width of the image, for fractional coordinates.
      max_lost: the largest fraction of frames that may lack a readable file.

    Raises:
      UserError: no files, too many missing or broken, mixed or unknown numbers of joints.
    """
    folder = Path(folder)
    if joints != "auto" and joints not in JOINT_KINDS:
        raise UserError(f"joints {joints!r} is not one of auto, {', '.join(JOINT_KINDS)}")
    files = _numbered(folder, frames)
    raw: list[list[np.ndarray]] = []
    problems, lost = [], []
    for index in range(frames):
        people: list[np.ndarray] = []
        try:
            if index not in files:
                raise UserError(f"{folder}: frame {index} has no JSON file")
            people = _people(files[index])
        except UserError as error:
            problems.append(str(error))
            lost.append(index)
        raw.append(people)
    extra = [number for number in files if number >= frames]
    if extra:
        problems.append(
            f"{files[min(extra)]}: the video ends at frame {frames - 1}; "
            f"{len(extra)} JSON files from frame {min(extra)} on are left out"
        )
    if len(lost) > max_lost * frames:
        raise UserError(
            f"{folder}: {len(lost)} of {frames} frames have no readable JSON; first: {problems[0]};"
            f" at most {max_lost:.0%} may be missing"
        )
    kind = _kind(folder, raw, joints)
    converted = convert_people(in_pixels(folder, raw, size), kind)
    return People(converted, kind, files, problems, lost)


def _numbered(folder: Path, frames: int) -> dict[int, Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of OpenPose JSON files")
    files: dict[int, Path] = {}
    for path in sorted(folder.glob("*.json")):
        numbers = re.findall(r"\d+", path.stem)
        if not numbers:
            raise UserError(f"{path}: the name holds no frame number")
        number = int(numbers[-1])
        if number in files:
            raise UserError(f"{path}: frame {number} is also in {files[number].name}")
        files[number] = path
    if not files:
        raise UserError(f"{folder}: holds no .json file; one OpenPose JSON a frame is expected")
    if 0 not in files and max(files) == frames:
        files = {number - 1: path for number, path in files.items()}
    return files


def _people(path: Path) -> list[np.ndarray]:
    with foreign.parsing(path, "not a whole OpenPose JSON file"):
        people = json.loads(path.read_text())["people"]
        flat = [p.get("pose_keypoints_2d") or p["pose_keypoints"] for p in people]
        return [np.asarray(values, np.float32).reshape(-1, 3) for values in flat]


def convert_people(frames: list[list[np.ndarray]], kind: str) -> list[np.ndarray]:
    """Converts the people of each frame to (n, 26, 3); joints of face and fingers are dropped."""
    count = pose.layout(kind).count
    converted = (
        [pose.convert(np.asarray(person[:count], np.float32), kind, "body26") for person in people]
        for people in frames
    )
    empty = np.zeros((0, 26, 3), np.float32)
    return [
        np.stack([_checked(one) for one in people]) if people else empty for people in converted
    ]


def _checked(person: np.ndarray) -> np.ndarray:
    """Sets missing and non-finite joints to zero and clips confidences to [0, 1]."""
    good = np.isfinite(person).all(-1) & (np.nan_to_num(person[:, 2]) > 0)
    person = np.where(good[:, None], person, 0.0)
    person[:, 2] = np.clip(person[:, 2], 0.0, 1.0)
    return person.astype(np.float32)


def _kind(folder: Path, raw: list[list[np.ndarray]], joints: str) -> str:
    counts = {len(person) for people in raw for person in people}
    if not counts:
        raise UserError(f"{folder}: nobody in any frame; run the pose detector again, or leave "
                        "this camera out (--cameras)")  # fmt: skip
    if len(counts) > 1 or not counts & set(JOINT_KINDS.values()):
        raise UserError(
            f"{folder}: people of {sorted(counts)} joints; expected 25 (BODY_25, BODY_25B) or "
            "18 (COCO-18), the same in every file"
        )
    count = counts.pop()
    candidates = [kind for kind, number in JOINT_KINDS.items() if number == count]
    if joints != "auto":
        if joints not in candidates:
            raise UserError(
                f"{folder}: people of {count} joints; --joints {joints} has {JOINT_KINDS[joints]}"
            )
        return joints
    people = [person for frame in raw for person in frame]
    return min(candidates, key=lambda kind: implausibility(people, kind))


def implausibility(people: list[np.ndarray], kind: str) -> float:
    """Measures how far bones in the joint order `kind` are from an adult's: median |log ratio|.

    Lengths are relative to the person's mean bone. People are arrays (joints, 3) in that order;
    people with fewer than four visible bones do not count.
    """
    scores = []
    ends = np.asarray(list(_BONES))
    expected = np.asarray(list(_BONES.values()))
    for person in people:
        points = pose.convert(person, kind, "body26")
        seen = (points[ends, 2] > 0).all(1)
        if seen.sum() < 4:
            continue
        lengths = np.linalg.norm(np.diff(points[ends, :2], axis=1)[:, 0], axis=-1)[seen]
        ratios = (lengths + 1e-6) / lengths.mean() * expected[seen].mean() / expected[seen]
        scores.append(np.abs(np.log(ratios)).mean())
    return float(np.median(scores)) if scores else float("inf")


def in_pixels(
    folder: Path, raw: list[list[np.ndarray]], size: tuple[int, int] | None
) -> list[list[np.ndarray]]:
    """Scales people of all frames to pixels if all their coordinates lie in [0, 1].

    Raises:
      UserError: if `size` (height, width) is needed and not known.
    """
    people = [person for frame in raw for person in frame if len(person)]
    if max((np.abs(np.nan_to_num(p[:, :2])).max() for p in people), default=2.0) > 1.0:
        return raw
    if size is None:
        raise UserError(f"{folder}: joints are fractions of the image, whose size is not known")
    return scaled(raw, size)


def scaled(people: list[list[np.ndarray]], size: tuple[int, int]) -> list[list[np.ndarray]]:
    """Scales people of all frames from fractions of a picture of `size` to pixels."""
    scale = np.asarray([size[1], size[0], 1.0], np.float32)
    shift = np.asarray([0.5, 0.5, 0.0], np.float32)
    return [[person * scale - shift * (person[:, 2:] > 0) for person in here] for here in people]
