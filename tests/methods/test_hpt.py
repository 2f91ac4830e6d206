"""HPT as the paper has it: two passes, sequences, faces, Eq. 15, and what it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psrjax import config as configs
from psrjax.data import spec
from psrjax.errors import UserError
from psrjax.methods import base, hpt
from psrjax.ops import pose_label
from psrjax.training import optimizer, state, step

SIZES = {"b": 1, "k": 2, "t": 4, "h": 16, "w": 16}
SMALL = {
    "width": 2,
    "num_downsamples": 1,
    "match_blocks": 1,
    "generator_width": 2,
    "levels": 2,
    "hidden": 2,
    "discriminator_width": 2,
    "discriminator_layers": 2,
    "discriminator_scales": 1,
    "smooth_width": 2,
    "smooth_num_downsamples": 1,
    "smooth_blocks": 1,
    "face_size": 8,
    "face_width": 2,
    "face_num_downsamples": 1,
    "face_blocks": 1,
    "perceptual": "off",
    "history": 3,
}
CHEAP = {"xla_backend_optimization_level": 0}


def build(stage="face", **fields):
    return base.build("hpt", stage=stage, **{**SMALL, **fields})


@functools.cache
def wire_batch(seed=0):
    rng = np.random.default_rng(seed)
    wire = spec.zeros(build().reads, SIZES)
    for key, array in wire.items():
        if array.dtype == np.uint8:
            wire[key] = rng.integers(0, 256, array.shape).astype(np.uint8)
        else:
            wire[key] = rng.uniform(-0.9, 0.9, array.shape).astype(np.float32)
            wire[key][..., 2] = 1.0
    return wire


@functools.cache
def batch(seed=0):
    return spec.decode(wire_batch(seed))


@functools.cache
def variables():
    """Of all three stages; the nets that begin near 0 are made to do something."""
    made = jax.jit(build().init, compiler_options=CHEAP)(jax.random.key(0), batch())
    rng = np.random.default_rng(1)
    louder = lambda leaf: leaf + rng.normal(0, 0.1, leaf.shape).astype(np.float32)  # noqa: E731
    params = {
        **made["params"],
        **{k: jax.tree.map(louder, made["params"][k]) for k in ("face", "smooth")},
    }
    return {**made, "params": params}


@functools.cache
def runner(method):
    run = lambda v, b, carry: method.apply(v, b, carry, True, method="synthesize")  # noqa: E731
    start = lambda v, b: method.apply(v, b, method="start")  # noqa: E731
    return tuple(jax.jit(f, compiler_options=CHEAP) for f in (start, run))


def synthesized(lengths, joints=None):
    """The steps, whole, of the clip cut into windows of these lengths."""
    start, run = runner(build())
    given = dict(batch())
    given["target_joints"] = given["target_joints"] if joints is None else joints
    carry, parts, first = None, [], 0
    for length in lengths:
        window = {**given, "target_joints": given["target_joints"][:, first : first + length]}
        carry = start(variables(), window) if carry is None else carry
        made, carry = run(variables(), window, carry)
        parts.append(made["steps"])
        first += length
    return {name: np.concatenate([part[name] for part in parts], 1) for name in parts[0]}


@pytest.mark.slow  # D2G-Net's and INTERnet's windows are in the fast suite
def test_windows_of_any_length_give_what_the_whole_clip_gives():
    whole, cut = synthesized([4]), synthesized([1] * 4)
    assert set(whole) == {"transfer", "temporal", "face"}
    for name in whole:
        np.testing.assert_allclose(cut[name], whole[name], atol=1e-4)


def test_with_matte_the_person_lies_over_the_given_background():
    """Frames over two backgrounds differ by what the outline leaves of their difference."""
    made = build("transfer", matte=True)
    assert set(made.reads) - set(build("transfer").reads) == {"background", "target_mask"}
    assert "target_mask" not in build("temporal", matte=True).reads
    given = {**batch(), "target_mask": np.zeros((1, 4, 16, 16, 1), np.float32)}
    dark, light = ({**given, "background": np.full((1, 16, 16, 3), x)} for x in (-0.2, 0.2))
    weights = jax.jit(made.init, compiler_options=CHEAP)(jax.random.key(0), dark)
    start, run = runner(made)
    carry = start(weights, dark)
    frames = [run(weights, each, carry)[0]["steps"]["transfer"] for each in (dark, light)]
    shown = (frames[1] - frames[0]) / 0.4
    assert 0.0 < shown.min() and shown.max() < 1.0
    np.testing.assert_allclose(shown, jnp.broadcast_to(shown[..., :1], shown.shape), atol=1e-5)


def test_a_frame_depends_on_the_l_minus_1_before_it_only_through_the_smoother():
    joints = batch()["target_joints"]
    changed = joints.at[:, 0].add(0.2).at[:, 0, :, 2].set(1.0)
    # The exemplar is chosen by the first pose: both choose the same if there is one.
    one, other = synthesized([4]), synthesized([4], changed)
    np.testing.assert_allclose(one["transfer"][:, 1:], other["transfer"][:, 1:], atol=1e-5)
    assert np.abs(one["temporal"][:, 1] - other["temporal"][:, 1]).max() > 1e-4


def test_the_face_changes_inside_its_square_alone_and_not_at_all_without_a_head():
    steps = synthesized([4])
    changed = np.abs(steps["face"] - steps["temporal"]).max((0, 1, 4)) > 0
    assert changed.any()
    headless = batch()["target_joints"].at[:, :, (0, 17, 18)].set(0.0)
    steps = synthesized([4], headless)
    np.testing.assert_array_equal(steps["face"], steps["temporal"])
    centred = batch()["target_joints"].at[:, :, 0].set(jnp.asarray((0.0, 0.0, 1.0)))
    steps = synthesized([4], centred)
    apart = np.abs(steps["face"] - steps["temporal"]).max((0, 1, 4))
    assert apart[4:12, 4:12].max() > 0
    apart[4:12, 4:12] = 0
    assert apart.max() == 0  # bit by bit


def test_the_exemplar_is_the_source_frame_of_the_nearest_pose_painted_once_more():
    start, _ = runner(build())
    for chosen in (0, 1):
        joints = batch()["source_joints"][:, chosen : chosen + 1].repeat(4, 1)
        one = start(variables(), {**batch(), "target_joints": joints})
        only = {k: batch()[k][:, chosen : chosen + 1] for k in ("source", "source_joints")}
        other = start(variables(), {**batch(), **only, "target_joints": joints})
        np.testing.assert_allclose(one["exemplar"], other["exemplar"], atol=1e-5)
        assert np.abs(one["exemplar"] - batch()["source"][:, chosen]).max() > 0.01
        assert not one["previous"].any()  # z, the placeholder


def test_the_baseline_copies_the_frame_of_the_nearest_pose():
    order = [1, 0, 0, 1]
    joints = batch()["source_joints"][:, order] + 0.01
    shown = build().bind({}).baselines({**batch(), "target_joints": joints})
    np.testing.assert_array_equal(shown["nearest_pose"], batch()["source"][:, order])


def transfer_log(same=False, **fields):
    out, given = transfer_outputs(same, **fields)
    return out["log"], given


def transfer_terms(same):
    out, given = transfer_outputs(same)
    return out["terms"], out["shared"], given


def transfer_outputs(same, **fields):
    given = {key: value[:, :1] for key, value in batch().items()}
    given |= {"target": given["source"]} if same else {}
    return transfer_loss(**fields)(given), given


@functools.cache
def transfer_loss(**fields):
    method = build("transfer", **fields)

    @functools.partial(jax.jit, compiler_options=CHEAP)
    def run(given):
        start = method.init(jax.random.key(0), batch())
        return method.apply(start, "generator", given, {}, {}, mutable=["spectral"], method="loss")

    return lambda given: run(given)[0]


def test_the_warp_is_compared_on_pairs_of_a_frame_with_itself_only():
    assert float(transfer_terms(False)[0]["warp_self"]) == 0.0
    assert float(transfer_terms(True)[0]["warp_self"]) > 0.0


def test_reconstruction_is_the_mean_absolute_error():
    terms, shared, given = transfer_terms(False)
    expected = np.abs(np.asarray(shared["picture"]) - np.asarray(given["target"][:, 0])).mean()
    np.testing.assert_allclose(terms["reconstruction"], expected, rtol=1e-5)


@pytest.mark.parametrize("row", ["w/o L_D", "w/o L_rec", "w/o L_per", "w/o L_context"])
def test_each_row_of_table_1_leaves_one_term_of_eq_15_out(row):
    whole, less = (
        configs.stage_config(configs.load(f"hpt:{variant}"), "transfer").weights.generator
        for variant in ("", row)
    )
    gone = {name for name in whole if whole[name] and not less[name]}
    term = {"w/o L_D": "align", "w/o L_rec": "reconstruction"}
    assert gone == {term.get(row) or {"w/o L_per": "perceptual"}.get(row, "context")}


@pytest.mark.parametrize(
    ("row", "nets"),
    [
        ("w/o L_ts", {"align", "generator", "face"}),
        ("w/o L_face", {"align", "generator", "smooth"}),
    ],
)
def test_the_other_two_rows_leave_a_stage_out(row, nets):
    config = configs.stage_config(
        configs.load(f"hpt:tiny,{row}"), configs.load(f"hpt:tiny,{row}").stages[-1]
    )
    method = base.build(**configs.method_fields(config))
    sizes = {**SIZES, "t": 3, "h": 32, "w": 32}
    zeros = spec.decode(spec.zeros(method.reads, sizes))
    made = jax.eval_shape(method.init, jax.random.key(0), zeros)["params"]
    assert {name for name in made if "discriminator" not in name} == nets


def test_sequences_shorter_than_l_are_told():
    short = {key: value[:, :2] for key, value in batch().items()}
    with pytest.raises(
        UserError, match=r"'temporal' trains on 4 frames in a row: set .*sampling\.t"
    ):
        jax.eval_shape(build("temporal").init, jax.random.key(0), short)


def test_choices_that_do_not_exist_are_told():
    for field in ("gan", "warp", "smoothing", "smooth_input", "align_to", "pose_label"):
        with pytest.raises(UserError, match=f"config.method.{field}: no 'x'; there are"):
            build(**{field: "x"})


def test_the_measures_of_a_correspondence_are_counted_cell_by_cell():
    rng = np.random.default_rng(0)
    own = np.arange(12).reshape(3, 4)
    place = np.where(rng.random((2, 3, 4)) < 0.5, own, rng.integers(0, 12, (2, 3, 4)))
    weight = rng.random((2, 3, 4)).astype(np.float32)
    cells = (rng.random((2, 3, 4)) < 0.6).astype(np.float32)
    matched = {"place": jnp.asarray(place), "weight": jnp.asarray(weight)}
    found = hpt.match_scores(matched, jnp.asarray(cells))
    for i in range(2):
        inside = cells[i] > 0
        np.testing.assert_allclose(found["match_stays"][i], (place[i] == own)[inside].mean())
        np.testing.assert_allclose(found["match_peak"][i], weight[i][inside].mean(), rtol=1e-6)


def test_a_correspondence_that_has_become_the_identity_is_told_of_in_one_line():
    method = build("transfer")
    (line,) = method.warnings({"match_stays": 1.0, "match_peak": 0.99, "match_gain": 0.0})
    assert "the correspondence has collapsed: 100% of the person's cells" in line
    assert "\n" not in line
    for healthy in ({"match_stays": 0.3, "match_peak": 0.99}, {"match_stays": 1.0}, {}):
        assert method.warnings(healthy) == ()


@pytest.mark.slow
def test_the_log_says_how_much_nearer_the_warped_exemplar_is_to_the_truth():
    """With a sharpness of 0 every cell is the exemplar's mean; on a pair of equals it says 0."""
    log, given = transfer_log(sharpness=0.0)
    truth, exemplar = (np.asarray(given[k][0, 0], np.float64) for k in ("target", "source"))
    sticks = pose_label.stick_figure(given["target_joints"][0], height=16, width=16)[0]
    cells = np.asarray(sticks).reshape(8, 2, 8, 2, 3).max((1, 3, 4)) > 0
    inside = cells.repeat(2, 0).repeat(2, 1)
    mean = np.broadcast_to(exemplar.mean((0, 1)), truth.shape)
    errors = [np.square(x - truth)[inside].mean() for x in (exemplar, mean)]
    np.testing.assert_allclose(log["match_gain"], 10 * np.log10(errors[0] / errors[1]), atol=1e-3)
    np.testing.assert_allclose(log["match_peak"], 1 / 64, rtol=1e-4)
    same, _ = transfer_log(same=True, sharpness=0.0)
    assert set(map(float, same.values())) == {0.0}  # a frame with itself says nothing


