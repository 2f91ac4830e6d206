"""Stages: each starts from the one before it, finished ones are skipped, inference finds one."""

import json
import os

import jax
import numpy as np
import pytest
from PIL import Image

from psrjax import config as config_lib
from psrjax import io
from psrjax.data import spec
from psrjax.errors import UserError
from psrjax.evaluation import method_evaluation
from psrjax.training import checkpoint, stages


def make_config(toy, variant="", **overrides):
    overrides = {"steps": 2, "mesh.data": 1, **overrides}
    return config_lib.update(toy.get_config(variant), overrides)


def assert_same(a, b):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


def test_stages_run_in_order_and_a_frozen_net_is_the_one_of_the_stage_before(toy, tmp_path, caplog):
    with caplog.at_level("INFO", "absl"):
        end = stages.train(make_config(toy, ema=0.5), tmp_path)
    places = [line.split(":")[0] for line in caplog.messages if ": step 2 of 2" in line]
    assert places == ["stage 1 of 2, first", "stage 2 of 2, second"]
    first = checkpoint.load_variables(tmp_path / "first")["variables"]
    assert set(end.params) == {"generator", "refine", "discriminator"}
    assert_same(end.params["generator"], first["params"]["generator"])  # the averaged one
    assert_same(end.stats["batch_stats"]["generator"], first["batch_stats"]["generator"])
    assert set(end.ema) == {"refine", "discriminator"}
    batch = spec.decode(toy.wire_batch(3))
    before = toy.Method(stage="first").apply(first, batch, False, method="fake")
    second = toy.Method(stage="second")
    after = second.apply(
        end.variables, batch, method=lambda self, b: self.generator(b["source"], False)
    )
    np.testing.assert_array_equal(before, after)
    saved = config_lib.from_json((tmp_path / "config.json").read_text())
    assert saved.stages == ("first", "second")


def test_finished_stages_are_skipped_and_the_cut_one_goes_on(toy, tmp_path):
    straight = stages.train(make_config(toy, "adam"), tmp_path / "straight")

    def stop(step):
        if stop.first_is_done and step == 1:
            raise KeyboardInterrupt
        stop.first_is_done = stop.first_is_done or step == 1

    stop.first_is_done = False
    toy.BEFORE_BATCH = stop
    cut = make_config(toy, "adam", checkpoint_steps=1)
    with pytest.raises(KeyboardInterrupt):
        stages.train(cut, tmp_path / "cut")
    assert checkpoint.saved_steps(tmp_path / "cut" / "second") == [1]
    asked = []
    toy.BEFORE_BATCH = asked.append
    assert_same(stages.train(cut, tmp_path / "cut").params, straight.params)
    assert asked == [0, 1]
    assert stages.train(cut, tmp_path / "cut") is None
    assert asked == [0, 1]


def test_a_stage_alone_needs_the_stage_before_it(toy, tmp_path):
    with pytest.raises(UserError, match="'second' starts from 'first', which has no checkpoint"):
        stages.train(make_config(toy, "second"), tmp_path)
    stages.train(make_config(toy, "first"), tmp_path)
    assert not (tmp_path / "second").exists()
    first = checkpoint.load_variables(tmp_path / "first")["variables"]
    end = stages.train(make_config(toy, "second"), tmp_path)
    assert_same(end.params["generator"], first["params"]["generator"])


