"""D2G-Net as the paper has it: Eq. 1 to 5, what it begins from, its switches, what it refuses."""

import functools
import logging
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from psrjax import config as configs
from psrjax.data import sampling, source, spec
from psrjax.errors import UserError
from psrjax.methods import base, d2gnet

SIZES = {"b": 1, "k": 2, "t": 4, "h": 24, "w": 24}
SMALL = {
    "uv_width": 2,
    "uv_num_downsamples": 1,
    "uv_blocks": 1,
    "tex_size": 4,
    "tex_channels": 5,
    "d2g_width": 2,
    "d2g_num_downsamples": 1,
    "d2g_blocks": 1,
    "pose_level": 2,
    "pose_width": 2,
    "discriminator_width": 2,
    "discriminator_layers": 2,
    "discriminator_scales": 1,
    "perceptual": "off",
}
CHEAP = {"xla_backend_optimization_level": 0}


def build(stage="joint", **fields):
    return base.build("d2gnet", stage=stage, **{**SMALL, **fields})


@functools.cache
def batch(seed=0):
    rng = np.random.default_rng(seed)
    method = build()
    wire = spec.zeros((*method.reads, *method.baseline_reads), SIZES)
    for key, array in wire.items():
        if key.endswith("iuv"):
            part = rng.integers(0, 25, (*array.shape[:-1], 1))
            places = rng.integers(0, 256, (*array.shape[:-1], 2)) * (part > 0)
            wire[key] = np.concatenate([part, places], -1).astype(np.uint8)
        elif array.dtype == np.uint8:
            wire[key] = rng.integers(0, 256, array.shape).astype(np.uint8)
        else:
            wire[key] = rng.uniform(-0.9, 0.9, array.shape).astype(array.dtype)
    for key in ("source_joints", "target_joints"):
        wire[key][..., 2] = 1.0
    return spec.decode(wire)


@functools.cache
def variables():
    """With a texture and a background that are not empty."""
    made = jax.jit(build().init, compiler_options=CHEAP)(jax.random.key(0), batch())["params"]
    rng = np.random.default_rng(1)
    filled = lambda leaf: jnp.asarray(rng.uniform(0, 1, leaf.shape), jnp.float32)  # noqa: E731
    full = {name: jax.tree.map(filled, made[name]) for name in ("texture", "background")}
    return {"params": {**made, **full}}


def without(*nets):
    return {"params": {k: v for k, v in variables()["params"].items() if k not in nets}}


@functools.cache
def runner(method):
    run = lambda v, b, carry: method.apply(v, b, carry, True, method="synthesize")  # noqa: E731
    start = lambda v, b: method.apply(v, b, method="start")  # noqa: E731
    return tuple(jax.jit(f, compiler_options=CHEAP) for f in (start, run))


def synthesized(lengths, method=None, of=None):
    start, run = runner(method or build())
    of = of or variables()
    carry, parts, first = None, [], 0
    for length in lengths:
        window = {
            key: value[:, first : first + length] if key.startswith("target") else value
            for key, value in batch().items()
        }
        carry = start(of, window) if carry is None else carry
        made, carry = run(of, window, carry)
        parts.append(made)
        first += length
    return {
        name: np.concatenate([part[name] for part in parts], 1)
        for name in ("video", "mask", "foreground")
    }


def test_windows_of_any_length_give_what_the_whole_clip_gives():
    whole, cut = synthesized([4]), synthesized([2, 2])
    for name in whole:
        np.testing.assert_allclose(cut[name], whole[name], atol=1e-4)


def test_with_skips_each_pixel_of_the_label_reaches_the_coordinates_by_itself():
    """Nothing but the shortest way is left open: the first layer and the last one."""

    def reached(skips):
        method = build("uv", uv_skips=skips)
        params = jax.jit(method.init, compiler_options=CHEAP)(jax.random.key(0), batch())["params"]
        closed = {k: v for k, v in params["uv"].items() if not k.startswith("up")}
        closed |= {k: jax.tree.map(jnp.zeros_like, v) for k, v in params["uv"].items() if "up" in k}
        label = method.apply({"params": params}, batch(), method="_window_labels")[:, -1]
        found = method.apply(
            {"params": {"uv": closed}}, label, method=lambda m, x: m.uv(x, False)["logits"]
        )
        return float(found.std((1, 2)).max())

    assert reached(True) > 1e-4
    assert reached(False) < 1e-6


