"""Measures a prepared clip and reports its problems, with advice."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from psrjax.ops import pose
from psrjax.prepare.common import clip_reader
from psrjax.prepare.monocular import joint_mistakes

MOVING = 0.01  # of the width: camera motion from which a camera counts as moving
MISSING = 0.1  # fraction of frames from which a body's joint counts as missing
ABSENT = 0.05  # fraction of frames without a person from which it is reported
MISTAKEN = 0.02  # fraction of frames with mistakes of the detector from which it is reported
OTHERS = 0.05  # fraction of frames with other people from which it is reported
SHORT_FRAMES, SHORT_SECONDS = 48, 2.0
ENLARGED = 1.25  # scale of a window from which it counts as too small
SMALL = 0.35  # of the stored height: smaller people count as too small
TURNED = 0.5  # fraction of frames not upright from which the video may be rotated
HOLE = 0.02  # of the picture: never visible background from which it is reported

# Joints of every layout; eyes, ears and toes are often hidden.
_BODY = tuple(range(15))
_TRUNK = [1, 8]  # neck and middle hip


@dataclass(frozen=True)
class ClipFacts:
    """The measurements that `report` judges; `pipeline.prepare_clip` fills them in.

    `outside` counts joints outside the picture, `hole` is the inpainted fraction of the background
    (None: no background), `boxes` are the windows in the video, `stored` is their stored size.
    """

    video: str
    size: tuple[int, int]
    times: Float[np.ndarray, " t"]
    joints: Float[np.ndarray, "t 26 3"]
    filled: Bool[np.ndarray, "t 26"]
    outside: int
    others: int
    pieces: int
    boxes: Int[np.ndarray, "t 4"]
    stored: tuple[int, int]
    camera_motion: float
    hole: float | None
    mistakes: joint_mistakes.CheckedJoints
    notes: list[str] = field(default_factory=list)
    layout: str = ""


def report(facts: ClipFacts) -> dict[str, Any]:
    """Returns a clip's measurements and `problems`: [{"what", "detail", "advice"}], worst first."""
    count = len(facts.times)
    seen = pose.present(facts.joints) & ~facts.filled
    person = np.any(seen, axis=1)
    missing = 1.0 - seen[person].mean(0) if person.any() else np.ones(pose.COUNT)
    extent = _extents(facts.joints, person)
    top, left, height, width = (int(edge) for edge in facts.boxes[0])
    numbers = {
        "video": facts.video,
        "joints": facts.layout,
        "video_size": list(facts.size),
        "frames": count,
        "seconds": round(float(facts.times[-1] - facts.times[0]), 3),
        "fps": round(clip_reader.frame_rate(facts.times), 3),
        "even_times": clip_reader.evenly_timed(facts.times),
        "frames_with_person": int(person.sum()),
        "person_height_px": round(extent, 1),
        "box": [top, left, height, width],
        "scale": round(facts.stored[0] / height, 4),
        "missing_joints": {
            pose.NAMES[joint]: round(float(missing[joint]), 3)
            for joint in range(pose.COUNT)
            if missing[joint] > 0
        },
        "joints_outside": facts.outside,
        "joints_filled": int(facts.filled.sum()),
        "filled": pose.flagged_runs(facts.filled),
        "mistakes": facts.mistakes.report(),
        "frames_with_mistakes": len(joint_mistakes.frames_of(facts.mistakes.report())),
        "frames_with_others": facts.others,
        "camera_motion": round(facts.camera_motion, 4),
        "background_guessed": None if facts.hole is None else round(facts.hole, 4),
        "notes": facts.notes,
    }
    keys = ("what", "detail", "advice")
    problems = [dict(zip(keys, problem)) for problem in _problems(facts, numbers, missing)]
    return numbers | {"problems": problems}


