"""The further metrics of an evaluation, by name, and the clips that they are taken of.

Metrics of a clip are here; those of all clips together in `evaluation_sets`, those of the frames
with challenging poses in `evaluation_challenging`.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from psrjax.data import sampling
from psrjax.data.source import Source
from psrjax.errors import UserError
from psrjax.evaluation import challenging_poses, clip_features, set_metrics
from psrjax.evaluation.clip_features import Footage
from psrjax.evaluation.score_statistics import Scored
from psrjax.metrics import detail, features, frechet, image, interpolation, registry, temporal
from psrjax.ops import face_box
from psrjax.prepare.common import detector
from psrjax.pretrained import registry as networks

FLOWS = ("target_flow", "target_flow_forward")


@dataclasses.dataclass(frozen=True)
class Measure:
    """A metric of a clip.

    Attributes:
      score: (made, truth: Footage, mask (t h w 1) uint8, {key: (t …)}) -> a number.
      reads: the keys of the data set that it needs beside the frames.
      side: the smallest side of a frame, in pixels.
      frames: the fewest frames of a clip.
      networks: names in `psrjax.pretrained.registry`, whose weights it needs.
    """

    score: Callable
    reads: tuple[str, ...] = ()
    side: int = 1
    frames: int = 1
    networks: tuple[str, ...] = ()


def _of_frames(function: Callable) -> Callable:
    """The mean over a clip of a metric of floats in [0, 1], one score a frame."""
    compiled = jax.jit(lambda made, truth: function(_unit(made), _unit(truth)).mean())
    return lambda made, truth, mask, maps: compiled(made.frames, truth.frames)


def _of_arrays(function: Callable) -> Callable:
    """A metric of the made and the true frames, the mask and the maps, compiled."""
    compiled = jax.jit(function)
    return lambda made, truth, mask, maps: compiled(made.frames, truth.frames, mask, dict(maps))


def _trusted_flow(maps: Mapping) -> tuple[jax.Array, jax.Array]:
    """(the flow from a frame to the one before it, where it can be trusted), as batches of one."""
    flow, forward = (maps[key][None] for key in FLOWS)
    return flow, temporal.trust(flow, forward)


def _temporal_error(made: jax.Array, truth: jax.Array, mask: jax.Array, maps: Mapping) -> jax.Array:
    del truth, mask
    return temporal.temporal_error(_unit(made)[None], *_trusted_flow(maps))[0]


def _temporal_gap(made: jax.Array, truth: jax.Array, mask: jax.Array, maps: Mapping) -> jax.Array:
    del mask
    videos = (_unit(video)[None] for video in (made, truth))
    return temporal.temporal_gap(*videos, *_trusted_flow(maps))[0]


def _warping_error(made: jax.Array, truth: jax.Array, mask: jax.Array, maps: Mapping) -> jax.Array:
    del truth, mask
    flow, forward = (maps[key][None] for key in FLOWS)
    trusted = temporal.trust(forward, flow, one_sided=True)
    return temporal.warping_error(_unit(made)[None], forward, trusted).mean()


def _flicker(made: jax.Array, truth: jax.Array, mask: jax.Array, maps: Mapping) -> jax.Array:
    del truth, maps
    return jnp.nanmean(temporal.flicker(_unit(made)[None], _unit(mask)[None]))


def _face_psnr(made: jax.Array, truth: jax.Array, mask: jax.Array, maps: Mapping) -> jax.Array:
    """PSNR of the head's squares, a quarter as high as the frames; frames without one are out."""
    del mask
    height, width = made.shape[1:3]
    size = min(height, width) // 4
    corner, there = face_box.locate(maps["target_joints"], height=height, width=width, size=size)
    squares = (face_box.crop(_unit(video), corner, size=size) for video in (made, truth))
    return jnp.mean(image.psnr(*squares), where=there)


def _interp_psnr(made: Footage, truth: Footage, mask: np.ndarray, maps: Mapping) -> float:
    del mask, maps
    return interpolation.interp_psnr(made.frames, truth.frames).mean()


def _lpips(name: str, made: Footage, truth: Footage, mask: np.ndarray, maps: Mapping) -> float:
    del mask, maps
    weights = [clip_features.weights(network) for network in registry.get(name).networks]
    pairs = zip(*(np.array_split(side.frames, len(side.frames)) for side in (made, truth)))
    net = name.rpartition("_")[2]
    found = [features.lpips_distance(*weights, *pair, net=net).mean() for pair in pairs]
    return float(np.mean(found))


def _clip_fid(network: str, made: Footage, truth: Footage, mask: Any, maps: Mapping) -> float:
    del mask, maps
    sides = (side.of_frames(network)["features"] for side in (made, truth))
    return frechet.frechet_distance_of_few(*sides)


def _act_l1(network: str, made: Footage, truth: Footage, mask: Any, maps: Mapping) -> float:
    del mask, maps
    sides = (side.of_pieces(network)["logits"] for side in (made, truth))
    return float(frechet.act_l1(*sides).mean())


def _unit(frames: jax.Array) -> jax.Array:
    return jnp.asarray(frames, jnp.float32) / 255.0


def _of_network(name: str, score: Callable) -> dict[str, Measure]:
    """A metric of one frozen network: (its weights' name, as `Measure.score`) -> a number; and the
    same of untrained weights.
    """
    found = {}
    for full in (name, registry.RANDOM + name):
        known = registry.get(full)
        (network,) = known.networks
        own = functools.partial(score, network)
        found[full] = Measure(own, frames=known.frames, networks=known.networks)
    return found