def test_a_run_may_start_from_another(toy, tmp_path):
    stages.train(make_config(toy, "first"), tmp_path / "old")
    old = checkpoint.load_variables(tmp_path / "old" / "first")["variables"]
    other = {"init.path": str(tmp_path / "old"), "seed": 1, "steps": 1}
    end = stages.train(make_config(toy, "second", **other), tmp_path / "new")
    assert_same(end.params["generator"], old["params"]["generator"])
    frozen = {**other, "optimizer.discriminator.learning_rate": 0.0}
    frozen |= {"init.nets": ("discriminator",)}
    end = stages.train(make_config(toy, "second", **frozen), tmp_path / "discriminator")
    assert_same(end.params["discriminator"], old["params"]["discriminator"])
    kernel = end.params["generator"]["inner"]["kernel"]
    assert (kernel != old["params"]["generator"]["inner"]["kernel"]).any()
    with pytest.raises(UserError, match="config.init.nets: 'face' is not in both runs"):
        unknown = make_config(toy, "second", **{**other, "init.nets": ("face",)})
        stages.train(unknown, tmp_path / "a")
    with pytest.raises(UserError, match="inner/bias is .8,. there and .4,. here"):
        narrow = make_config(toy, "second", **{**other, "method.width": 4})
        stages.train(narrow, tmp_path / "b")
    with pytest.raises(UserError, match="not the directory of a run"):
        other["init.path"] = str(tmp_path)
        stages.train(make_config(toy, "second", **other), tmp_path / "c")


def test_a_warm_start_changes_fresh_parameters_only(toy, tmp_path, monkeypatch):
    def warm_start(self, params, clips):
        assert clips == "the training clips"
        return jax.tree.map(lambda leaf: leaf * 0 + 3, params)

    monkeypatch.setattr(toy.Method, "warm_start", warm_start)
    monkeypatch.setattr("psrjax.data.loader.TrainFrames", lambda data: "the training clips")
    still = {f"optimizer.{update}.learning_rate": 0.0 for update in ("generator", "discriminator")}
    end = stages.train(make_config(toy, "first", ema=0.9, **still), tmp_path)
    for leaf in jax.tree.leaves((end.params, end.ema)):
        np.testing.assert_allclose(leaf, 3, rtol=1e-6)  # an average of 3 and 3 is rounded


def test_a_run_older_than_a_field_had_its_default():
    new = config_lib.load("psrnet:tiny")
    saved = json.loads(config_lib.to_json(new))
    del saved["method"]["prior"], saved["method"]["alpha"], saved["batch_per_device"]
    old = config_lib.from_json(json.dumps(saved))
    assert old == new and old.batch_per_device == 0
    checkpoint.compare_configs(old, new, "run")
    other = config_lib.load("psrnet:tiny,alpha=.3")
    with pytest.raises(UserError, match="trained with method.alpha=0.5, this config says 0.3"):
        checkpoint.compare_configs(old, other, "run")


def test_inference_uses_the_last_finished_stage(toy, tmp_path):
    with pytest.raises(UserError, match="not the directory of a run"):
        checkpoint.restore_for_inference(tmp_path)
    io.write_text(tmp_path / "config.json", config_lib.to_json(make_config(toy)))
    with pytest.raises(UserError, match="no stage of it has a checkpoint yet"):
        checkpoint.restore_for_inference(tmp_path)
    stages.train(make_config(toy, ema=0.5), tmp_path)
    method, variables, config, stage = checkpoint.restore_for_inference(tmp_path)
    assert (stage, method.stage, config.method.stage) == ("second", "second", "second")
    assert set(variables) == {"params", "batch_stats"}
    assert checkpoint.restore_for_inference(tmp_path, "first")[0].stage == "first"
    with pytest.raises(UserError, match="no stage 'third'; there are first, second"):
        checkpoint.restore_for_inference(tmp_path, "third")
    unfinished = make_config(toy, **{"overrides.second.steps": 9})
    io.write_text(tmp_path / "config.json", config_lib.to_json(unfinished))
    assert checkpoint.find_stage(tmp_path) == "first"


def test_variables_for_inference_are_the_averaged_ones(toy, tmp_path):
    end = stages.train(make_config(toy, "first", ema=0.5), tmp_path)
    _, variables, _, _ = checkpoint.restore_for_inference(tmp_path)
    assert_same(variables["params"], end.ema)
    assert_same(variables["batch_stats"], end.stats["batch_stats"])
    assert (end.params["generator"]["inner"]["bias"] != end.ema["generator"]["inner"]["bias"]).any()


