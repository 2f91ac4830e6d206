"""Times data: frames decoded from a video and prepared, clips loaded from a dataset.

A dataset that lies in the machine's cache does not show a slow disk: time one larger than it.
"""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from psrjax.data import codec, loader, sampling, store, video
from psrjax.prepare.monocular import pipeline
from psrjax.runtime import machine
from psrjax.synthetic import dataset

_SECONDS = 5.0
_WARM = 8  # batches that were read ahead do not count
_REPEATS = 8  # clips of a prepared video's set, so that a window has some choice


def measure(
    config: Any, reads: tuple[str, ...], *, batch: int, sizes: dict[str, int], joints: str
) -> dict[str, Any]:
    """Times the loader on `config.data.path`; of a video file also decoding and preparation.

    Args:
      config: of the stage; `data.path` is a stored dataset, "synthetic", or a video file, which is
        prepared (in this process) and loaded from a temporary set.
      reads: the keys to load.
      batch: clips of a batch.
      sizes: of the contract's axes in a clip.
      joints: where a video's joints come from (`psrjax prepare --joints`).

    Returns:
      Rates a second: "decoded" and "prepared" frames of a video, "loaded" frames and "clips", and
      "clips_per_core": clips a second of processor time, which others' load does not change much.

    Raises:
      UserError: as the loader and the preparation do.
    """
    data = config.data.copy_and_resolve_references()
    with data.unlocked():
        data.crop = (sizes["h"], sizes["w"])
        data.sampling.k, data.sampling.t = sizes["k"], sizes["t"] - data.sampling.history
    if data.path == dataset.SYNTHETIC or not Path(data.path).is_file():
        return _load(data, reads, batch=batch, seed=config.seed)
    with tempfile.TemporaryDirectory(prefix="psrjax-bench-") as folder:
        rates = _prepare(data.path, f"{folder}/set", (sizes["h"], sizes["w"]), joints)
        with data.unlocked():
            data.path = f"{folder}/set"
        return rates | _load(data, reads, batch=batch, seed=config.seed)


def _prepare(path: str, to: str, size: tuple[int, int], joints: str) -> dict[str, float]:
    """Decodes a video, prepares it, and stores it some times over."""
    start = time.perf_counter()
    count = sum(1 for _ in video.decode(path))
    decoded = count / (time.perf_counter() - start)
    start = time.perf_counter()
    clip = pipeline.VideoClip(path, "clip", joints=joints)
    prepared = pipeline.prepare_clip(clip, pipeline.PreparationOptions(size=size))
    views = [codec.encode(view) for view in prepared.views(prepared.pieces[0])]
    seconds = time.perf_counter() - start
    copies = (
        codec.restored(f"clip{i}", view.view, view.start + shift, view.streams, example)
        for i in range(_REPEATS)
        for view in views
        for shift, example in zip(range(0, view.frames, codec.SEGMENT), view.examples, strict=True)
    )
    store.write(to, {store.TRAIN_SPLIT: copies})
    return {"decoded": decoded, "prepared": len(prepared.frames) / seconds}


def _load(data: Any, reads: tuple[str, ...], *, batch: int, seed: int) -> dict[str, Any]:
    """The training loader, alone on the machine."""
    located = dataset.resolve_path(data)
    batches = loader.train_batches(located, reads, batch=batch, seed=seed, start_step=0)
    try:
        for _ in range(_WARM):
            jax.block_until_ready(next(batches))
        start, busy, count = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - start < _SECONDS or not count:
            jax.block_until_ready(next(batches))
            count += 1
        seconds, busy = time.perf_counter() - start, time.process_time() - busy
    finally:
        batches.close()
    how, clips = sampling.policy(data.sampling), batch * count
    found = {
        "loaded": clips * (how.k + how.t + how.history) / seconds,
        "clips": clips / seconds,
        "batches": count,
        "cores": machine.cores(),
        "bytes": _stored_bytes(located["path"]),
        "peak_memory_gib": machine.peak_memory_gib(),
    }
    alone = not data.workers  # the time of workers is not this process's
    return found | ({"clips_per_core": clips / busy} if alone else {})


def _stored_bytes(directory: str) -> int:
    return sum(entry.stat().st_size for entry in os.scandir(directory) if entry.is_file())