_MS_SSIM_SIDE = (image.GAUSSIAN_SIZE - 1) * 2 ** (len(detail.MS_SSIM_WEIGHTS) - 1) + 1

MEASURES = {
    "ms_ssim": Measure(_of_frames(detail.ms_ssim), side=_MS_SSIM_SIDE),
    "sd_lua": Measure(_of_frames(detail.sd_lua), side=3),
    "sd_eq": Measure(_of_frames(detail.sd_eq), side=3),
    "interp_psnr[dis]": Measure(_interp_psnr, side=interpolation.SMALLEST, frames=3),
    # Joints move with a crop in units of the frames, which are read for their size.
    "face_psnr": Measure(_of_arrays(_face_psnr), ("target_joints", "target"), side=4),
    "e_temp": Measure(_of_arrays(_temporal_error), FLOWS, frames=2),
    "e_temp_gap": Measure(_of_arrays(_temporal_gap), FLOWS, frames=2),
    "warping_error": Measure(_of_arrays(_warping_error), FLOWS, frames=2),
    "flicker": Measure(_of_arrays(_flicker), frames=2),
    **_of_network("clip_fid", _clip_fid),
    **_of_network("act_l1_logits", _act_l1),
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
_UNTRAINED = ":random"
NAMES = (*MEASURES, *set_metrics.SETS, *challenging_poses.METRICS)


def obstacle(name: str, side: int, frames: int) -> str:
    """Why clips of `frames` frames, of `side` pixels at least, have no such metric; "" if they do.

    0 is a size that is not known yet.
    """
    if name not in NAMES:
        return f"no metric {name!r}; there are {', '.join(NAMES)}"
    smallest = MEASURES[name].side if name in MEASURES else 1
    if side and side < smallest:
        return f"{name} needs frames of at least {smallest} pixels a side, these have {side}"
    known = MEASURES.get(name) or set_metrics.SETS.get(name)
    if known is None:
        return ""
    if frames and frames < known.frames:
        return f"{name} needs clips of at least {known.frames} frames, these have {frames}"
    try:
        for network in known.networks:
            clip_features.weights(network)
    except UserError as error:
        return f"{name}: {error}"
    return ""


def weights_of(names: Sequence[str]) -> list[str]:
    """A note for each network that metrics need: how its weights' SHA-256 begins, or that it is
    untrained.

    Raises:
      UserError: as `pretrained.load`.
    """
    found = dict.fromkeys(network for name in names for network in registry.get(name).networks)
    return [
        f"{network.removesuffix(_UNTRAINED)}: untrained weights, comparable with nothing else"
        if network.endswith(_UNTRAINED)
        else f"{network}: weights {networks.digest(clip_features.weights(network))[:16]}"
        for network in found
    ]


def score(
    measures: Mapping[str, Measure],
    made: Footage,
    truth: Footage,
    mask: UInt8[np.ndarray, "t h w 1"],
    maps: Mapping[str, np.ndarray],
) -> dict[str, Float[np.ndarray, "1"]]:
    """{name: the number} of a clip, in the order of `measures`."""
    return {
        name: np.array([float(measure.score(made, truth, mask, maps))])
        for name, measure in measures.items()
    }


class Clips:
    """Scores clips as they are made: each window by itself, or windows put together again.

    The flows of a clip are read anew, whole: a window's batch knows nothing of what was before it.
    """

    def __init__(self, names: Sequence[str], source: Source, crop: tuple[int, int]):
        """Checks that the data set has what the metrics read.

        Args:
          names: of NAMES.
          source: the split that is evaluated.
          crop: as in `config.data`.

        Raises:
          UserError: for an unknown name, frames that are too small, a stream that is missing, or
            where joints are to be detected and MediaPipe cannot be had.
        """
        for name in names:
            if reason := obstacle(name, min(crop), 0):
                raise UserError(f"--metrics: {reason}")
        self.scored: list[Scored] = []
        self._names = tuple(names)
        self._measures = {name: MEASURES[name] for name in names if name in MEASURES}
        self._sets = set_metrics.Sets([n for n in names if n in set_metrics.SETS])
        reads = (key for measure in self._measures.values() for key in measure.reads)
        self._reads = tuple(dict.fromkeys(reads))
        self._source, self._crop = source, sampling.Augmentation(crop=tuple(crop))
        sampling.require(source, self._reads)
        if any(name in set_metrics.JOINTS for name in names):
            detector.environment()  # it is known now, not after the synthesis, if there is none
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
        if not self._open:
            return
        clip, self._open = self._open, {}
        window, mask = clip["window"], np.concatenate(clip["mask"])
        for name in self._names:
            if reason := obstacle(name, min(mask.shape[1:3]), len(mask)):
                raise UserError(f"--metrics: {reason}; --windows=clips makes them longer")
        maps = self._maps(window, len(mask))
        videos = {name: Footage(np.concatenate(v)) for name, v in clip["videos"].items()}
        truth = videos.pop("")
        for name, kind in clip["kinds"].items():
            group, place = (kind, name, clip["pair"]), (window["clip"], window["start"])
            made = videos.pop(name)
            if self._measures:
                values = score(self._measures, made, truth, mask, maps)
                self.scored.append(Scored(*group, *place, values, whole=True))
            self._sets.add(group, *place, made, truth)

    def rows(self, rows: Sequence[Mapping[str, Any]], made_of: str) -> list[dict[str, Any]]:
        """Rows with the metrics of all clips in them: `evaluation_sets.Sets.finish`."""
        return self._sets.finish(rows, made_of)

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
