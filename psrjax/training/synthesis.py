"""Synthesizes a whole clip, window by window, and writes it as a video beside its comparison."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from tqdm.auto import tqdm

from psrjax.errors import UserError
from psrjax.methods.base import Method
from psrjax.training import evaluation


def windows(frames: int, window: int) -> tuple[int, ...]:
    """The first frames of windows that cover a clip: side by side, the last moved back to its end.

    Raises:
      UserError: if the clip is shorter than a window.
    """
    if frames < window:
        raise UserError(f"the clip has {frames} frames; this method needs {window} at least")
    starts = list(range(0, frames - window + 1, window))
    if starts[-1] + window < frames:
        starts.append(frames - window)
    return tuple(starts)


def synthesize(
    method: Method,
    variables: Mapping[str, Any],
    read: Callable[[int], Mapping[str, np.ndarray]],
    *,
    frames: int,
    window: int,
    baselines: tuple[str, ...] = (),
    show_progress: bool = False,
) -> dict[str, np.ndarray]:
    """Synthesizes a clip of any length from windows of a fixed one.

    Args:
      method: at the stage whose result is wanted.
      variables: its parameters and statistics.
      read: gives the wire batch (b = 1) of the window that starts at a frame.
      frames: length of the clip.
      window: length of a window: the t of `read`'s batches.
      baselines: labels of the method's baselines to show, beside its steps.
      show_progress: whether to show a progress bar.

    Returns:
      {label: (frames, h, w, 3) uint8}: "source", the baselines, the steps in their order (the last
      is the result), and "truth" where `read` gives the target's own frames.

    Raises:
      UserError: if the clip is shorter than a window.
    """
    run = evaluation.make_synthesizer(method, baselines=bool(baselines))
    starts = windows(frames, window)
    parts: dict[str, list[np.ndarray]] = {}
    carry, done = None, 0
    for start in tqdm(starts, desc="synthesize", unit="window", disable=not show_progress):
        batch = dict(read(start))
        made = run(variables, batch, carry)
        carry = made["carry"]
        chosen = {name: made["baselines"][name] for name in baselines}
        videos = {evaluation.SOURCE: batch["source"], **chosen, **made["steps"]}
        if "target" in batch:
            videos[evaluation.TRUTH] = batch["target"]
        for label, video in jax.tree.map(lambda array: np.asarray(array[0]), videos).items():
            video = video[np.minimum(np.arange(window), len(video) - 1)]  # one source frame: repeat
            parts.setdefault(label, []).append(video[done - start :])
        done = start + window
    return {label: np.concatenate(pieces) for label, pieces in parts.items()}
