"""Batches of a stored dataset on the devices, as a pure function of (seed, step).

The order of the pipeline matters: shuffle, repeat, random map, this process's slice, batch, and
only then the first step. So a batch depends on the seed and the step alone, not on the number of
workers or where a run was interrupted, and all processes together give the same rows.
"""

import dataclasses
import functools
import itertools
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grain
import jax
import numpy as np
from absl import flags, logging

from psrjax.data import sampling, spec, store
from psrjax.data.source import DamagedRecordError, Source
from psrjax.errors import UserError

_READ_AHEAD = 4  # batches made in advance, at least
_MAX_DAMAGED = 0.01  # share of a split's records that training does without; one always may be
_DRAWS = 8  # of another row for one that cannot be read, at most
_AT_ONCE = 32  # frames that `TrainFrames` reads at once


def open_split(data_config: Mapping[str, Any], split: str) -> Source:
    """Opens one split of the dataset of `config.data`, for direct access to clips and frames.

    Raises:
      UserError: if there is no whole dataset, or no such split.
    """
    return Source(data_config["path"], split)


def open_appearance(data_config: Mapping[str, Any]) -> Source | None:
    """Opens the split that gives an evaluation's source frames; None where each clip gives its own.

    Raises:
      UserError: as `open_split`.
    """
    split = data_config["sampling"].get("source_split", "")
    return open_split(data_config, split) if split else None


