"""The volumetric networks: published sizes, and what Eq. 2 and Eq. 3 promise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psrjax.errors import UserError
from psrjax.models import volumetric

NARROW = {"width": 2, "blocks": 1}


def video(seed=0, size=(1, 4, 8, 8, 3)):
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, size), jnp.float32)


def shapes(net, *inputs):
    structs = [jax.ShapeDtypeStruct(size, jnp.float32) for size in inputs]
    return jax.eval_shape(lambda *xs: net.init_with_output(jax.random.key(0), *xs, True), *structs)


def count(variables, name=None):
    params = variables["params"]
    return sum(leaf.size for leaf in jax.tree.leaves(params[name] if name else params))


CLIP = (1, 8, 112, 112, 3)


def test_reconstruction_has_the_published_size():
    made, variables = shapes(volumetric.Reconstruction(), CLIP, CLIP, CLIP)
    assert count(variables) == 76_062_601
    assert count(variables, "encode_source") == 22_412_480
    assert count(variables, "decode_visible") == 1_172_163
    assert count(variables, "fuse") == 5_308_672
    assert {name: made[name].shape for name in made} == dict.fromkeys(
        ("background", "visible", "occluded"), CLIP
    )


def test_refinement_has_the_published_size():
    made, variables = shapes(volumetric.Refinement(), CLIP, CLIP, CLIP)
    assert count(variables) == 49_602_179
    assert count(variables, "encode_videos") == 22_478_336
    assert count(variables, "fuse") == 3_539_200
    assert made["frame"].shape == CLIP


def test_the_latent_is_a_quarter_of_time_and_space():
    made, _ = shapes(volumetric.Encoder(), CLIP)
    assert made.shape == (1, 2, 28, 28, 256)


@pytest.mark.parametrize(
    ("net", "children"),
    [
        (
            volumetric.Reconstruction("separate_heads"),
            {"decode_background", "decode_visible", "decode_occluded"},
        ),
        (volumetric.Reconstruction("common_head"), {"decode_background", "decode_foreground"}),
        (volumetric.Reconstruction("context"), {"decode_background", "decode_foreground"}),
        (volumetric.Refinement("concat_videos"), {"encode_videos", "encode_depth", "fuse"}),
        (
            volumetric.Refinement("separate"),
            {"encode_source", "encode_estimate", "encode_depth", "fuse"},
        ),
        (volumetric.Refinement("concat_all"), {"encode_all"}),
    ],
)
def test_variants_have_their_own_encoders_and_decoders(net, children):
    _, variables = shapes(net, *(CLIP,) * 3)
    names = set(variables["params"])
    if isinstance(net, volumetric.Reconstruction):
        assert names == children | {"encode_source", "encode_prior", "encode_depth", "fuse"}
    else:
        assert names == children | {"decode"}
    if net == volumetric.Reconstruction("common_head"):
        heads = {name for name in variables["params"]["decode_foreground"] if "head" in name}
        assert heads == {"head_visible", "head_occluded"}  # all but the last layer is shared


@pytest.mark.parametrize("size", [(1, 6, 8, 8, 3), (1, 8, 10, 8, 3), (1, 8, 8, 9, 3)])
def test_sizes_that_cannot_be_halved_twice_are_refused(size):
    with pytest.raises(UserError, match=r"multiples of 4, not \d+ frames of"):
        shapes(volumetric.Reconstruction(**NARROW), size, size, size)


def test_the_network_looks_ahead_and_behind_in_time_and_stays_in_range():
    net = volumetric.Refinement(norm="instance", **NARROW)
    clips = [video(i) for i in range(3)]
    run = jax.jit(functools.partial(net.apply, train=True))
    variables = jax.jit(functools.partial(net.init, train=True))(jax.random.key(0), *clips)
    y = run(variables, *clips)["frame"]
    assert y.dtype == jnp.float32 and float(jnp.abs(y).max()) <= 1.0
    for frame in (0, 3):
        changed = run(variables, clips[0].at[:, frame].add(0.5), *clips[1:])["frame"]
        assert (jnp.abs(changed - y).max((0, 2, 3, 4)) > 0).all()


def parts():
    names = ("background", "visible", "occluded")
    return {name: video(seed) for seed, name in enumerate(names)}


def labels(seed=7, size=(1, 4, 8, 8, 1)):
    return jnp.asarray(np.random.default_rng(seed).integers(0, 3, size), jnp.int32)


def test_composition_picks_each_pixel_from_the_decoder_of_its_region():
    made, region = parts(), labels()
    got = np.asarray(volumetric.compose(made, region))
    videos = [np.asarray(made[name]) for name in ("background", "visible", "occluded")]
    for place in np.ndindex(region.shape[:-1]):
        np.testing.assert_array_equal(got[place], videos[int(region[place][0])][place])


def test_a_decoder_gets_no_gradient_where_another_paints():
    region = labels()

    def total(made):
        return jnp.sum(jnp.sin(volumetric.compose(made, region)))

    for label, slope in zip((0, 2, 1), jax.tree.leaves(jax.grad(total)(parts()))):
        # leaves come in the order of the names: background, occluded, visible
        inside = np.broadcast_to(np.asarray(region) == label, slope.shape)
        assert (np.asarray(slope)[~inside] == 0).all()
        assert (np.asarray(slope)[inside] != 0).any()


def flow(x, y, size=(1, 4, 8, 8)):
    return jnp.broadcast_to(jnp.asarray([x, y], jnp.float32), (*size, 2))


def test_without_zeta_nothing_is_added():
    x = video()
    got = volumetric.add_previous(x, flow(1, 1), jnp.ones((1, 4, 8, 8, 1)), zeta=0.0)
    np.testing.assert_array_equal(got, x)


def test_the_raw_frame_before_is_added_once_where_the_flow_points():
    x = video()
    got = volumetric.add_previous(x, flow(1.0, 0.0), jnp.ones((1, 4, 8, 8, 1)), zeta=0.1)
    expected = np.asarray(x).copy()
    for t in (1, 2, 3):  # pixel (x, y) of frame t was at (x + 1, y) in frame t - 1
        expected[:, t, :, :-1] += 0.1 * np.asarray(x)[:, t - 1, :, 1:]
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_the_warp_stays_on_the_mesh_unless_told_otherwise():
    x, mesh = video(), jnp.zeros((1, 4, 8, 8, 1)).at[:, :, 2:5, 2:5].set(1.0)
    on_mesh = volumetric.add_previous(x, flow(0.0, 0.0), mesh)
    everywhere = volumetric.add_previous(x, flow(0.0, 0.0), mesh, scope="all")
    off = np.asarray(mesh[..., 0]) == 0
    np.testing.assert_array_equal(np.asarray(on_mesh)[off], np.asarray(x)[off])
    np.testing.assert_array_equal(np.asarray(on_mesh)[~off], np.asarray(everywhere)[~off])
    np.testing.assert_allclose(everywhere[:, 1:], x[:, 1:] + 0.1 * x[:, :-1], atol=1e-6)


def test_no_gradient_flows_through_the_frame_before():
    mesh = jnp.ones((1, 4, 8, 8, 1))

    def later(x):
        return volumetric.add_previous(x, flow(0.3, -0.2), mesh)[:, 1:].sum()

    slope = np.asarray(jax.grad(later)(video()))
    np.testing.assert_array_equal(slope[:, 0], 0.0)
    np.testing.assert_array_equal(slope[:, 1:], 1.0)


def started(net):
    _, variables = net.init_with_output(jax.random.key(0), video(), True)
    return variables["params"]


def test_weights_begin_as_gtnets_script_has_them_or_gently():
    """`gtnet`: every convolution by Kaiming's fan-out, every norm at 1; `gentle` by less."""
    gtnet, gentle = (
        started(volumetric.Encoder(8, 2, initialization=kind))
        for kind in volumetric.INITIALIZATIONS
    )
    for block in ("block0", "block1"):
        assert (gtnet[block]["norm0"]["scale"] == 1).all()
        assert (gtnet[block]["norm1"]["scale"] == 1).all()
        assert (gentle[block]["norm0"]["scale"] == 1).all()
        np.testing.assert_allclose(gentle[block]["norm1"]["scale"], 0.1)
    latent = video(1, (1, 2, 4, 4, 32))
    for kind, std in (
        ("gtnet", np.sqrt(2 / (3 * 7**3))),
        ("gentle", 1 / np.sqrt(3 * 8 * 7**3)),  # uniform within 1 / sqrt(fan in)
    ):
        net = volumetric.Decoder(8, initialization=kind)
        init = jax.jit(functools.partial(net.init, train=True))
        params = init(jax.random.key(0), latent)["params"]
        assert params["head"]["kernel"].std() == pytest.approx(std, rel=0.03)


def test_bfloat16_is_close_to_float32():
    clips = [video(i) for i in range(3)]
    exact = volumetric.Refinement(**NARROW)
    rough = volumetric.Refinement(dtype=jnp.bfloat16, **NARROW)
    variables = jax.jit(functools.partial(exact.init, train=True))(jax.random.key(0), *clips)
    one, other = (
        jax.jit(functools.partial(net.apply, train=True, mutable=["batch_stats"]))(
            variables, *clips
        )[0]["frame"]
        for net in (exact, rough)
    )
    assert other.dtype == jnp.float32
    assert float(jnp.abs(one - other).mean()) < 0.05
