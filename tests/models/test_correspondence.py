"""The nets of pose transfer have their published sizes, and warp what they match."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psrjax.errors import UserError
from psrjax.models import correspondence, global_generator, spade_generator

SMALL = {"width": 2, "hidden": 4, "blocks": 1}


def count(net, *shapes):
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    made = jax.eval_shape(lambda *x: net.init(jax.random.key(0), *x, True), *arrays)
    return sum(leaf.size for leaf in jax.tree.leaves(made["params"]))


def test_parameters_are_as_many_as_those_of_the_published_networks():
    picture = (1, 256, 256, 3)
    # CoCosNet's NoVGGCorrespondence and SPADEGenerator with a label of 21 channels.
    assert count(correspondence.Correspondence(), (1, 256, 256, 21), picture) == 50_905_860
    assert count(spade_generator.SpadeGenerator(), (1, 256, 256, 24)) == 92_770_500
    # pix2pixHD's GlobalGenerator of 5 blocks, 3 num_downsamples, 6 channels: the face's net.
    assert count(global_generator.GlobalGenerator(64, 3, 5), (1, 64, 64, 6)) == 26_724_291


@pytest.mark.parametrize("warp", correspondence.WARPS)
@pytest.mark.parametrize("num_downsamples", [1, 2])
def test_an_exemplar_that_is_matched_with_itself_comes_back(warp, num_downsamples):
    net = correspondence.Correspondence(
        **SMALL, num_downsamples=num_downsamples, warp=warp, sharpness=1e4
    )
    picture = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 8, 16, 3)), jnp.float32)

    label = jnp.zeros((2, 8, 16, 5))
    start = jax.jit(net.init, static_argnums=3)
    variables = start(jax.random.key(0), label, picture, True)
    found = own_match(net, variables, picture)
    side = 2**num_downsamples
    expected = np.asarray(picture)
    if warp == "mean":
        cells = expected.reshape(2, 8 // side, side, 16 // side, side, 3).mean((2, 4))
        expected = cells.repeat(side, 1).repeat(side, 2)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def own_match(net, variables, picture):
    """The exemplar's own descriptors as queries."""

    @jax.jit
    def run(variables, picture):
        exemplar = net.apply(variables, picture, False, method="encode_exemplar")
        size = picture.shape[1:3]
        keys = exemplar["keys"]
        return net.apply(variables, keys, exemplar, size, method="warp_exemplar")["coarse"]

    return run(variables, picture)


@pytest.mark.slow
def test_sigma_rises_by_equal_factors_in_training_only():
    rise = {"sharpness": 80.0, "sharpness_start": 5.0, "sharpness_steps": 4}
    rising = correspondence.Correspondence(**SMALL, **rise)
    random = np.random.default_rng(0)
    label, picture = (jnp.asarray(random.normal(size=(1, 8, 8, c)), jnp.float32) for c in (5, 3))
    jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    run = jit(
        lambda v, train: rising.apply(v, label, picture, train, mutable=True), static_argnums=1
    )
    variables = jit(rising.init, static_argnums=3)(jax.random.key(0), label, picture, True)
    for steps, sigma in ((0, 5.0), (2, 20.0), (3, 80.0)):  # so many more, and what sigma is then
        for _ in range(steps):
            variables |= {"schedule": run(variables, True)[1]["schedule"]}
        fixed = correspondence.Correspondence(**SMALL, sharpness=sigma)
        expected = jit(lambda v, net=fixed: net.apply(v, label, picture, False)["weight"])(
            variables
        )
        found, kept = run(variables, False)
        np.testing.assert_allclose(found["weight"], expected, rtol=1e-5, err_msg=str(sigma))
        assert kept["schedule"] == variables["schedule"]


def test_both_domains_have_adaptors_of_their_own_and_features_of_length_one():
    net = correspondence.Correspondence(**SMALL)
    label, picture = jnp.ones((1, 16, 16, 5)), jnp.ones((1, 16, 16, 3))
    start = jax.jit(net.init_with_output, static_argnums=3)
    made, variables = start(jax.random.key(0), label, picture, True)
    assert made["features"].shape == (1, 4, 4, 8) and made["coarse"].shape == picture.shape
    np.testing.assert_allclose(jnp.linalg.norm(made["features"], axis=-1), 1.0, atol=1e-3)
    names = set(variables["params"])
    assert {"pose_adaptor", "picture_adaptor", "pose_projection", "picture_projection"} <= names


def test_sizes_that_do_not_fit_are_told():
    for net, shapes, message in (
        (correspondence.Adaptor(width=2), [(1, 18, 16, 3)], "cannot be halved 2 times"),
        (
            correspondence.Correspondence(num_downsamples=3),
            [(1, 8, 8, 5), (1, 8, 8, 3)],
            "use 1 or 2",
        ),
        (spade_generator.SpadeGenerator(width=2, levels=3), [(1, 12, 16, 5)], "halved 3 times"),
        (global_generator.GlobalGenerator(2, 3, 1), [(1, 8, 8, 6)], "to at least 2x2"),
    ):
        with pytest.raises(UserError, match=message):
            count(net, *shapes)
