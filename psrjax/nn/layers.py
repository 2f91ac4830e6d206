"""Layers with PyTorch's semantics in channels-last: convolutions, norms, initializers.

Parameters are float32; `dtype` is the type of the products. Statistics are always float32.
"""

import contextlib
import contextvars
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from psrjax.errors import UserError
from psrjax.nn import resampling
from psrjax.ops import conv as conv_ops

NORMS = ("batch", "instance", "instance_fixed")
LEAKY_SLOPE = 0.2
_norm_groups = contextvars.ContextVar("norm_groups", default=1)
_place_maps: contextvars.ContextVar[Callable[[Array], Array]] = contextvars.ContextVar(
    "place_maps", default=lambda maps: maps
)


def leaky_relu(x: Array) -> Array:
    """Applies the leaky ReLU of slope 0.2 that all networks here share."""
    return nn.leaky_relu(x, LEAKY_SLOPE)


def uniform_fan_in(key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
    """Draws uniformly within 1 / sqrt(fan in): PyTorch's default for convolutions."""
    bound = 1.0 / math.sqrt(math.prod(shape[:-1]))
    return bound * _flat(functools.partial(jax.random.uniform, minval=-1.0), key, shape, dtype)


def kaiming_fan_out(key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
    """Draws Kaiming's normal by fan out, as the published 3-D ResNet for every convolution."""
    std = math.sqrt(2.0 / (math.prod(shape[:-2]) * shape[-1]))
    return std * _flat(jax.random.normal, key, shape, dtype)


def normal_small(key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
    """Draws a normal of std 0.02, as DCGAN, pix2pix and its descendants."""
    return 0.02 * _flat(jax.random.normal, key, shape, dtype)


def xavier_small(key: Array, shape: Sequence[int], dtype: DTypeLike = jnp.float32) -> Array:
    """Draws Xavier's normal with gain 0.02, as SPADE and CoCosNet for every convolution."""
    fans = math.prod(shape[:-2]) * (shape[-2] + shape[-1])
    return 0.02 * math.sqrt(2.0 / fans) * _flat(jax.random.normal, key, shape, dtype)


def _flat(draw: Callable, key: Array, shape: Sequence[int], dtype: DTypeLike) -> Array:
    # Drawn flat: XLA takes seconds to compile each five-dimensional draw, and a net has many.
    return draw(key, (math.prod(shape),), dtype).reshape(shape)


class _Layer(nn.Module):
    """A layer with a kernel and perhaps a bias.

    Attributes:
      features: output channels.
      kernel_size: one size for each dimension, of which there are two or three.
      use_bias: whether to add a bias; not where a norm follows.
      dtype: compute type.
      init: initializer of the kernel.
      bias_init: initializer of the bias.
    """

    features: int
    kernel_size: tuple[int, ...]
    use_bias: bool = True
    dtype: DTypeLike = jnp.float32
    init: Callable = uniform_fan_in
    bias_init: Callable = nn.initializers.zeros

    def _kernel(self, inputs: int) -> Array:
        return self.param("kernel", self.init, (*self.kernel_size, inputs, self.features))

    def _add_bias(self, y: Array) -> Array:
        y = _place_maps.get()(y)
        if not self.use_bias:
            return y
        bias = self.param("bias", self.bias_init, (self.features,))
        # In float32, or the bias's gradient, a sum over all pixels, would be summed in bfloat16.
        bias = jnp.tile(bias, y.shape[-1] // self.features)
        return (y.astype(jnp.float32) + bias).astype(self.dtype)


class Conv(_Layer):
    """Convolution over two or three dimensions with explicit padding.

    Attributes:
      stride: one, or one for each dimension.
      padding: on both sides, one, or one for each dimension (PyTorch's meaning, never "SAME").
      reflect: whether a 2-D convolution's padding, one number, is by reflection; else it is zeros.
      pixels: of a row that lie side by side on the channels of its maps (`ops.conv.packing`), for a
        2-D convolution that keeps their size.
      (the others are those of `_Layer`)
    """

    stride: int | Sequence[int] = 1
    padding: int | Sequence[int] = 0
    reflect: bool = False
    pixels: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "b *size i"]) -> Float[Array, "b *out o"]:
        """Applies the convolution; the shapes are `psrjax.ops.conv.conv`'s."""
        return self._convolve(x, self._kernel(x.shape[-1] // self.pixels))

    def _convolve(self, x: Array, kernel: Array) -> Array:
        x, kernel, padding = x.astype(self.dtype), kernel.astype(self.dtype), self.padding
        if self.reflect:
            assert isinstance(padding, int)
            x, padding = resampling.reflect_pad(x, padding), 0
        options: dict[str, Any] = {"stride": self.stride, "padding": padding, "pixels": self.pixels}
        return self._add_bias(conv_ops.conv(x, kernel, **options))


class SpectralConv(Conv):
    """Convolution whose kernel is divided by its largest singular value (Miyato et al. 2018).

    As PyTorch's `spectral_norm`: one power iteration in each call that trains; the vectors are kept
    in the collection "spectral".

    Attributes:
      (those of `Conv`)
    """

    @nn.compact
    def __call__(self, x: Float[Array, "b *size i"], train: bool) -> Float[Array, "b *out o"]:
        """Applies the convolution; with `train` the vectors take a power iteration."""
        kernel = self._kernel(x.shape[-1])
        matrix = kernel.reshape(-1, self.features).T
        rows, columns = matrix.shape
        left = self.variable("spectral", "left", lambda: jnp.full(rows, rows**-0.5))
        right = self.variable("spectral", "right", lambda: jnp.full(columns, columns**-0.5))
        u, v = left.value, right.value
        if train:
            fixed = jax.lax.stop_gradient(matrix)
            v = _unit_vector(fixed.T @ u)
            u = _unit_vector(fixed @ v)
            if not self.is_initializing():
                left.value, right.value = u, v
        return self._convolve(x, kernel / (u @ matrix @ v))


def _unit_vector(x: Array) -> Array:
    return x * jax.lax.rsqrt(jnp.square(x).sum() + 1e-12)


class UpsampledConv(_Layer):
    """2-D convolution of maps upsampled by 2 with nearest neighbours; the padding keeps the size.

    Attributes:
      (those of `_Layer`)
    """

    @nn.compact
    def __call__(self, x: Float[Array, "b h w i"]) -> Float[Array, "b h2 w2 o"]:
        """Applies it; the result is twice as high and wide."""
        kernel = self._kernel(x.shape[-1]).astype(self.dtype)
        return self._add_bias(conv_ops.conv_upsampled(x.astype(self.dtype), kernel))


class ConvTranspose(_Layer):
    """Transposed convolution with PyTorch's padding and output padding; the kernel is not flipped.

    Attributes:
      stride: one, or one for each dimension.
      padding: rows cut from both sides, one, or one for each dimension.
      output_padding: further rows at the high side, one, or one for each dimension.
      (the others are those of `_Layer`)
    """

    stride: int | Sequence[int] = 1
    padding: int | Sequence[int] = 0
    output_padding: int | Sequence[int] = 0

    @nn.compact
    def __call__(self, x: Float[Array, "b *size i"]) -> Float[Array, "b *out o"]:
        """Applies it; the shapes are `psrjax.ops.conv.conv_transpose`'s."""
        y = conv_ops.conv_transpose(
            x.astype(self.dtype),
            self._kernel(x.shape[-1]).astype(self.dtype),
            stride=self.stride,
            padding=self.padding,
            output_padding=self.output_padding,
        )
        return self._add_bias(y)


@contextlib.contextmanager
def on_devices(
    *, norm_groups: int = 1, place_maps: Callable[[Array], Array] = lambda maps: maps
) -> Iterator[None]:
    """Within it, layers are traced for several devices.

    Args:
      norm_groups: of how many groups of rows training's batch norm takes statistics, each by
        itself. With one for each device no statistics go between devices, as in PyTorch's
        DistributedDataParallel without SyncBatchNorm.
      place_maps: of every convolution's result, says where it is to lie.
    """
    tokens = _norm_groups.set(norm_groups), _place_maps.set(place_maps)
    try:
        yield
    finally:
        _norm_groups.reset(tokens[0])
        _place_maps.reset(tokens[1])


class BatchNorm(nn.Module):
    """Batch normalization over all but the last axis, with PyTorch's numbers.

    Statistics of the whole (global) batch, or of each of `on_devices`' groups, in float32; the
    biased variance normalizes, the unbiased one, its mean over the groups, is kept for evaluation.

    Attributes:
      epsilon: added to the variance.
      momentum: the share of the new batch in the kept statistics.
      scale: what the learned scale begins at.
      dtype: type of the result.
    """

    epsilon: float = 1e-5
    momentum: float = 0.1
    scale: float = 1.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b c"], train: bool, *, slope: float | None = None
    ) -> Float[Array, "*b c"]:
        """Normalizes by the batch (train) or by the kept statistics; `slope`: see `normalize`."""
        channels = x.shape[-1:]
        scale = self.param("scale", nn.initializers.constant(self.scale), channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        variance = self.variable("batch_stats", "var", jnp.ones, channels)
        if not train:
            factor = scale * jax.lax.rsqrt(variance.value + self.epsilon)
            y = (x * factor + (bias - mean.value * factor)).astype(self.dtype)
            return _activate(y, slope)
        groups = 1 if self.is_initializing() else _norm_groups.get()
        count = x.size // x.shape[-1] // groups
        grouped = x if groups == 1 else x.reshape(groups, -1, *x.shape[1:])
        axes = tuple(range(grouped.ndim - x.ndim, grouped.ndim - 1))
        y, batch_mean, batch_variance = normalize(
            grouped, axes, self.epsilon, scale, bias, slope=slope, dtype=self.dtype
        )
        if not self.is_initializing():
            unbiased = batch_variance.reshape(groups, -1).mean(0) * (count / max(count - 1, 1))
            mean.value += self.momentum * (batch_mean.reshape(groups, -1).mean(0) - mean.value)
            variance.value += self.momentum * (unbiased - variance.value)
        return y.reshape(x.shape)


class InstanceNorm(nn.Module):
    """Normalization of each sample and channel over its positions; same signature as `BatchNorm`.

    Attributes:
      epsilon: added to the variance.
      affine: whether to learn a scale and a bias.
      scale: what the learned scale begins at.
      pixels: of a row that lie side by side on the channels, see `ops.conv.packing`.
      dtype: type of the result.
    """

    epsilon: float = 1e-5
    affine: bool = True
    scale: float = 1.0
    pixels: int = 1
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b *size c"], train: bool, *, slope: float | None = None
    ) -> Float[Array, "b *size c"]:
        """Normalizes; `train` makes no difference; `slope`: see `normalize`."""
        del train
        scale = bias = None
        if self.affine:
            channels = (x.shape[-1] // self.pixels,)
            scale = self.param("scale", nn.initializers.constant(self.scale), channels)
            bias = self.param("bias", nn.initializers.zeros, channels)
            scale, bias = (jnp.tile(each, self.pixels) for each in (scale, bias))
        axes = tuple(range(1, x.ndim - 1))
        options: dict[str, Any] = {"slope": slope, "pixels": self.pixels, "dtype": self.dtype}
        return normalize(x, axes, self.epsilon, scale, bias, **options)[0]


def normalize(
    x: Float[Array, "*b c"],
    axes: tuple[int, ...],
    epsilon: float,
    scale: Float[Array, " c"] | None = None,
    bias: Float[Array, " c"] | None = None,
    *,
    slope: float | None = None,
    ddof: int = 0,
    pixels: int = 1,
    dtype: DTypeLike = jnp.float32,
) -> tuple[Array, Array, Array]:
    """Returns x normalized over axes, scaled, shifted and activated; its mean and its variance.

    These two are float32; of an x of bfloat16 they have no gradient.

    Args:
      x: the maps.
      axes: that the statistics are of.
      epsilon: added to the variance.
      scale: of each channel; None is 1.
      bias: of each channel; None is 0.
      slope: of the leaky ReLU behind it, 0 a ReLU; None is no activation.
      ddof: 1 for the unbiased variance.
      pixels: that lie side by side on the channels, and share their statistics.
      dtype: of the result.
    """
    norm = _Norm(axes, epsilon, slope, ddof, pixels, dtype)
    if x.dtype == jnp.bfloat16:
        return _normalize_rounded(x, scale, bias, norm)
    x = x.astype(jnp.float32)
    mean = _mean(x, norm)
    centred = x - mean
    variance = _mean(jnp.square(centred), norm) * _unbiasing(x, mean, norm)
    y = _affine(centred * jax.lax.rsqrt(variance + epsilon), scale, bias).astype(dtype)
    return _activate(y, slope), mean, variance


class _Norm(NamedTuple):
    """The static arguments of `normalize`."""

    axes: tuple[int, ...]
    epsilon: float
    slope: float | None
    ddof: int
    pixels: int
    dtype: DTypeLike


def _mean(x: Array, norm: _Norm) -> Array:
    means = x.mean(norm.axes, keepdims=True)
    if norm.pixels == 1:
        return means
    shared = means.reshape(*means.shape[:-1], norm.pixels, -1).mean(-2)
    return jnp.concatenate([shared] * norm.pixels, -1)


def _unbiasing(x: Array, mean: Array, norm: _Norm) -> float:
    count = x.size // mean.size * norm.pixels
    return count / (count - norm.ddof)


def _activate(y: Array, slope: float | None) -> Array:
    if slope is None:
        return y
    return nn.leaky_relu(y, slope) if slope else nn.relu(y)


def _affine(y: Array, scale: Array | None, bias: Array | None) -> Array:
    y = y if scale is None else y * scale
    return y if bias is None else y + bias


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _normalize_rounded(
    x: Array, scale: Array | None, bias: Array | None, norm: _Norm
) -> tuple[Array, Array, Array]:
    """`normalize`, which reads x once for its statistics, and keeps nothing else for the way back.

    The mean of squares less the square of the mean, in float32, loses less than the rounding of x
    to bfloat16 has lost already. Barriers keep XLA from storing x as float32 for its second use.
    """
    return _normalize_forward(x, scale, bias, norm)[0]


def _normalize_forward(x: Array, scale: Array | None, bias: Array | None, norm: _Norm) -> tuple:
    exact = x.astype(jnp.float32)
    mean, square = (_mean(each, norm) for each in (exact, jnp.square(exact)))
    variance = jnp.maximum(square - jnp.square(mean), 0.0) * _unbiasing(x, mean, norm)
    factor = jax.lax.rsqrt(variance + norm.epsilon)
    saved, mean, factor = jax.lax.optimization_barrier(
        (x, mean, factor)
    )  # see `_normalize_rounded`
    y = _affine((saved.astype(jnp.float32) - mean) * factor, scale, bias)
    y = _activate(y, norm.slope)
    return (y.astype(norm.dtype), mean, variance), (x, scale, bias, mean, factor)


def _normalize_backward(norm: _Norm, saved: tuple, gradients: tuple) -> tuple:
    x, scale, bias, mean, factor = saved
    x, g = jax.lax.optimization_barrier((x, gradients[0]))
    g = g.astype(jnp.float32)
    y = (x.astype(jnp.float32) - mean) * factor
    if norm.slope is not None:
        _, activated = jax.vjp(
            functools.partial(_activate, slope=norm.slope), _affine(y, scale, bias)
        )
        (g,) = activated(g)
    total, turn = (each.sum(norm.axes, keepdims=True) for each in (g, g * y))
    count = x.size // mean.size
    slope, turn_mean = (_affine(_mean(each, norm), scale, None) / count for each in (total, turn))
    turn_mean *= _unbiasing(x, mean, norm)
    d_x = factor * (_affine(g, scale, None) - slope - y * turn_mean)
    d_scale, d_bias = (each.reshape(-1, each.shape[-1]).sum(0) for each in (turn, total))
    return (
        d_x.astype(x.dtype),
        None if scale is None else d_scale,
        None if bias is None else d_bias,
    )


_normalize_rounded.defvjp(_normalize_forward, _normalize_backward)


def make_norm(
    kind: str, *, dtype: DTypeLike, name: str, scale: float = 1.0, pixels: int = 1
) -> nn.Module:
    """Makes the norm layer of this kind, to be called as `norm(x, train)`, perhaps with a `slope`.

    Args:
      kind: "batch", "instance", or "instance_fixed", which learns neither scale nor bias.
      dtype: type of the result.
      name: of the layer.
      scale: what the learned scale begins at.
      pixels: of an instance norm, see `InstanceNorm`.

    Raises:
      UserError: for an unknown kind.
    """
    if kind not in NORMS:
        raise UserError(f"config.method.norm: no norm {kind!r}; there are {', '.join(NORMS)}")
    if kind == "batch":
        assert pixels == 1
        return BatchNorm(scale=scale, dtype=dtype, name=name)
    options: dict[str, Any] = {"scale": scale, "pixels": pixels, "dtype": dtype}
    return InstanceNorm(affine=kind == "instance", name=name, **options)
