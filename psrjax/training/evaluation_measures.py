"""Metrics of whole clips in an evaluation: how a made video moves, against the true motion."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from psrjax.data import sampling
from psrjax.data.source import Source
from psrjax.errors import UserError
from psrjax.metrics import temporal
from psrjax.training.score_statistics import Scored

_FLOWS = ("target_flow", "target_flow_forward")


@dataclasses.dataclass(frozen=True)
class Measure:
    """A metric of a clip: what it reads of the data set, and the function of one clip.

    `score` takes (made (1 t h w c) in [0, 1], mask (1 t h w 1), {key: (1 t …)}) and gives a scalar.
    """

    reads: tuple[str, ...]
    score: Callable


def _temporal_error(made: jax.Array, mask: jax.Array, maps: Mapping) -> jax.Array:
    del mask
    flow, forward = (maps[key] for key in _FLOWS)
    return temporal.temporal_error(made, flow, temporal.trust(flow, forward))[0]


def _warping_error(made: jax.Array, mask: jax.Array, maps: Mapping) -> jax.Array:
    del mask
    flow, forward = (maps[key] for key in _FLOWS)
    trusted = temporal.trust(forward, flow, one_sided=True)
    return temporal.warping_error(made, forward, trusted).mean()


def _flicker(made: jax.Array, mask: jax.Array, maps: Mapping) -> jax.Array:
    del maps
    return jax.numpy.nanmean(temporal.flicker(made, mask))


MEASURES = {
    "e_temp": Measure(_FLOWS, jax.jit(_temporal_error)),
    "warping_error": Measure(_FLOWS, jax.jit(_warping_error)),
    "flicker": Measure((), jax.jit(_flicker)),
}


def check(names: Sequence[str]) -> None:
    """Raises UserError for a name that is no metric of clips, with the list."""
    for name in names:
        if name not in MEASURES:
            raise UserError(f"--metrics: no metric {name!r}; there are {', '.join(MEASURES)}")


class Clips:
    """Scores clips as they are made: each window by itself, or windows put together again.

    The flows of a clip are read anew, whole: a window's batch knows nothing of what was before it.
    """

    def __init__(self, names: Sequence[str], source: Source, crop: tuple[int, int]):
        """Checks that the data set has what the metrics read.

        Args:
          names: of MEASURES.
          source: the split that is evaluated.
          crop: as in `config.data`.

        Raises:
          UserError: for an unknown name, or a stream that is missing.
        """
        check(names)
        self.scored: list[Scored] = []
        self._measures = {name: MEASURES[name] for name in names}
        reads = (key for measure in self._measures.values() for key in measure.reads)
        self._reads = tuple(dict.fromkeys(reads))
        self._source, self._crop = source, sampling.Augmentation(crop=tuple(crop))
        sampling.require(source, self._reads)
        self._open: dict[str, Any] = {}

    def add(
        self,
        window: Mapping[str, Any],
        pair: str,
        kinds: Mapping[str, str],
        videos: Mapping[str, np.ndarray],
        mask: np.ndarray,
        *,
        joins: bool,
    ) -> None:
        """Adds the frames of a window.

        Args:
          window: its "clip", "source_view", "target_view", and "start", of the first frame given.
          pair: the name of its views.
          kinds: {name: kind} of the videos to score.
          videos: {name: (t h w 3) uint8}.
          mask: (t h w 1) uint8, of the person.
          joins: whether it goes on where the last one ended.
        """
        if not joins:
            self.finish()
            self._open = {"window": window, "pair": pair, "kinds": kinds, "mask": []}
            self._open["videos"] = {name: [] for name in kinds}
        self._open["mask"].append(mask)
        for name, parts in self._open["videos"].items():
            parts.append(videos[name])

    def finish(self) -> None:
        """Scores the clip that is open; to be called after the last window."""
        if not self._open or not self._measures:
            return
        clip, self._open = self._open, {}
        window, mask = clip["window"], _unit(np.concatenate(clip["mask"]))
        maps = self._maps(window, mask.shape[1])
        for name, kind in clip["kinds"].items():
            made = _unit(np.concatenate(clip["videos"][name]))
            values = {
                metric: np.array([float(measure.score(made, mask, maps))])
                for metric, measure in self._measures.items()
            }
            place = (kind, name, clip["pair"], window["clip"], window["start"])
            self.scored.append(Scored(*place, values, whole=True))

    def _maps(self, window: Mapping[str, Any], frames: int) -> dict[str, np.ndarray]:
        if not self._reads:
            return {}
        start = window["start"]
        wanted = sampling.Window(
            clip=window["clip"],
            source_view=window["source_view"],
            target_view=window["target_view"],
            start=start,
            source_frames=(start,),
            target_frames=tuple(range(start, start + frames)),
        )
        sample = sampling.assemble(self._source, wanted, self._reads)
        sample = sampling.augment(sample, self._crop)
        return {key: value.astype(np.float32)[None] for key, value in sample.items()}


def _unit(frames: np.ndarray) -> np.ndarray:
    """8-bit frames as a batch of one clip in [0, 1]."""
    return frames.astype(np.float32)[None] / 255.0
