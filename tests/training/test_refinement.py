"""A run that refines another one's frames holds that run unchanged, and begins from its frames."""

import functools
import json

import jax
import numpy as np
import pytest

import psrjax
from psrjax import config as config_lib
from psrjax.api import preparation
from psrjax.benchmarks import compiled_stage
from psrjax.data import spec
from psrjax.errors import UserError
from psrjax.inference import synthesizer
from psrjax.methods import base
from psrjax.training import optimizer, refinement, state, step

OTHERS = [name for name in config_lib.names() if name != "psrnet"]
QUICK = ("internet",)


def building(preset, stage, name):
    """The config of a stage of a preset that builds on METHOD:tiny's last stage, and that one's."""
    other = config_lib.load(f"{name}:tiny")
    other = config_lib.stage_config(other, other.stages[-1])
    config = config_lib.stage_config(config_lib.load(f"psrnet:{preset},tiny"), stage)
    fields = json.dumps(config_lib.method_fields(other))
    config_lib.update(config, {"method.estimator": fields})
    return config, other


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in OTHERS]
)
def test_the_later_layers_refine_the_frames_of_any_method(name):
    config, other = building("refine", "layer2", name)
    method = base.build(**config_lib.method_fields(config))
    estimator = base.build(**config_lib.method_fields(other))
    assert set(estimator.synthesis_reads) <= set(method.synthesis_reads) <= set(method.reads)
    sampling = other.data.sampling
    sizes = {"b": 1, "k": sampling.k, "t": 8, "h": 32, "w": 32}
    batch = compiled_stage.random_batch((*method.reads, *method.baseline_reads), sizes)
    optimizers = optimizer.make_optimizers(config.optimizer, method.updates)
    start = jax.eval_shape(lambda: state.init_state(method, optimizers, sizes, 0, ema=False))
    assert set(start.params) == {"estimate", "layer2", "discriminator2"}
    weights = {update: dict(terms) for update, terms in config.weights.items()}
    step.check_weights(method, weights, start, batch, {})

    def run(variables):
        carry = synthesizer.start(method, variables, batch)
        made, _ = synthesizer.synthesize(method, variables, batch, carry)
        return made, method.apply(variables, spec.decode(batch), method="baselines")

    made, baselines = jax.eval_shape(run, start.variables)
    assert list(made["steps"]) == ["layer1", "layer2"]
    for video in (made["video"], *made["steps"].values(), *baselines.values()):
        assert video.shape == (1, 8, 32, 32, 3)


def test_the_first_layer_begins_from_a_learned_texture_over_the_clean_background():
    config, other = building("learned_texture", "layer1", "d2gnet")
    method = base.build(**config_lib.method_fields(config))
    painter = base.build(**config_lib.method_fields(other))
    sizes = {"b": 1, "k": 4, "t": 4, "h": 32, "w": 32}
    wire = compiled_stage.random_batch((*method.reads, *method.baseline_reads), sizes)
    quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    variables = quick(method.init)(jax.random.key(0), spec.decode(wire))
    assert set(variables["params"]) == {"estimate", "layer1", "discriminator1"}

    @quick
    def run(variables, batch):
        batch = spec.decode(batch)
        theirs = {kind: nets["estimate"] for kind, nets in variables.items() if "estimate" in nets}
        carry = painter.apply(theirs, batch, method="start")
        made, _ = painter.apply(theirs, batch, carry, method="synthesize")
        shown, _ = method.apply(variables, batch, {}, True, method="synthesize")
        return batch["background"], made, shown["intermediates"]["prior"]

    behind, made, prior = run(variables, wire)
    matte = np.asarray(made["mask"]) * (wire["target_visibility"] > 0)
    assert 0.1 < (matte > 0).mean() < 0.9
    expected = matte * made["foreground"] + (1.0 - matte) * np.asarray(behind)[:, None]
    np.testing.assert_allclose(prior, expected, atol=1e-5)
    grown = jax.tree.map(lambda leaf: leaf + 1.0, variables["params"]["estimate"])
    changed = {**variables, "params": {**variables["params"], "estimate": grown}}
    assert np.abs(run(changed, wire)[2] - prior).max() > 1e-2


@pytest.mark.slow
def test_a_refinement_holds_the_run_and_begins_from_its_frames(tmp_path):
    one = {"mesh.data": 1}
    few = {**one, "overrides.warmup.steps": 2, "steps": 2, "overrides.joint.steps": 2}
    psrjax.train("internet:tiny", tmp_path / "run", few)
    given = {**one, "init.run": str(tmp_path / "run"), "steps": 2, "batch": 2, "method.width": 4}
    psrjax.train("psrnet:refine", tmp_path / "refined", given)
    theirs, model = psrjax.load(tmp_path / "run"), psrjax.load(tmp_path / "refined")
    assert model.stage == "layer3"
    for collection, nets in model.variables.items():
        for path, leaf in jax.tree.leaves_with_path(nets.get("estimate", {})):
            kept = theirs.variables[collection]
            for key in path:
                kept = kept[key.key]
            np.testing.assert_array_equal(leaf, kept)
    found = psrjax.evaluate(model, limit=1)
    names = [row["name"] for row in found.rows]
    assert {"layer1", "layer2", "layer3", "copy_source"} <= set(names)
    model.export(tmp_path / "refined.safetensors")
    assert psrjax.load(tmp_path / "refined.safetensors").method == model.method


def test_a_run_that_is_not_named_or_not_asked_for_is_told():
    with pytest.raises(UserError, match="config.init.run: name the run to build on"):
        refinement.with_estimator(config_lib.load("psrnet:refine"))
    with pytest.raises(UserError, match="is that of the run that config.init.run names"):
        preparation.needs_of("psrnet:refine")
    config = config_lib.load("psrnet:tiny", {"init.run": "runs/other"})
    with pytest.raises(UserError, match="builds on no run"):
        refinement.with_estimator(config)
    plain = config_lib.load("psrnet:tiny")
    assert refinement.with_estimator(plain) is plain
