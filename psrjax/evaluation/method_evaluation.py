"""Scores a trained method on the clips it has not seen, beside the baselines it must beat."""

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from etils import epath
from tqdm.auto import tqdm

import psrjax
from psrjax.data import loader, sampling
from psrjax.errors import UserError
from psrjax.evaluation import (
    challenging_poses,
    clip_metrics,
    evaluated_split,
    failure_gallery,
    score_export,
    score_statistics,
    score_table,
    set_metrics,
)
from psrjax.inference import synthesizer
from psrjax.methods.base import Method
from psrjax.metrics import image, registry
from psrjax.runtime import cluster
from psrjax.synthetic import dataset

FEW = 16  # frames: fewer are no score
IN_A_ROW = "clips"  # windows of whole clips, one after the other


@dataclasses.dataclass(frozen=True)
class EvaluatedWindow:
    """One evaluated window: its place in the data, and {label: (t h w 3) uint8 frames}."""

    clip: str
    source_view: str
    target_view: str
    start: int
    videos: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The results of an evaluation.

    Attributes:
      rows: of `results.json`.
      samples: the first windows of the split to look at.
      scored: the scores of every frame, of which the rows are the means.
      gallery: the worst frames, and where the result flickers.
    """

    rows: list[dict[str, Any]]
    samples: list[EvaluatedWindow]
    scored: list[score_statistics.Scored] = dataclasses.field(default_factory=list)
    gallery: failure_gallery.Gallery = dataclasses.field(default_factory=failure_gallery.Gallery)


def evaluate(
    method: Method,
    variables: Mapping[str, Any],
    config: Any,
    *,
    split: str = "",
    windows: str = "central",
    metrics: Sequence[str] = (),
    limit: int = 0,
    samples: int = 0,
    show_progress: bool = False,
) -> Evaluation:
    """Synthesizes every evaluation window of a split and scores it against the truth.

    The scores are taken of frames rounded to 8 bits, averaged over all frames of a pair of views
    (a mean of per-frame scores, not a score of means); a frame without a person is left out of the
    masked metrics and counted. The windows, and their order, depend on nothing but the dataset.
    Where windows overlap, a frame is scored once, in the first of them.

    In a run of several processes each scores a part of the windows, on all of its devices, and all
    return the whole result.

    Args:
      method: as `psrjax.methods.base.build` gives it, at the stage to be scored.
      variables: its parameters and statistics.
      config: the run's config; `data` and `batch` are read.
      split: the split's name; by default `config.data.eval_split`, or "test" of a prepared dataset
        (see `evaluated_split`).
      windows: "central", one of each clip and pair of views; "all" of every clip, each by itself;
        "clips": all of them in a row, what the method carries from one to the next included; or
        "auto": "central" where these are `FEW` frames or more, else "all".
      metrics: further ones, of `metrics.registry.FURTHER`: of whole clips under "clips", else of
        each window.
      limit: the number of windows to score at most; 0 is all of them.
      samples: the number of windows to keep frames of.
      show_progress: whether to show a progress bar.

    Returns:
      Rows {"name", "split", "pair", "metrics"}: baselines first, then the method's steps in their
      order; pair "all" (the mean of all frames) and each pair "source->target". Beside these each
      row says its "kind" ("baseline" or "step"), "interval" (see `score_statistics.rows`) and
      "about": what the numbers were taken of.

    Raises:
      UserError: if the split holds no window, or the dataset lacks a key that is read.
    """
    config = evaluated_split.for_scoring(config, split)
    split = config.data.eval_split
    if windows == "auto":
        windows = "central" if scored_frames(config)[1] >= FEW else "all"
    data, in_a_row = dataset.resolve_path(config.data), windows == IN_A_ROW
    devices = synthesizer.devices(limit)
    where = synthesizer.cut(devices)
    number, processes = cluster.share()
    shared = config.batch_per_device or -(-config.batch // (len(devices) * processes))
    batches = loader.evaluation_batches(
        data,
        tuple(dict.fromkeys((*method.reads, *method.baseline_reads, "target_mask"))),
        batch=(1 if in_a_row else shared) * len(devices),
        split=split,
        windows=_windows(windows),
        in_a_row=in_a_row,
        limit=limit,
        share=(number, processes),
        sharding=where,
    )
    rare = [metric for metric in metrics if metric in challenging_poses.METRICS]
    others = [metric for metric in metrics if metric not in rare]
    names = (split, config.data.train_split) if rare else ()
    known = [loader.open_split(data, name) for name in names]
    challenging_poses.require(*known)
    clips = None
    if others:
        source = loader.open_split(data, split)
        clips = clip_metrics.ClipScorer(others, source, config.data.crop)
    synthesize = synthesizer.make_synthesizer(method, comparison=True)
    variables = synthesizer.whole(variables, where)
    accumulator = _ScoreAccumulator(clips, samples=samples)
    carry, last = None, None
    shown = show_progress and number == 0
    for batch, ids in tqdm(batches, f"evaluate {split}", unit="batch", disable=not shown):
        accumulator.found.about = _about(method, split, windows, batch)
        views = [_view_pair(window) for window in ids]
        joins = in_a_row and views == last
        last = views
        made, carry = synthesize(variables, batch, carry if joins else None)
        accumulator.add_batch(batch, ids, made, joins=joins)
    found, *others_found = cluster.gather(accumulator.finish())
    for each in others_found:
        found.merge(each, samples)
    if found.windows == 0:
        raise UserError(f"{config.data.path}: no window to evaluate in split {split!r}")
    scored = [*found.scored, *found.clips]
    about = {**found.about, "windows": found.windows, "notes": clip_metrics.weight_notes(metrics)}
    if rare:
        chosen = challenging_poses.choose(scored, found.views, rare, *known, data=config.data)
        scored, about = [*scored, *chosen.scored], about | {"challenging_frames": chosen.frames}
    table = score_statistics.rows(scored, about)
    _warn_of_few(table)
    if found.sets:
        table = found.sets.finish(table, _made_of(about, in_a_row))
    return Evaluation(table, found.samples, scored, found.gallery)


def scored_frames(config: Any, *, windows: str = "central") -> tuple[int, int]:
    """Counts what `evaluate` would score: (clips, frames), a frame once for each pair of views.

    Raises:
      UserError: as `evaluate`.
    """
    config = evaluated_split.for_scoring(config)
    source = loader.open_split(dataset.resolve_path(config.data), config.data.eval_split)
    policy = sampling.policy(config.data.sampling)
    appearance = loader.open_appearance(dataset.resolve_path(config.data))
    found = sampling.evaluation_windows(source, policy, _windows(windows), appearance=appearance)
    clips = {window.clip for window in found}
    frames = {
        (window.clip, window.source_view, window.target_view, window.start + i)
        for window in found
        for i in range(policy.t)
    }
    return len(clips), len(frames)


def _warn_of_few(rows: Sequence[Mapping[str, Any]]) -> None:
    """Warns where a score says little for want of frames."""
    about = rows[0]["about"]
    if about["frames_scored"] < FEW:
        logging.warning(
            "the scores stand on few frames (%d in all, clips: %d, split %r), too few to compare "
            "by: score more (--windows=all), or prepare more with --holdout",
            *(about["frames_scored"], about["clips"], about["split"]),
        )


def _windows(windows: str) -> str:
    """Names the loader's choice of windows for one of `evaluate`."""
    return "all" if windows == IN_A_ROW else windows


