"""Synthesizes a whole clip, window by window, and writes it as a video beside its comparison."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from psrjax.data import video
from psrjax.errors import UserError
from psrjax.inference import core, novel_view
from psrjax.methods.base import Method

BESIDE = ("x0",)  # baselines worth seeing beside the steps, of those that a method has


@dataclass(frozen=True)
class Synthesis:
    """A synthesized clip: {label: (t h w 3) uint8} in the order to show them, and its times.

    The labels are "source", baselines, the method's steps, and "truth" where it is known; `result`
    is the label of the last step.
    """

    videos: dict[str, np.ndarray]
    result: str
    times: np.ndarray


def synthesize(
    method: Method,
    variables: Mapping[str, Any],
    inputs: novel_view.Inputs,
    *,
    show_progress: bool = False,
) -> Synthesis:
    """Synthesizes a clip of any length from windows of a fixed one.

    Raises:
      UserError: if the clip is shorter than a window.
    """
    run = core.make_synthesizer(method, baselines=True)
    parts: dict[str, list[np.ndarray]] = {}
    carry, done, result = None, 0, ""
    starts = windows(inputs.frames, inputs.window)
    for start in tqdm(starts, "synthesize", unit="window", disable=not show_progress):
        batch = dict(inputs.read(start))
        made = run(variables, batch, carry)
        carry, result = made["carry"], list(made["steps"])[-1]
        baselines = {name: made["baselines"][name] for name in BESIDE if name in made["baselines"]}
        videos = {core.SOURCE: batch["source"], **baselines, **made["steps"]}
        if "target" in batch:
            videos[core.TRUTH] = batch["target"]
        for label, frames in videos.items():
            frames = np.asarray(frames[0])
            frames = frames[np.minimum(np.arange(inputs.window), len(frames) - 1)]
            parts.setdefault(label, []).append(frames[done - start :])
        done = start + inputs.window
    return Synthesis({k: np.concatenate(v) for k, v in parts.items()}, result, inputs.times)


def windows(frames: int, window: int) -> tuple[int, ...]:
    """The first frames of windows that cover a clip: side by side, the last moved back to its end.

    Raises:
      UserError: if the clip is shorter than a window.
    """
    if frames < window:
        raise UserError(f"the clip has {frames} frames; this method needs at least {window}")
    starts = list(range(0, frames - window + 1, window))
    if starts[-1] + window < frames:
        starts.append(frames - window)
    return tuple(starts)


def write(path: str | os.PathLike, made: Synthesis) -> tuple[Path, Path]:
    """Writes `path`, the result alone, and `<stem>.compare<suffix>`, everything side by side.

    Raises:
      UserError: if the place cannot be written to.
    """
    path = Path(path)
    compare = path.with_name(f"{path.stem}.compare{path.suffix}")
    video.write(path, made.videos[made.result], times=made.times)
    video.write(compare, video.beside(made.videos), times=made.times)
    return path, compare