def splits(data_config: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of the splits of the dataset of `config.data`."""
    return tuple(store.read_manifest(data_config["path"])["splits"])


def _open_train_split(data_config: Mapping[str, Any]) -> Source:
    return open_split(data_config, data_config.get("train_split", "train"))


def train_crop(data_config: Mapping[str, Any]) -> tuple[int, int]:
    """Returns the height and width of training's frames; 0 is the stored size."""
    small, whole = (data_config.get(key, (0, 0)) for key in ("train_crop", "crop"))
    return (small[0] or whole[0], small[1] or whole[1])


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
        try:
            local = next(self._local)
        except RuntimeError as error:
            if "terminated unexpectedly" not in str(error):  # which grain says of a process
                raise
            raise UserError(
                "a process that reads data died: it was killed, perhaps for want of memory; the "
                "same command goes on from the last checkpoint, with config.data.workers=0 too"
            ) from error
        if self._check:
            spec.check(local, self._examples.reads)
            self._check = False
        self._step += 1
        return _to_devices(local, self._batch, self._sharding)

    def names(self, batch: Mapping[str, jax.Array]) -> list[str]:
        """Names the clip and the source view of each row of a batch that lies here."""
        rows = sorted(
            (shard.index[0].start or 0, number)
            for shard in batch["index"].addressable_shards
            if shard.replica_id == 0
            for number in np.asarray(shard.data).tolist()
        )
        return ["/".join(self._examples.rows[number]) for _, number in rows]

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
        share, shares = _share(self._sharding, self._batch)
        own, rows = self._examples.ordered(self._seed), self._batch // shares
        if shares > 1:
            part = _RowsOfBatches(own, self._batch, share * rows, rows)
            own = grain.MapDataset.range(sys.maxsize).map(part)
        dataset = own.batch(rows, drop_remainder=True)[step:]
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

    A record that cannot be read is told, and another row takes its place: the same one in every
    run. In one epoch every view of every clip is the source once. With `data.sampling.together` the
    rows of a clip are neighbours, and their windows start at the same time.

    Args:
      data_config: `config.data`: path, train_split, crop or train_crop, flip, jitter, sampling,
        workers.
      reads: keys of the contract; `index`, the row of the clip and source view, comes with them.
      batch: the global batch, divided evenly over the processes.
      seed: of order and augmentation.
      start_step: number of batches to leave out.
      sharding: of the batch axis; None puts the arrays on the default device.

    Returns:
      An iterator of {key: global jax.Array} in wire types, with get_state, set_state and close.

    Raises:
      UserError: if the dataset lacks a stream that is read, a clip is too short, or the batch does
        not hold whole clips where it should; (by the iterator) beyond 1 % of damaged records.
    """
    examples = _TrainExamples(
        source=_open_train_split(data_config),
        reads=tuple(reads),
        policy=sampling.policy(data_config["sampling"]),
        augmentation=sampling.Augmentation(
            crop=train_crop(data_config),
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
    damaged: set[str] = dataclasses.field(default_factory=set, compare=False)  # told of each record

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
        for draw in itertools.count(1):
            try:
                return self._sample(row, rng, times)
            except DamagedRecordError as error:
                self._tell(error)
                if draw == _DRAWS:
                    raise
                row = (row + 1) % len(self.rows)
        raise AssertionError

    def _tell(self, error: DamagedRecordError) -> None:
        """Logs a damaged record once. Raises UserError if there are too many of them."""
        if str(error) in self.damaged:
            return
        self.damaged.add(str(error))
        count, of = len(self.damaged), self.source.records
        if count > max(1, _MAX_DAMAGED * of):
            raise UserError(
                f"{count} of {of} records cannot be read, more than training does without; "
                f"`psrjax data check {self.source.directory}` lists them; the last: {error}"
            ) from error
        logging.warning("left out, another takes its place (%d of %d): %s", count, of, error)

    def _sample(
        self, row: int, rng: np.random.Generator, times: np.random.Generator | None
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
class _RowsOfBatches(grain.transforms.Map):
    """Maps a position to a sample of `rows` neighbouring rows, from `first` on, of each batch."""

    samples: grain.MapDataset
    batch: int
    first: int
    rows: int

    def map(self, position: int) -> Any:
        step, row = divmod(position, self.rows)
        return self.samples[step * self.batch + self.first + row]


@dataclass(frozen=True)
class EvaluationBatches:
    """Batches of evaluation windows; has a length.

    Iterating gives (batch, ids): the batch as in training, with `index` and `valid`; `ids` lists
    {"clip", "source_view", "target_view", "start"} of each row.
    """

    examples: "_EvaluationExamples"
    batch: int
    sharding: jax.sharding.Sharding | None
    workers: int

    def __len__(self) -> int:
        return len(self.examples.rows) // self.batch

    def __iter__(self) -> Iterator[tuple[dict[str, jax.Array], list[dict[str, Any]]]]:
        dataset = grain.MapDataset.range(len(self.examples.rows)).map(self.examples)
        local = _read_ahead(dataset.batch(self.batch, drop_remainder=True), self.workers)
        try:
            for number, rows in enumerate(local):
                if number == 0:
                    spec.check(rows, self.examples.reads)
                ids = [_identity(self.examples.windows[place]) for place in rows["index"]]
                yield jax.device_put(rows, self.sharding), ids
        finally:
            local.close()


def evaluation_batches(
    data_config: Mapping[str, Any],
    reads: Iterable[str],
    *,
    batch: int,
    split: str,
    windows: str = "central",
    in_a_row: bool = False,
    limit: int = 0,
    share: tuple[int, int] = (0, 1),
    sharding: jax.sharding.Sharding | None = None,
) -> EvaluationBatches:
    """Returns the evaluation windows of a split, ordered by clip, source view, target view, start.

    Args:
      data_config: `config.data`; the crop is central.
      reads: keys of the contract; `index` (row of the list of all windows) and `valid` come too.
      batch: rows of a batch; where windows are missing one is repeated, `valid` False there.
      split: the split's name.
      windows: "central" or "all", see `sampling.evaluation_windows`.
      in_a_row: whether each row of the batches holds all windows of a clip and pair of views, one
        after the other: as many begin together as a batch has rows.
      limit: the number of windows; 0 is all of them.
      share: (number, count): which of so many shares; those of a clip and pair stay together.
      sharding: of the rows, on devices of this process; None is the default device.

    Raises:
      UserError: as `train_batches`.
    """
    source = open_split(data_config, split)
    reads = tuple(reads)
    sampling.require(source, reads)
    policy = sampling.policy(data_config["sampling"])
    appearance = open_appearance(data_config)
    found = sampling.evaluation_windows(source, policy, windows, appearance=appearance)
    groups = _groups(found[: limit or None], *share)
    examples = _EvaluationExamples(
        source=source,
        appearance=appearance,
        reads=reads,
        windows=found,
        rows=_side_by_side(groups, batch) if in_a_row else _padded(sum(groups, ()), batch),
        augmentation=_central_crop(data_config),
    )
    return EvaluationBatches(examples, batch, sharding, data_config.get("workers", 0))


_Rows = tuple[tuple[int, bool], ...]  # (number of a window, whether it is there to be scored)


def _groups(windows: Sequence[sampling.Window], number: int, count: int) -> list[tuple[int, ...]]:
    """Returns the windows of each clip and pair of views that are in a share, by their numbers."""
    pair = lambda place: _view_pair(windows[place])  # noqa: E731
    every = [tuple(places) for _, places in itertools.groupby(range(len(windows)), pair)]
    middle = lambda places: (places[0] + places[-1] + 1) / 2 / len(windows)  # noqa: E731
    return [places for places in every if int(middle(places) * count) == number]


def _padded(places: Sequence[int], batch: int) -> _Rows:
    lacking = -len(places) % batch
    repeated = [(place, False) for place in places[-1:] for _ in range(lacking)]
    return (*((place, True) for place in places), *repeated)


def _side_by_side(groups: Sequence[tuple[int, ...]], batch: int) -> _Rows:
    """Returns the rows of batches through which each group goes in a row of its own."""
    rows = []
    for first in range(0, len(groups), batch):
        together = groups[first : first + batch]
        for step in range(max(map(len, together))):
            rows += [(own[min(step, len(own) - 1)], step < len(own)) for own in together]
            rows += [(together[-1][-1], False)] * (batch - len(together))
    return tuple(rows)


@dataclass(frozen=True)
class _EvaluationExamples(grain.transforms.Map):
    """Maps a row of the batches to a sample."""

    source: Source
    appearance: Source | None
    reads: tuple[str, ...]
    windows: tuple[sampling.Window, ...]
    rows: _Rows
    augmentation: sampling.Augmentation

    def map(self, row: int) -> dict[str, Any]:
        place, valid = self.rows[row]
        window = self.windows[place]
        sample = sampling.assemble(self.source, window, self.reads, appearance=self.appearance)
        sample = sampling.augment(sample, self.augmentation)
        return {**sample, "index": np.int32(place), "valid": np.bool_(valid)}


def _view_pair(window: sampling.Window) -> tuple[str, str, str]:
    return window.clip, window.source_view, window.target_view


def _identity(window: sampling.Window) -> dict[str, Any]:
    names = ("clip", "source_view", "target_view", "start")
    return {name: getattr(window, name) for name in names}


def _share(sharding: jax.sharding.Sharding | None, batch: int) -> tuple[int, int]:
    """Returns which of how many equal shares of a batch's rows this process reads.

    Processes whose devices hold the same rows, as those that cut frames by height, read the same.

    Raises:
      UserError: if the rows cannot be shared so.
    """
    if sharding is None:
        holders = [{process} for process in range(jax.process_count())]
        own = holders[jax.process_index()]
    else:
        rows: dict[int, set[int]] = {}
        for device, (index,) in sharding.devices_indices_map((batch,)).items():
            rows.setdefault(device.process_index, set()).update(range(*index.indices(batch)))
        holders = [set(each) for each in dict.fromkeys(map(frozenset, rows.values()))]
        own = rows[jax.process_index()]
        if sum(map(len, holders)) != batch or len({*map(len, holders)}) > 1:
            raise UserError(
                f"config.mesh: the {len(rows)} processes do not hold equal shares of the rows: let "
                "fsdp times space divide, or be a multiple of, the devices of a process"
            )
    if batch % len(holders):
        raise UserError(
            f"config.batch: {batch} rows cannot be divided over {len(holders)} processes"
        )
    return holders.index(own), len(holders)


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
