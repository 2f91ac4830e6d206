"""A run that was stopped, killed, cut off or damaged, and goes on, is the run that was not."""

import errno
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from psrjax import config as config_lib
from psrjax.errors import UserError
from psrjax.training import checkpoint, loop, stages

RUN = Path(__file__).parents[1] / "helpers" / "toy_run.py"


def config_for(toy, variant="adam", **overrides):
    overrides = {"ema": 0.9, "accumulate": 1, "mesh.data": 1, **overrides}
    overrides = {key.replace("__", "."): value for key, value in overrides.items()}
    return config_lib.update(toy.get_config(variant), overrides)


def train(toy, directory, variant="adam", **overrides):
    config = config_lib.stage_config(config_for(toy, variant, **overrides), "first")
    return loop.train_stage(config, directory / "first")


def assert_same(a, b):
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    for x, y in leaves:
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(x, y)


def lines(directory):
    return (directory / "first" / "metrics.jsonl").read_text().splitlines()


@pytest.fixture
def uncut(toy, tmp_path):
    """The directory and the end of a run of six steps that nothing happened to."""
    return tmp_path / "uncut", train(toy, tmp_path / "uncut", steps=6)


def test_two_steps_and_four_more_are_six(toy, tmp_path, uncut):
    asked = []
    toy.BEFORE_BATCH = asked.append
    train(toy, tmp_path / "cut", steps=2)
    end = train(toy, tmp_path / "cut", steps=6)
    assert_same(end, uncut[1])
    assert lines(tmp_path / "cut") == lines(uncut[0])
    assert asked == [0, 0, 1, 0, 2, 3, 4, 5]  # each start looks at the first batch once, for sizes


def test_a_run_that_grows_ends_at_full_size_and_wherever_it_is_cut_bit_for_bit_the_same(
    toy, tmp_path, monkeypatch
):
    sizes, fake = [], toy.Method.fake

    def watched(self, batch, train):
        sizes.append(batch["source"].shape[2:4])
        return fake(self, batch, train)

    monkeypatch.setattr(toy.Method, "fake", watched)
    options = {"steps": 4, "grow": 0.5, "checkpoint_steps": 1, "keep_checkpoints": 9}
    whole = train(toy, tmp_path / "uncut", **options)
    small, large = (2, 2), (4, 4)
    assert [size for size, _ in itertools.groupby(sizes)] == [large, small, large]  # first: sizes
    cut = tmp_path / "cut"
    shutil.copytree(tmp_path / "uncut", cut)
    adam, schedule = whole.opt["generator"]
    assert (adam.count, schedule.count) == (2, 4)  # moments began anew with the larger frames
    for step in (3, 2, 1):  # behind the change of size, at it, and before it
        checkpoint.rewind(cut / "first", step)
        assert_same(train(toy, cut, **options), whole)


def test_an_evaluation_that_is_cut_off_is_made_again(toy, tmp_path):
    config = config_lib.stage_config(config_for(toy, steps=4, evaluate_steps=2), "first")
    seen = []

    def evaluate(state, step):
        seen.append(step)
        if seen.count(4) == 1 and step == 4:
            raise OSError("the line was cut")

    with pytest.raises(OSError, match="line was cut"):
        loop.train_stage(config, tmp_path / "first", evaluate=evaluate)
    loop.train_stage(config, tmp_path / "first", evaluate=evaluate)
    assert seen == [2, 4, 4]


def test_records_of_steps_that_are_made_again_are_not_doubled(toy, tmp_path, uncut):
    def stop(step):
        if step == 3:
            raise OSError("the line was cut")

    toy.BEFORE_BATCH = stop
    with pytest.raises(OSError, match="line was cut"):
        train(toy, tmp_path, steps=6)
    assert len(lines(tmp_path)) == 3
    toy.BEFORE_BATCH = lambda step: None
    assert_same(train(toy, tmp_path, steps=6), uncut[1])
    assert lines(tmp_path) == lines(uncut[0])


