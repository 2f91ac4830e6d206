"""The metrics that an evaluation has to be asked for, and the scores of single clips among them.

Metrics of all clips together are in `set_metrics`, those of the frames with challenging poses in
`challenging_poses`; what each needs stands in `psrjax.metrics.registry`.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from psrjax.data import sampling
from psrjax.data.source import Source
from psrjax.errors import UserError
from psrjax.evaluation import clip_features, set_metrics
from psrjax.evaluation.clip_features import ClipFeatures
from psrjax.evaluation.score_statistics import Scored
from psrjax.metrics import detail, features, frechet, image, interpolation, registry, temporal
from psrjax.ops import face_box
from psrjax.prepare.common import detector
from psrjax.pretrained import registry as networks

Inputs = Mapping[str, Any]  # by keys of the contract, of one clip: (t …)

_UNTRAINED = ":random"


def _of_frames(function: Callable) -> Callable:
    """Averages over a clip a metric of floats in [0, 1], one score a frame."""
    return lambda made, truth, inputs: function(_unit(made), _unit(truth)).mean()


def _flows(inputs: Inputs) -> list[jax.Array]:
    return [inputs[key][None] for key in registry.FLOWS]


def _trusted_flow(inputs: Inputs) -> tuple[jax.Array, jax.Array]:
    """Returns (flow from a frame to the one before it, where it can be trusted), batches of one."""
    flow, forward = _flows(inputs)
    return flow, temporal.trust(flow, forward)


def _temporal_error(made: jax.Array, truth: jax.Array, inputs: Inputs) -> jax.Array:
    del truth
    return temporal.temporal_error(_unit(made)[None], *_trusted_flow(inputs))[0]


def _temporal_gap(made: jax.Array, truth: jax.Array, inputs: Inputs) -> jax.Array:
    flow, trusted = _trusted_flow(inputs)
    return temporal.temporal_gap(_unit(made)[None], _unit(truth)[None], flow, trusted)[0]


def _warping_error(made: jax.Array, truth: jax.Array, inputs: Inputs) -> jax.Array:
    del truth
    flow, forward = _flows(inputs)
    trusted = temporal.trust(forward, flow, one_sided=True)
    return temporal.warping_error(_unit(made)[None], forward, trusted).mean()


def _flicker(made: jax.Array, truth: jax.Array, inputs: Inputs) -> jax.Array:
    del truth
    mask = _unit(inputs["target_mask"])
    return jnp.nanmean(temporal.flicker(_unit(made)[None], mask[None]))


def _face_psnr(made: jax.Array, truth: jax.Array, inputs: Inputs) -> jax.Array:
    """PSNR of the head's squares, a quarter as high as the frames; frames without one are out."""
    height, width = made.shape[1:3]
    size = min(height, width) // 4
    corner, there = face_box.locate(inputs["target_joints"], height=height, width=width, size=size)
    squares = (face_box.crop(_unit(video), corner, size=size) for video in (made, truth))
    return jnp.mean(image.psnr(*squares), where=there)


def _interp_psnr(made: ClipFeatures, truth: ClipFeatures, *networks: str) -> float:
    weights = [clip_features.weights(network) for network in networks]
    learned = functools.partial(interpolation.learned_halfway, *weights) if weights else None
    return interpolation.interp_psnr(made.frames, truth.frames, learned).mean()


def _lpips(net: str, made: ClipFeatures, truth: ClipFeatures, *networks: str) -> float:
    weights = [clip_features.weights(network) for network in networks]
    pairs = zip(*(np.array_split(side.frames, len(side.frames)) for side in (made, truth)))
    found = [features.lpips_distance(*weights, *pair, net=net).mean() for pair in pairs]
    return float(np.mean(found))


def _clip_fid(made: ClipFeatures, truth: ClipFeatures, network: str) -> float:
    sides = (side.of_frames(network)["features"] for side in (made, truth))
    return frechet.frechet_distance_of_few(*sides)


def _act_l1(made: ClipFeatures, truth: ClipFeatures, network: str) -> float:
    sides = (side.of_pieces(network)["logits"] for side in (made, truth))
    return float(frechet.act_l1(*sides).mean())


def _unit(frames: Any) -> jax.Array:
    return jnp.asarray(frames, jnp.float32) / 255.0


# {metric: (made frames, true frames, inputs) -> a number}
_OF_ARRAYS = {
    name: jax.jit(function)
    for name, function in {
        "ms_ssim": _of_frames(detail.ms_ssim),
        "sd_lua": _of_frames(detail.sd_lua),
        "sd_eq": _of_frames(detail.sd_eq),
        "face_psnr": _face_psnr,
        "e_temp": _temporal_error,
        "e_temp_gap": _temporal_gap,
        "warping_error": _warping_error,
        "flicker": _flicker,
    }.items()
}
# {metric: (made clip, true clip, names of its networks …) -> a number}
_OF_CLIPS = {
    "interp_psnr[dis]": _interp_psnr,
    "interp_psnr[slomo]": _interp_psnr,
    "clip_fid": _clip_fid,
    "act_l1_logits": _act_l1,
    "lpips_alex": functools.partial(_lpips, "alex"),
    "lpips_vgg": functools.partial(_lpips, "vgg"),
}


