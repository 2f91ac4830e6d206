"""Convolutions: both formulations against NumPy loops and SciPy, gradients included."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from psrjax.errors import UserError
from psrjax.ops.conv import conv, conv_transpose, conv_upsampled, cpu, use

# (frames, height, width), kernel_size, channels in and out, stride, padding: as in PSR-Net's layers
# (stem, downs, residual, head), its video discriminator, a pointwise layer, and odd ones.
CONVOLUTIONS = {
    "stem": ((4, 6, 5), (7, 7, 7), (2, 5), 1, 3),
    "down": ((8, 6, 6), (3, 3, 3), (3, 4), 2, 1),
    "down_odd": ((5, 7, 6), (3, 3, 3), (3, 4), 2, 1),
    "residual": ((2, 4, 4), (3, 3, 3), (70, 70), 1, 1),
    "head": ((5, 6, 6), (7, 7, 7), (6, 2), 1, 3),
    "discriminator": ((8, 8, 8), (4, 4, 4), (3, 4), (1, 2, 2), 1),
    "discriminator_end": ((5, 4, 4), (4, 4, 4), (4, 1), 1, 0),
    "pointwise": ((3, 4, 4), (1, 1, 1), (3, 5), (2, 1, 1), 0),
    "flat": ((6, 5), (3, 3), (3, 4), 2, 1),
    "flat_bare": ((6, 5), (3, 3), (3, 4), 1, 0),
    "flat_bare_strided": ((7, 6), (3, 3), (3, 4), 2, 0),
    "flat_smaller_than_its_kernel": ((4, 6), (4, 4), (3, 5), 1, 1),
    "flat_strided_and_smaller": ((5, 4), (4, 4), (3, 5), 2, 1),
    "anisotropic": ((6, 8, 5), (3, 5, 1), (4, 3), (3, 2, 1), (1, 2, 0)),
    "flat_wide": ((4, 3), (3, 3), (128, 130), 1, 1),
    "flat_uneven": ((5, 6), (3, 5), (2, 6), 1, (1, 2)),
    "flat_large_kernel": ((9, 8), (7, 5), (3, 33), 1, (0, 2)),
    "flat_large_kernel_strided": ((9, 8), (5, 7), (3, 33), (2, 2), (0, 0)),
    "flat_pointwise_strided": ((7, 5), (1, 2), (3, 5), (3, 2), 0),
    "flat_neither_wide_nor_narrow": ((6, 5), (3, 3), (17, 33), 1, 1),
    "flat_many_to_one": ((6, 5), (7, 3), (6, 1), 1, (3, 2)),
    "flat_grows": ((4, 5), (4, 4), (3, 5), 1, 2),
    "flat_grows_to_many": ((4, 5), (4, 4), (3, 33), 1, 2),
    "flat_wide_strided": ((5, 4), (4, 4), (129, 128), 2, 1),
    "flat_strided_unevenly": ((8, 6), (3, 4), (3, 4), 2, 1),
    "flat_pointwise": ((4, 3), (1, 1), (3, 5), 1, 0),
    "flat_pointwise_padded": ((4, 3), (1, 1), (3, 5), 2, 1),
}
TRANSPOSED = {
    "up": ((2, 3, 4), (3, 3, 3), (4, 3), 2, 1, 1),
    "up_wide": ((3, 2, 2), (3, 3, 3), (3, 70), 2, 1, 1),
    "four": ((2, 3, 3), (4, 4, 4), (3, 2), 2, 1, 0),
    "five": ((2, 3, 2), (5, 3, 3), (2, 3), (3, 2, 1), (2, 1, 0), (1, 1, 0)),
    "flat": ((3, 4), (4, 4), (3, 2), 2, 1, 0),
    "flat_stride_three": ((3, 4), (5, 4), (3, 2), 3, (1, 2), (1, 0)),
    "flat_smaller_than_its_stride": ((3, 4), (2, 1), (3, 2), 3, 0, 0),
    "flat_one_pixel": ((1, 2), (3, 3), (2, 3), 2, 1, 1),
    "stride_one": ((4, 3, 3), (3, 3, 3), (3, 2), 1, 1, 0),
}


def in_each_formulation(cases):
    """Cases of two dimensions side by side as well, which "fold" leaves to larger pictures."""
    flat = [case for case in cases if len(cases[case][1]) == 2]
    found = [(case, name) for case in cases for name in ("native", "fold")]
    found += [(case, "side_by_side") for case in flat]
    return pytest.mark.parametrize("case, formulation", found, indirect=["formulation"])


@pytest.fixture
def formulation(request, monkeypatch):
    if request.param == "side_by_side":
        monkeypatch.setattr(cpu, "_LEAST", 0)
    use("native" if request.param == "native" else "fold")
    yield
    use("auto")


NUMBERS = {2: ("NHWC", "HWIO", "NHWC"), 3: ("NDHWC", "DHWIO", "NDHWC")}


def each(value, kernel_size):
    return (value,) * len(kernel_size) if isinstance(value, int) else value


def naive_conv(x, kernel, stride, padding):
    """Each output is a sum over its window, found with SciPy's n-dimensional correlation."""
    x, kernel = np.asarray(x), np.asarray(kernel)
    padded = np.pad(x, ((0, 0), *((p, p) for p in padding), (0, 0)))
    out = []
    for clip in padded:
        planes = [
            sum(
                signal.correlate(clip[..., i], kernel[..., i, o], mode="valid", method="direct")
                for i in range(kernel.shape[-2])
            )
            for o in range(kernel.shape[-1])
        ]
        out.append(np.stack(planes, -1)[tuple(slice(None, None, s) for s in stride)])
    return np.stack(out)