def test_the_label_has_this_pose_and_the_last_two():
    first, then = jnp.zeros((1, 2, 1, 1, 1)), jnp.arange(1.0, 4.0).reshape(1, 3, 1, 1, 1)
    labels = d2gnet._with_history(then, first)[0, :, 0, 0]
    np.testing.assert_array_equal(labels, [[1, 0, 0], [2, 1, 0], [3, 2, 1]])
    one = d2gnet._with_history(then, first[:, :0])[0, :, 0, 0]
    np.testing.assert_array_equal(one, [[1], [2], [3]])


def test_where_nobody_is_the_frame_is_the_background():
    params = variables()["params"]
    bias = params["uv"]["last"]["bias"].at[0].set(1e4)
    alone = {**params, "uv": {**params["uv"], "last": {**params["uv"]["last"], "bias": bias}}}
    made = synthesized([4], of={"params": alone})
    expected = np.broadcast_to(alone["background"]["picture"][:, None], made["video"].shape)
    np.testing.assert_array_equal(made["video"], expected)
    np.testing.assert_array_equal(made["mask"], 0)


def test_the_colours_without_details_are_a_step_before_the_frame():
    start, run = runner(build())
    made, _ = run(variables(), batch(), start(variables(), batch()))
    assert set(made["steps"]) == {"raw", "joint"}
    np.testing.assert_array_equal(made["steps"]["joint"], made["video"])
    np.testing.assert_array_equal(made["steps"]["raw"], made["intermediates"]["raw"])
    of = without("details")
    start, run = runner(build(d2g="off"))
    assert "steps" not in run(of, batch(), start(of, batch()))[0]  # there is nothing but colours


@functools.cache
def terms(**fields):
    method = build(**fields)
    of = without(*(("details",) if fields.get("d2g") == "off" else ()))
    if fields.get("stage") == "warmup":
        of = without("details", "discriminator")

    def run(of, given):
        return method.apply(of, "generator", given, {}, {}, method="loss")

    return jax.jit(run, compiler_options=CHEAP)(of, batch())


def test_without_d2g_the_frame_is_the_raw_branchs():
    out = terms(d2g="off")["terms"]
    np.testing.assert_array_equal(out["reconstruction"], out["regular"])
    whole = terms()["terms"]
    assert float(jnp.abs(whole["reconstruction"] - whole["regular"])) > 1e-4


def test_the_terms_are_eq_6s_and_the_warm_up_has_the_raw_branchs():
    assert set(terms(stage="warmup")["terms"]) == {"regular", "parts", "coordinates"}
    whole = {"regular", "parts", "coordinates", "reconstruction", "temporal", "adversarial"}
    assert set(terms()["terms"]) == whole
    shared = terms()["shared"]
    expected = np.square(np.asarray(shared["frame"]) - np.asarray(shared["truth"])).mean()
    np.testing.assert_allclose(terms()["terms"]["reconstruction"], expected, rtol=1e-5)


def test_gan_bce_is_eq_7():
    def judged(name):
        shared = terms()["shared"]
        logits = build().apply(variables(), shared["label"], shared[name], method="_judge")
        return [1 / (1 + np.exp(-np.asarray(one["logits"], np.float64))) for one in logits]

    real, fake = judged("truth"), judged("frame")
    printed = sum(np.log(r).mean() + np.log(1 - f).mean() for r, f in zip(real, fake))
    found = build(gan="bce").apply(
        variables(), "discriminator", {}, terms()["shared"], {}, method="loss"
    )
    np.testing.assert_allclose(found["terms"]["adversarial"], -printed / 2, rtol=1e-4)
    ours = terms(gan="bce")["terms"]["adversarial"]
    np.testing.assert_allclose(ours, -sum(np.log(f).mean() for f in fake), rtol=1e-4)


