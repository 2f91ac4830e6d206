"""A run's checkpoints: what changed on the disk is found, and what was good stays."""

import json
import math

import jax
import numpy as np
import pytest

from psrjax import config as config_lib
from psrjax import io
from psrjax.errors import UserError
from psrjax.training import checkpoint, checksums, loop, stages


def config_for(toy, **changes):
    return config_lib.update(toy.get_config("adam"), {"mesh.data": 1, **changes})


def train(toy, directory, **changes):
    config = config_lib.stage_config(config_for(toy, **changes), "first")
    return loop.train_stage(config, directory / "first")


def array_files(folder):
    files = [path for path in (folder / "state").rglob("*") if path.is_file()]
    return sorted(files, key=lambda path: path.stat().st_size, reverse=True)


def flip(path, place, bit):
    data = bytearray(path.read_bytes())
    data[place] ^= 1 << bit
    path.write_bytes(bytes(data))


@pytest.fixture
def run(toy, tmp_path):
    """A run of the toy with checkpoints at steps 2 and 4."""
    stages.train(config_for(toy, steps=4, only=("first",)), tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("flips", [16, pytest.param(200, marks=pytest.mark.slow)])
def test_a_flipped_bit_of_an_array_is_found_and_the_checkpoint_before_taken(run, flips, caplog):
    folder = run / "first" / "checkpoints" / "4"
    before = checkpoint.load_variables(run / "first")
    assert before["step"] == 4 and not checkpoint.check(run)
    generator = np.random.default_rng(0)
    files = array_files(folder)
    sizes = [path.stat().st_size for path in files]
    counts = {"harmless": 0, "found": 0, "silent": 0}
    for place in generator.choice(sum(sizes), flips, replace=False):
        number = int(np.searchsorted(np.cumsum(sizes), place, side="right"))
        path, whole = files[number], files[number].read_bytes()
        flip(path, place - sum(sizes[:number]), generator.integers(8))
        told = checkpoint.load_variables(run / "first")
        leaves = (jax.tree.leaves(each["variables"]) for each in (told, before))
        same = all(np.array_equal(a, b) for a, b in zip(*leaves))
        found = told["step"] == 2 or bool(checkpoint.check(run))
        counts["found" if found else "harmless" if same else "silent"] += 1
        path.write_bytes(whole)
    print(f"{flips} flipped bits of {sum(sizes)} bytes: {counts}")
    assert not counts["silent"] and counts["found"]
    assert "cannot be read, trying the one before" in caplog.text


@pytest.mark.parametrize(
    "how",
    [
        "truncated",
        *(pytest.param(how, marks=pytest.mark.slow) for how in ("gone", "empty", "bits")),
    ],
)
def test_a_damaged_array_file_leaves_the_whole_checkpoint_before(toy, run, how, caplog):
    largest = array_files(run / "first" / "checkpoints" / "4")[0]
    straight = train(toy, run.parent / "straight", steps=6)
    if how == "gone":
        largest.unlink()
    elif how == "bits":
        for place in range(0, largest.stat().st_size, 64):
            flip(largest, place, 3)
    else:
        largest.write_bytes(largest.read_bytes()[: 100 if how == "truncated" else 0])
    assert str(run / "first" / "checkpoints" / "4") in checkpoint.check(run)[0]
    end = train(toy, run, steps=6)
    assert "checkpoints/4 cannot be read" in caplog.text and "goes on from step 2" in caplog.text
    for a, b in zip(jax.tree.leaves(end.params), jax.tree.leaves(straight.params)):
        np.testing.assert_array_equal(a, b)


def test_a_flipped_bit_of_the_config_is_found(run):
    path = run / "first" / "checkpoints" / "4" / "config" / "metadata"
    text = path.read_text()
    path.write_text(text.replace('"log_steps": ', '"log_steps": 1', 1))
    assert path.read_text() != text
    assert checkpoint.load_variables(run / "first")["step"] == 2
    assert "its config is not as it was saved" in checkpoint.check(run)[0]


def test_damaged_metrics_of_a_checkpoint_are_told_and_done_without(toy, run, caplog):
    metrics = run / "first" / "checkpoints" / "2" / "metrics" / "metrics"
    metrics.write_text(metrics.read_text()[:10])
    store = checkpoint.Checkpoints(
        run / "first", config_lib.stage_config(config_for(toy, steps=4), "first")
    )
    store.close()
    assert f"{metrics}: damaged" in caplog.text and store.latest_step() == 4


def test_every_bit_of_every_array_counts():
    state = {"a": np.arange(3.0), "b": [np.float32(2), np.zeros((2, 0))], "k": jax.random.key(1)}
    saved = json.loads(json.dumps(checksums.of_state(state)))
    assert not checksums.changed(state, saved)
    assert checksums.changed({"a": state["a"]}, saved) == []
    for bit in range(3 * 64):
        bits = np.unpackbits(state["a"].view(np.uint8))
        bits[bit] ^= 1
        other = np.packbits(bits).view(np.float64)
        assert checksums.changed(state | {"a": other}, saved) == ["a"]
    assert checksums.changed({"c": np.zeros(1)}, saved) == ["c"]


def test_two_runs_in_one_directory_are_refused(toy, tmp_path):
    config = config_for(toy, steps=2, only=("first",))
    with io.locked(tmp_path / "run", "psrjax train"):
        with pytest.raises(UserError, match="run: another `psrjax train` is at work there"):
            stages.train(config, tmp_path / "run")


def test_a_first_start_that_fails_leaves_nothing_behind(toy, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(loop.base, "build", lambda **_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            stages.train(config_for(toy, steps=2), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    stages.train(config_for(toy, steps=2, batch=8, only=("first",)), tmp_path / "run")


def test_the_last_checkpoint_before_a_jump_and_the_best_stay(toy, tmp_path):
    state = train(toy, tmp_path, steps=1)
    config = config_lib.stage_config(config_for(toy, keep_checkpoints=2), "first")
    store = checkpoint.Checkpoints(tmp_path / "kept", config)
    losses = {1: 5.0, 2: 0.5, 3: 0.6, 4: 5e19, 5: 4e18, 6: 7e18, 7: math.inf}
    for step, loss in losses.items():
        store.save(step, state, {"next_index": step}, loss=loss)
    store.close()
    assert checkpoint.saved_steps(tmp_path / "kept") == [7, 6, 3, 2]
    for step in (8, 9):  # in another process
        store = checkpoint.Checkpoints(tmp_path / "kept", config)
        store.save(step, state, {"next_index": step}, loss=1e20)
        store.close()
    assert checkpoint.saved_steps(tmp_path / "kept") == [9, 8, 3, 2]


def test_a_run_is_rewound_to_one_of_its_checkpoints(toy, run):
    straight = train(toy, run.parent / "straight", steps=6)
    config = config_for(toy, steps=6, only=("first",))
    with pytest.raises(UserError, match=r"first: no checkpoint of step 3; there are 2, 4"):
        stages.train(config, run, rewind=3)
    end = stages.train(config, run, rewind=2)
    for a, b in zip(jax.tree.leaves(end.params), jax.tree.leaves(straight.params)):
        np.testing.assert_array_equal(a, b)
    lines = (run / "first" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
