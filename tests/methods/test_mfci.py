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
BOTH = ("single", "joint")
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


def test_another_clips_background_is_completed_and_the_person_stays_the_same():
    """Section 4.3: the background branch works on a third video, the foreground branch does not."""
    made, weights = method(), variables(stage="joint")
    third = {key: batch()[key][:, ::-1] for key in ("source", "source_joints")}
    third = {**batch(), "source": -third["source"], "source_joints": 0.5 * third["source_joints"]}

    def run(weights, first, third):
        carries = [made.apply(weights, each, method="start") for each in (first, third)]
        carries.append(made.replace_background(*carries))
        return [
            made.apply(weights, first, carry, True, method="synthesize")[0] for carry in carries
        ]

    own, other, replaced = compiled(run)(weights, batch(), third)
    shown = [each["intermediates"] for each in (own, other, replaced)]
    np.testing.assert_allclose(shown[2]["foreground"], shown[0]["foreground"], atol=1e-5)
    np.testing.assert_allclose(shown[2]["background"], shown[1]["background"], atol=1e-5)
    assert float(jnp.abs(shown[0]["background"] - shown[1]["background"]).max()) > 0.01
    mask = np.asarray(own["mask"])
    truth = shown[0]["foreground"] * mask + shown[1]["background"] * (1 - mask)
    np.testing.assert_allclose(replaced["video"], truth, atol=1e-5)


def test_explanations_show_what_each_source_frame_gives_alone():
    """Fig. 7: the same as the single-frame model run on that frame."""
    joint, weights = method(), variables(stage="joint")

    def run(weights, given):
        carry = joint.apply(weights, given, method="start")
        return joint.apply(weights, given, carry, True, method="synthesize")[0]["intermediates"]

    shown = compiled(run)(weights, batch())
    single = method(stage="single")
    for number in range(K):
        one = {k: batch()[k][:, number : number + 1] for k in ("source", "source_joints")}

        def alone(weights, given):
            carry = single.apply(weights, given, method="start")
            return single.apply(weights, given, carry, True, method="synthesize")[0]

        made = compiled(alone)(weights, {**batch(), **one})["intermediates"]
        for layer in ("foreground", "background"):
            found = shown[f"{layer} alone"][:, :, number]
            np.testing.assert_allclose(found, made[layer], atol=1e-5)


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
        ("MSE", "rb6_sa2d", (3, 5, 7), ("single",)),
        ("MSE+VGG", "rb6_sa2d", (3, 5, 7), ("single",)),
        ("MSE+VGG+RB6", "rb6", (), BOTH),
        ("MSE+VGG+RB6+D_V^3", "rb6", (3,), BOTH),
        ("MSE+VGG+RB6+D_V", "rb6", (3, 5, 7), BOTH),
        ("MSE+VGG+Avg+D_V", "avg", (3, 5, 7), BOTH),
        ("MSE+VGG+Max+D_V", "max", (3, 5, 7), BOTH),
        ("MSE+VGG+SA3D+RB6+D_V", "sa3d_rb6", (3, 5, 7), BOTH),
        ("MSE+VGG+RB6+SA2D+D_V", "rb6_sa2d", (3, 5, 7), BOTH),
    ),
)
def test_the_rows_of_table_1_are_ablations(label, fusion, ranges, stages):
    config = configs.load(f"mfci:{label}")
    assert config.stages == stages
    assert config.method.fusion == fusion and config.method.ranges == ranges
    perceptual = configs.stage_config(config, stages[-1]).method.perceptual
    assert (perceptual == "off") == (label == "MSE")


@pytest.mark.parametrize(
    ("names", "perceptual"),
    (("MSE+VGG", "vgg19"), ("random_perceptual", "off"), ("demo,MSE+VGG", "off")),
)
def test_the_single_model_has_a_perceptual_loss_only_in_its_own_row(names, perceptual):
    config = configs.stage_config(configs.load(f"mfci:{names}"), "single")
    assert config.method.perceptual == perceptual
    assert (config.weights.generator.perceptual > 0) == (perceptual != "off")
    for both in ("random_perceptual,MSE+VGG", "MSE+VGG,random_perceptual"):
        config = configs.stage_config(configs.load(f"mfci:{both}"), "single")
        assert config.method.perceptual == "random"


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


def test_the_single_model_is_pretrained_as_in_section_4():
    """By squared error and a GAN together, for 200 000 steps of four pairs."""
    config = configs.load("mfci")
    assert config.stages == BOTH
    single = configs.stage_config(config, "single")
    assert (single.steps, single.batch, single.method.perceptual) == (200_000, 4, "off")
    weights = single.weights.generator.to_dict()
    assert {name for name, weight in weights.items() if weight} == {"mse", "adversarial_image"}
    assert set(method(stage="single").updates) == {"generator", "discriminator"}
    assert config.data.flip == 0.0 and config.method.init_from == "fresh"


@pytest.mark.parametrize(("variant", "last"), (("", ("joint",)), ("MSE", ()), ("MSE+VGG", ())))
def test_content_first_gives_the_discriminator_half_of_the_steps(variant, last):
    whole = configs.stage_config(configs.load(f"mfci:{variant}"), "single")
    for names in (f"{variant},content_first", f"content_first,{variant}"):
        config = configs.load(f"mfci:{names}")
        assert config.stages == ("content", "single", *last)
        content, single = (configs.stage_config(config, stage) for stage in config.stages[:2])
        assert set(content.weights) == set(method(stage="content").updates) == {"generator"}
        assert content.steps == single.steps == whole.steps / 2
        assert content.batch == single.batch == whole.batch


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
    seen = {"target_mask": jnp.asarray(outline), "background": jnp.asarray(clean)}
    whole = np.broadcast_to(clean[:, None], (B, T, 4, 4, 3))
    best = mfci.matte_terms({"mask": jnp.asarray(outline), "background": whole}, seen)
    entropy = -(outline * np.log(outline) + (1 - outline) * np.log(1 - outline)).mean()
    np.testing.assert_allclose(best["matte"], entropy, rtol=1e-5)
    assert best["background"] == 0.0
    worse = mfci.matte_terms({"mask": jnp.asarray(outline * 0.9), "background": whole + 0.1}, seen)
    assert worse["matte"] > best["matte"]
    np.testing.assert_allclose(worse["background"], 0.01, rtol=1e-4)
