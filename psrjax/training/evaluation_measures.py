"""Metrics of whole clips in an evaluation: how a video moves, and what single frames do not say."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from psrjax import pretrained
from psrjax.data import sampling
from psrjax.data.source import Source
from psrjax.errors import UserError
from psrjax.metrics import detail, features, image, interpolation, registry, temporal
from psrjax.training.score_statistics import Scored

_FLOWS = ("target_flow", "target_flow_forward")


@dataclasses.dataclass(frozen=True)
class Measure:
    """A metric of a clip.

    Attributes:
      score: (made (t h w 3) uint8, truth, mask (t h w 1) uint8, {key: (t …)}) -> a number.
      reads: the keys of the data set that it needs beside the frames.
      side: the smallest side of a frame, in pixels.
      frames: the fewest frames of a clip.
      networks: names in `psrjax.pretrained`, whose weights it needs.
    """

    score: Callable
    reads: tuple[str, ...] = ()
    side: int = 1
    frames: int = 1
    networks: tuple[str, ...] = ()


def _of_frames(function: Callable) -> Callable:
    """The mean over a clip of a metric of floats in [0, 1], one score a frame."""
    return jax.jit(lambda made, truth, mask, maps: function(_unit(made), _unit(truth)).mean())


@jax.jit
def _temporal_error(made: jax.Array, truth: jax.Array, mask: jax.Array, maps: Mapping) -> jax.Array:
    del truth, mask
    flow, forward = (maps[key][None] for key in _FLOWS)
    return temporal.temporal_error(_unit(made)[None], flow, temporal.trust(flow, forward))[0]


@jax.jit
def _warping_error(made: jax.Array, truth: jax.Array, mask: jax.Array, maps: Mapping) -> jax.Array:
    del truth, mask
    flow, forward = (maps[key][None] for key in _FLOWS)
    trusted = temporal.trust(forward, flow, one_sided=True)
    return temporal.warping_error(_unit(made)[None], forward, trusted).mean()


@jax.jit
def _flicker(made: jax.Array, truth: jax.Array, mask: jax.Array, maps: Mapping) -> jax.Array:
    del truth, maps
    return jnp.nanmean(temporal.flicker(_unit(made)[None], _unit(mask)[None]))


def _interp_psnr(made: np.ndarray, truth: np.ndarray, mask: np.ndarray, maps: Mapping) -> float:
    del mask, maps
    return interpolation.interp_psnr(made, truth).mean()


def _lpips(
    name: str, made: np.ndarray, truth: np.ndarray, mask: np.ndarray, maps: Mapping
) -> float:
    del mask, maps
    weights = (_weights(network) for network in registry.get(name).networks)
    return features.lpips_distance(*weights, made, truth, net=name.rpartition("_")[2]).mean()


_weights = functools.cache(pretrained.load)


def _unit(frames: jax.Array) -> jax.Array:
    return jnp.asarray(frames, jnp.float32) / 255.0


_MS_SSIM_SIDE = (image.GAUSSIAN_SIZE - 1) * 2 ** (len(detail.MS_SSIM_WEIGHTS) - 1) + 1

MEASURES = {
    "ms_ssim": Measure(_of_frames(detail.ms_ssim), side=_MS_SSIM_SIDE),
    "sd_lua": Measure(_of_frames(detail.sd_lua), side=3),
    "sd_eq": Measure(_of_frames(detail.sd_eq), side=3),
    "interp_psnr[dis]": Measure(_interp_psnr, side=16, frames=3),
    "e_temp": Measure(_temporal_error, _FLOWS, frames=2),
    "warping_error": Measure(_warping_error, _FLOWS, frames=2),
    "flicker": Measure(_flicker, frames=2),
    **{
        f"{prefix}lpips_{net}": Measure(
            functools.partial(_lpips, f"{prefix}lpips_{net}"),
            side=registry.get(f"lpips_{net}").side,
            networks=registry.get(f"{prefix}lpips_{net}").networks,
        )
        for prefix in ("", registry.RANDOM)
        for net in ("alex", "vgg")
    },
}


def obstacle(name: str, side: int, frames: int) -> str:
    """Why clips of `frames` frames, of `side` pixels at least, have no such metric; "" if they do.

    0 is a size that is not known yet.
    """
    if name not in MEASURES:
        return f"no metric {name!r}; there are {', '.join(MEASURES)}"
    measure = MEASURES[name]
    if side and side < measure.side:
        return f"{name} needs frames of at least {measure.side} pixels a side, these have {side}"
    if frames and frames < measure.frames:
        return f"{name} needs clips of at least {measure.frames} frames, these have {frames}"
    try:
        for network in measure.networks:
            _weights(network)
    except UserError as error:
        return f"{name}: {error}"
    return ""


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
          UserError: for an unknown name, frames that are too small, or a stream that is missing.
        """
        for name in names:
            if reason := obstacle(name, min(crop), 0):
                raise UserError(f"--metrics: {reason}")
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
          videos: {name: (t h w 3) uint8} of these, and the truth under "".
          mask: (t h w 1) uint8, of the person.
          joins: whether it goes on where the last one ended.
        """
        if not joins:
            self.finish()
            self._open = {"window": window, "pair": pair, "kinds": kinds, "mask": []}
            self._open["videos"] = {name: [] for name in videos}
        self._open["mask"].append(mask)
        for name, parts in self._open["videos"].items():
            parts.append(videos[name])

    def finish(self) -> None:
        """Scores the clip that is open; to be called after the last window."""
        if not self._open or not self._measures:
            return
        clip, self._open = self._open, {}
        window, mask = clip["window"], np.concatenate(clip["mask"])
        for name in self._measures:
            if reason := obstacle(name, min(mask.shape[1:3]), len(mask)):
                raise UserError(f"--metrics: {reason}; --windows=clips makes them longer")
        maps = self._maps(window, len(mask))
        videos = {name: np.concatenate(parts) for name, parts in clip["videos"].items()}
        for name, kind in clip["kinds"].items():
            values = {
                metric: np.array([float(measure.score(videos[name], videos[""], mask, maps))])
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
        return {key: value.astype(np.float32) for key, value in sample.items()}
