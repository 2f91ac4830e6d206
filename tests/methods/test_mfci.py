"""MFCI: its stages, its windows, its backgrounds, and what it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psrjax import config as configs
from psrjax.data import spec
from psrjax.errors import UserError
from psrjax.methods import base, mfci
from psrjax.training import optimizer

SIZE, B, K, T = 16, 1, 2, 4
TINY = {
    "width": 4,
    "num_downsamples": 2,
    "blocks": 1,
    "attention_stride": 2,
    "discriminator_width": 2,
}
FIELDS = {**TINY, "sources": K, "fusion": "rb6", "perceptual": "off"}
FIELDS |= {"ranges": (), "frame_discriminator": False}  # discriminators take long to compile
CHEAP = {"xla_backend_optimization_level": 0}  # each program runs a few times only


def method(**fields):
    return base.build(name="mfci", **{**FIELDS, **fields})


@functools.cache
def batch(k=K, t=T):
    """Random frames and poses, every joint inside."""
    rng = np.random.default_rng(0)
    made = spec.zeros(method().reads, {"b": B, "k": k, "t": t, "h": SIZE, "w": SIZE})
    for key, array in made.items():
        if array.dtype == np.uint8:
            made[key] = rng.integers(0, 256, array.shape).astype(np.uint8)
        else:
            made[key] = rng.uniform(-0.7, 0.7, array.shape).astype(array.dtype)
    for key in ("source_joints", "target_joints"):
        made[key][..., 2] = 1.0
    return spec.decode(made)


@functools.cache
def variables(**fields):
    made = method(**fields)
    return compiled(made.init)(jax.random.key(0), batch())


def compiled(function):
    return jax.jit(function, compiler_options=CHEAP)


def picture(made, weights, given):
    def run(weights, given):
        carry = made.apply(weights, given, method="start")
        return made.apply(weights, given, carry, method="synthesize")[0]["video"]

    return compiled(run)(weights, given)


def windows(length):
    return [
        {**batch(), "target_joints": batch()["target_joints"][:, start : start + length]}
        for start in range(0, T, length)
    ]


@pytest.mark.parametrize("stage", ("single", "joint"))
def test_windows_of_any_length_give_the_whole_clip(stage):
    made, weights = method(stage=stage), variables(stage=stage)
    start = compiled(functools.partial(made.apply, method="start"))
    synthesize = compiled(functools.partial(made.apply, method="synthesize"))
    carry = start(weights, batch())
    whole, _ = synthesize(weights, batch(), carry)
    parts = []
    for window in windows(2):
        shown, carry = synthesize(weights, window, carry)
        parts.append(shown["video"])
    np.testing.assert_allclose(jnp.concatenate(parts, 1), whole["video"], atol=1e-5)


def test_the_joint_stage_begins_with_the_single_models_last_layers():
    before = variables(stage="joint")
    after = method(init_from="single").init_from_previous(before)["params"]
    ours, theirs = after["integrate"]["heads"], before["params"]["single"]["heads"]
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), ours, theirs))
    fresh = method(init_from="fresh").init_from_previous(before)["params"]["integrate"]["heads"]
    kernels = (tree["mask"]["conv"]["kernel"] for tree in (fresh, theirs))
    assert not np.array_equal(*kernels)


def test_averaging_equal_frames_with_the_single_models_layers_is_the_single_model():
    """So the joint stage begins where the single-frame model ends."""
    same = {key: batch()[key][:, :1].repeat(K, 1) for key in ("source", "source_joints")}
    same = {**batch(), **same}
    joint = method(fusion="avg", init_from="single")
    weights = joint.init_from_previous(compiled(joint.init)(jax.random.key(0), same))
    pictures = [picture(one, weights, same) for one in (joint, method(stage="single"))]
    np.testing.assert_allclose(*pictures, atol=1e-5)


def test_nothing_of_the_target_but_its_poses_is_needed():
    made, weights = method(), variables(stage="joint")
    few = {key: batch()[key] for key in made.synthesis_reads}
    carry = jax.eval_shape(lambda b: made.apply(weights, b, method="start"), few)
    shown = jax.eval_shape(
        lambda b, c: made.apply(weights, b, c, True, method="synthesize")[0], few, carry
    )
    assert shown["video"].shape == (B, T, SIZE, SIZE, 3)
    assert shown["intermediates"]["foreground from"].shape == (B, T, K, SIZE, SIZE, 1)


def test_background_features_are_computed_in_start_only():
    made, weights = method(), variables(stage="joint")
    carry = jax.eval_shape(lambda b: made.apply(weights, b, method="start"), batch())
    weights = {"params": {**weights["params"]}}
    weights["params"]["single"] = {
        name: net
        for name, net in weights["params"]["single"].items()
        if name not in ("background", "segmentation", "parts")
    }
    jax.eval_shape(lambda b, c: made.apply(weights, b, c, method="synthesize")[0], batch(), carry)


@pytest.mark.parametrize(("fusion", "k"), (("rb6", 1), ("rb6", 3), ("avg", 1)))
def test_other_numbers_of_sources_are_told(fusion, k):
    made = method(fusion=fusion)
    with pytest.raises(UserError, match=f"integrates 2 source frames, {k} were given"):
        jax.eval_shape(lambda b: made.init(jax.random.key(0), b), batch(k=k))


def poses(t=3):
    points = np.random.default_rng(1).uniform(-0.5, 0.5, (t, 26, 2))
    return np.concatenate([points, np.ones((t, 26, 1))], -1).astype(np.float32)


def test_driving_poses_take_the_source_persons_size_and_place():
    own, driving = poses(), poses()
    driving[..., :2] = 0.5 * own[..., :2] + 0.2
    np.testing.assert_allclose(method().fit_joints(driving, own), own, atol=1e-5)
    np.testing.assert_array_equal(method(align="none").fit_joints(driving, own), driving)


def test_sources_without_joints_and_other_joint_sets_are_told():
    with pytest.raises(UserError, match="no valid joint in any"):
        method().fit_joints(poses(), np.zeros((3, 26, 3), np.float32))
    fewer = poses()
    fewer[:, 4] = 0.0  # never a right wrist
    with pytest.raises(UserError, match="never shows right wrist.*another joint set"):
        method().fit_joints(fewer, poses())


@pytest.mark.parametrize(
    ("label", "fusion", "ranges", "stages"),
    (
        ("MSE", "rb6_sa2d", (3, 5, 7), 2),
        ("MSE+VGG", "rb6_sa2d", (3, 5, 7), 2),
        ("MSE+VGG+RB6", "rb6", (), 3),
        ("MSE+VGG+RB6+D_V^3", "rb6", (3,), 3),
        ("MSE+VGG+RB6+D_V", "rb6", (3, 5, 7), 3),
        ("MSE+VGG+Avg+D_V", "avg", (3, 5, 7), 3),
        ("MSE+VGG+Max+D_V", "max", (3, 5, 7), 3),
        ("MSE+VGG+SA3D+RB6+D_V", "sa3d_rb6", (3, 5, 7), 3),
        ("MSE+VGG+RB6+SA2D+D_V", "rb6_sa2d", (3, 5, 7), 3),
    ),
)
def test_the_rows_of_table_1_are_ablations(label, fusion, ranges, stages):
    config = configs.load(f"mfci:{label}")
    assert len(config.stages) == stages
    assert config.method.fusion == fusion and config.method.ranges == ranges
    assert (config.method.perceptual == "off") == (label == "MSE")


@pytest.mark.parametrize("variant", ("rb6", "w/o D_I", "w/o D_V", "w/o D_I,w/o D_V"))
def test_whichever_discriminators_are_left_out_those_that_train_have_weights_and_an_optimizer(
    variant,
):
    config = configs.stage_config(configs.load(f"mfci:tiny,{variant}"), "joint")
    fields = {key: config.method[key] for key in ("frame_discriminator", "ranges")}
    updates = mfci.Method(stage="joint", **fields).updates
    assert ("discriminator" in updates) == (variant != "w/o D_I,w/o D_V")
    optimizer.make_optimizers(config.optimizer, updates)
    assert set(config.weights) == set(updates)


def test_the_papers_weights_are_the_defaults():
    config = configs.stage_config(configs.load("mfci"), "joint")
    weights = config.weights.generator.to_dict()
    truth = {"mse": 1, "perceptual": 0.2, "adversarial_image": 0.2, "adversarial_video": 0.1}
    assert weights == pytest.approx(truth)
    assert config.data.sampling.k == config.method.sources == 4 and config.data.sampling.t == 8


def test_frames_outside_unit_coordinates_do_not_break_the_warp():
    """Driving poses may leave the picture: the result stays finite and in range."""
    made, weights = method(stage="single"), variables(stage="single")
    far = {**batch(), "target_joints": batch()["target_joints"].at[..., :2].mul(5.0)}
    video = picture(made, weights, far)
    assert bool(jnp.isfinite(video).all()) and float(jnp.abs(video).max()) <= 1.0


def test_outlines_and_backgrounds_teach_mask_and_background_where_matte_is_set():
    """At the truth both terms are least; the mask's is then the entropy of the outline itself."""
    plain, matte = method(stage="single"), method(stage="single", matte=True)
    assert set(matte.reads) - set(plain.reads) == {"target_mask", "background"}
    rng = np.random.default_rng(2)
    outline, clean = rng.uniform(0.1, 0.9, (B, T, 4, 4, 1)), rng.uniform(-1, 1, (B, 4, 4, 3))
    seen = {"target_mask": outline, "background": clean}
    whole = np.broadcast_to(clean[:, None], (B, T, 4, 4, 3))
    best = mfci.matte_terms({"mask": outline, "background": whole}, seen)
    entropy = -(outline * np.log(outline) + (1 - outline) * np.log(1 - outline)).mean()
    np.testing.assert_allclose(best["matte"], entropy, rtol=1e-5)
    assert best["background"] == 0.0
    worse = mfci.matte_terms({"mask": outline * 0.9, "background": whole + 0.1}, seen)
    assert worse["matte"] > best["matte"]
    np.testing.assert_allclose(worse["background"], 0.01, rtol=1e-4)
