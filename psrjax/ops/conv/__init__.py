"""Convolution and its transpose over two or three dimensions, in channels-last.

`use` chooses the formulation: "native" leaves convolutions to XLA; "fold" writes them in the ways
that are fast on CPUs (`psrjax.ops.conv.cpu`), which support reverse-mode differentiation only.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from psrjax.errors import UserError
from psrjax.ops.conv import cpu, packing
from psrjax.ops.conv.native import ConvShape, adjoint, convolve
from psrjax.runtime import target

FORMULATIONS = ("auto", "native", "fold")
_formulation = "auto"


def use(formulation: str) -> None:
    """Chooses how this process computes the convolutions that it traces from now on.

    A program that JAX has compiled already stays as it is.

    Args:
      formulation: "native", "fold", or "auto": fold on CPUs, native elsewhere.

    Raises:
      UserError: for any other.
    """
    global _formulation
    if formulation not in FORMULATIONS:
        raise UserError(f"config.conv: no {formulation!r}; there are {', '.join(FORMULATIONS)}")
    _formulation = formulation


def _folds() -> bool:
    return _formulation == "fold" or (_formulation == "auto" and target.platform() == "cpu")


def conv(
    x: Float[Array, "b *size i"],
    kernel: Float[Array, "*kernel_size j p"],
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    pixels: int = 1,
) -> Float[Array, "b *out o"]:
    """Convolves (cross-correlates) with zero padding, as PyTorch's `convNd` in channels-last.

    Args:
      x: batch, two or three spatial dimensions, channels.
      kernel: kernel size, input channels, output channels.
      stride: one, or one for each dimension.
      padding: zeros on both sides, one, or one for each dimension.
      pixels: of a row that lie side by side on the channels of x and of the result, which then are
        as many times those of the kernel, see `packing`; more than 1 only where the size stays.

    Raises:
      UserError: if the input is smaller than the kernel.
    """
    if pixels > 1:
        kernel = packing.pack_kernel(kernel, pixels)
        padding = tuple(size // 2 for size in kernel.shape[:2])
    dims = kernel.ndim - 2
    pads = tuple((pad, pad) for pad in _each(padding, dims))
    shape = ConvShape(kernel.shape[:-2], _each(stride, dims), pads, x.shape[1:-1])
    if min(shape.outputs) < 1:
        raise UserError(
            f"a convolution of kernel {shape.kernel_size} and padding {_each(padding, dims)} "
            f"cannot take an input of size {shape.inputs}: give larger frames or longer clips"
        )
    return (cpu.correlate if _folds() else convolve)(shape, x, kernel)


def conv_transpose(
    x: Float[Array, "b *size i"],
    kernel: Float[Array, "*kernel_size i o"],
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
) -> Float[Array, "b *out o"]:
    """Convolves transposed, as PyTorch's `conv_transposeNd` in channels-last.

    out[stride * i + k - padding] += x[i] kernel[k]: the kernel is not flipped. The output has
    (size - 1) * stride - 2 * padding + kernel_size + output_padding.

    Args:
      x: batch, two or three spatial dimensions, channels.
      kernel: kernel size, input channels, output channels.
      stride: one, or one for each dimension.
      padding: rows cut from both sides of the output, one, or one for each dimension.
      output_padding: further rows at the high side, one, or one for each dimension.
    """
    dims, size = kernel.ndim - 2, kernel.shape[:-2]
    steps, pads = _each(stride, dims), _each(padding, dims)
    sides = zip(x.shape[1:-1], steps, pads, size, _each(output_padding, dims), strict=True)
    outputs = tuple((n - 1) * step - 2 * pad + k + extra for n, step, pad, k, extra in sides)
    shape = ConvShape(size, steps, tuple((p, p) for p in pads), outputs)
    kernel = jnp.swapaxes(kernel, -1, -2)
    if _folds():
        return cpu.spread(shape, x, kernel)
    made = jax.ShapeDtypeStruct((x.shape[0], *outputs, kernel.shape[-2]), x.dtype)
    return adjoint(lambda made: convolve(shape, made, kernel), made, x)


def conv_upsampled(
    x: Float[Array, "b h w i"], kernel: Float[Array, "r c i o"]
) -> Float[Array, "b h2 w2 o"]:
    """Convolves x upsampled by 2 with nearest neighbours; the padding keeps that size.

    Args:
      x: batch, height, width, channels.
      kernel: an odd kernel size, input channels, output channels.
    """
    if _folds():
        return cpu.correlate_upsampled(x, kernel)
    x = jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)
    size = kernel.shape[:2]
    pads = tuple((side // 2, side // 2) for side in size)
    shape = ConvShape(size, (1, 1), pads, x.shape[1:-1])
    return convolve(shape, x, kernel)


def _each(value: int | Sequence[int], dims: int) -> tuple[int, ...]:
    return (value,) * dims if isinstance(value, int) else tuple(value)
