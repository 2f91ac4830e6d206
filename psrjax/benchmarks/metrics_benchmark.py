"""SSIM and PSNR of many frames, timed beside torchmetrics on the same processor.

    python -m psrjax.benchmarks.metrics_benchmark

It needs torch and torchmetrics, which psrjax does not depend on.
"""

# pyright: reportMissingImports=false
# (PyTorch is an extra.)

import json
import time
from collections.abc import Callable

import jax
import numpy as np

from psrjax.metrics import image

FRAMES, SIZE, BATCH, REPEATS = 1000, 256, 8, 3


def compare(
    *, frames: int = FRAMES, size: int = SIZE, batch: int = BATCH, repeats: int = REPEATS
) -> dict[str, float]:
    """Measures the seconds for all frames, the best of some rounds in which both take turns.

    Seconds of processor time, over all cores, tell more than wall time where other programs run.
    Both get the same 8-bit frames and scale them to [0, 1]. torchmetrics
    accumulates its means over batches; psrjax gives the scores of every frame. One batch of each is
    not timed.

    Returns:
      {"psrjax": seconds, "torchmetrics": seconds, "ratio": how many times faster psrjax is; the
      same of the processor's seconds with "_cpu"; and the mean SSIM and PSNR of each}.
    """
    random = np.random.default_rng(0)
    truth = random.integers(0, 256, (batch, size, size, 3), np.uint8)
    video = np.clip(truth + random.normal(0, 20, truth.shape), 0, 255).astype(np.uint8)
    rounds = frames // batch
    scorers = {"psrjax": _ours, "torchmetrics": _theirs}
    clocks = {"": time.perf_counter, "_cpu": time.process_time}
    best = {f"{name}{kind}": np.inf for kind in clocks for name in scorers}
    scores = {}
    for turn in range(repeats + 1):
        for name, score in scorers.items():
            starts = {kind: clock() for kind, clock in clocks.items()}
            scores[name] = score(video, truth, rounds if turn else 1)
            for kind, clock in clocks.items() if turn else ():
                took = clock() - starts[kind]
                best[f"{name}{kind}"] = min(best[f"{name}{kind}"], took)
    for kind in clocks:
        best[f"ratio{kind}"] = best[f"torchmetrics{kind}"] / best[f"psrjax{kind}"]
    told = {f"{name}_{m}": value for name, found in scores.items() for m, value in found.items()}
    return {**best, **told}


@jax.jit
def _scores(video: jax.Array, truth: jax.Array) -> dict[str, jax.Array]:
    video, truth = (x.astype(np.float32) / 255.0 for x in (video, truth))
    return {"ssim": image.ssim(video, truth), "psnr": image.psnr(video, truth)}


def _ours(video: np.ndarray, truth: np.ndarray, rounds: int) -> dict[str, float]:
    found = [jax.device_get(_scores(video, truth)) for _ in range(rounds)]
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}


def _theirs(video: np.ndarray, truth: np.ndarray, rounds: int) -> dict[str, float]:
    import torch
    from torchmetrics.image import PeakSignalNoiseRatio, StructuralSimilarityIndexMeasure

    def scaled(frames: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(frames).movedim(-1, 1).float() / 255.0

    metrics: dict[str, Callable] = {
        "ssim": StructuralSimilarityIndexMeasure(data_range=1.0),
        "psnr": PeakSignalNoiseRatio(data_range=1.0, reduction="elementwise_mean", dim=(1, 2, 3)),
    }
    with torch.inference_mode():
        for _ in range(rounds):
            pair = scaled(video), scaled(truth)
            for metric in metrics.values():
                metric.update(*pair)
        return {name: float(metric.compute()) for name, metric in metrics.items()}


if __name__ == "__main__":
    print(json.dumps(compare()))