@pytest.mark.parametrize(
    ("name", "raised"), [("SIGTERM", SystemExit), ("SIGINT", KeyboardInterrupt)]
)
def test_a_signal_saves_and_leaves(toy, tmp_path, uncut, name, raised):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    number = getattr(signal, name)
    toy.BEFORE_BATCH = lambda step: os.kill(os.getpid(), number) if step == 2 else None
    with pytest.raises(raised) as caught:
        train(toy, tmp_path, steps=6, checkpoint_steps=100)
    if raised is SystemExit:
        assert caught.value.code == 128 + signal.SIGTERM
    assert checkpoint.saved_steps(tmp_path / "first") == [3]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    toy.BEFORE_BATCH = lambda step: None
    assert_same(train(toy, tmp_path, steps=6, checkpoint_steps=100), uncut[1])


@pytest.mark.slow  # tests/reliability/test_kills.py has quicker ones
@pytest.mark.parametrize(
    "death", [["--die-at-step=5"], ["--die-while-saving=checkpoints/4"]], ids=["step", "save"]
)
def test_killed_at_any_moment_it_ends_bit_for_bit_as_the_run_that_was_not(toy, tmp_path, death):
    uncut = train(toy, tmp_path / "uncut", ema=0.0, steps=6)  # the same program, rounding included
    options = ["--variant=adam", "--set=steps=6", "--set=mesh.data=1", *death]
    done = subprocess.run([sys.executable, RUN, tmp_path, *options], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    saved = checkpoint.saved_steps(tmp_path / "first")
    assert saved == ([2] if "saving" in death[0] else [4, 2])
    assert_same(train(toy, tmp_path, ema=0.0, steps=6), uncut)
    names = [path.name for path in (tmp_path / "first" / "checkpoints").iterdir()]
    assert sorted(names) == ["4", "6"]  # nothing half-written is left


def test_a_damaged_newest_checkpoint_is_made_again(toy, tmp_path, uncut, caplog):
    train(toy, tmp_path, steps=4)
    damage(tmp_path / "first" / "checkpoints" / "4")
    assert_same(train(toy, tmp_path, steps=6), uncut[1])
    assert "checkpoints/4 cannot be read" in caplog.text
    assert checkpoint.saved_steps(tmp_path / "first") == [6, 4]


def test_inference_falls_back_too(toy, tmp_path):
    train(toy, tmp_path, steps=4)
    damage(tmp_path / "first" / "checkpoints" / "4")
    assert checkpoint.load_variables(tmp_path / "first")["step"] == 2


def test_where_nothing_can_be_read_the_run_says_so_and_removes_nothing(toy, tmp_path):
    train(toy, tmp_path, steps=4)
    for step in ("2", "4"):
        damage(tmp_path / "first" / "checkpoints" / step)
    with pytest.raises(UserError, match="none of its checkpoints can be read"):
        train(toy, tmp_path, steps=6)
    assert checkpoint.saved_steps(tmp_path / "first") == [4, 2]


def damage(folder):
    for path in folder.rglob("*"):
        if path.is_file() and path.parent.name == "d":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_checkpoint_goes_on_on_another_mesh(toy, tmp_path):
    common = {"variant": "", "ema": 0.0}
    straight = train(toy, tmp_path / "a", steps=4, mesh__data=8, mesh__fsdp=1, **common)
    train(toy, tmp_path / "b", steps=2, mesh__data=2, mesh__fsdp=4, **common)
    end = train(toy, tmp_path / "b", steps=4, mesh__data=1, mesh__fsdp=1, **common)
    assert len(straight.params["generator"]["inner"]["kernel"].sharding.device_set) == 8
    for x, y in zip(jax.tree.leaves(end.params), jax.tree.leaves(straight.params), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"batch": 4}, "trained with batch=8, this config says 4"),
        ({"method.width": 4}, "trained with method.width=8"),
        ({"method.name": "other"}, "trained with method.name='toy'"),
    ],
)
def test_another_methods_or_batchs_run_is_refused(toy, tmp_path, change, said):
    config = config_for(toy, steps=2)
    stages.train(config_lib.update(config, {"only": ("first",)}), tmp_path)
    before = (tmp_path / "config.json").read_text()
    with pytest.raises(UserError, match=said):
        stages.train(config_lib.update(config, change), tmp_path)
    assert (tmp_path / "config.json").read_text() == before
    (tmp_path / "config.json").unlink()  # the checkpoint knows it too
    with pytest.raises(UserError, match=said):
        train(toy, tmp_path, steps=4, **{k.replace(".", "__"): v for k, v in change.items()})