def _made_of(about: Mapping[str, Any], in_a_row: bool) -> str:
    """Says what a clip of the metrics of clips is."""
    windows = f"windows of {about['window_frames']} frames"
    return f"whole clips, synthesized in {windows} and joined" if in_a_row else windows


def write(folder: str | os.PathLike, found: Evaluation) -> epath.Path:
    """Writes `results.json` and what goes with it (`score_export.write`), and the pictures.

    Returns:
      The path of `results.json`. Only the first process of a run writes.

    Raises:
      UserError: if the folder cannot be written to.
    """
    if cluster.share()[0] > 0:
        return epath.Path(folder) / score_export.RESULTS
    failure_gallery.write(epath.Path(folder) / failure_gallery.FOLDER, found.gallery)
    return score_export.write(folder, found.rows, found.scored)


def _about(method: Method, split: str, windows: str, batch: Mapping) -> dict[str, Any]:
    _, frames, height, width, _ = batch["target"].shape
    return {
        "split": split,
        "windows_of": windows,
        "window_frames": frames,
        "height": height,
        "width": width,
        "frames": "rounded to 8 bits, data range 255",
        "stage": method.stage,
        "psrjax": psrjax.__version__,
    }


def _view_pair(window: Mapping[str, Any]) -> tuple[str, str, str]:
    """Returns the clip and the views of a window; windows of the same follow one another."""
    return window["clip"], window["source_view"], window["target_view"]


def pair_name(source_view: str, target_view: str) -> str:
    """Names a pair of views: "cam1", "cam02" give "1->2"; others than numbered keep their names."""
    numbers = [re.fullmatch(r"\D*?0*(\d+)", view) for view in (source_view, target_view)]
    known = [number[1] for number in numbers if number]
    return "->".join(known if len(known) == 2 else (source_view, target_view))


def frame_scores(*videos: Any) -> dict[str, np.ndarray]:
    """Computes `metrics.image.frame_scores` on the host, in the order of `registry.BASIC`."""
    found = image.frame_scores(*videos)  # compiled, so its keys come back sorted
    return {metric: np.asarray(found[metric]) for metric in registry.BASIC}


