"""Rows from the scores of single frames: means, intervals by bootstrap over clips, differences.

Frames of one clip resemble one another, so it is clips that are drawn again: an interval says how
far a mean may be off for having been taken of these clips and not of others.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

RESAMPLES = 2000
LEVEL = 0.95
ALL = "all"  # the pair of a row over all pairs of views


@dataclasses.dataclass(frozen=True)
class Scored:
    """Scores of consecutive frames of a clip: {metric: (t,)}, nan where a metric has no value.

    `kind` is a row's kind (`score_table.BASELINE` or `STEP`), `name` that of the baseline or step,
    `pair` that of the views, and `start` the number of the first frame. With `whole` the values are
    not of single frames: there is one for the clip, or for the piece of it that was made.
    """

    kind: str
    name: str
    pair: str
    clip: str
    start: int
    metrics: Mapping[str, np.ndarray]
    whole: bool = False


def rows(scored: Sequence[Scored], about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Makes a row for each name and pair; pair "all" first, else in the order of `scored`.

    Args:
      scored: of all frames.
      about: what the numbers were taken of, for every row; its "split" becomes the row's.

    Returns:
      [{"name", "kind", "split", "pair", "metrics": {metric: mean over frames}, "interval": {metric:
      [low, high]}, "about"}]. An interval holds the mean with a confidence of 95 % (percentiles of
      the means over clips drawn with replacement, from a fixed seed); a single clip has none.
      `about` says how many frames had no value in some metric, for want of a person.
    """
    about = {**about, "clips": len({s.clip for s in scored})}
    groups: dict[tuple[str, str, str], list[Scored]] = {}
    for entry in scored:
        for pair in dict.fromkeys((ALL, entry.pair)):
            groups.setdefault((entry.kind, entry.name, pair), []).append(entry)
    found = []
    for (kind, name, pair), entries in groups.items():
        sums = clip_sums(entries)
        total = {m: values.sum(0) for m, values in sums.items()}
        single = [entry for entry in entries if not entry.whole]
        frames = sum(len(next(iter(entry.metrics.values()))) for entry in single)
        present = (sums[m][:, 1].sum() for entry in single[:1] for m in entry.metrics)
        empty = frames - int(min(present, default=frames))
        found.append(
            {
                "name": name,
                "kind": kind,
                "split": about.get("split", ""),
                "pair": pair,
                "metrics": {m: _ratio(*values) for m, values in total.items()},
                "interval": {
                    m: interval(values)
                    for m, values in sums.items()
                    if np.sum(values[:, 1] > 0) > 1
                },
                "about": {**about, "frames_scored": frames, "frames_without_person": empty},
            }
        )
    return sorted(found, key=lambda row: row["pair"] != ALL)


def clip_rows(scored: Iterable[Scored]) -> list[dict[str, Any]]:
    """Makes a row for each clip too: {"name", "kind", "pair", "clip", "metrics", "frames"}.

    `frames` is {metric: number of frames with a value}: with the means it gives the sums back.
    """
    groups: dict[tuple[str, str, str, str], list[Scored]] = {}
    for entry in scored:
        groups.setdefault((entry.name, entry.kind, entry.pair, entry.clip), []).append(entry)
    found = []
    for place, entries in groups.items():
        total = {m: values.sum(0) for m, values in clip_sums(entries).items()}
        metrics = {m: _ratio(*values) for m, values in total.items()}
        frames = {m: int(count) for m, (_, count) in total.items()}
        row = dict(zip(("name", "kind", "pair", "clip"), place))
        found.append({**row, "metrics": metrics, "frames": frames})
    return found


def frame_rows(scored: Iterable[Scored]) -> list[dict[str, Any]]:
    """Makes a row for each frame: {"name", "kind", "pair", "clip", "frame", "metrics"}.

    A nan becomes None; metrics of whole clips are left out.
    """
    found = []
    for entry in (entry for entry in scored if not entry.whole):
        row = {key: getattr(entry, key) for key in ("name", "kind", "pair", "clip")}
        for i in range(len(next(iter(entry.metrics.values())))):
            values = {metric: float(v[i]) for metric, v in entry.metrics.items()}
            metrics = {m: None if np.isnan(v) else v for m, v in values.items()}
            found.append({**row, "frame": entry.start + i, "metrics": metrics})
    return found


def clip_sums(scored: Sequence[Scored]) -> dict[str, np.ndarray]:
    """Returns {metric: (clips, 2)}: the sum of a clip's values, and their number."""
    clips = list(dict.fromkeys(entry.clip for entry in scored))
    place = {clip: i for i, clip in enumerate(clips)}
    sums: dict[str, np.ndarray] = {}
    for entry in scored:
        for metric, values in entry.metrics.items():
            values = np.asarray(values, np.float64)
            present = values[~np.isnan(values)]
            total = sums.setdefault(metric, np.zeros((len(clips), 2)))
            total[place[entry.clip]] += present.sum(), present.size
    return sums


def interval(sums: np.ndarray) -> list[float]:
    """Computes [low, high] of the mean over all frames: 95 % of what other clips would give.

    Args:
      sums: (clips, 2) as `clip_sums` gives them.
    """
    return percentiles(_resampled(sums))


def difference(mine: Sequence[Mapping], other: Sequence[Mapping], metric: str) -> dict[str, Any]:
    """Computes how much higher one row's mean is than another's, over their common clips.

    The same clips are drawn for both, so what makes a clip hard for either cancels.

    Args:
      mine: rows of `clip_rows` of one name.
      other: of another name, of this run or of another.
      metric: its name in both.

    Returns:
      {"difference": mean of mine less mean of other, "interval": [low, high], or None where fewer
      than two clips are common, "clips": how many are}.
    """
    sums = [_sums_by_clip(rows_, metric) for rows_ in (mine, other)]
    clips = [clip for clip in sums[0] if clip in sums[1]]
    if not clips:
        return {"difference": float("nan"), "interval": None, "clips": 0}
    ours, theirs = (np.array([s[clip] for clip in clips]) for s in sums)
    change = _ratio(*ours.sum(0)) - _ratio(*theirs.sum(0))
    bounds = percentiles(_resampled(ours) - _resampled(theirs)) if len(clips) > 1 else None
    return {"difference": change, "interval": bounds, "clips": len(clips)}


def _sums_by_clip(clip_rows_: Sequence[Mapping], metric: str) -> dict[str, np.ndarray]:
    sums: dict[str, np.ndarray] = {}
    for row in clip_rows_:
        count = row["frames"].get(metric, 0)
        if count:
            value = np.array([row["metrics"][metric] * count, count])
            sums[row["clip"]] = sums.get(row["clip"], np.zeros(2)) + value
    return sums


def _resampled(sums: np.ndarray) -> np.ndarray:
    """Computes (RESAMPLES,) means of clips drawn with replacement; nan for draws without value."""
    totals = draws(len(sums), RESAMPLES) @ sums
    return np.where(totals[:, 1] > 0, totals[:, 0] / np.maximum(totals[:, 1], 1), np.nan)


def draws(clips: int, count: int) -> np.ndarray:
    """Returns (count, clips): how often each clip is drawn, from a fixed seed."""
    return np.random.default_rng(0).multinomial(clips, np.full(clips, 1 / clips), count)


def percentiles(values: np.ndarray) -> list[float]:
    """Returns [low, high], between which 95 % of the values lie; nan are left out."""
    rest = 50 * (1 - LEVEL)
    return [float(value) for value in np.nanpercentile(values, [rest, 100 - rest])]


def _ratio(total: float, count: float) -> float:
    return float(total / count) if count else 0.0