def test_nothing_of_the_correspondence_reads_the_octaves():
    """They are the channels behind the label: the pose adaptor has none for them."""
    zeros = jax.tree.map(jnp.zeros_like, dict(batch()))
    made = [
        jax.eval_shape(build("transfer", octaves=octaves).init, jax.random.key(0), zeros)["params"]
        for octaves in (0, 3)
    ]
    shapes = [jax.tree.map(jnp.shape, params) for params in made]
    assert shapes[0]["align"] == shapes[1]["align"]
    assert shapes[0]["generator"] != shapes[1]["generator"]


@pytest.mark.slow
def test_g1_sees_poses_and_its_own_frames_alone_if_it_so_reads_eq_8():
    method = build("temporal", smooth_input="pose", history=2)
    made = jax.jit(method.init, compiler_options=CHEAP)(jax.random.key(0), batch())
    changed = jax.tree.map(lambda x: x + 0.1, made["params"]["generator"])
    other = {**made, "params": {**made["params"], "generator": changed}}
    start, run = runner(method)
    one, two = (run(v, batch(), start(v, batch()))[0]["steps"] for v in (made, other))
    assert np.abs(one["transfer"] - two["transfer"]).max() > 1e-3
    np.testing.assert_array_equal(one["temporal"], two["temporal"])


