"""The official first-order-model's checkpoint, converted, answers as the official code does.

The golden files come from tests/golden/first_order_model.py, run with PyTorch; here there is none.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psrjax import config as config_lib
from psrjax.importers import first_order_model
from psrjax.methods import base
from psrjax.ops import local_affine
from psrjax.pretrained import torch_files
from psrjax.training import optimizer, state

GOLDEN = Path(__file__).parents[1] / "golden"
CHECKPOINT = GOLDEN / "first_order_model.pth.tar"
CONFIG = GOLDEN / "first_order_model.yaml"


@pytest.fixture(scope="module")
def converted():
    config = config_lib.stage_config(first_order_model.read_config(CONFIG), "joint")
    method = base.build(**config_lib.method_fields(config))
    optimizers = optimizer.make_optimizers(config.optimizer, method.updates)
    sizes = {"b": 1, "k": 1, "t": 2, "h": 64, "w": 64}
    fresh = jax.eval_shape(lambda: state.init_state(method, optimizers, sizes, 0, ema=False))
    saved = torch_files.load(CHECKPOINT)
    fresh = {"params": fresh.params, **fresh.stats}
    variables = first_order_model.convert_variables(saved, fresh, factor=4, where="golden")
    return method, jax.tree.map(jnp.asarray, variables)


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "first_order_model.npz") as file:
        return {name: jnp.asarray(value) for name, value in file.items()}


def test_every_step_of_the_official_model_is_met(converted, golden):
    method, variables = converted

    @jax.jit
    def run(variables, source, driving):
        def steps(method):
            points = {"source": method.keypoints(source, False)}
            points["driving"] = method.keypoints(driving, False)
            later = {name: value[:, None] for name, value in points["driving"].items()}
            moved = method.field(source, points["source"], later, False)
            picture = method.generator(source, moved["deformation"], moved["confidence"], False)
            return {**moved, "picture": picture, **points}

        return method.apply(variables, method=steps)

    made = run(variables, golden["source"], golden["driving"])
    for side in ("source", "driving"):
        for name in ("value", "jacobian"):
            np.testing.assert_allclose(made[side][name], golden[f"{side}_{name}"], atol=1e-4)
    for name in ("deformation", "weights", "confidence", "picture"):
        np.testing.assert_allclose(made[name][:, 0], golden[name], atol=1e-4, err_msg=name)
    assert golden["picture"].std() > 0.01 and golden["confidence"].std() > 0.01


def test_it_is_also_read_as_a_pytorch_from_1_3_on_reads_it(converted, golden):
    """There -1 and 1 are the outer edges: g is g w / (w - 1) between the corners' centres."""
    method, variables = converted
    newer = first_order_model.read_config(CONFIG, align_corners=False).method.align_corners
    newer = method.clone(align_corners=newer)
    field, gate = golden["deformation"][:, None], golden["confidence"][:, None]

    def generated(method, field):
        made = method.apply(
            variables, method=lambda m: m.generator(golden["source"], field, gate, False)
        )
        return made[:, 0]

    height, width = field.shape[2:4]
    wider = field * jnp.array([width / (width - 1), height / (height - 1)])
    made = generated(newer, field)
    np.testing.assert_allclose(made, generated(method, wider), atol=1e-5)
    assert 1e-3 < jnp.abs(made - golden["picture"]).max()


def test_the_official_discriminator_is_met_with_its_spectral_norms(converted, golden):
    method, variables = converted

    def judge(method):
        maps = local_affine.gaussians(golden["driving_value"], height=64, width=64)
        seen = jnp.concatenate([golden["picture"], maps], -1)
        return method.discriminator(seen, False)[0]["logits"]

    logits = method.apply(variables, method=judge)
    np.testing.assert_allclose(logits, golden["logits"], atol=1e-4)


def test_relative_motion_is_the_official_formula(golden):
    source, now = (
        {name: golden[f"{side}_{name}"][:1] for name in ("value", "jacobian")}
        for side in ("source", "driving")
    )
    first = {name: golden[f"driving_{name}"][1:] for name in ("value", "jacobian")}
    now = {name: value[:, None] for name, value in now.items()}
    made = local_affine.relative(source, now, first)
    for name in ("value", "jacobian"):
        np.testing.assert_allclose(made[name][:, 0], golden[f"relative_{name}"], atol=1e-4)
