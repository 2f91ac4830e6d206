"""Maps with pixels side by side on the channels: what is computed of them stays what it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from psrjax.models import integration
from psrjax.nn import layers
from psrjax.nn.discriminators import frame_ranges
from psrjax.ops import conv
from psrjax.ops.conv import packing
from psrjax.runtime import target


def normal(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.fixture
def native():
    conv.use("native")
    yield
    conv.use("auto")


@pytest.mark.parametrize("pixels", [2, 4])
@pytest.mark.parametrize("kernel_size", [(1, 1), (3, 3), (3, 5), (7, 7)])
def test_a_packed_convolution_equals_scipy_on_the_maps(native, kernel_size, pixels):
    x, kernel = normal(2, 5, 8, 3), normal(*kernel_size, 3, 4, seed=1)
    found = conv.conv(packing.pack(x, pixels), kernel, pixels=pixels)
    expected = [
        sum(
            signal.correlate2d(image[..., i], kernel[..., i, o], mode="same")
            for i in range(x.shape[-1])
        )
        for image in np.asarray(x)
        for o in range(kernel.shape[-1])
    ]
    expected = np.stack(expected).reshape(2, 4, 5, 8).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(packing.unpack(found, pixels), expected, atol=1e-4)


@pytest.mark.parametrize(("dtype", "allowed"), [("float32", 1e-5), ("bfloat16", 1e-2)])
def test_pixels_of_a_packed_map_share_their_statistics_scale_and_bias(dtype, allowed):
    x, pull = normal(2, 4, 8, 3).astype(dtype), normal(2, 4, 8, 3, seed=1)
    params = {"scale": normal(3, seed=2), "bias": normal(3, seed=3)}

    def total(params, x, pixels):
        norm = layers.make_norm("instance", dtype=dtype, name="norm", pixels=pixels)
        y = norm.apply({"params": params}, packing.pack(x, pixels), True, slope=0.2)
        return (packing.unpack(y, pixels).astype(jnp.float32) * pull).sum()

    given = jax.value_and_grad(total, (0, 1))
    for ours, theirs in zip(*(jax.tree.leaves(given(params, x, n)) for n in (2, 1)), strict=True):
        ours, theirs = (np.asarray(each, np.float32) for each in (ours, theirs))
        np.testing.assert_allclose(ours, theirs, atol=allowed * np.abs(theirs).max())


def fusion():
    layer = integration.Fusion("rb6", blocks=1)
    return layer, (normal(1, 2, 3, 8, 8, 4), normal(1, 3, 8, 8, 2), normal(1, 2, 8, 8, 2))


NETS = {
    "the discriminator": lambda: (frame_ranges.ResidualDiscriminator(4), (normal(2, 16, 16, 5),)),
    "the fusion of sources": fusion,
}


@pytest.mark.parametrize(
    "name", [pytest.param("the discriminator", marks=pytest.mark.slow), "the fusion of sources"]
)
def test_nets_that_pack_their_maps_keep_their_parameters_values_and_gradients(monkeypatch, name):
    net, given = NETS[name]()

    def both(pixels):
        monkeypatch.setattr(packing, "pixels_in_a_tile", lambda width, channels: pixels)
        variables = jax.jit(net.init, static_argnums=len(given) + 1)(
            jax.random.key(0), *given, True
        )

        def total(variables, given):
            made = jax.tree.leaves(net.apply(variables, *given, True))
            return sum(jnp.square(each).mean() for each in made)

        return variables, jax.jit(jax.value_and_grad(total, (0, 1)))(variables, given)

    packed, plain = both(2), both(1)
    assert jax.tree.map(jnp.shape, packed[0]) == jax.tree.map(jnp.shape, plain[0])
    for ours, theirs in zip(jax.tree.leaves(packed), jax.tree.leaves(plain), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * max(1.0, np.abs(theirs).max()))


def test_maps_are_packed_where_two_pixels_fill_a_tile_of_a_tpu():
    assert packing.pixels_in_a_tile(256, 64) == 1
    target.use("tpu")
    try:
        sizes = [(256, 64), (255, 64), (256, 32), (256, 128)]
        assert [packing.pixels_in_a_tile(*size) for size in sizes] == [2, 1, 1, 1]
    finally:
        target.use("")
