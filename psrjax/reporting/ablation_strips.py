"""Ablation strips: the same moments of unseen clips, synthesized by several runs, in one picture.

As Fig. 6 to 8 of INTERnet, 8 to 10 of HPT and 4 to 7 of D²G-Net: a column for each run, beside the
source and the truth; below each frame the place where the runs differ most, enlarged. Each clip is
shown at the moment when they differ most.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from absl import logging
from jaxtyping import Float, UInt8
from tqdm.auto import tqdm

from psrjax.data import sampling, video
from psrjax.data.source import Source
from psrjax.errors import UserError
from psrjax.evaluation import evaluated_split
from psrjax.inference import intermediate_results, novel_view, synthesizer
from psrjax.methods.base import Method
from psrjax.reporting.run_summary import RunFolder
from psrjax.synthetic import dataset
from psrjax.training import checkpoint

_DETAIL = 3  # the enlarged place is this many times smaller than the frame
_LEAST = 8  # pixels of its side
_OUTLINE = (255, 40, 160)

Picture = UInt8[np.ndarray, "y x 3"]


@dataclass(frozen=True)
class Strip:
    """A picture of one clip's moment, and what it shows."""

    title: str
    picture: Picture


@dataclass(frozen=True, eq=False)
class _Restored:
    title: str
    method: Method
    variables: Mapping[str, Any]
    config: Any


def draw(runs: Sequence[RunFolder], *, clips: int, intermediates: bool = False) -> list[Strip]:
    """Draws a strip of each clip, for every set of two or more runs that share their data.

    Args:
      runs: those without a checkpoint are left out, with a warning.
      clips: how many, spread over the split.
      intermediates: whether what the methods made on the way is shown below, where all runs have
        it.
    """
    groups: dict[tuple, list[_Restored]] = {}
    for run in runs:
        if not run.config:
            continue
        try:
            method, variables, config, _ = checkpoint.restore_for_inference(run.folder)
        except UserError as error:
            logging.warning("%s is not in the strips: %s", run.title, error)
            continue
        config = evaluated_split.for_scoring(config)
        path = dataset.resolve_path(config.data)["path"]
        where = (path, config.data.eval_split, tuple(config.data.crop))
        groups.setdefault(where, []).append(_Restored(run.title, method, variables, config))
    found = []
    for (path, split, _), group in groups.items():
        if len(group) > 1:
            found += _strips(group, Source(path, split), clips, intermediates)
    return found


def _strips(
    runs: Sequence[_Restored], source: Source, count: int, intermediates: bool
) -> list[Strip]:
    spread = np.linspace(0, len(source.clips) - 1, min(count, len(source.clips))).round()
    strips = []
    for number, place in enumerate(tqdm(spread, "strips", unit="clip")):
        clip = source.clips[int(place)]
        known = [sampling.pairs(clip, sampling.policy(run.config.data.sampling)) for run in runs]
        shared = [pair for pair in known[0] if all(pair in pairs for pairs in known)]
        if not shared:
            continue
        views = shared[number % len(shared)]
        made = {}
        for run in runs:
            inputs = novel_view.from_scored(run.method, run.config, clip=clip.name, views=views)
            made[run.title] = novel_view.synthesize(
                run.method, run.variables, inputs, intermediates=intermediates
            )
        title = clip.name if views[0] == views[1] else f"{clip.name}, {views[0]} → {views[1]}"
        strips.append(strip(title, made))
    return strips


def strip(title: str, made: Mapping[str, novel_view.SynthesizedClip]) -> Strip:
    """Draws one clip: {column: what was synthesized}, two columns or more of equal length.

    The rows are the frames, with an outline around the place of the second row, that place, and
    the intermediates that all of them have.
    """
    results = {label: clip.videos[clip.steps[-1]] for label, clip in made.items()}
    moment, rows, columns = most_different(np.stack(list(results.values())))
    first = next(iter(made.values())).videos
    known = {label: first[label] for label in (synthesizer.SOURCE, synthesizer.TRUTH)}
    shown = {label: frames[moment] for label, frames in {**known, **results}.items()}
    size = next(iter(shown.values())).shape[:2]
    outlined = {label: _outlined(frame, rows, columns) for label, frame in shown.items()}
    details = {label: _resized(frame[rows, columns], size) for label, frame in shown.items()}
    pictures = [outlined, details]
    for name in _common(made):
        drawn = {
            label: _resized(intermediate_results.draw(clip.intermediates[name][moment]), size)
            for label, clip in made.items()
        }
        blank = np.zeros((*size, 3), np.uint8)
        pictures.append({name: blank, " ": blank} | drawn)
    parts = [
        video.beside({label: frame[None] for label, frame in row.items()})[0] for row in pictures
    ]
    return Strip(f"{title}, frame {moment}", np.concatenate(parts))


def most_different(
    results: UInt8[np.ndarray, "r t h w 3"],
) -> tuple[int, slice, slice]:
    """Finds the frame in which videos differ most, by their variance, and where in it.

    Returns:
      The frame, and the rows and columns of a rectangle of the frame's shape, a third of its size.
    """
    moment = int(np.argmax([_variance(frames).mean() for frames in results.swapaxes(0, 1)]))
    apart = _variance(results[:, moment])
    height, width = (min(n, max(_LEAST, n // _DETAIL)) for n in apart.shape)
    mean = cv2.boxFilter(apart, -1, (width, height), anchor=(0, 0), borderType=cv2.BORDER_REFLECT)
    inside = mean[: apart.shape[0] - height + 1, : apart.shape[1] - width + 1]
    top, left = (int(n) for n in np.unravel_index(inside.argmax(), inside.shape))
    return moment, slice(top, top + height), slice(left, left + width)


def _variance(frames: UInt8[np.ndarray, "r h w 3"]) -> Float[np.ndarray, "h w"]:
    return frames.astype(np.float32).var(0).mean(-1)


def _common(made: Mapping[str, novel_view.SynthesizedClip]) -> list[str]:
    """Lists the intermediates of all clips that are pictures or maps of each frame."""
    length = len(next(iter(made.values())).times)
    arrays = [clip.intermediates for clip in made.values()]
    return [
        name
        for name in arrays[0]
        if all(name in have and have[name].ndim == 4 for have in arrays)
        and all(len(have[name]) == length for have in arrays)
    ]


def _outlined(frame: Picture, rows: slice, columns: slice) -> Picture:
    frame = frame.copy()
    corners = (columns.start, rows.start), (columns.stop - 1, rows.stop - 1)
    return cv2.rectangle(frame, *corners, _OUTLINE, 1)


def _resized(image: Picture, size: tuple[int, int]) -> Picture:
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_NEAREST)