def test_eq_5_against_a_loop_over_pixels():
    rng = np.random.default_rng(3)
    logits = rng.normal(size=(1, 2, 3, 25)).astype(np.float32)
    places = rng.uniform(-1, 1, (1, 2, 3, 24, 2)).astype(np.float32)
    part = np.array([[[0, 3, 24], [1, 0, 7]]])
    truth = rng.uniform(0, 1, (1, 2, 3, 2)).astype(np.float32) * (part > 0)[..., None]
    entropy = error = 0.0
    for place in np.ndindex(1, 2, 3):
        chances = np.exp(logits[place]) / np.exp(logits[place]).sum()
        entropy -= np.log(chances[part[place]]) / 6
        if part[place]:
            off = places[place][part[place] - 1] - (2 * truth[place] - 1)
            error += np.abs(off).sum() / (6 * 48)
    found = {"logits": jnp.asarray(logits), "coordinates": jnp.asarray(places)}
    iuv = jnp.asarray(np.concatenate([part[..., None], truth], -1), jnp.float32)
    made = d2gnet.uv_terms(found, iuv)
    np.testing.assert_allclose(made["parts"], entropy, rtol=1e-5)
    np.testing.assert_allclose(made["coordinates"], error, rtol=1e-5)


def test_mask_tex_acts_at_synthesis_alone():
    emptied = variables()["params"]["texture"]["atlas"].at[..., 3:].set(0.0)
    plain = {"params": {**variables()["params"], "texture": {"atlas": emptied}}}
    masked = synthesized([4], build(mask_tex=True))
    np.testing.assert_allclose(masked["video"], synthesized([4], of=plain)["video"], atol=1e-6)
    assert not build(mask_tex=True)._masks(train=True)


def test_the_oracle_is_a_still_texture_at_the_true_coordinates_before_the_background():
    rng = np.random.default_rng(5)
    atlas = rng.uniform(-1, 1, (24, 4, 4, 3)).astype(np.float32)

    def frames(count):
        part = rng.integers(0, 25, (1, count, 24, 24))
        column, row = rng.integers(0, 4, (2, 1, count, 24, 24)) * (part > 0)
        looks = atlas[np.maximum(part - 1, 0), row, column]
        return looks, np.stack([part, column / 3, row / 3], -1).astype(np.float32)

    (source, source_iuv), (looks, iuv) = frames(40), frames(4)
    given = {
        **batch(),
        "source": jnp.asarray(source),
        "source_iuv": jnp.asarray(source_iuv),
        "source_joints": jnp.ones((1, 40, 26, 3)),
        "target_iuv": jnp.asarray(iuv),
    }
    made = build().apply(variables(), given, method="baselines")
    behind = np.asarray(variables()["params"]["background"]["picture"])[:, None]
    expected = np.where(iuv[..., :1] > 0, looks, behind)
    np.testing.assert_allclose(made["oracle: still texture, true uv"], expected, atol=1e-5)
    assert list(build("uv").apply({}, given, method="baselines")) == ["nearest_pose"]


def footage(*, shift=0, steady=True):
    """A red square, part 2, that walks over a green floor with a stripe."""
    frames = np.zeros((8, 24, 24, 3), np.uint8)
    frames[..., 1] = 90
    iuv, mask = np.zeros((8, 24, 24, 3), np.uint8), np.zeros((8, 24, 24, 1), np.uint8)
    for time in range(8):
        frames[time][:, np.arange(4, 10) + shift * time - 24] = 255
        inside = (slice(8, 14), slice(2 * time, 2 * time + 6))
        frames[(time, *inside)] = (200, 0, 0)
        iuv[(time, *inside)] = (2, 255, 0)
        mask[(time, *inside)] = 255
    sample = {"target": frames, "target_iuv": iuv, "target_mask": mask}
    return SimpleNamespace(
        steady=steady, frames=lambda reads, count=0: iter([{key: sample[key] for key in reads}])
    )


def test_texture_and_background_begin_from_the_clip():
    params = variables()["params"]
    begun = build().warm_start(params, footage())
    atlas, picture = begun["texture"]["atlas"], begun["background"]["picture"][0]
    expected = np.zeros_like(atlas)
    expected[1, ..., 0] = 200 / 255  # texels that nobody saw are as the nearest that somebody did
    np.testing.assert_allclose(atlas, expected, atol=1e-6)
    floor = np.full((24, 24, 3), (-1, 90 / 127.5 - 1, -1))
    floor[:, 4:10] = 1
    np.testing.assert_allclose(picture, floor, atol=1e-6)
    assert begun["uv"] is params["uv"] and begun["details"] is params["details"]
    assert build("uv").warm_start(params, None) is params


def test_a_moving_camera_is_told_and_training_goes_on(caplog):
    with caplog.at_level(logging.WARNING, logger="absl"):
        build().warm_start(variables()["params"], footage())
        assert "camera" not in caplog.text
        build().warm_start(variables()["params"], footage(shift=2))
    assert "the camera moves, or the light does" in caplog.text


