"""Pose metrics: distances of joints detected in made frames from those of the true frames.

Joints are (n j 3): x and y in pixels and a confidence; both sides must come from one detector. A
joint is detected where its confidence reaches a threshold. Counts are of single frames and add up
over frames, devices and hosts; `scores` turns their sums into the metrics.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from psrjax.errors import UserError

PCK = (0.2, 0.05, 0.01)
HIT = 0.2  # of the person's size: a joint detected in both within it counts as found
NORMS = ("bbox", "torso", "head", "image")
_NECK, _HIP, _NOSE, _TOP = 1, 8, 0, 25  # of the contract's joints

Joints = Float[Array, "n j 3"]
Counts = Mapping[str, Float[Array, "*n"]]


def counts(
    made: Joints,
    truth: Float[Array, "_ _ 3"],
    *,
    threshold: float = 0.1,
    norm: str = "bbox",
    size: tuple[int, int] | None = None,
) -> Counts:
    """Computes the counts that pose metrics are made of, for each frame: {name: (n,)}.

    Args:
      made: joints detected in the made frames, pixels.
      truth: those of the true frames.
      threshold: of the confidence (0.1 for OpenPose, 0.3 for RTMPose).
      norm: the length that PCK is relative to: "bbox", the longer side of the box about the true
        joints (Yang and Ramanan 2013); "torso", neck to mid-hip; "head", twice nose to head top;
        "image", the longer side of `size`. A frame whose true joints do not give it is left out.
      size: (height, width) of the frames, for norm "image".

    Raises:
      UserError: for an unknown norm, or "image" without a size, or unequal numbers of joints.
    """
    if made.shape != truth.shape:
        raise UserError(
            f"the made joints have shape {made.shape}, the true ones {truth.shape}: give joints of "
            "the same frames from the same detector"
        )
    seen_made, seen = made[..., 2] >= threshold, truth[..., 2] >= threshold
    length = _length(truth, seen, norm, size)
    known = jnp.isfinite(length) & (length > 0)
    length = jnp.where(known, length, 1.0)
    both = seen & seen_made
    gaps = made[..., :2] - truth[..., :2]
    distance = jnp.sqrt(jnp.square(gaps).sum(-1))
    measured = both & known[:, None]
    close = {limit: measured & (distance <= limit * length[:, None]) for limit in PCK}
    hits = close[HIT]
    shares = jnp.where(seen.any(-1), (seen & ~seen_made).sum(-1) / jnp.maximum(seen.sum(-1), 1), 0)
    found = {
        "distance": jnp.where(both, distance, 0.0).sum(-1),
        "distance_l1": jnp.where(both[..., None], jnp.abs(gaps), 0.0).sum((-2, -1)),
        "both": both.sum(-1),
        "measured": measured.sum(-1),
        "true_positive": hits.sum(-1),
        "false_positive": (seen_made & ~hits & known[:, None]).sum(-1),
        "false_negative": (seen & ~seen_made & known[:, None]).sum(-1),
        "missing_share": shares,
        "frames": seen.any(-1),
    }
    found |= {f"within_{limit}": mask.sum(-1) for limit, mask in close.items()}
    return {name: value.astype(jnp.float32) for name, value in found.items()}


def scores(total: Mapping[str, Any]) -> dict[str, float]:
    """Computes the pose metrics from counts summed over frames; NaN if nothing was detected.

    "kp_l2": mean Euclidean distance of joints detected in both, pixels. In percent, as PSR-Net's
    Table 4 prints them: "pck@0.2" and so on, the share of these within 0.2 of the person's size;
    "precision" TP/(TP+FP), "recall" TP/(TP+FN) and "f1", 2PR/(P+R) of the totals: TP detected in
    both and within 0.2, FP detected in the made frame only or too far, FN missing in the made
    frame. "akd": mean |difference| over joints and coordinates, pixels; "mkr": share of the true
    joints that the made frame misses, from 0 to 1, mean of frames (Siarohin et al. 2019).
    """
    tp, fp, fn = (float(total[f"{kind}"]) for kind in _KINDS)
    precision, recall = 100 * _ratio(tp, tp + fp), 100 * _ratio(tp, tp + fn)
    both = float(total["both"])
    return {
        "kp_l2": _ratio(float(total["distance"]), both),
        **{
            f"pck@{limit}": 100 * _ratio(float(total[f"within_{limit}"]), float(total["measured"]))
            for limit in PCK
        },
        "precision": precision,
        "recall": recall,
        "f1": _ratio(2 * precision * recall, precision + recall),
        "akd": _ratio(float(total["distance_l1"]), 2 * both),
        "mkr": _ratio(float(total["missing_share"]), float(total["frames"])),
    }


_KINDS = ("true_positive", "false_positive", "false_negative")


def _length(truth: Joints, seen: Array, norm: str, size: tuple[int, int] | None) -> Array:
    if norm == "image":
        if size is None:
            raise UserError("norm 'image' needs the frames' size")
        return jnp.full(truth.shape[0], float(max(size)))
    if norm == "bbox":
        places = truth[..., :2]
        low = jnp.where(seen[..., None], places, jnp.inf).min(-2)
        high = jnp.where(seen[..., None], places, -jnp.inf).max(-2)
        return (high - low).max(-1)
    if norm not in NORMS:
        raise UserError(f"no norm {norm!r} of key points; there are {', '.join(NORMS)}")
    first, second, factor = (_NECK, _HIP, 1.0) if norm == "torso" else (_NOSE, _TOP, 2.0)
    across = truth[:, first, :2] - truth[:, second, :2]
    length = factor * jnp.sqrt(jnp.square(across).sum(-1))
    return jnp.where(seen[:, first] & seen[:, second], length, jnp.nan)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")