def test_how_it_computes_may_change(toy, tmp_path):
    train(toy, tmp_path, steps=2)
    end = train(toy, tmp_path, steps=4, method__dtype="bfloat16", log_steps=3)
    assert int(end.step) == 4


def test_what_changes_in_a_runs_config_is_kept_with_its_step(toy, tmp_path):
    config, rate = config_for(toy, steps=2), {"optimizer.generator.learning_rate": 0.01}
    checkpoint.write_run_config(tmp_path, config)
    for step, changes in ((2, {"steps": 4, "seed": 5}), (4, {"steps": 6, "seed": 5, **rate})):
        (tmp_path / "first" / "checkpoints" / str(step)).mkdir(parents=True)
        for _ in range(2):  # the second time nothing changes
            checkpoint.write_run_config(tmp_path, config_lib.update(config, changes))
    lines = (tmp_path / "config_history.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"stage": "first", "step": 2, "changed": {"seed": [0, 5], "steps": [2, 4]}},
        {"stage": "first", "step": 4, "changed": {
            "optimizer.generator.learning_rate": [0.1, 0.01], "steps": [4, 6]}},
    ]  # fmt: skip


def test_losses_that_are_not_finite_stop_the_run_and_keep_the_last_good_checkpoint(toy, tmp_path):
    toy.GREY_STEPS.add(2)
    with pytest.raises(
        UserError, match="stage first: term generator/l1 .*by step 4; the checkpoint"
    ):
        train(toy, tmp_path, steps=8, log_steps=100)
    assert checkpoint.saved_steps(tmp_path / "first") == [2]
    with pytest.raises(UserError, match="by step 3"):  # the log looks too
        train(toy, tmp_path, steps=8, log_steps=1)
    found = checkpoint.load_variables(tmp_path / "first")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found["variables"]))


def test_a_step_that_was_not_finite_is_found_again_with_its_batch_and_nothing_is_written(
    toy, tmp_path
):
    toy.GREY_STEPS.add(4)
    config = config_for(toy, only=("first",), steps=20, log_steps=100, checkpoint_steps=3)
    with pytest.raises(UserError, match="by step 6; the checkpoint of step 3 is kept.*--replay"):
        stages.train(config, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(
        UserError,
        match="stage first, step 5: term generator/l1 is not finite; its batch, all of it finite: "
        "row 0 of batch 4",
    ):
        stages.train(config, tmp_path, replay=True)
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_full_disk_is_said_in_one_line_and_the_last_checkpoint_is_whole(
    toy, tmp_path, uncut, monkeypatch, wrapped
):
    save = checkpoint.ocp.CheckpointManager.save

    def save_or_fail(self, step, **options):
        if step == 4:
            error = OSError(errno.ENOSPC, "No space left on device")
            if wrapped:
                raise ValueError("RESOURCE_EXHAUSTED: Error writing [OS error 28: No space left]")
            raise RuntimeError("while saving") from error
        return save(self, step, **options)

    monkeypatch.setattr(checkpoint.ocp.CheckpointManager, "save", save_or_fail)
    with pytest.raises(UserError, match="disk is full") as caught:
        train(toy, tmp_path, steps=6)
    assert "\n" not in str(caught.value)
    assert checkpoint.saved_steps(tmp_path / "first") == [2]
    monkeypatch.undo()
    toy.install(monkeypatch.setattr)
    assert_same(train(toy, tmp_path, steps=6), uncut[1])
