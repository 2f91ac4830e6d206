"""A batch is a function of (seed, step): not of workers, processes, or where a run was cut off."""

import itertools
import shutil

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from psrjax.data import loader, spec
from psrjax.errors import UserError

READS = ("source", "target", "target_prior", "target_depth", "target_joints")


@pytest.fixture
def config(dataset_folder):
    return ConfigDict(
        {
            "path": str(dataset_folder),
            "synthetic": {},
            "train_split": "train",
            "eval_split": "test",
            "crop": (16, 20),
            "train_crop": (0, 0),
            "flip": 0.5,
            "jitter": 0.3,
            "sampling": {"source": "same_time", "k": 4, "t": 4, "gap_seconds": 0.0, "history": 0},
            "workers": 0,
        }
    ).lock()


def batches(config, count, *, batch=4, seed=0, start_step=0, **options):
    """`count` training batches as host arrays."""
    iterator = loader.train_batches(
        config, READS, batch=batch, seed=seed, start_step=start_step, **options
    )
    try:
        return [jax.tree.map(np.asarray, next(iterator)) for _ in range(count)]
    finally:
        iterator.close()


def assert_same(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def test_a_batch_satisfies_the_contract(config):
    (batch,) = batches(config, 1)
    assert spec.check(batch, READS) == {"b": 4, "k": 4, "t": 4, "h": 16, "w": 20}


def test_training_crops_are_at_random_places_and_evaluation_keeps_its_own(config):
    config.update({"train_crop": (8, 12), "flip": 0.0, "jitter": 0.0})
    (batch,) = batches(config, 1, batch=8)
    assert spec.check(batch, READS) == {"b": 8, "k": 4, "t": 4, "h": 8, "w": 12}
    columns = batch["target"][:, 0, 0, :, 2]
    assert len(set(columns[:, 0].tolist())) > 3  # a place for each row
    assert (columns == columns[:, :1] + np.arange(12)).all()
    batch, _ = next(iter(evaluation(config, batch=4)))
    assert spec.check({key: np.asarray(batch[key]) for key in READS}, READS)["w"] == 20


def test_the_rows_of_a_batch_have_names(config):
    rows = [(clip.name, view) for clip in loader.open_split(config, "train").clips
            for view in clip.views]  # fmt: skip
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))
    for sharding in (None, NamedSharding(mesh, PartitionSpec("data"))):
        iterator = loader.train_batches(
            config, READS, batch=4, seed=0, start_step=0, sharding=sharding
        )
        batch = next(iterator)
        told = ["/".join(rows[number]) for number in np.asarray(batch["index"])]
        assert iterator.names(batch) == told
        iterator.close()


def test_the_same_seed_gives_the_same_batches_and_another_seed_others(config):
    assert_same(batches(config, 3), batches(config, 3))
    first, other = batches(config, 1)[0], batches(config, 1, seed=1)[0]
    assert any((first[key] != other[key]).any() for key in first)


def test_any_step_can_be_started_at(config):
    whole = batches(config, 7)
    for step in (1, 3, 6):  # 9 rows an epoch: steps 3 and 6 lie in later epochs
        assert_same(batches(config, 7 - step, start_step=step), whole[step:])


def test_the_state_is_the_step_and_brings_its_batches_back(config):
    whole = batches(config, 5)
    iterator = loader.train_batches(config, READS, batch=4, seed=0, start_step=2)
    assert iterator.get_state() == {"next_index": 2}
    next(iterator)
    state = iterator.get_state()
    next(iterator)
    iterator.set_state(state)
    assert state == {"next_index": 3}
    assert_same([jax.tree.map(np.asarray, next(iterator)) for _ in range(2)], whole[3:])
    iterator.close()


def test_workers_change_nothing(config):
    alone = batches(config, 4, start_step=1)
    with config.unlocked():
        config.workers = 2
    assert_same(batches(config, 4, start_step=1), alone)


def test_a_worker_that_is_killed_ends_the_run_in_one_line(config, monkeypatch):
    iterator = loader.train_batches(config, READS, batch=4, seed=0, start_step=0)

    class Dead:
        """What grain's iterator raises, word for word, when a worker of it got SIGKILL."""

        def __next__(self):
            raise RuntimeError("Worker process was terminated unexpectedly with exit code -9.")

    iterator.close()
    monkeypatch.setattr(iterator, "_local", Dead())
    with pytest.raises(UserError, match="a process that reads data died"):
        next(iterator)