@pytest.mark.slow
def test_two_steps_of_transfer_with_attention_move_every_parameter_that_has_a_part_in_it():
    """The first moves attention's gate away from 0, the second what lies behind it."""
    method = build("transfer", attend=True)
    config = configs.stage_config(configs.load("hpt:tiny"), "transfer")
    weights = {update: dict(terms) for update, terms in config.weights.items()}
    optimizers = optimizer.make_optimizers(config.optimizer, method.updates)
    begin = functools.partial(state.init_state, method, optimizers, SIZES, ema=False)
    begun = jax.jit(begin, compiler_options=CHEAP)(0)
    play = step.make_step(method, weights, optimizers, accumulate=1, ema=0.0)
    play = jax.jit(play, compiler_options=CHEAP)
    now = begun
    for seed in (0, 1):
        now, log = play(now, wire_batch(seed), {})
        assert all(np.isfinite(value) for value in log.values())
    moved = jax.tree.map(lambda a, b: float(jnp.abs(a - b).max()), begun.params, now.params)
    still = [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, change in jax.tree_util.tree_leaves_with_path(moved)
        if change == 0.0
    ]
    assert set(now.params) == {"align", "generator", "discriminator"}
    assert not [name for name in still if "attention" in name], still
    assert len(still) < 0.05 * len(jax.tree.leaves(moved)), still


