"""Scores a trained method on the clips it has not seen, beside the baselines it must beat."""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from tqdm.auto import tqdm

import psrjax
from psrjax.data import loader, spec
from psrjax.errors import UserError
from psrjax.methods.base import Method
from psrjax.metrics import image
from psrjax.training import scores

METRICS = ("ssim", "ssim_uniform7", "psnr", "m_ssim_zero", "m_psnr_zero", "m_ssim_in", "m_psnr_in")
TRUTH, SOURCE = "truth", "source"  # the labels of the frames that are given, in a comparison


@dataclasses.dataclass(frozen=True)
class Sample:
    """One evaluated window: where it is from, and {label: (t h w 3) uint8 frames}."""

    clip: str
    source_view: str
    target_view: str
    start: int
    videos: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The rows of `results.json`, and the first windows of the split to look at."""

    rows: list[dict[str, Any]]
    samples: list[Sample]


def evaluate(
    method: Method,
    variables: Mapping[str, Any],
    config: Any,
    *,
    split: str = "",
    windows: str = "central",
    limit: int = 0,
    samples: int = 0,
    show_progress: bool = False,
) -> Evaluation:
    """Synthesizes every evaluation window of a split and scores it against the truth.

    The scores are taken of frames rounded to 8 bits, averaged over all frames of a pair of views
    (a mean of per-frame scores, not a score of means); a frame without a person is left out of the
    masked metrics and counted. The windows, and their order, depend on nothing but the data set.

    Args:
      method: as `psrjax.methods.base.build` gives it, at the stage to be scored.
      variables: its parameters and statistics.
      config: the run's config; `data` and `batch` are read.
      split: the split's name; by default `config.data.eval_split`.
      windows: "central", one of each clip and pair of views, or "all" of every clip.
      limit: how many windows to score at most; 0 is all of them.
      samples: how many windows to keep frames of.
      show_progress: whether to show a progress bar.

    Returns:
      Rows {"name", "split", "pair", "metrics"}: baselines first, then the method's steps in their
      order; pair "all" (the mean of all frames) and each pair "source->target". Beside these each
      row says its "kind" ("baseline" or "step") and "about": what the numbers were taken of.

    Raises:
      UserError: if the split holds no window, or the data set lacks a key that is read.
    """
    split = split or config.data.eval_split
    reads = tuple(dict.fromkeys((*method.reads, *method.baseline_reads, "target_mask")))
    batches = loader.evaluation_batches(
        config.data, reads, batch=config.batch, split=split, windows=windows
    )
    score = _scorer(method)
    totals, kept, about = _Totals(), [], {}
    for batch, ids in tqdm(batches, f"evaluate {split}", unit="batch", disable=not show_progress):
        about = about or _about(method, split, batch)
        videos, found = score(variables, batch)
        valid = np.flatnonzero(np.asarray(batch["valid"]))
        valid = valid[: limit - totals.windows] if limit else valid
        totals.add(found, ids, valid)
        for i in valid[: samples - len(kept)]:
            frames = {label: np.asarray(video[i]) for label, video in videos.items()}
            kept.append(Sample(**_identity(ids[i]), videos=frames))
        if limit and totals.windows >= limit:
            break
    if totals.windows == 0:
        raise UserError(f"{config.data.path}: no window to evaluate in split {split!r}")
    return Evaluation(totals.rows(about), kept)


def _about(method: Method, split: str, batch: Mapping) -> dict[str, Any]:
    _, frames, height, width, _ = batch["target"].shape
    return {
        "split": split,
        "window_frames": frames,
        "height": height,
        "width": width,
        "frames": "rounded to 8 bits, data range 255",
        "stage": method.stage,
        "psrjax": psrjax.__version__,
    }


def _identity(window: Mapping[str, Any]) -> dict[str, Any]:
    return {key: window[key] for key in ("clip", "source_view", "target_view", "start")}


def pair_name(source_view: str, target_view: str) -> str:
    """ "cam1", "cam02" -> "1->2"; views that are not numbered keep their names."""
    numbers = [re.fullmatch(r"\D*?0*(\d+)", view) for view in (source_view, target_view)]
    names = [n[1] for n in numbers] if all(numbers) else [source_view, target_view]
    return "->".join(names)


@functools.lru_cache(maxsize=4)  # clip after clip is synthesized by one compiled program
def make_synthesizer(method: Method, *, baselines: bool) -> Callable:
    """The compiled synthesis of one window.

    Returns:
      A function (variables, wire batch, carry) -> {"steps", "baselines", "carry"}, the first two as
      {label: (b t h w 3) uint8}; carry None starts a new clip. A method without named steps has
      one, named after its stage.
    """
    labels: dict[str, list[str]] = {}  # filled by tracing: a compiled dict comes back sorted

    def start(variables: Mapping, batch: Mapping) -> Any:
        return method.apply(variables, spec.decode(batch), method="start")

    def synthesize(variables: Mapping, batch: Mapping, carry: Any) -> tuple[dict, Any]:
        batch = spec.decode(batch)
        made, carry = method.apply(variables, batch, carry, method="synthesize")
        steps = made.get("steps") or {method.stage: made["video"]}
        simple = method.apply(variables, batch, method="baselines") if baselines else {}
        videos = {"steps": steps, "baselines": simple}
        labels.update({kind: list(named) for kind, named in videos.items()})
        return jax.tree.map(spec.encode_colors, videos), carry

    start, synthesize = jax.jit(start), jax.jit(synthesize)

    def run(variables: Mapping, batch: Mapping, carry: Any) -> dict[str, Any]:
        carry = start(variables, batch) if carry is None else carry
        videos, carry = synthesize(variables, batch, carry)
        ordered = {kind: {name: videos[kind][name] for name in labels[kind]} for kind in videos}
        return {**ordered, "carry": carry}

    return run


def _scorer(method: Method) -> Callable:
    """A function (variables, wire batch) -> ({label: video}, {kind: {label: {metric: (b, t)}}})."""
    synthesize = make_synthesizer(method, baselines=True)

    def score(*videos: Any) -> dict[str, np.ndarray]:
        found = image.frame_scores(*videos)  # compiled, so its keys come back sorted
        return {metric: np.asarray(found[metric]) for metric in METRICS}

    def run(variables: Mapping, batch: Mapping) -> tuple[dict, dict]:
        made = synthesize(variables, batch, None)
        truth, mask = batch["target"], batch["target_mask"]
        found = {
            kind: {name: score(video, truth, mask) for name, video in made[key].items()}
            for kind, key in ((scores.BASELINE, "baselines"), (scores.STEP, "steps"))
        }
        videos = made["baselines"] | made["steps"]
        return {SOURCE: batch["source"], **videos, TRUTH: truth}, found

    return run


class _Totals:
    """Per-frame scores by (kind, name, pair)."""

    def __init__(self) -> None:
        self.windows = 0
        self._clips: set[str] = set()
        self._values: dict[tuple[str, str, str], dict[str, list[np.ndarray]]] = {}

    def add(self, found: Mapping, ids: Sequence[Mapping], places: Iterable[int]) -> None:
        """Adds {kind: {name: {metric: (b, t)}}} of the windows at `places` of a batch."""
        for place in places:
            window = ids[place]
            self.windows += 1
            self._clips.add(window["clip"])
            pair = pair_name(window["source_view"], window["target_view"])
            for kind, names in found.items():
                for name, metrics in names.items():
                    self._keep((kind, name, "all"), metrics, place)
                    self._keep((kind, name, pair), metrics, place)

    def _keep(self, key: tuple[str, str, str], metrics: Mapping, place: int) -> None:
        values = self._values.setdefault(key, {metric: [] for metric in metrics})
        for metric, scored in metrics.items():
            values[metric].append(scored[place])

    def rows(self, about: Mapping[str, Any]) -> list[dict[str, Any]]:
        """One row for each name and pair; pair "all" first, baselines before steps."""
        about = {**about, "clips": len(self._clips), "windows": self.windows}
        rows = []
        for (kind, name, pair), metrics in self._values.items():
            frames = {metric: np.concatenate(values) for metric, values in metrics.items()}
            empty = max(int(np.isnan(values).sum()) for values in frames.values())
            rows.append(
                {
                    "name": name,
                    "kind": kind,
                    "split": about["split"],
                    "pair": pair,
                    "metrics": {metric: _mean(values) for metric, values in frames.items()},
                    "about": {**about, "frames_without_person": empty},
                }
            )
        return sorted(rows, key=lambda row: row["pair"] != "all")


def _mean(values: np.ndarray) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean(dtype=np.float64)) if present.size else 0.0


def grid(videos: Mapping[str, np.ndarray], *, columns: int = 8) -> np.ndarray:
    """A picture of a comparison: one row for each label, `columns` frames spread over its time.

    Args:
      videos: {label: (t h w 3) uint8}; the last frame of a shorter one is repeated.
      columns: how many frames to show, at most.

    Returns:
      (rows * h, columns * w, 3) uint8.
    """
    length = max(len(video) for video in videos.values())
    chosen = np.unique(np.linspace(0, length - 1, min(columns, length)).round().astype(int))
    rows = [np.concatenate(list(v[np.minimum(chosen, len(v) - 1)]), 1) for v in videos.values()]
    return np.concatenate(rows, 0)