def naive_transpose(x, kernel, stride, padding, output_padding):
    """Every input pixel stamps the kernel onto the output, which is then cropped."""
    x, kernel = np.asarray(x), np.asarray(kernel)
    b, *sizes, _ = x.shape
    kernel_size = kernel.shape[:-2]
    full = [(n - 1) * s + k + e for n, s, k, e in zip(sizes, stride, kernel_size, output_padding)]
    out = np.zeros((b, *full, kernel.shape[-1]))
    for place in itertools.product(*map(range, sizes)):
        stamp = np.tensordot(x[(slice(None), *place)], kernel, ((1,), (len(kernel_size),)))
        window = tuple(slice(i * s, i * s + k) for i, s, k in zip(place, stride, kernel_size))
        out[(slice(None), *window)] += stamp
    return out[(slice(None), *(slice(p, n - p) for p, n in zip(padding, full)))]


def arrays(size, kernel_size, channels, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, *size, channels[0]))
    kernel = rng.normal(size=(*kernel_size, *channels)) / np.prod(kernel_size)
    return jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32)


# The values of the other formulations are compared with the native ones beside the gradients.
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_native_conv_equals_scipy(case):
    size, kernel_size, channels, stride, padding = CONVOLUTIONS[case]
    x, kernel = arrays(size, kernel_size, channels)
    y = jax.jit(functools.partial(conv, stride=stride, padding=padding))(x, kernel)
    np.testing.assert_allclose(
        y, naive_conv(x, kernel, each(stride, kernel_size), each(padding, kernel_size)), atol=2e-5
    )


@pytest.mark.parametrize("case", TRANSPOSED)
def test_native_conv_transpose_equals_stamping(case):
    size, kernel_size, channels, stride, padding, extra = TRANSPOSED[case]
    x, kernel = arrays(size, kernel_size, channels)
    options = {"stride": stride, "padding": padding, "output_padding": extra}
    y = jax.jit(functools.partial(conv_transpose, **options))(x, kernel)
    naive = naive_transpose(x, kernel, *(each(v, kernel_size) for v in (stride, padding, extra)))
    np.testing.assert_allclose(y, naive, atol=2e-5)


@pytest.mark.parametrize("formulation", ["native", "fold"], indirect=True)
@pytest.mark.parametrize("kernel_size", [(3, 3), (1, 5), (7, 3)])
def test_conv_upsampled_equals_scipy_on_the_upsampled_image(kernel_size, formulation):
    x, kernel = arrays((4, 3), kernel_size, (3, 2))
    large = np.kron(np.asarray(x), np.ones((1, 2, 2, 1)))
    y = conv_upsampled(x, kernel)
    padding = tuple(side // 2 for side in kernel_size)
    np.testing.assert_allclose(y, naive_conv(large, kernel, (1, 1), padding), atol=2e-5)


@pytest.mark.parametrize("formulation", ["fold"], indirect=True)
def test_gradients_of_conv_upsampled_equal_autodiff_in_double_precision(formulation):
    with jax.enable_x64(True):
        x, kernel = (jnp.asarray(a, jnp.float64) for a in arrays((4, 3), (3, 5), (3, 2)))

        def truth(x, kernel):
            large = jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)
            return autodiff(large, kernel, (1, 1), (1, 2))

        assert_same_gradients(conv_upsampled, truth, x, kernel)