def test_octaves_tell_every_net_where_a_pixel_is():
    """With the same pose everywhere else, only the place can tell one pixel from another."""
    made = build(octaves=2)
    given = {**batch(), "target_joints": jnp.zeros_like(batch()["target_joints"])}  # nobody
    labels = made.bind({})._labels(given["target_joints"], given)
    plain = build().bind({})._labels(given["target_joints"], given)
    np.testing.assert_array_equal(labels[..., : plain.shape[-1]], plain)
    where = np.asarray(labels[0, 0, ..., plain.shape[-1] :]).reshape(-1, 8)
    assert len(np.unique(where.round(4), axis=0)) == len(where)
    np.testing.assert_array_equal(where.reshape(16, 16, 8), pose_label.places(16, 16, octaves=2))
    np.testing.assert_allclose(where[0], [-1, 0, 0, -1, -1, 0, 0, -1], atol=1e-6)  # a corner


@pytest.mark.parametrize(("scheme", "agree", "error"), [("a", False, 0.5), ("b", True, 0.5)])
def test_the_flow_warp_compares_each_frame_with_the_true_one_before_it(scheme, agree, error):
    """The picture moves two pixels to the right each frame; one side of it is off by 1."""
    still = np.random.default_rng(0).uniform(-1.0, 1.0, (1, 16, 1, 3)).astype(np.float32)
    truth = jnp.broadcast_to(still[:, None], (1, 4, 16, 16, 3))
    forward = jnp.zeros((1, 4, 16, 16, 2)).at[..., 0].set(2.0)
    backward = -forward if agree else jnp.zeros_like(forward)
    given = {"target": truth, "target_flow_forward": forward, "target_flow": backward}
    video = truth.at[:, :, 8:].add(1.0)
    method = build("temporal", temporal=scheme)
    assert set(given) < set(method.reads) | {"target_flow"}
    assert float(method.apply({}, truth, given, method="_flow_warp")) < 1e-6
    assert float(method.apply({}, video, given, method="_flow_warp")) == pytest.approx(error, 1e-4)


def test_flow_that_contradicts_itself_has_no_part_in_the_flow_warp_of_equation_3():
    forward = jnp.zeros((1, 4, 16, 16, 2)).at[..., 0].set(8.0)
    video = jnp.ones((1, 4, 16, 16, 3))
    given = {"target": -video, "target_flow_forward": forward, "target_flow": forward}
    method = build("temporal", temporal="b")
    assert float(method.apply({}, video, given, method="_flow_warp")) == 0.0


@pytest.mark.slow
def test_range_discriminators_see_all_frames_of_a_window_and_teach_the_smoother():
    method = build("temporal", video_ranges=(3,), history=2)
    assert method.updates["discriminator"] == ("video_discriminator", "range_discriminators")
    assert "target_flow" in method.reads and "target_flow" not in build(video_ranges=(3,)).reads
    given = {**batch(), "target_flow": jnp.zeros((1, 4, 16, 16, 2))}
    variables = jax.jit(method.init)(jax.random.key(0), given)

    def term(params, given):
        made = method.apply(
            {**variables, "params": params}, "generator", given, {}, {}, method="loss"
        )
        return made["terms"]["adversarial_ranges"]

    slopes = jax.jit(jax.grad(term))(variables["params"], given)
    assert any(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(slopes["smooth"]))
    seen = jax.jit(jax.grad(lambda flow: term(variables["params"], {**given, "target_flow": flow})))
    assert (jnp.abs(seen(given["target_flow"])).sum((0, 2, 3, 4))[1:] > 0).all()
