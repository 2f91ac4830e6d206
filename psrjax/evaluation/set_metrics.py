"""Metrics of all clips together: Fréchet distances, the Inception score and pose metrics.

They are no means over frames: what is added up is statistics, for each result and pair of views.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from psrjax.evaluation import score_statistics
from psrjax.evaluation.clip_features import ClipFeatures
from psrjax.metrics import features, frechet, keypoints, registry
from psrjax.prepare.common import detector

KEPT = 512  # vectors of one set that are kept as they are; of more only their moments
_DRAWS = 50  # of the clips, for the intervals of Fréchet distances
_FEW = 2048  # frames below which FID's covariance is singular


# {metric: ((a clip, the network's name) -> (n d) vectors, what one vector is of)}
_FEATURES = {
    "fid": (lambda clip, network: clip.of_frames(network)["features"], "frames"),
    "is": (lambda clip, network: clip.of_frames(network)["logits"], "frames"),
    "fvd": (
        lambda clip, network: clip.of_pieces(network)["logits"],
        f"pieces of {features.CLIP_FRAMES} frames",
    ),
    "vfid": (lambda clip, network: clip.of_whole(network)["features"], "clips"),
}


def unpaired(name: str) -> bool:
    """Tells whether a metric is of two sets whose clips need not belong together."""
    return _plain(name) in _FEATURES


def _plain(name: str) -> str:
    return name.removeprefix(registry.RANDOM)


def _features_of(name: str, clip: ClipFeatures) -> np.ndarray:
    return _FEATURES[_plain(name)][0](clip, *registry.get(name).networks)


@dataclasses.dataclass
class _Vectors:
    """Vectors of a set, by clip: as they are while they are few, else their moments."""

    clips: list[str] = dataclasses.field(default_factory=list)
    kept: list[np.ndarray] = dataclasses.field(default_factory=list)
    moments: frechet.Moments | None = None

    @property
    def count(self) -> int:
        return sum(map(len, self.kept)) if self.moments is None else round(self.moments.count)

    def add(self, clip: str, vectors: np.ndarray) -> None:
        if self.moments is not None:
            self.moments = self.moments.merge(frechet.Moments.of(vectors))
            return
        self.clips.append(clip)
        self.kept.append(np.asarray(vectors, np.float32))
        if self.count > KEPT:
            self.moments = frechet.Moments.of(np.concatenate(self.kept))
            self.clips, self.kept = [], []

    def total(self) -> frechet.Moments:
        return self.moments or frechet.Moments.of(np.concatenate(self.kept))

    def merged(self, other: "_Vectors") -> "_Vectors":
        if self.moments is None and other.moments is None and self.count + other.count <= KEPT:
            return _Vectors(self.clips + other.clips, self.kept + other.kept)
        parts = [part for part in (self, other) if part.count]
        moments = [part.total() for part in parts]
        return _Vectors(moments=moments[0] if len(parts) == 1 else moments[0].merge(moments[1]))


_Group = tuple[str, str, str]  # kind, name and pair of a row


class SetAccumulator:
    """Adds up what the set metrics need, clip by clip, in memory that does not grow with clips.

    Of each result and pair of views at most 512 feature vectors are kept, then their moments.
    Counts of joints are kept by clip: nine numbers each.
    """

    def __init__(self, names: Sequence[str]):
        """Takes the metrics of sets from the names of metrics."""
        vectors = [name for name in names if _plain(name) in _FEATURES]
        self._distances = [name for name in vectors if _plain(name) != "is"]
        self._inception = [name for name in vectors if _plain(name) == "is"]
        self._joints = [name for name in names if registry.DETECTED in registry.get(name).needs]
        self._made: dict[tuple[str, _Group], _Vectors] = {}
        self._true: dict[tuple[str, str], _Vectors] = {}
        self._scores: dict[tuple[str, _Group], frechet.InceptionScore] = {}
        self._counts: dict[_Group, dict[str, dict[str, float]]] = {}
        self._seen: set[tuple[str, str, int]] = set()
        self._detector: detector.PoseDetector | None = None

    def add(
        self,
        group: tuple[str, str, str],
        clip: str,
        start: int,
        made: ClipFeatures,
        truth: ClipFeatures,
    ) -> None:
        """Adds a clip, or the window that was made of it.

        Args:
          group: the kind, name and pair of its row.
          clip: its name.
          start: its first frame.
          made: its frames.
          truth: the true ones; those of one clip, pair and start are added once.
        """
        place = (group[-1], clip, start)
        if place not in self._seen:
            self._seen.add(place)
            self.add_true(group[-1], clip, truth)
        self.add_made(group, clip, made)
        if self._joints:
            self._count(group, clip, made, truth)

    def add_true(self, pair: str, clip: str, truth: ClipFeatures) -> None:
        """Adds a true clip to the set of a pair, which no made clip need belong to."""
        for name in self._distances:
            vectors = self._true.setdefault((name, pair), _Vectors())
            vectors.add(clip, _features_of(name, truth))

    def add_made(self, group: tuple[str, str, str], clip: str, made: ClipFeatures) -> None:
        """Adds a made clip to the set of a row (kind, name and pair) without a true one."""
        for name in self._distances:
            vectors = self._made.setdefault((name, group), _Vectors())
            vectors.add(clip, _features_of(name, made))
        for name in self._inception:
            logits = _features_of(name, made)
            empty = frechet.InceptionScore.empty(logits.shape[1])
            self._scores[name, group] = self._scores.get((name, group), empty).add(logits)

    def _count(self, group: _Group, clip: str, made: ClipFeatures, truth: ClipFeatures) -> None:
        joints = (jnp.asarray(side.joints(self._detect), jnp.float32) for side in (made, truth))
        by_clip = self._counts.setdefault(group, {})
        total = by_clip.setdefault(clip, {})
        for key, value in keypoints.counts(*joints).items():
            total[key] = total.get(key, 0.0) + float(value.sum())

    def _detect(self, frames: np.ndarray) -> np.ndarray:
        if self._detector is None:
            self._detector = detector.PoseDetector()
        return np.stack([found.joints for found in self._detector.detect(frames)])

    def finish(self, rows: Sequence[Mapping[str, Any]], made_of: str) -> list[dict[str, Any]]:
        """Adds the set metrics to rows; to be called after the last clip.

        Args:
          rows: of `score_statistics.rows`; the row over all pairs gets the metrics of all pairs.
          made_of: what a clip is here, for the notes.

        Returns:
          The rows, each with further "metrics", "interval" (by drawing clips again, as far as the
          vectors were kept) and in "about" the "notes" to them. A row that has too few frames or
          clips for a metric does not have it.
        """
        self.close()
        found = []
        for row in rows:
            values, bounds, notes = self._row(row, made_of)
            about = {**row["about"], "notes": [*row["about"].get("notes", ()), *notes]}
            metrics, interval = row["metrics"] | values, row["interval"] | bounds
            found.append({**row, "metrics": metrics, "interval": interval, "about": about})
        return found

    def close(self) -> None:
        """Ends the pose detector, if it was needed; another one is started where it is again."""
        if self._detector is not None:
            self._detector.close()
            self._detector = None

    def merge(self, other: "SetAccumulator") -> None:
        """Takes in what another process added up, of other clips."""
        for key, vectors in other._made.items():
            self._made[key] = self._made.get(key, _Vectors()).merged(vectors)
        for key, vectors in other._true.items():
            self._true[key] = self._true.get(key, _Vectors()).merged(vectors)
        for key, score in other._scores.items():
            self._scores[key] = self._scores[key].merge(score) if key in self._scores else score
        for group, counts in other._counts.items():
            own = self._counts.setdefault(group, {})
            for clip, total in counts.items():
                before = own.get(clip, {})
                own[clip] = {key: before.get(key, 0.0) + value for key, value in total.items()}

    def _row(self, row: Mapping[str, Any], made_of: str) -> tuple[dict, dict, list[str]]:
        groups = self._groups(row)
        values, bounds, notes = {}, {}, []
        for name in self._distances:
            made, true = _Vectors(), _Vectors()
            for group in groups:
                made = made.merged(self._made.get((name, group), _Vectors()))
                true = true.merged(self._true.get((name, group[-1]), _Vectors()))
            if min(made.count, true.count) > 1:
                values[name], spread = _distance(made, true)
                bounds |= {name: spread} if spread else {}
                notes.append(_note(name, made.count, made_of))
        for name in self._inception:
            parts = [self._scores[name, g] for g in groups if (name, g) in self._scores]
            total = parts[0] if parts else frechet.InceptionScore.empty(1)
            for part in parts[1:]:
                total = total.merge(part)
            if total.counts.all():
                values[name], std = total.compute()
                notes.append(f"{name}: standard deviation {std:.3g} over its splits")
        if self._joints:
            chosen, spread = self._pose(groups)
            values, bounds = values | chosen, bounds | spread
            notes.append("joints: one detector on made and true frames, confidence from 0.1")
        return values, bounds, notes

    def _groups(self, row: Mapping[str, Any]) -> list[_Group]:
        """Lists the groups whose clips a row is of."""
        every = dict.fromkeys([g for _, g in (*self._made, *self._scores)] + list(self._counts))
        same = [g for g in every if g[:2] == (row["kind"], row["name"])]
        return [g for g in same if row["pair"] in (g[2], score_statistics.ALL)]

    def _pose(self, groups: Sequence[_Group]) -> tuple[dict, dict]:
        """Computes the pose metrics of some groups, and their intervals over clips."""
        keys, by_clip = (), {}
        for group in groups:
            for clip, counts in self._counts.get(group, {}).items():
                keys = tuple(counts)
                by_clip[clip] = by_clip.get(clip, 0.0) + np.array(list(counts.values()))
        if not by_clip:
            return {}, {}
        counts = np.stack(list(by_clip.values()))

        def scores(total: np.ndarray) -> np.ndarray:
            found = keypoints.scores(dict(zip(keys, total)))
            return np.array([found[name] for name in self._joints])

        values = dict(zip(self._joints, scores(counts.sum(0)).tolist()))
        known = {name: value for name, value in values.items() if np.isfinite(value)}
        if len(counts) < 2 or not known:
            return known, {}
        drawn = score_statistics.draws(len(counts), score_statistics.RESAMPLES)
        spread = np.stack([scores(total) for total in drawn @ counts])
        bounds = {
            name: score_statistics.percentiles(column)
            for name, column in zip(self._joints, spread.T)
            if name in known
        }
        return known, bounds


def _distance(made: _Vectors, true: _Vectors) -> tuple[float, list[float] | None]:
    """Computes the Fréchet distance, and its interval if vectors were kept of two clips or more.

    Of paired sets the same clips are drawn for both; of others, each set's own. Clips drawn with
    replacement repeat vectors, which moves every distance up: the spread of the draws about their
    own mean is what is laid about the distance.
    """
    if made.moments is not None or true.moments is not None:
        return frechet.frechet_distance(made.total(), true.total()), None
    sides = [np.concatenate(side.kept) for side in (made, true)]
    value = frechet.frechet_distance_of_few(*sides)
    clips = [list(dict.fromkeys(side.clips)) for side in (made, true)]
    if min(map(len, clips)) < 2:
        return value, None
    if set(clips[0]) == set(clips[1]):
        clips[1] = clips[0]
    owners = [
        np.repeat([own.index(clip) for clip in side.clips], list(map(len, side.kept)))
        for own, side in zip(clips, (made, true))
    ]
    # From a fixed seed, so that draws of equally many clips are the same.
    drawn = zip(*(score_statistics.draws(len(own), _DRAWS).astype(np.float64) for own in clips))
    counted = [[times[owner] for times, owner in zip(both, owners)] for both in drawn]
    values = np.array(
        [
            frechet.frechet_distance_of_few(*sides, *weights)
            for weights in counted
            if min(weight.sum() for weight in weights) > 1
        ]
    )
    low, high = score_statistics.percentiles(values - values.mean() + value)
    return value, [max(low, 0.0), high]


def _note(name: str, count: int, made_of: str) -> str:
    unit = _FEATURES[_plain(name)][1]
    note = f"{name}: of {count} {unit}"
    if unit == "frames":
        few = f"; fewer than {_FEW} bias it upwards" if count < _FEW else ""
        return note + few
    return f"{note}; {made_of}"
