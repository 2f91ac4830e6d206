"""An exported run synthesizes what the run does, and files of strangers end with one line."""

import json
import re
import struct
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
from etils import epath

import psrjax
from psrjax import config as config_lib
from psrjax.benchmarks import compiled_stage
from psrjax.cli import export
from psrjax.data.source import Source
from psrjax.errors import UserError
from psrjax.inference import synthesizer
from psrjax.methods import base
from psrjax.runtime import run_record
from psrjax.training import checkpoint, optimizer, stages, state

STAGES = [
    (name, stage) for name in config_lib.names() for stage in config_lib.load(f"{name}:tiny").stages
]


@pytest.fixture
def config(toy, monkeypatch):
    """The toy's config; the toy can synthesize too."""

    class Method(toy.Method):
        def start(self, batch):
            return {}

        def synthesize(self, batch, carry, intermediates=False):
            return {"video": self.fake(batch, False)}, carry

        def baselines(self, batch):
            return {}

    monkeypatch.setattr(base, "find", lambda name: Method)
    return config_lib.update(toy.get_config(), {"data.crop": (4, 4), "data.path": "/home/me"})


@pytest.fixture
def model(config):
    """An untrained model of the toy's second stage."""
    return fresh(config_lib.stage_config(config, "second"))


def fresh(config):
    method = base.build(**config_lib.method_fields(config))
    optimizers = optimizer.make_optimizers(config.optimizer, method.updates)
    start = jax.jit(lambda: state.init_state(method, optimizers, sizes_of(config), 0, ema=False))
    return psrjax.Model(method, jax.device_get(start().variables), config, config.method.stage)


def sizes_of(config):
    sampling, (height, width) = config.data.sampling, config.data.crop
    return {"b": 1, "k": sampling.k, "t": sampling.t, "h": height, "w": width}


def video(model):
    method, variables = model.method, model.variables
    keys = tuple({*method.reads, *method.synthesis_reads})
    batch = compiled_stage.random_batch(keys, sizes_of(model.config))

    @jax.jit
    def make(variables):
        carry = synthesizer.start(method, variables, batch)
        return synthesizer.synthesize(method, variables, batch, carry)[0]["video"]

    return np.asarray(make(variables))


def test_a_file_holds_what_synthesis_needs_rounded_to_half_precision(model, tmp_path):
    file = tmp_path / "to" / "toy.safetensors"
    model.export(file)
    found = psrjax.load(file)
    assert (found.method, found.stage) == (model.method, "second")
    assert found.config == config_lib.update(model.config, {"data.path": ""})  # no place of mine
    assert set(found.variables["params"]) == {"generator", "refine"}  # no discriminator
    for path, leaf in jax.tree.leaves_with_path(found.variables):
        kept = model.variables
        for key in path:
            kept = kept[key.key]
        halved = path[0].key == "params" and leaf.ndim > 1
        np.testing.assert_array_equal(leaf, kept.astype(np.float16) if halved else kept)
    assert np.abs(video(found) - video(model)).max() < 2e-3
    stored = safetensors.numpy.load_file(file)
    assert {str(array.dtype) for array in stored.values()} == {"float16", "float32"}
    with pytest.raises(UserError, match="holds stage 'second' alone"):
        checkpoint.restore_for_inference(file, "first")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_every_methods_file_synthesizes_what_its_weights_do(name, stage, tmp_path):
    model = fresh(config_lib.stage_config(config_lib.load(f"{name}:tiny"), stage))
    model.export(tmp_path / "run.safetensors")
    found = psrjax.load(tmp_path / "run.safetensors")
    assert (found.method, found.config) == (model.method, model.config)
    apart = 127.5 * np.abs(video(model) - video(found))
    # A pixel whose two likeliest parts are as likely may be another part's.
    assert np.quantile(apart, 0.999) < 1.0 and apart.mean() < 0.2


def set_flags(monkeypatch, **values):
    """Gives the command's flags these values, the others their defaults."""
    defaults = {"STAGE": "", "SNAPSHOT": "newest", "CARD": False, "CLIPS": [], "SPLIT": ""}
    for name, value in {**defaults, **values}.items():
        monkeypatch.setattr(export, f"_{name}", type("Flag", (), {"value": value}))


