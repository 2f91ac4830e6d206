"""Global pose normalization: skeletons moved vertically to where another person stands.

Joints are the contract's 26 of whole clips, (t 26 3), x and y in [-1, 1] downwards, confidence 0
where missing. Host side: plain NumPy, before anything is rendered.
"""

from dataclasses import dataclass

import numpy as np
from absl import logging
from jaxtyping import Float

from psrjax.errors import UserError
from psrjax.ops import pose

RULES = ("head", "ankle", "none")
POSITIONS = ("smoothed", "constant")
_SMOOTH = 3  # frames on both sides that the position of a frame is a mean of
_STILL = 0.1  # of y in [-1, 1]: a part that moves less stands still
_ALIKE = 3.0  # how many times as far one clip's part may move as the other's
_HEAD = (("nose",), ("right eye", "left eye"), ("right ear", "left ear"))  # in order of preference
_ANKLES = (("right ankle", "left ankle"),)
_PARTS = {"head": (_HEAD, "head (nose, eyes or ears)"), "ankle": (_ANKLES, "ankles")}


@dataclass(frozen=True)
class Span:
    """The highest and the lowest place of a body part over a clip, y in [-1, 1] downwards."""

    low: float
    high: float
    mean: float

    @property
    def range(self) -> float:
        """The range of the part's movement."""
        return self.high - self.low


def normalize(
    driving: Float[np.ndarray, "t 26 3"],
    target: Float[np.ndarray, "s 26 3"],
    *,
    rule: str = "head",
    position: str = "smoothed",
) -> Float[np.ndarray, "t 26 3"]:
    """Moves the driving skeletons up or down by Eq. 1 (Wang et al.); nothing is scaled.

    With the y of the head (or, for comparison, of the ankles: Chan et al.'s rule) in the driving
    clip from s_min to s_max, in the target's from t_min to t_max, and L that of a frame:
    N = t_min + (L - s_min) / (s_max - s_min) (t_max - t_min) is where it should be, so each joint
    of the frame moves by N - L. Two ranges that say nothing of one another are not stretched to
    fit: of two people who stand still the one moves by the difference of the means, and where one
    moves over `_ALIKE` times the other's range (one squats, the other does not) nothing is moved,
    and the log says so.

    Args:
      driving: skeletons to move, of a whole clip.
      target: those of the person to be shown, of the whole training clip.
      rule: "head", "ankle", or "none" to change nothing.
      position: what L is. "smoothed": the frame's own, averaged with three frames on both sides;
        "constant": the clip's mean, one shift for all frames.

    Raises:
      UserError: if the part is never seen in one of the clips, or for an unknown rule or position.
    """
    for name, value, known in (("rule", rule, RULES), ("position", position, POSITIONS)):
        if value not in known:
            raise UserError(
                f"pose normalization: no {name} {value!r}; there are {', '.join(known)}"
            )
    if rule == "none":
        return driving
    heights = track(driving, rule, "driving clip")
    source, wanted = span(heights), span(track(target, rule, "training clip"))
    least, most = sorted((source.range, wanted.range))
    where = _smoothed(heights) if position == "smoothed" else np.full_like(heights, source.mean)
    if most < _STILL:
        shift = np.full_like(where, wanted.mean - source.mean)
    elif most > _ALIKE * least:
        logging.warning(
            "the driving clip's %s moves over %.1f%% of the picture's height, the training clip's "
            "over %.1f%%: too unlike to normalize poses by; they stay where they are",
            *(rule, 50 * source.range, 50 * wanted.range),
        )
        return driving
    else:
        share = (where - source.low) / source.range
        shift = wanted.low + share * wanted.range - where
    moved = driving.copy()
    moved[..., 1] += np.where(driving[..., 2] > 0, shift[:, None], 0.0).astype(driving.dtype)
    return moved


def track(joints: Float[np.ndarray, "t 26 3"], rule: str, what: str) -> Float[np.ndarray, " t"]:
    """Returns the y of the head or of the ankles in each frame, interpolated where it is not seen.

    Raises:
      UserError: if it is never seen; `what` names the clip.
    """
    groups, part = _PARTS[rule]
    heights = np.full(len(joints), np.nan)
    for names in groups:
        chosen = joints[:, [pose.NAMES.index(name) for name in names]]
        seen = chosen[..., 2] > 0
        total = np.where(seen, chosen[..., 1], 0.0).sum(1)
        mean = total / np.maximum(seen.sum(1), 1)
        heights = np.where(np.isnan(heights) & seen.any(1), mean, heights)
    known = np.flatnonzero(~np.isnan(heights))
    if not known.size:
        raise UserError(
            f"the {what} has no {part} in any of its {len(joints)} frames, by which poses are "
            "normalized: choose a clip that shows it, or --method.normalize=none"
        )
    return np.interp(np.arange(len(joints)), known, heights[known])


def span(heights: Float[np.ndarray, " t"]) -> Span:
    """Returns the range of a track."""
    return Span(float(heights.min()), float(heights.max()), float(heights.mean()))


def check_same_joints(
    driving: Float[np.ndarray, "t j 3"], target: Float[np.ndarray, "s 26 3"]
) -> None:
    """Checks that the driving clip was annotated with the joints that the network has learned.

    Raises:
      UserError: if it has another number of joints, or never shows a joint of COCO-18 that the
        training clip shows in most of its frames.
    """
    if driving.shape[-2:] != (pose.COUNT, 3):
        raise UserError(
            f"the driving clip has {driving.shape[-2]} joints, the training clip {pose.COUNT}: "
            "read it through `psrjax prepare`, which turns every joint layout into these"
        )
    usual = np.mean(target[..., 2] > 0, axis=0) > 0.5
    never = np.all(driving[..., 2] <= 0, axis=0)
    lacking = [pose.NAMES[i] for i in pose.COCO_18 if usual[i] and never[i]]
    if lacking:
        raise UserError(
            f"the driving clip never shows {', '.join(lacking)}, which the training clip does: it "
            "was annotated with another joint set, or shows less of the body; annotate it with "
            "the training clip's (COCO-18, BODY_25 or MediaPipe), or train on such a clip"
        )


def _smoothed(heights: Float[np.ndarray, " t"]) -> Float[np.ndarray, " t"]:
    """Averages over the frames around each; the first and last frame stand for those outside."""
    padded = np.pad(heights, _SMOOTH, mode="edge")
    window = np.ones(2 * _SMOOTH + 1) / (2 * _SMOOTH + 1)
    return np.convolve(padded, window, mode="valid")
