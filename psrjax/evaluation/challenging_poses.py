"""R-SSIM and R-PSNR: scores of the frames whose poses are farthest from those of training."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from psrjax.data import sampling
from psrjax.data.source import Source
from psrjax.evaluation.score_statistics import Scored
from psrjax.metrics import challenging, registry

# {metric: of which score of a frame it is the mean}
METRICS = {
    name: name.removeprefix("r_")
    for name in registry.FURTHER
    if registry.TRAINING in registry.get(name).needs
}

_JOINTS = ("target_joints",)


@dataclasses.dataclass(frozen=True)
class ChallengingFrames:
    """The scores of the chosen frames, and their places [clip, view, frame], farthest first."""

    scored: list[Scored]
    frames: list[list[Any]]


def require(*sources: Source) -> None:
    """Checks that datasets hold joints.

    Raises:
      UserError: if one does not.
    """
    for source in sources:
        sampling.require(source, _JOINTS)


def choose(
    scored: Sequence[Scored],
    views: Mapping[str, str],
    metrics: Sequence[str],
    evaluated: Source,
    training: Source,
    data: Any,
) -> ChallengingFrames:
    """Chooses the ten frames farthest from all training poses (`metrics.challenging`).

    Poses are the joints of the target views, as the method sees them: in the crop, in units of its
    half sides.

    Args:
      scored: of single frames, with "ssim" and "psnr".
      views: {pair: its target view}.
      metrics: of METRICS.
      evaluated: the split that was scored.
      training: the split that was trained on.
      data: `config.data`.
    """
    single = [entry for entry in scored if not entry.whole]
    places = {
        (entry.clip, views[entry.pair], entry.start + i)
        for entry in single
        for i in range(len(entry.metrics["psnr"]))
    }
    ordered = sorted(places)
    crop = sampling.Augmentation(crop=tuple(data.crop))
    poses = np.concatenate([_poses(evaluated, *place, 1, crop) for place in ordered])
    policy = sampling.policy(data.sampling)
    known = [
        _poses(training, clip.name, view, 0, sampling.trained_frames(clip, policy), crop)
        for clip in training.clips
        for view in clip.views
    ]
    order = challenging.challenging_frames(poses, np.concatenate(known))
    chosen = {ordered[i] for i in order}
    found = []
    for entry in single:
        for i in range(len(entry.metrics["psnr"])):
            if (entry.clip, views[entry.pair], entry.start + i) in chosen:
                values = {name: entry.metrics[METRICS[name]][i : i + 1] for name in metrics}
                place = {"start": entry.start + i, "metrics": values, "whole": True}
                found.append(dataclasses.replace(entry, **place))
    return ChallengingFrames(found, [list(ordered[i]) for i in order])


def _poses(
    source: Source, clip: str, view: str, start: int, count: int, crop: sampling.Augmentation
) -> np.ndarray:
    """Reads the joints (count 26 3) of consecutive frames."""
    frames = tuple(range(start, start + count))
    window = sampling.Window(clip, view, view, start, (start,), frames)
    sample = sampling.assemble(source, window, _JOINTS)
    # An image tells the crop the size of the view; pixels that nobody decodes do.
    size = source.clip(clip).views[view].size
    sample["target_mask"] = np.broadcast_to(np.uint8(0), (count, *size, 1))
    return sampling.augment(sample, crop)["target_joints"]
