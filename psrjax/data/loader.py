"""Batches of a stored dataset on the devices, as a pure function of (seed, step).

The order of the pipeline matters: shuffle, repeat, random map, this process's slice, batch, and
only then the first step. So a batch depends on the seed and the step alone, not on the number of
workers or where a run was interrupted, and all processes together give the same rows.
"""

import dataclasses
import functools
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import grain
import jax
import numpy as np
from absl import flags

from psrjax.data import sampling, spec, store
from psrjax.data.source import Source
from psrjax.errors import UserError

_READ_AHEAD = 4  # batches made in advance, at least
_AT_ONCE = 32  # frames that `TrainFrames` reads at once


def open_split(data_config: Mapping[str, Any], split: str) -> Source:
    """Opens one split of the dataset of `config.data`, for direct access to clips and frames.

    Raises:
      UserError: if there is no whole dataset, or no such split.
    """
    return Source(data_config["path"], split)


def splits(data_config: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of the splits of the dataset of `config.data`."""
    return tuple(store.read_manifest(data_config["path"])["splits"])


def _open_train_split(data_config: Mapping[str, Any]) -> Source:
    return open_split(data_config, data_config.get("train_split", "train"))


def _central_crop(data_config: Mapping[str, Any]) -> sampling.Augmentation:
    return sampling.Augmentation(crop=tuple(data_config.get("crop", (0, 0))))


class TrainFrames:
    """The training frames one by one, for methods that initialise weights from them.

    Attributes:
      steady: whether all frames show the same place, none being cropped at random.
    """

    def __init__(self, data_config: Mapping[str, Any]):
        self._source = _open_train_split(data_config)
        self._policy = sampling.policy(data_config["sampling"])
        self._crop = _central_crop(data_config)
        self._views = [(clip, view) for clip in self._source.clips for view in clip.views.values()]
        self.steady = all(
            want in (0, have)
            for _, view in self._views
            for want, have in zip(self._crop.crop, view.size)
        )

    def frames(self, reads: Iterable[str], *, count: int = 0) -> Iterator[sampling.Sample]:
        """Yields frames spread evenly over all clips, view by view, some at a time.

        Args:
          reads: keys of the target.
          count: smallest number of frames; 0 is all, as where there are fewer.

        Yields:
          {key: (t …)} in wire types, cropped as in evaluation.

        Raises:
          UserError: if the dataset lacks a stream that is read.
        """
        reads = tuple(reads)
        sampling.require(self._source, reads)
        for clip, view in self._views:
            trained = sampling.trained_frames(clip, self._policy)
            share = min(-(-count // len(self._views)), trained) or trained
            places = np.linspace(0, trained - 1, share).round().astype(int).tolist()
            for first in range(0, share, _AT_ONCE):
                some = tuple(places[first : first + _AT_ONCE])
                window = sampling.Window(clip.name, view.name, view.name, 0, some[:1], some)
                sample = sampling.assemble(self._source, window, reads)
                yield sampling.augment(sample, self._crop)


class TrainBatches:
    """An endless iterator of training batches; see `train_batches`."""

    def __init__(
        self,
        examples: "_TrainExamples",
        batch: int,
        seed: int,
        start_step: int,
        sharding: jax.sharding.Sharding | None,
        workers: int,
    ):
        self._examples, self._batch, self._seed = examples, batch, seed
        self._workers, self._sharding = workers, sharding
        self._open(start_step)

    def __iter__(self) -> "TrainBatches":
        return self

    def __next__(self) -> dict[str, jax.Array]:
        local = next(self._local)
        if self._check:
            spec.check(local, self._examples.reads)
            self._check = False
        self._step += 1
        return _to_devices(local, self._batch, self._sharding)

    def get_state(self) -> dict[str, int]:
        """Returns {"next_index": the step whose batch comes next}, to store with a checkpoint."""
        return {"next_index": self._step}

    def set_state(self, state: Mapping[str, int]) -> None:
        """Goes to the step of a state; the batches that follow are those of an unbroken run."""
        self.close()
        self._open(int(state["next_index"]))

    def close(self) -> None:
        """Stops the threads or workers that read ahead."""
        self._local.close()

    def _open(self, step: int) -> None:
        self._step, self._check = step, True
        dataset = self._examples.ordered(self._seed)[jax.process_index() :: jax.process_count()]
        dataset = dataset.batch(_local_batch(self._batch), drop_remainder=True)[step:]
        self._local = _read_ahead(dataset, self._workers)


def train_batches(
    data_config: Mapping[str, Any],
    reads: Iterable[str],
    *,
    batch: int,
    seed: int,
    start_step: int,
    sharding: jax.sharding.Sharding | None = None,
) -> TrainBatches:
    """Returns endless batches of the training split, the first being that of `start_step`.

    In one epoch every view of every clip is the source once. With `data.sampling.together` the rows
    of a clip are neighbours, and their windows start at the same time.

    Args:
      data_config: `config.data`: path, train_split, crop, flip, jitter, sampling, workers.
      reads: keys of the contract; `index`, the row of the clip and source view, comes with them.
      batch: the global batch, divided evenly over the processes.
      seed: of order and augmentation.
      start_step: number of batches to leave out.
      sharding: of the batch axis; None puts the arrays on the default device.

    Returns:
      An iterator of {key: global jax.Array} in wire types, with get_state, set_state and close.

    Raises:
      UserError: if the dataset lacks a stream that is read, a clip is too short, or the batch does
        not hold whole clips where it should.
    """
    examples = _TrainExamples(
        source=_open_train_split(data_config),
        reads=tuple(reads),
        policy=sampling.policy(data_config["sampling"]),
        augmentation=dataclasses.replace(
            _central_crop(data_config),
            flip=data_config.get("flip", 0.0),
            jitter=data_config.get("jitter", 0.0),
            hue=data_config.get("hue", 0.0),
        ),
    )
    views = {len(clip.views) for clip in examples.source.clips}
    if examples.policy.together and (len(views) > 1 or batch % max(views)):
        raise UserError(
            f"config.batch: {batch} rows, but data.sampling.together wants a multiple of a clip's "
            f"views, of which there are {' or '.join(map(str, sorted(views)))}"
        )
    workers = data_config.get("workers", 0)
    return TrainBatches(examples, batch, seed, start_step, sharding, workers)


@dataclass(frozen=True)
class _TrainExamples(grain.transforms.RandomMap):
    """Maps a row number to a sample; grain seeds `rng` by the position in the epoch."""

    source: Source
    reads: tuple[str, ...]
    policy: sampling.Policy
    augmentation: sampling.Augmentation

    def __post_init__(self):
        sampling.require(self.source, self.reads)
        for clip in self.source.clips:
            sampling.starts(clip, self.policy)
            sampling.pairs(clip, self.policy)

    @functools.cached_property
    def rows(self) -> tuple[tuple[str, str], ...]:
        """(clip, source view) of each row."""
        return tuple((clip.name, view) for clip in self.source.clips for view in clip.views)

    def ordered(self, seed: int) -> grain.MapDataset:
        """Returns the endless samples, shuffled anew in each epoch."""
        if not self.policy.together:
            rows = grain.MapDataset.range(len(self.rows)).seed(seed).shuffle().repeat()
            return rows.random_map(self)
        clips = grain.MapDataset.range(len(self.source.clips)).seed(seed).shuffle().repeat()
        views = len(self.rows) // len(self.source.clips)
        return grain.MapDataset.range(sys.maxsize).map(
            _ViewsTogether(self, clips.random_map(_with_seed), views)
        )

    def random_map(
        self, row: int, rng: np.random.Generator, times: np.random.Generator | None = None
    ) -> dict[str, Any]:
        clip, view = self.rows[row]
        window = sampling.draw(self.source.clip(clip), view, self.policy, rng, times=times)
        sample = sampling.assemble(self.source, window, self.reads)
        sample = sampling.augment(sample, self.augmentation, rng)
        return {**sample, "index": np.int32(row)}


def _with_seed(clip: int, rng: np.random.Generator) -> tuple[int, int]:
    return clip, int(rng.integers(2**63))


@dataclass(frozen=True)
class _ViewsTogether(grain.transforms.Map):
    """Maps a position to a sample: each of `clips`, (number, seed), is there once for each view."""

    examples: _TrainExamples
    clips: grain.MapDataset
    views: int

    def map(self, position: int) -> dict[str, Any]:
        drawn = self.clips[position // self.views]
        assert drawn is not None  # grain's filtered elements are
        clip, seed = drawn
        view = position % self.views
        rng, times = np.random.default_rng((seed, view)), np.random.default_rng(seed)
        return self.examples.random_map(clip * self.views + view, rng, times)


@dataclass(frozen=True)
class EvaluationBatches:
    """Batches of all evaluation windows; has a length.

    Iterating gives (batch, ids): the batch as in training, with `index` and `valid`; `ids` lists
    {"clip", "source_view", "target_view", "start"} of each row of the global batch.
    """

    examples: "_EvaluationExamples"
    batch: int
    sharding: jax.sharding.Sharding | None
    workers: int

    def __len__(self) -> int:
        return -(-len(self.examples.windows) // self.batch)

    def __iter__(self) -> Iterator[tuple[dict[str, jax.Array], list[dict[str, Any]]]]:
        windows = self.examples.windows
        dataset = grain.MapDataset.range(len(self) * self.batch).map(self.examples)
        dataset = dataset.batch(_local_batch(self.batch), drop_remainder=True)
        # The processes' rows are in order, as the list of ids is.
        dataset = dataset[jax.process_index() :: jax.process_count()]
        local = _read_ahead(dataset, self.workers)
        try:
            for number, rows in enumerate(local):
                if number == 0:
                    spec.check(rows, self.examples.reads)
                first = number * self.batch
                places = (min(row, len(windows) - 1) for row in range(first, first + self.batch))
                ids = [_identity(windows[place]) for place in places]
                yield _to_devices(rows, self.batch, self.sharding), ids
        finally:
            local.close()


def evaluation_batches(
    data_config: Mapping[str, Any],
    reads: Iterable[str],
    *,
    batch: int,
    split: str,
    windows: str = "central",
    sharding: jax.sharding.Sharding | None = None,
) -> EvaluationBatches:
    """Returns the evaluation windows of a split, ordered by clip, source view, target view, start.

    Args:
      data_config: `config.data`; the crop is central.
      reads: keys of the contract; `index` (row of the list of windows) and `valid` come with them.
      batch: the global batch; the last one is padded with its last row, `valid` False there.
      split: the split's name.
      windows: "central" or "all", see `sampling.evaluation_windows`.
      sharding: as in `train_batches`.

    Raises:
      UserError: as `train_batches`.
    """
    source = open_split(data_config, split)
    reads = tuple(reads)
    sampling.require(source, reads)
    examples = _EvaluationExamples(
        source=source,
        reads=reads,
        windows=sampling.evaluation_windows(
            source, sampling.policy(data_config["sampling"]), windows
        ),
        augmentation=_central_crop(data_config),
    )
    return EvaluationBatches(examples, batch, sharding, data_config.get("workers", 0))


@dataclass(frozen=True)
class _EvaluationExamples(grain.transforms.Map):
    """Maps a row number to a sample; rows beyond the last window repeat it, not valid."""

    source: Source
    reads: tuple[str, ...]
    windows: tuple[sampling.Window, ...]
    augmentation: sampling.Augmentation

    def map(self, row: int) -> dict[str, Any]:
        place = min(row, len(self.windows) - 1)
        sample = sampling.assemble(self.source, self.windows[place], self.reads)
        sample = sampling.augment(sample, self.augmentation)
        return {**sample, "index": np.int32(place), "valid": np.bool_(place == row)}


def _identity(window: sampling.Window) -> dict[str, Any]:
    names = ("clip", "source_view", "target_view", "start")
    return {name: getattr(window, name) for name in names}


def _local_batch(batch: int) -> int:
    if batch % jax.process_count():
        raise UserError(
            f"config.batch: {batch} rows cannot be divided over {jax.process_count()} processes"
        )
    return batch // jax.process_count()


def _read_ahead(dataset: grain.MapDataset, workers: int) -> grain.DatasetIterator:
    if workers:
        if not flags.FLAGS.is_parsed():  # grain's workers read a flag; notebooks parse none
            flags.FLAGS.mark_as_parsed()
        return iter(
            dataset.to_iter_dataset(grain.ReadOptions(num_threads=1)).mp_prefetch(
                grain.MultiprocessingOptions(num_workers=workers)
            )
        )
    threads = min(8, os.cpu_count() or 1)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(_READ_AHEAD, threads))
    return iter(dataset.to_iter_dataset(options))


def _to_devices(
    local: Mapping[str, np.ndarray], batch: int, sharding: jax.sharding.Sharding | None
) -> dict[str, jax.Array]:
    if sharding is None:
        return {key: jax.device_put(rows) for key, rows in local.items()}
    return {
        key: jax.make_array_from_process_local_data(sharding, rows, (batch, *rows.shape[1:]))
        for key, rows in local.items()
    }