@dataclasses.dataclass
class _Found:
    """What a process found in its share of the windows.

    Attributes:
      about: the rows' "about", as far as a batch tells it.
      windows: their number.
      views: {name of a pair: its target view}.
      samples: the first windows, with frames.
      scored: of single frames.
      clips: of whole clips.
      sets: of all clips together, where such metrics are asked for.
      gallery: the worst frames.
    """

    about: dict[str, Any] = dataclasses.field(default_factory=dict)
    windows: int = 0
    views: dict[str, str] = dataclasses.field(default_factory=dict)
    samples: list[EvaluatedWindow] = dataclasses.field(default_factory=list)
    scored: list[score_statistics.Scored] = dataclasses.field(default_factory=list)
    clips: list[score_statistics.Scored] = dataclasses.field(default_factory=list)
    sets: set_metrics.SetAccumulator | None = None
    gallery: failure_gallery.Gallery = dataclasses.field(default_factory=failure_gallery.Gallery)

    def merge(self, other: "_Found", samples: int) -> None:
        """Takes in what the next process found; of samples so many are kept."""
        self.about = self.about or other.about
        self.windows += other.windows
        self.views |= other.views
        self.samples = [*self.samples, *other.samples][:samples]
        self.scored += other.scored
        self.clips += other.clips
        if self.sets and other.sets:
            self.sets.merge(other.sets)
        self.gallery.merge(other.gallery)


class _ScoreAccumulator:
    """The scores of all windows so far, each frame of a clip and pair of views once.

    Attributes:
      found: so far.
    """

    def __init__(self, clips: clip_metrics.ClipScorer | None, *, samples: int) -> None:
        self.found = _Found()
        self._clips, self._sample_count = clips, samples
        self._ends: dict[tuple[str, str, str], int] = {}  # of clips and views, as they began

    def add_batch(
        self,
        batch: Mapping[str, Any],
        ids: Sequence[Mapping[str, Any]],
        made: Mapping[str, Mapping[str, Any]],
        *,
        joins: bool,
    ) -> None:
        """Adds the valid windows of a batch.

        Args:
          batch: of the loader.
          ids: the place of each window in the data.
          made: {"baselines", "steps"}, both {label: (b t h w 3) uint8}.
          joins: whether its windows go on where those of the last batch ended.
        """
        if self._clips and not joins:
            self._clips.finish()
        truth, mask = batch["target"], np.asarray(batch["target_mask"])
        found = {
            kind: {name: frame_scores(video, truth, mask) for name, video in made[key].items()}
            for kind, key in ((score_table.BASELINE, "baselines"), (score_table.STEP, "steps"))
        }
        videos = {
            synthesizer.SOURCE: batch["source"],
            **made["baselines"],
            **made["steps"],
            synthesizer.TRUTH: truth,
        }
        for i in np.flatnonzero(np.asarray(batch["valid"])).tolist():
            own = {label: np.asarray(video[i]) for label, video in videos.items()}
            scores = {
                kind: {name: {m: v[i] for m, v in values.items()} for name, values in names.items()}
                for kind, names in found.items()
            }
            self._add(ids[i], own, mask[i], scores, joins=joins)
            if self._sample_count:
                self._keep_sample(ids[i], own)

    def _keep_sample(self, window: Mapping[str, Any], videos: dict[str, np.ndarray]) -> None:
        """Keeps the first windows, in the order of clips and views."""
        place = {k: window[k] for k in ("clip", "source_view", "target_view", "start")}
        samples = [*self.found.samples, EvaluatedWindow(**place, videos=videos)]
        order = list(self._ends)
        rank = lambda s: (order.index((s.clip, s.source_view, s.target_view)), s.start)  # noqa: E731
        self.found.samples = sorted(samples, key=rank)[: self._sample_count]

    def _add(
        self,
        window: Mapping[str, Any],
        videos: Mapping[str, np.ndarray],
        mask: np.ndarray,
        found: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]],
        *,
        joins: bool,
    ) -> None:
        """Adds one window: {label: (t h w 3)}, (t h w 1), {kind: {name: {metric: (t,)}}}."""
        self.found.windows += 1
        pair = pair_name(window["source_view"], window["target_view"])
        self.found.views[pair] = window["target_view"]
        first = max(0, self._ends.get(_view_pair(window), 0) - window["start"])
        self._ends[_view_pair(window)] = window["start"] + len(mask)
        start = window["start"] + first
        for kind, names in found.items():
            for name, metrics in names.items():
                fresh = {metric: values[first:] for metric, values in metrics.items()}
                entry = score_statistics.Scored(kind, name, pair, window["clip"], start, fresh)
                self.found.scored.append(entry)
        if first < len(mask):
            last_step = list(found[score_table.STEP].values())[-1]
            self.found.gallery.add(window, pair, videos, mask, last_step)
        if self._clips:
            kinds = {name: kind for kind, names in found.items() for name in names}
            skip = first if joins else 0
            labels = {name: name for name in kinds} | {"": synthesizer.TRUTH}
            fresh = {name: videos[label][skip:] for name, label in labels.items()}
            self._clips.add(window, pair, kinds, fresh, mask[skip:], joins=joins)

    def finish(self) -> _Found:
        """Returns what was found, the scores of a clip and pair of views one after the other."""
        order = {(clip, pair_name(*views)): i for i, (clip, *views) in enumerate(self._ends)}
        self.found.scored.sort(key=lambda entry: order[entry.clip, entry.pair])
        if self._clips:
            self._clips.finish()
            self._clips.sets.close()
            self.found.clips, self.found.sets = self._clips.scored, self._clips.sets
        return self.found