def obstacle(name: str, *, side: int = 0, frames: int = 0) -> str:
    """Says why clips of so many frames, so many pixels a side, lack a metric; "" if they do not.

    0 is a size that is not known yet.
    """
    if name not in registry.FURTHER:
        return f"no metric {name!r}; there are {', '.join(registry.FURTHER)}"
    metric = registry.get(name)
    if side and side < metric.side:
        return f"{name} needs frames of at least {metric.side} pixels a side, these have {side}"
    if frames and frames < metric.frames:
        return f"{name} needs clips of at least {metric.frames} frames, these have {frames}"
    try:
        for network in metric.networks:
            clip_features.weights(network)
    except UserError as error:
        return f"{name}: {error}"
    return ""


def weight_notes(names: Sequence[str]) -> list[str]:
    """Describes the weights of each network that metrics need: their SHA-256, or as untrained.

    Raises:
      UserError: as `pretrained.registry.load`.
    """
    found = dict.fromkeys(network for name in names for network in registry.get(name).networks)
    return [
        f"{network.removesuffix(_UNTRAINED)}: untrained weights, comparable with nothing else"
        if network.endswith(_UNTRAINED)
        else f"{network}: weights {networks.digest(clip_features.weights(network))[:16]}"
        for network in found
    ]


def score(
    names: Sequence[str], made: ClipFeatures, truth: ClipFeatures, inputs: Inputs
) -> dict[str, Float[np.ndarray, "1"]]:
    """Returns {name: the number} of a clip, of those of `names` that are of single clips.

    Args:
      names: of metrics.
      made: the made clip.
      truth: the true one.
      inputs: the keys of the contract that these metrics need: "target_mask" as uint8, others as
        floats.
    """
    found = {}
    for name in names:
        plain = name.removeprefix(registry.RANDOM)
        if plain in _OF_ARRAYS:
            value = _OF_ARRAYS[plain](made.frames, truth.frames, dict(inputs))
        elif plain in _OF_CLIPS:
            value = _OF_CLIPS[plain](made, truth, *registry.get(name).networks)
        else:
            continue
        found[name] = np.array([float(value)])
    return found


class ClipScorer:
    """Scores clips as they are made: each window by itself, or windows put together again.

    The flows of a clip are read anew, whole: a window's batch knows nothing of what was before it.

    Attributes:
      scored: the scores of single clips.
      sets: what the metrics of all clips need.
    """

    def __init__(self, names: Sequence[str], source: Source, crop: tuple[int, int]):
        """Checks that the dataset has what the metrics read.

        Args:
          names: of `registry.FURTHER`.
          source: the split that is evaluated.
          crop: as in `config.data`.

        Raises:
          UserError: for an unknown name, frames that are too small, a stream that is missing, or
            where joints are to be detected and MediaPipe cannot be had.
        """
        for name in names:
            if reason := obstacle(name, side=min(crop)):
                raise UserError(f"--metrics: {reason}")
        self.scored: list[Scored] = []
        self._names = tuple(names)
        self.sets = set_metrics.SetAccumulator(names)
        needs = {key for name in names for key in registry.get(name).needs}
        self._reads = [key for key in (*registry.FLOWS, "target_joints") if key in needs]
        if (
            "target_joints" in needs
        ):  # a crop moves them in units of the frames, read for their size
            self._reads.append("target")
        self._source, self._crop = source, sampling.Augmentation(crop=(crop[0], crop[1]))
        sampling.require(source, self._reads)
        if registry.DETECTED in needs:
            detector.environment()  # it is known now, not after the synthesis, if there is none
        self._open: dict[tuple[str, str, str], dict[str, Any]] = {}  # by clip and views

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
          joins: whether it goes on where the last one of its clip and views ended.
        """
        views = (window["clip"], window["source_view"], window["target_view"])
        if not joins:
            if views in self._open:
                self.finish()
            self._open[views] = {"window": window, "pair": pair, "kinds": kinds, "mask": []}
            self._open[views]["videos"] = {name: [] for name in videos}
        self._open[views]["mask"].append(mask)
        for name, parts in self._open[views]["videos"].items():
            parts.append(videos[name])

    def finish(self) -> None:
        """Scores the clips that are open; to be called when no window goes on with one of them."""
        clips, self._open = self._open, {}
        for clip in clips.values():
            self._finish(clip)

    def _finish(self, clip: Mapping[str, Any]) -> None:
        window, mask = clip["window"], np.concatenate(clip["mask"])
        for name in self._names:
            if reason := obstacle(name, side=min(mask.shape[1:3]), frames=len(mask)):
                raise UserError(f"--metrics: {reason}; --windows=clips makes them longer")
        inputs = {**self._read(window, len(mask)), "target_mask": mask}
        videos = {name: ClipFeatures(np.concatenate(v)) for name, v in clip["videos"].items()}
        truth = videos.pop("")
        for name, kind in clip["kinds"].items():
            group, place = (kind, name, clip["pair"]), (window["clip"], window["start"])
            made = videos.pop(name)
            if values := score(self._names, made, truth, inputs):
                self.scored.append(Scored(*group, *place, values, whole=True))
            self.sets.add(group, *place, made, truth)

    def _read(self, window: Mapping[str, Any], frames: int) -> dict[str, np.ndarray]:
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