def test_two_dimensions_equal_three_with_one_frame():
    x, kernel = arrays((1, 6, 6), (1, 3, 3), (3, 4))
    flat = conv(x[:, 0], kernel[0], stride=2, padding=1)
    deep = conv(x, kernel, stride=(1, 2, 2), padding=(0, 1, 1))
    np.testing.assert_allclose(flat, deep[:, 0], atol=1e-6)
    up = conv_transpose(x[:, 0], kernel[0], stride=2, padding=1, output_padding=1)
    naive = naive_transpose(x[:, 0], kernel[0], (2, 2), (1, 1), (1, 1))
    np.testing.assert_allclose(up, naive, atol=1e-5)


def autodiff(x, kernel, stride, padding):
    """XLA's own convolution, differentiated by JAX: knows nothing of our rules."""
    pads = [(p, p) for p in padding]
    numbers = NUMBERS[len(padding)]
    return jax.lax.conv_general_dilated(x, kernel, stride, pads, dimension_numbers=numbers)


def assert_same_gradients(ours, truth, x, kernel):
    """Values, and the pullback of the truth's values, in both arguments."""

    def value_and_pullback(apply):
        def run(x, kernel):
            value, pull = jax.vjp(lambda x, kernel: jnp.sin(apply(x, kernel)), x, kernel)
            return value, pull(value)

        return jax.jit(run, compiler_options={"xla_backend_optimization_level": 0})(x, kernel)

    got, want = value_and_pullback(ours), value_and_pullback(truth)
    for mine, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-11)


@in_each_formulation(CONVOLUTIONS)
def test_gradients_equal_autodiff_in_double_precision(case, formulation):
    size, kernel_size, channels, stride, padding = CONVOLUTIONS[case]
    with jax.enable_x64(True):
        x, kernel = (jnp.asarray(a, jnp.float64) for a in arrays(size, kernel_size, channels))
        ours = functools.partial(conv, stride=stride, padding=padding)
        truth = functools.partial(
            autodiff, stride=each(stride, kernel_size), padding=each(padding, kernel_size)
        )
        assert_same_gradients(ours, truth, x, kernel)


@in_each_formulation(TRANSPOSED)
def test_transposed_gradients_equal_autodiff_of_the_dilated_form(case, formulation):
    size, kernel_size, channels, stride, padding, extra = TRANSPOSED[case]
    sides = zip(kernel_size, each(padding, kernel_size), each(extra, kernel_size), strict=True)
    pads = [(k - 1 - p, k - 1 - p + e) for k, p, e in sides]

    def dilated(x, kernel):
        return jax.lax.conv_general_dilated(
            x,
            jnp.flip(kernel, range(len(kernel_size))),
            (1,) * len(kernel_size),
            pads,
            lhs_dilation=each(stride, kernel_size),
            dimension_numbers=NUMBERS[len(kernel_size)],
        )

    def ours(x, kernel):
        return conv_transpose(x, kernel, stride=stride, padding=padding, output_padding=extra)

    with jax.enable_x64(True):
        x, kernel = (jnp.asarray(a, jnp.float64) for a in arrays(size, kernel_size, channels))
        assert_same_gradients(ours, dilated, x, kernel)


@pytest.mark.parametrize("formulation", ["native", "fold"], indirect=True)
def test_gradient_penalties_work(formulation):
    """The gradient of a gradient's norm, as WGAN-GP takes it, equals plain autodiff's."""
    x, kernel = arrays((4, 4, 4), (3, 3, 3), (2, 3))

    def penalty(kernel, apply):
        return jnp.sum(jax.grad(lambda x: jnp.sum(jnp.sin(apply(x, kernel))))(x) ** 2)

    ours = functools.partial(conv, stride=2, padding=1)
    truth = functools.partial(autodiff, stride=(2,) * 3, padding=(1,) * 3)
    got, want = (
        jax.jit(jax.grad(functools.partial(penalty, apply=apply)))(kernel)
        for apply in (ours, truth)
    )
    np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.parametrize("formulation", ["fold"], indirect=True)
def test_bfloat16_stays_bfloat16_and_close(formulation):
    x, kernel = arrays((4, 6, 6), (3, 3, 3), (8, 8))
    exact = conv(x, kernel, padding=1)
    y = conv(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), padding=1)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(np.float32), exact, atol=0.1)


def test_mistakes_are_told():
    x, kernel = arrays((4, 4, 4), (3, 3, 3), (2, 2))
    with pytest.raises(UserError, match="config.conv: no 'fast'; there are auto, native, fold"):
        use("fast")
    with pytest.raises(UserError, match="cannot take an input of size"):
        conv(x[:, :1], kernel)