def test_samples_are_written_as_pictures(toy, tmp_path, monkeypatch):
    video = np.zeros((2, 4, 6, 3), np.uint8)

    def evaluate(method, variables, config, **options):
        assert method.stage == "first" and "params" in variables
        videos = {"truth": video, "layer1": video + 9}
        windows = [method_evaluation.EvaluatedWindow("clip", "a", "b", 0, videos)]
        row = {"name": "layer1", "kind": "step", "pair": "all", "metrics": {"ssim": 0.5, "psnr": 9}}
        return method_evaluation.Evaluation([row], windows)

    monkeypatch.setattr(method_evaluation, "evaluate", evaluate)
    stages.train(make_config(toy, "first", steps=5, evaluate_steps=2), tmp_path)
    pictures = sorted(os.listdir(tmp_path / "first" / "samples"))
    assert pictures == ["0000002.png", "0000004.png", "0000005.png", "scores.jsonl"]
    lines = (tmp_path / "first" / "samples" / "scores.jsonl").read_text().splitlines()
    expected = [{"step": step, "ssim/layer1": 0.5, "psnr/layer1": 9} for step in (2, 4, 5)]
    assert [json.loads(line) for line in lines] == expected
    picture = np.asarray(Image.open(tmp_path / "first" / "samples" / pictures[0]))
    assert picture.shape == (8, 12, 3) and picture[4:].min() == 9


def test_a_stage_leaves_its_records(toy, tmp_path):
    stages.train(make_config(toy, "first", log_steps=1), tmp_path)
    folder = tmp_path / "first"
    records = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
    assert [record["step"] for record in records] == [1, 2]
    names = {"generator/l1", "generator/loss", "generator/grad_norm", "generator/learning_rate"}
    assert names <= set(records[0])
    assert "generator/inner/kernel" in (folder / "parameters.txt").read_text()
    assert list(folder.glob("events.out.tfevents.*"))


def test_the_best_checkpoint_by_the_validation_split_is_kept_and_found(toy, tmp_path, monkeypatch):
    """By a distance, so the lowest is best; a run that goes on still knows it."""
    distances = iter((0.5, 0.2, 0.4, 0.3, 0.9, 0.8))
    asked = []

    def evaluate(method, variables, config, *, split, metrics):
        asked.append((split, metrics))
        row = {
            "pair": "all",
            "kind": "step",
            "name": "first",
            "metrics": {"e_temp": next(distances)},
        }
        return method_evaluation.Evaluation([row], [])

    monkeypatch.setattr(method_evaluation, "evaluate", evaluate)
    monkeypatch.setattr("psrjax.data.loader.open_split", lambda data, split: None)
    keys = {"checkpoint_steps": 1, "keep_checkpoints": 1, "data.path": str(tmp_path)}
    keys |= {"keep_best": "e_temp", "data.validation_split": "unseen"}
    stages.train(make_config(toy, "first", steps=4, **keys), tmp_path)
    stages.train(make_config(toy, "first", steps=6, **keys), tmp_path)
    assert asked == 6 * [("unseen", ("e_temp",))]
    assert checkpoint.saved_steps(tmp_path / "first") == [6, 2]
    assert checkpoint.load_variables(tmp_path / "first", best=True)["step"] == 2
    assert checkpoint.load_variables(tmp_path / "first")["step"] == 6
    best = checkpoint.restore_for_inference(tmp_path, best=True)[1]
    assert_same(best, checkpoint.load_variables(tmp_path / "first", best=True)["variables"])


def test_a_best_checkpoint_needs_a_split_and_scores(toy, tmp_path):
    with pytest.raises(UserError, match="data.validation_split=: keep_best needs one"):
        stages.train(make_config(toy, "first", keep_best="psnr"), tmp_path)
    with pytest.raises(UserError, match="config.keep_best: no metric 'psrn'; there are ssim"):
        given = {"keep_best": "psrn", "data.validation_split": "unseen"}
        stages.train(make_config(toy, "first", **given), tmp_path)
    stages.train(make_config(toy, "first"), tmp_path)
    with pytest.raises(UserError, match="no checkpoint was scored: train with config.keep_best"):
        checkpoint.restore_for_inference(tmp_path, best=True)