def test_the_rows_of_two_processes_one_after_the_other_are_the_batch(config, monkeypatch):
    whole = batches(config, 5)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    slices = []
    for process in range(2):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        slices.append(batches(config, 5))
    for step, expected in enumerate(whole):
        parts = [part[step] for part in slices]
        assert all(len(part["index"]) == 2 for part in parts)
        for key in expected:
            rows = np.concatenate([part[key] for part in parts])
            np.testing.assert_array_equal(rows, expected[key], err_msg=key)


def test_every_view_is_the_source_once_in_an_epoch_and_epochs_differ(config):
    rows = np.concatenate([batch["index"] for batch in batches(config, 9, batch=3)])
    epochs = rows.reshape(3, 9)
    assert all(sorted(epoch) == list(range(9)) for epoch in epochs.tolist())
    assert len(set(map(tuple, epochs.tolist()))) > 1


@pytest.fixture
def together(config):
    """Whole clips of three views, the frames as they are stored."""
    with config.unlocked():
        config.update({"crop": (0, 0), "flip": 0.0, "jitter": 0.0})
        config.sampling.together = True
    return config


def test_views_together_are_the_sources_of_one_clip_at_the_same_time(together):
    """A target at the same time is what another row has as its source."""
    epochs = []
    for batch in batches(together, 6, batch=3):
        first = batch["index"][0]
        assert first % 3 == 0 and batch["index"].tolist() == [first, first + 1, first + 2]
        epochs.append(first // 3)
        for row in range(3):
            sources = [batch["source"][other] for other in range(3) if other != row]
            assert sum((batch["target"][row] == source).all() for source in sources) == 1
    assert sorted(epochs[:3]) == sorted(epochs[3:]) == [0, 1, 2]


def test_views_together_keep_the_promises_of_batches(together, monkeypatch):
    whole = batches(together, 5, batch=6)
    assert_same(batches(together, 3, batch=6, start_step=2), whole[2:])
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for process in range(2):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        for part, expected in zip(batches(together, 5, batch=6), whole, strict=True):
            own = slice(3 * process, 3 * process + 3)
            np.testing.assert_array_equal(part["index"], expected["index"][own])
            np.testing.assert_array_equal(part["target"], expected["target"][own])


def test_a_batch_that_cuts_a_clip_in_two_is_refused(together):
    with pytest.raises(UserError, match="config.batch: 4 rows, .* multiple of a clip's views.* 3"):
        batches(together, 1)


def test_batches_are_global_arrays_with_the_given_sharding(config):
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    iterator = loader.train_batches(config, READS, batch=4, seed=0, start_step=0, sharding=sharding)
    batch = next(iterator)
    iterator.close()
    assert all(array.sharding == sharding for array in batch.values())
    assert_same([jax.tree.map(np.asarray, batch)], batches(config, 1))


def evaluation(config, **options):
    return loader.evaluation_batches(config, READS, split="test", **options)


def test_evaluation_visits_every_ordered_pair_once_and_pads_the_last_batch(config):
    found = [(jax.tree.map(np.asarray, batch), ids) for batch, ids in evaluation(config, batch=4)]
    assert len(found) == len(evaluation(config, batch=4)) == 2
    valid = np.concatenate([batch["valid"] for batch, _ in found])
    assert valid.tolist() == [True] * 6 + [False] * 2
    ids = [row for _, of_batch in found for row in of_batch]
    pairs = [(row["source_view"], row["target_view"]) for row, real in zip(ids, valid) if real]
    assert pairs == list(itertools.permutations(["cam1", "cam2", "cam3"], 2))
    assert all(row["clip"] == "d" and row["start"] == 4 for row in ids)
    for batch, of_batch in found:
        for source, target, row in zip(batch["source"], batch["target"], of_batch):
            assert source[0, 0, 0, 0] == int(row["source_view"][-1])
            assert target[:, 0, 0].tolist() == [
                [int(row["target_view"][-1]), row["start"] + frame, 6] for frame in range(4)
            ]


def windows_of(batches):
    """The valid windows of evaluation batches, in order: (clip and views, start)."""
    found = []
    for batch, ids in batches:
        for row, valid in zip(ids, np.asarray(batch["valid"]), strict=True):
            if valid:
                views = (row["clip"], row["source_view"], row["target_view"])
                found.append((views, row["start"]))
    return found


@pytest.mark.parametrize("count", [2, 4, 7])
def test_shares_of_the_evaluation_are_its_windows_in_order_and_those_of_a_clip_together(
    config, count
):
    options = {"batch": 4, "windows": "all"}
    whole = windows_of(evaluation(config, **options))
    shares = [
        windows_of(evaluation(config, **options, share=(number, count))) for number in range(count)
    ]
    assert sum(shares, []) == whole and len(whole) > 6
    owners = [{views for views, _ in share} for share in shares]
    assert sum(map(len, owners)) == len(set().union(*owners))  # no clip and views in two of them


def test_a_limit_takes_the_first_windows_whoever_shares_them(config):
    whole = windows_of(evaluation(config, batch=2, windows="all"))
    assert windows_of(evaluation(config, batch=2, windows="all", limit=5)) == whole[:5]
    shares = (
        windows_of(evaluation(config, batch=2, windows="all", limit=5, share=(number, 2)))
        for number in range(2)
    )
    assert sum(shares, []) == whole[:5]


@pytest.mark.parametrize("batch", [1, 4])
def test_in_a_row_each_row_of_the_batches_goes_through_one_clip_and_the_next(config, batch):
    found = list(evaluation(config, batch=batch, windows="all", in_a_row=True))
    whole = windows_of(evaluation(config, batch=1, windows="all"))
    assert sorted(windows_of(found)) == sorted(whole)
    by_row = [windows_of((batch, ids) for batch, ids in found)] if batch == 1 else []
    assert by_row in ([], [whole])
    starts = {}
    for rows, ids in found:
        views = [(row["clip"], row["source_view"], row["target_view"]) for row in ids]
        for place, (row, valid) in enumerate(zip(ids, np.asarray(rows["valid"]), strict=True)):
            if valid:
                starts.setdefault((views[place], place), []).append(row["start"])
    assert len(starts) == len({views for views, _ in starts})  # each stays in its row
    assert all(each == sorted(set(each)) for each in starts.values())


def test_processes_whose_devices_hold_the_same_rows_read_the_same(config, monkeypatch):
    class Device:
        def __init__(self, process_index):
            self.process_index = process_index

    class Halves:  # rows 0 and 1 on processes 0 and 1, rows 2 and 3 on processes 2 and 3
        def devices_indices_map(self, shape):
            assert shape == (4,)
            return {Device(p): (slice(p // 2 * 2, p // 2 * 2 + 2),) for p in range(4)}

    shares = []
    for process in range(4):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        shares.append(loader._share(Halves(), 4))
    assert shares == [(0, 2), (0, 2), (1, 2), (1, 2)]


def test_the_batch_must_divide_over_the_processes(config, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    with pytest.raises(UserError, match="config.batch: 4 rows .* over 3 processes"):
        batches(config, 1)


def test_what_the_data_set_cannot_give_is_said_before_the_first_batch(config):
    with config.unlocked():
        config.sampling.t = 13
    with pytest.raises(UserError, match="clip 'a' has 12 frames, too few"):
        batches(config, 1)
    with config.unlocked():
        config.train_split = "nosuch"
    with pytest.raises(UserError, match="no split 'nosuch'"):
        batches(config, 1)


def damaged(config, folder, copy, count):
    """The config of a copy of a dataset of which `count` records of a split are damaged."""
    shutil.copytree(folder, copy)
    path = next(copy.glob("clips-train.array_record*"))
    data, start = bytearray(path.read_bytes()), 0
    for _ in range(count):
        start = data.find(b"\x28\xb5\x2f\xfd", start + 1)  # of what is compressed by Zstandard
        data[start + 40] ^= 0xFF
    path.write_bytes(data)
    changed = ConfigDict(config.to_dict())
    changed.path = str(copy)
    return changed


def test_a_record_that_cannot_be_read_is_told_and_left_out_in_every_run_alike(
    config, dataset_folder, tmp_path, caplog
):
    whole = batches(config, 20)
    with_one = damaged(config, dataset_folder, tmp_path / "copy", 1)
    found = batches(with_one, 20)
    told = [record.message for record in caplog.records if "left out" in record.message]
    assert len(told) == 1 and "record 0 (clip 'a') is damaged" in told[0] and "(1 of " in told[0]
    assert_same(batches(with_one, 2, start_step=18), found[18:])  # as a run that was cut off
    rows = [np.concatenate([batch["index"] for batch in each]) for each in (whole, found)]
    lost = rows[0][rows[0] != rows[1]]
    assert len(lost) and set(lost) == {0}  # of the view of that record, and no other


def test_a_run_ends_where_more_than_a_hundredth_of_the_records_cannot_be_read(
    config, dataset_folder, tmp_path
):
    lost = damaged(config, dataset_folder, tmp_path / "copy", 1000)
    with pytest.raises(UserError, match=r"\d of 54 records cannot be read.*data check.*damaged"):
        batches(lost, 1)
