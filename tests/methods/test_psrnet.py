"""PSR-Net as the paper has it: Eq. 1's mixture, the loss of each layer, the honest baselines."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psrjax.data import spec
from psrjax.errors import UserError
from psrjax.methods import base
from psrjax.models import volumetric

SIZES = {"b": 1, "k": 4, "t": 4, "h": 8, "w": 8}
SMALL = {
    "width": 2,
    "blocks": 1,
    "discriminator_width": 2,
    "discriminator_layers": 1,
    "video_discriminator": False,
    "perceptual": "off",
}


def build(stage="layer2", **fields):
    return base.build("psrnet", stage=stage, **{**SMALL, **fields})


@functools.cache
def batch(seed=0):
    method = build()
    rng = np.random.default_rng(seed)
    wire = spec.zeros((*method.reads, *method.baseline_reads, "background"), SIZES)
    for key, array in wire.items():
        if key == "target_visibility":
            wire[key] = rng.integers(0, 3, array.shape).astype(np.uint8)
        elif array.dtype == np.uint8:
            wire[key] = rng.integers(0, 256, array.shape).astype(np.uint8)
        else:
            wire[key] = rng.uniform(0, 1, array.shape).astype(array.dtype)
    return spec.decode(wire)


@functools.cache
def variables(stage="layer2"):
    return jax.jit(build(stage).init)(jax.random.key(0), batch())


@functools.cache
def videos(alpha):
    method = build(alpha=alpha)
    run = jax.jit(lambda v, b: method.apply(v, b, {}, method="synthesize")[0])
    made = run(variables(), batch())
    assert list(made["steps"]) == ["layer1", "layer2"]
    np.testing.assert_array_equal(made["video"], made["steps"]["layer2"])
    return made["steps"]


def test_alpha_one_is_the_layers_own_video_and_alpha_zero_the_one_before():
    net = volumetric.Refinement(width=2, blocks=1)
    mine = {kind: tree["layer2"] for kind, tree in variables().items()}
    np.testing.assert_array_equal(videos(0.0)["layer2"], videos(0.0)["layer1"])
    before = videos(1.0)["layer1"]
    assert float(jnp.abs(before).max()) < 1.0  # shown clipped, used unclipped
    depth = jnp.repeat(batch()["target_depth"] * 2 - 1, 3, -1)
    own = jax.jit(functools.partial(net.apply, train=False))(mine, batch()["source"], before, depth)
    np.testing.assert_allclose(videos(1.0)["layer2"], own["frame"], atol=1e-5)


def test_alpha_mixes_linearly():
    own, before, mixed = videos(1.0)["layer2"], videos(0.0)["layer2"], videos(0.5)["layer2"]
    np.testing.assert_allclose(mixed, (own + before) / 2, atol=1e-5)


@functools.cache
def losses(stage, **fields):
    method, made = build(stage, **fields), variables(stage)
    out, _ = jax.jit(
        lambda v, b: method.apply(v, "generator", b, {}, {}, mutable=["batch_stats"], method="loss")
    )(made, batch())
    return out


def test_the_first_layer_counts_regions_alike_and_the_second_all_pixels():
    """Eq. 4 and Eq. 5 with the Huber loss written out in NumPy on the video that was judged.

    The variant `later_regions` gives later layers the loss of Eq. 4.
    """
    region = np.asarray(batch()["target_visibility"][..., 0])
    for stage, fields, by_region in (
        ("layer1", {}, True),
        ("layer2", {}, False),
        ("layer2", {"later_regions": "bvo"}, True),
    ):
        out = losses(stage, **fields)
        error = np.abs(np.asarray(out["shared"]["video"] - batch()["target"]))
        huber = np.where(error < 1, 0.5 * error**2, error - 0.5).sum(-1)
        if by_region:
            expected = sum(huber[region == label].mean() for label in (0, 1, 2))
        else:
            expected = huber.mean()
        np.testing.assert_allclose(out["terms"]["reconstruction"], expected, rtol=1e-5)


def test_terms_belong_to_the_stage_whatever_is_switched_off():
    first, later = (losses(stage)["terms"] for stage in ("layer1", "layer2"))
    assert set(first) == {"reconstruction", "perceptual", "adversarial_frame"}
    assert set(later) == {"reconstruction", "adversarial_frame", "adversarial_video"}
    assert first["perceptual"] == later["adversarial_video"] == 0


def test_what_the_first_layer_makes_of_each_region_is_shown_beside_the_visibility_map():
    """Eq. 2 without ζ: the decoders' videos, put together by the map's colours, are layer 1."""
    method = build(zeta=0.0)
    run = jax.jit(lambda v, b: method.apply(v, b, {}, True, method="synthesize")[0])
    made = run(variables(), batch())
    shown = made["intermediates"]
    assert set(shown) == {"prior", "visibility", "depth", "background", "visible", "occluded"}
    colors = np.unique(np.asarray(shown["visibility"]).reshape(-1, 3), axis=0)
    assert len(colors) == 3
    label = np.asarray(batch()["target_visibility"])
    for number, region in enumerate(("background", "visible", "occluded")):
        here = label[..., 0] == number
        assert len(np.unique(np.asarray(shown["visibility"])[here], axis=0)) == 1
        np.testing.assert_array_equal(
            np.asarray(made["steps"]["layer1"])[here], np.asarray(shown[region])[here]
        )
    np.testing.assert_array_equal(shown["depth"], batch()["target_depth"])


def test_only_the_first_layer_needs_perceptual_weights():
    assert build("layer1", perceptual="i3d").pretrained == ("i3d",)
    assert build("layer1", perceptual="random").pretrained == ("i3d:random",)
    assert build("layer1", perceptual="off").pretrained == ()
    assert build("layer2", perceptual="i3d").pretrained == ()


def test_stages_train_one_layer_and_its_discriminators():
    method = base.build("psrnet", stage="layer5", layers=5)
    assert method.updates == {"generator": ("layer5",), "discriminator": ("discriminator5",)}
    assert list(method.updates) == ["generator", "discriminator"]


@pytest.mark.parametrize(
    ("prior", "behind"),
    [
        ("texture", "target_mean"),
        ("texture_on_mean", "target_mean"),
        ("texture_on_background", "background"),
    ],
)
def test_baselines_are_the_source_the_texture_and_the_texture_over_what_lies_behind(prior, behind):
    made = build(prior=prior).baselines(batch())
    assert list(made) == ["copy_source", "x0", "x0_background"]
    on_mesh = np.asarray(batch()["target_visibility"][..., 0]) > 0
    over = np.asarray(made["x0_background"])
    np.testing.assert_array_equal(made["copy_source"], batch()["source"])
    np.testing.assert_array_equal(over[on_mesh], np.asarray(batch()["target_prior"])[on_mesh])
    still = np.broadcast_to(batch()[behind][:, None], over.shape)
    np.testing.assert_array_equal(over[~on_mesh], still[~on_mesh])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stage": "layer4"}, "stage: no 'layer4'; there are layer1, layer2, layer3"),
        ({"stage": "layer2", "layers": 1}, "stage: no 'layer2'; there are layer1"),
        ({"recon_regions": "fg"}, "recon_regions: no 'fg'; there are none, fgbg, bvo"),
        ({"later_regions": "fg"}, "later_regions: no 'fg'; there are none, fgbg, bvo"),
        ({"initialization": "he"}, "initialization: no 'he'; there are gtnet, gentle"),
        ({"perceptual": "vgg"}, "perceptual: no 'vgg'; there are i3d, random, off"),
        ({"prior": "gray"}, "prior: no 'gray'; there are texture, texture_on_mean, "),
        ({"decoder": "one"}, "decoder: no 'one'"),
        ({"encoder": "one"}, "encoder: no 'one'"),
        ({"warp_scope": "body"}, "warp_scope: no 'body'"),
        ({"norm": "layer"}, "norm: no norm 'layer'"),
        ({"remat": "all"}, "remat: no policy 'all'"),
        (
            {"video_discriminator": True},
            "video discriminator of depth 4 needs at least 8 frames of 64x64",
        ),
        (
            {"discriminator_layers": 3},
            "frame discriminator of 3 strided layers needs frames of at least 24x24",
        ),
    ],
)
def test_values_that_cannot_be_are_told_by_name(fields, message):
    with pytest.raises(UserError, match=message):
        jax.eval_shape(build(**fields).init, jax.random.key(0), batch())


@pytest.mark.parametrize("encoder", volumetric.ENCODERS)
@pytest.mark.parametrize("decoder", volumetric.DECODERS)
def test_a_second_layer_that_begins_as_the_first_has_its_own_shapes(encoder, decoder):
    fields = {"encoder": encoder, "decoder": decoder, "init_from": "before"}
    method = build(**fields)
    fresh = jax.eval_shape(method.init, jax.random.key(0), batch())
    begun = jax.eval_shape(method.init_from_previous, fresh)
    assert jax.tree.map(lambda leaf: leaf.shape, begun) == jax.tree.map(
        lambda leaf: leaf.shape, fresh
    )


@pytest.mark.parametrize("decoder", volumetric.DECODERS)
def test_a_second_layer_that_begins_as_the_first_makes_the_firsts_person(decoder):
    method = build(encoder="separate", decoder=decoder, init_from="before")
    made = method.init_from_previous(jax.jit(method.init)(jax.random.key(0), batch()))
    first = {kind: tree["layer1"] for kind, tree in made.items()}
    second = {kind: tree["layer2"] for kind, tree in made.items()}
    inputs = (batch()["source"], batch()["target_prior"], batch()["target_depth"].repeat(3, -1))
    parts = volumetric.Reconstruction(decoder, width=2, blocks=1).apply(first, *inputs, False)
    whole = volumetric.Refinement(width=2, blocks=1, encoder="separate").apply(
        second, *inputs, False
    )
    np.testing.assert_allclose(whole["frame"], parts["visible"], atol=1e-6)


def test_a_background_that_is_changed_begins_as_the_prior():
    method = build(encoder="separate", background="change", init_from="before")
    made = method.init_from_previous(jax.jit(method.init)(jax.random.key(0), batch()))
    run = jax.jit(lambda v, b: method.apply(v, b, {}, method="synthesize")[0]["steps"])
    behind = np.broadcast_to(batch()["target_visibility"] == 0, batch()["target_prior"].shape)
    assert 0.0 < behind.mean() < 1.0
    prior = np.asarray(batch()["target_prior"])
    for video in run(made, batch()).values():
        np.testing.assert_allclose(np.asarray(video)[behind], prior[behind], atol=1e-6)
        assert np.abs(np.asarray(video) - prior)[~behind].max() > 1e-3


def test_a_third_layer_begins_as_the_second_and_a_fresh_one_as_nothing():
    fresh = jax.jit(build("layer3").init)(jax.random.key(0), batch())
    begun = build("layer3", init_from="before").init_from_previous(fresh)
    for kind in fresh:
        jax.tree.map(np.testing.assert_array_equal, begun[kind]["layer3"], fresh[kind]["layer2"])
        assert begun[kind]["layer2"] is fresh[kind]["layer2"]
    assert build("layer3").init_from_previous(fresh) is fresh