def _problems(
    facts: ClipFacts, numbers: dict[str, Any], missing: np.ndarray
) -> Iterator[tuple[str, str, str]]:
    count, scale = numbers["frames"], numbers["scale"]
    absent = count - numbers["frames_with_person"]
    if absent > ABSENT * count:
        yield (
            "person missing",
            f"nobody is found in {absent} of {count} frames",
            "cut the video to where the person is visible",
        )
    yield from _joint_problems(numbers, missing)
    if facts.others > OTHERS * count:
        yield (
            "several people",
            f"somebody else is visible in {facts.others} of {count} frames",
            "crop or cut them away; they stay in the frames and in the background",
        )
    if facts.camera_motion >= MOVING:
        yield (
            "moving camera",
            f"the background moves by {facts.camera_motion:.1%} of the picture's width",
            "use a tripod; the clean background is blurred, and so are videos of methods that "
            "put the person in front of it",
        )
    small = numbers["person_height_px"] * scale < SMALL * facts.stored[0]
    if scale > ENLARGED or small:
        yield (
            "too small",
            f"the person is {numbers['person_height_px']:.0f} pixels tall in the video and "
            f"{numbers['person_height_px'] * scale:.0f} of {facts.stored[0]} in the stored frames",
            "record from closer, choose a smaller --size" + (", or --crop follow" if small else ""),
        )
    if count < SHORT_FRAMES or numbers["seconds"] < SHORT_SECONDS:
        yield (
            "too short",
            f"{count} frames, {numbers['seconds']:.1f} s",
            f"most methods need {SHORT_SECONDS:.0f} s or more for sources and targets",
        )
    if facts.hole is not None and facts.hole > HOLE:
        yield (
            "background guessed",
            f"{facts.hole:.1%} of the background is always behind the person",
            "let the person step aside for a moment of the video",
        )
    if facts.outside > MISSING * count:
        yield (
            "joints outside the picture",
            f"{facts.outside} joints lie outside and count as missing",
            "are the joints of this video, and of its size? (--joints_size)",
        )
    turned = _turned(facts.joints)
    if turned > TURNED:
        yield (
            "person not upright",
            f"the person is not upright in {turned:.0%} of the frames",
            "is the video rotated? store its rotation in it "
            "(ffmpeg -display_rotation 90 -i IN -c copy OUT)",
        )
    if facts.pieces > 1:
        yield (
            "person lost",
            f"the person was lost and found again {facts.pieces - 1} times",
            "check in the preview that it is the same person all the time",
        )
    if _beyond(facts):
        yield (
            "window beyond the picture",
            "the person moves farther than a window of the stored shape can follow; bars are black",
            "choose --crop follow, or a --size of the picture's shape",
        )


def _joint_problems(numbers: dict[str, Any], missing: np.ndarray) -> Iterator[tuple[str, str, str]]:
    lacking = [joint for joint in _BODY if missing[joint] > MISSING]
    if lacking:
        worst = sorted(lacking, key=lambda joint: -missing[joint])[:4]
        named = ", ".join(f"{pose.NAMES[joint]} {missing[joint]:.0%}" for joint in worst)
        yield (
            "missing joints",
            f"in the frames that show the person: {named}",
            "is the whole body in the picture? another source of joints may see them (--joints)",
        )
    count, mistaken = numbers["frames"], numbers["frames_with_mistakes"]
    if "perhaps exchanged" in numbers["mistakes"] or mistaken > MISTAKEN * count:
        yield (
            "joints mistaken",
            f"the detector was wrong, or perhaps wrong, in {mistaken} of {count} frames, listed "
            "below",
            "look at these frames in the preview; cut them away, or give joints of another source "
            "(--joints), where a left limb is drawn on the right or beside the person",
        )


def _turned(joints: np.ndarray) -> float:
    """Returns the fraction of frames in which the neck is not above the hips, within 60 degrees."""
    ends = joints[pose.present(joints[:, _TRUNK]).all(1)][:, _TRUNK, :2]
    if not len(ends):
        return 0.0
    up = ends[:, 0] - ends[:, 1]
    return float((-up[:, 1] < 0.5 * np.linalg.norm(up, axis=-1)).mean())


def _beyond(facts: ClipFacts) -> bool:
    top, left, height, width = facts.boxes.T
    outside = (top < 0) | (left < 0)
    outside |= (top + height > facts.size[0]) | (left + width > facts.size[1])
    return bool(outside.any())


def _extents(joints: np.ndarray, person: np.ndarray) -> float:
    """Returns the median height of the box of the person's joints, pixels of the video."""
    heights = [np.ptp(one[pose.present(one), 1]) for one in joints[person]]
    return float(np.median(heights)) if heights else 0.0