def test_frames_cropped_at_random_are_told():
    with pytest.raises(UserError, match=r"config.data.crop: d2gnet learns one background"):
        build().warm_start(variables()["params"], footage(steady=False))


def test_frames_of_another_size_are_told():
    larger = {
        key: value.repeat(2, -3).repeat(2, -2) if value.ndim == 5 else value
        for key, value in batch().items()
    }
    larger_labels = jnp.zeros((1, 2, 48, 48, 6))
    with pytest.raises(UserError, match="frames of 48x48: the background was learned at 24x24"):
        jax.eval_shape(runner(build())[1], variables(), larger, {"labels": larger_labels})


def test_windows_too_short_for_pairs_with_their_history_are_told():
    short = {k: v[:, :3] if k.startswith("target") else v for k, v in batch().items()}
    with pytest.raises(UserError, match=r"poses of 4 in a row: set config.data.sampling.t to at"):
        jax.eval_shape(build().init, jax.random.key(0), short)
    jax.eval_shape(build(history=1).init, jax.random.key(0), short)


def test_choices_that_do_not_exist_are_told():
    for field in ("d2g", "pose_cond", "perceptual", "retarget", "history", "skeleton", "gan"):
        with pytest.raises(UserError, match=f"config.method.{field}: no .*; there are"):
            build(**{field: 7})


@pytest.mark.parametrize(
    ("row", "lacks"), [("w/o regular", "regular"), ("w/o temporal", "temporal")]
)
def test_rows_of_the_supplement_leave_a_term_out(row, lacks):
    whole, less = (
        configs.stage_config(configs.load(f"d2gnet:{variant}"), "joint").weights.generator
        for variant in ("demo", f"demo,{row}")
    )
    assert {name for name in whole if whole[name] and not less[name]} == {lacks}


def test_rows_of_table_2_change_the_nets():
    def nets(row):
        config = configs.stage_config(configs.load(f"d2gnet:tiny{row}"), "joint")
        method = base.build(**configs.method_fields(config))
        zeros = spec.decode(spec.zeros(method.reads, {**SIZES, "h": 32, "w": 32}))
        return jax.eval_shape(method.init, jax.random.key(0), zeros)["params"]

    whole = nets("")
    assert set(whole) - set(nets(",w/o D2G")) == {"details"}
    assert nets(",w/o HybridTex")["texture"]["atlas"].shape[-1] == 3
    assert set(whole["details"]) - set(nets(",w/o Pose cond")["details"]) == {"pose", "joining"}


@pytest.mark.parametrize(("lacks", "key"), [("iuv", "target_iuv"), ("mesh_label", "target_mesh")])
def test_a_clip_without_body_parts_or_mesh_is_told_what_makes_them(lacks, key):
    footage = object.__new__(source.Source)
    footage.directory = "somewhere"
    footage.streams = {"frames", "joints", "flow", "flow_forward", "iuv", "mesh_label"} - {lacks}
    with pytest.raises(UserError, match=rf"holds no '{lacks}' .*{key}.*prepare --body"):
        sampling.require(footage, build().reads)


def _resized(maps, size):
    """(h w c) as Pillow resizes it, bilinearly and without aliasing."""
    planes = [Image.fromarray(plane) for plane in np.moveaxis(np.asarray(maps, np.float32), -1, 0)]
    return np.stack(
        [np.asarray(p.resize((size, size), Image.Resampling.BILINEAR)) for p in planes], -1
    )


def test_a_uv_generator_of_small_frames_serves_large_ones():
    """Its maps at twice the size are those of the label made half as large, enlarged."""
    small, large = (build("uv", uv_factor=factor) for factor in (1, 2))
    label = jax.random.uniform(jax.random.key(1), (1, 32, 32, 9), minval=-1.0)

    def find(module, label):
        return module._find_uv(label, False)

    variables = small.init(jax.random.key(0), label[:, ::2, ::2], method=find)
    found = large.apply(variables, label, method=find)
    expected = small.apply(variables, jnp.asarray(_resized(label[0], 16)[None]), method=find)
    for name, maps in expected.items():
        flat = _resized(np.asarray(maps[0]).reshape(16, 16, -1), 32)
        np.testing.assert_allclose(found[name][0].reshape(32, 32, -1), flat, atol=2e-5)
    with pytest.raises(UserError, match="uv_factor=3.*32x32"):
        build("uv", uv_factor=3).apply(variables, label, method=find)
