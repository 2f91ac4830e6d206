"""Subsets of pairs of a split to test transfer on: within a video, and from one to another.

Cheng et al. (MFCI), 4.2: 50 random pairs for each. "same_video": source and driving sequence are of
one video and do not overlap, so that the driving frames are the truth. "cross_video": they are of
two videos, and there is no truth: people look, or sets of frames are compared.
"""

import dataclasses
import itertools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from tqdm.auto import tqdm

from psrjax import io
from psrjax.data import video
from psrjax.data.source import Source
from psrjax.errors import UserError
from psrjax.inference import driving_poses, transfer
from psrjax.inference.marks import UNNAMED, Mark
from psrjax.methods.base import Method
from psrjax.runtime import cluster

SAME_VIDEO, CROSS_VIDEO = "same_video", "cross_video"
SUBSETS = (SAME_VIDEO, CROSS_VIDEO)
COUNT = 50  # of pairs, in the paper
RECORD, MADE, REAL, SHOWN = "pairs.json", "made", "real", "shown"  # in the folder of a subset


@dataclass(frozen=True)
class Sequence:
    """Frames of a view of a clip, from `first` to before `end`."""

    clip: str
    view: str
    first: int
    end: int


@dataclass(frozen=True)
class Pair:
    """The person of `source` in the motion of `driving`."""

    name: str
    source: Sequence
    driving: Sequence


def choose(split: Source, subset: str, *, count: int = COUNT, seed: int = 0) -> tuple[Pair, ...]:
    """Draws pairs of a split, no pair twice; all that there are where these are fewer.

    Args:
      split: of a stored dataset.
      subset: "same_video", where each view of a clip is cut in the middle and either half may be
        the source, or "cross_video", where whole views of different clips make pairs.
      count: how many pairs.
      seed: of the draw.

    Raises:
      UserError: if the split cannot make a pair, or a clip has no two frames.
    """
    views = [(clip.name, view, clip.frames) for clip in split.clips for view in clip.views]
    possible: list[tuple[Sequence, Sequence]] = []
    if subset == SAME_VIDEO:
        for clip, view, frames in views:
            if frames < 2:
                raise UserError(f"clip {clip!r} has one frame: it cannot be cut into two parts")
            halves = Sequence(clip, view, 0, frames // 2), Sequence(clip, view, frames // 2, frames)
            possible += [halves, halves[::-1]]
    else:
        wholes = [Sequence(clip, view, 0, frames) for clip, view, frames in views]
        possible = [(a, b) for a, b in itertools.permutations(wholes, 2) if a.clip != b.clip]
    if not possible:
        raise UserError(f"{split.directory}: split {split.split!r} has no two clips to pair")
    drawn = np.random.default_rng(seed).permutation(len(possible))[:count]
    if len(drawn) < count:
        logging.info("%d pairs: split %r makes no more", len(drawn), split.split)
    chosen = [possible[place] for place in drawn]
    return tuple(
        Pair(f"{number:03d}_{source.clip}_{driving.clip}", source, driving)
        for number, (source, driving) in enumerate(chosen)
    )


def write(
    method: Method,
    variables: Mapping[str, Any],
    config: Any,
    split: Source,
    pairs: tuple[Pair, ...],
    folder: str | os.PathLike,
    *,
    k: int = 0,
    seed: int = 0,
    mark: Mark = UNNAMED,
    show_progress: bool = False,
) -> list[Path]:
    """Synthesizes pairs, without loss, so that `psrjax evaluate --real --fake` can score them.

    Files: `made/NAME.mkv`; where the clip is the same also `real/NAME.mkv`, the driving frames;
    `shown/NAME.compare.mkv` and what else a transfer writes; and `pairs.json`. Within a video the
    poses stay as they are: there is nobody to fit them to. The processes of a run share the pairs.

    Args:
      method: as a run restores it.
      variables: its parameters and statistics.
      config: the run's config; `data` is read.
      split: of which the pairs are.
      pairs: see `choose`.
      folder: where all goes.
      k: source frames of each pair; 0 is the config's.
      seed: of their choice within the source sequence.
      mark: what the synthesized files say of themselves.
      show_progress: whether to show a progress bar.

    Returns:
      The folders and `pairs.json`.

    Raises:
      UserError: as `transfer.write` does, and if a source sequence is shorter than k.
    """
    root, rng = Path(folder), np.random.default_rng(seed)
    sampling = config["data"]["sampling"]
    k = k or sampling.get("k_evaluation", 0) or sampling["k"]
    is_first = sampling["source"] == "first"
    chosen = [(pair, _source_frames(pair.source, k, is_first, rng)) for pair in pairs]
    own = cluster.own_part(chosen)
    for pair, frames in tqdm(own, "pairs", unit="pair", disable=not show_progress):
        places = (f"{split.directory}:{s.clip}:{s.view}" for s in (pair.source, pair.driving))
        inputs = transfer.open_inputs(
            config, source=next(places), driving=next(places), reads=driving_poses.reads(method)
        )
        is_same = pair.source.clip == pair.driving.clip
        options = transfer.TransferOptions(
            source_frames=",".join(map(str, frames)),
            frames=(pair.driving.first, pair.driving.end),
            fit_poses=not is_same,
            lossless=True,
            mark=mark,
        )
        shown = root / SHOWN / f"{pair.name}.mkv"
        transfer.write(method, variables, config, inputs, shown, options=options)
        (root / MADE).mkdir(exist_ok=True)
        shown.replace(root / MADE / shown.name)
        if is_same:
            asked = range(pair.driving.first, pair.driving.end)
            truth = inputs.driving.read(("target",), asked)["target"]
            times = inputs.driving.times[asked.start : asked.stop]
            video.write(root / REAL / shown.name, truth, times=times - times[0], lossless=True)
    cluster.gather(None)  # until all are made
    if cluster.share()[0] == 0:
        record = [{**dataclasses.asdict(pair), "source_frames": frames} for pair, frames in chosen]
        io.write_json(root / RECORD, record)
    folders = [root / name for name in (MADE, REAL, SHOWN)]
    return [*(each for each in folders if each.exists()), root / RECORD]


def _source_frames(
    source: Sequence, k: int, take_first: bool, rng: np.random.Generator
) -> list[int]:
    """Chooses k frames of a sequence, at random or its first ones."""
    every = np.arange(source.first, source.end)
    if len(every) < k:
        raise UserError(
            f"clip {source.clip!r}: {len(every)} frames to take {k} source frames from: give "
            "longer clips, or a smaller --k"
        )
    return (every[:k] if take_first else np.sort(rng.choice(every, k, replace=False))).tolist()