def test_the_card_says_what_the_file_is_and_stays_as_it_was_edited(
    config, tmp_path, monkeypatch, capsys
):
    run = tmp_path / "run"
    stages.train(config_lib.update(config, {"only": ("first",), "steps": 2}), run)
    set_flags(monkeypatch, CARD=True)
    with run_record.RunRecord(epath.Path(run), "psrjax train --config=toy").part("train"):
        pass
    file = tmp_path / "toy.safetensors"
    export.main([str(run), str(file)])
    card = Path(capsys.readouterr().out.split()[-1])
    text = card.read_text()
    assert "stage first" in text and "4x4" in text and f"--run={file}" in text
    assert "| cost | 0 minutes on " in text and "`psrjax train --config=toy`" in text
    card.write_text("mine")
    export.main([str(run), str(file)])
    assert card.read_text() == "mine"
    export.main([str(file), str(tmp_path / "again.safetensors")])  # of a file, which is a run too
    assert "| steps | first 2;" in (tmp_path / "again.md").read_text()


def test_what_is_no_whole_export_is_told_in_one_line(model, tmp_path):
    file = tmp_path / "toy.safetensors"
    model.export(file)
    data = file.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])

    def changed(**changes):
        text = json.dumps(header | changes).encode()
        return struct.pack("<Q", len(text)) + text + data[8 + length :]

    def configured(key, value):
        config = json.loads(header["__metadata__"]["config"])
        *parents, last = key.split(".")
        node = config
        for parent in parents:
            node = node[parent]
        node[last] = value
        metadata = header["__metadata__"] | {"config": json.dumps(config)}
        return changed(__metadata__=metadata)

    weights = safetensors.numpy.load_file(file)
    other = {**weights, "params/more/kernel": np.zeros(3, np.float32)}
    cases = {
        "a header of 9223372036854775807 bytes": struct.pack("<Q", 2**63 - 1) + data[8:],
        "a header of": data[:100],
        "InvalidHeaderDeserialization|invalid": data[:8] + b"x" * length + data[8 + length :],
        "MetadataIncompleteBuffer|incomplete": data[:-1],
        "its format is None": changed(__metadata__={}),
        "its config says": configured("method.width", 17),
        "its config says width=1000000000": configured("method.width", 10**9),
        "its config says crop=": configured("data.crop", [10**6, 10**6]),
        "no such field": configured("method.depth", 3),
        "more/kernel is .3,., its config says None": safetensors.numpy.save(
            other, header["__metadata__"]
        ),
        "RecursionError": changed(__metadata__=header["__metadata__"] | {"config": "[" * 100_000}),
    }
    for message, content in cases.items():
        file.write_bytes(content)
        with pytest.raises(UserError) as caught:
            psrjax.load(file)
        told = str(caught.value)
        assert re.search(message, told) and str(file) in told, (message, told)
        assert "\n" not in told and len(told) < 500
    with pytest.raises(UserError, match="no such file"):
        psrjax.load(tmp_path / "none.safetensors")
    with pytest.raises(UserError, match="must end in .safetensors"):
        model.export(tmp_path / "toy.pt")


def test_a_training_may_start_from_the_file(config, model, tmp_path):
    model.export(file := tmp_path / "toy.safetensors")
    changes = {"only": ("second",), "init.path": str(file), "seed": 1, "steps": 1}
    end = stages.train(config_lib.update(config, changes), tmp_path / "new")
    given = psrjax.load(file).variables["params"]["generator"]
    for there, here in zip(jax.tree.leaves(given), jax.tree.leaves(end.params["generator"])):
        np.testing.assert_array_equal(there, here)  # which "second" does not train
    changes |= {"init.stage": "third"}
    with pytest.raises(UserError, match="holds stage 'second' alone"):
        stages.train(config_lib.update(config, changes), tmp_path / "other")


def test_clips_to_show_are_of_the_runs_data_or_of_another_dataset(
    config, dataset_folder, tmp_path, monkeypatch, capsys
):
    run, file = tmp_path / "run", tmp_path / "toy.safetensors"
    stages.train(config_lib.update(config, {"only": ("first",), "steps": 2}), run)

    def main(*clips):
        set_flags(monkeypatch, CLIPS=clips)
        export.main([str(run), str(file)])

    main(f"{dataset_folder}:d:3:9")
    written = Source(tmp_path / "toy" / "1", "test")
    assert [(clip.name, clip.frames) for clip in written.clips] == [("d", 6)]
    with pytest.raises(UserError, match="no clip 'walk'; there are a, b, c, d"):
        main(f"{dataset_folder}:walk:0:4")
    with pytest.raises(UserError, match="--clips=0:4: write it as"):
        main("0:4")
