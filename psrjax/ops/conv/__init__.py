"""Convolution and its transpose over two or three dimensions, formulated for the backend.

Three bilinear operations hold everything; each is the derivative of the other two, so gradients of
any order stay inside the family:

  correlate(x, kernel)          y[o] = sum_k x[stride * o + k - padding] kernel[k]
  spread(y, kernel)             the adjoint of `correlate` in x: a transposed convolution
  kernel_gradient(x, y)         the adjoint of `correlate` in the kernel

`native` hands them to XLA as they are. `fold` writes a 3-D convolution as a few 2-D ones, because
XLA on CPUs runs 3-D gradients and dilated 3-D convolutions in a naive loop (5 to 40 times slower),
and 2-D ones so that XLA takes its fast loop for them (`psrjax.ops.conv.cpu`).
Reverse mode only: both are `custom_vjp`s, so `jax.jvp` raises.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from psrjax.errors import UserError
from psrjax.ops.conv import cpu
from psrjax.ops.conv.cpu import Window

FORMULATIONS = ("auto", "native", "fold")
_formulation = "auto"
# XLA's CPU convolution is a matrix product whose columns are the output channels, and it wants many
# of them: layers narrower than this compute several output frames in one product, as long as the
# zeros of that product's kernel cost less than this factor (both measured, see `_frames_at_once`).
_COLUMNS = 128
_WASTE = 1.5


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
    return _formulation == "fold" or (_formulation == "auto" and jax.default_backend() == "cpu")


def conv(
    x: Float[Array, "b *size i"],
    kernel: Float[Array, "*taps i o"],
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
) -> Float[Array, "b *out o"]:
    """Convolution (cross-correlation) with zero padding, as PyTorch's `convNd` in channels-last.

    Args:
      x: batch, two or three spatial dimensions, channels.
      kernel: taps, input channels, output channels.
      stride: one, or one for each dimension.
      padding: zeros on both sides, one, or one for each dimension.

    Raises:
      UserError: if the input is smaller than the kernel.
    """
    dims = kernel.ndim - 2
    pads = tuple((pad, pad) for pad in _each(padding, dims))
    window = Window(kernel.shape[:-2], _each(stride, dims), pads, x.shape[1:-1], _folds())
    if min(window.outputs) < 1:
        raise UserError(
            f"a convolution of kernel {window.kernel} and padding {_each(padding, dims)} cannot "
            f"take an input of size {window.inputs}: give larger frames or longer clips"
        )
    return _correlate(window, x, kernel)


def conv_transpose(
    x: Float[Array, "b *size i"],
    kernel: Float[Array, "*taps i o"],
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
) -> Float[Array, "b *out o"]:
    """Transposed convolution, as PyTorch's `conv_transposeNd` in channels-last.

    out[stride * i + k - padding] += x[i] kernel[k]; the taps of the kernel stand in PyTorch's order
    (not flipped). The output has (size - 1) * stride - 2 * padding + kernel + output_padding.

    Args:
      x: batch, two or three spatial dimensions, channels.
      kernel: taps, input channels, output channels.
      stride: one, or one for each dimension.
      padding: rows cut from both sides of the output, one, or one for each dimension.
      output_padding: further rows at the high side, one, or one for each dimension.
    """
    dims = kernel.ndim - 2
    taps, steps, pads = kernel.shape[:-2], _each(stride, dims), _each(padding, dims)
    sides = zip(x.shape[1:-1], steps, pads, taps, _each(output_padding, dims), strict=True)
    outputs = tuple((n - 1) * step - 2 * pad + k + extra for n, step, pad, k, extra in sides)
    window = Window(taps, steps, tuple((p, p) for p in pads), outputs, _folds())
    return _spread(window, x, jnp.swapaxes(kernel, -1, -2))


def conv_enlarged(
    x: Float[Array, "b h w i"],
    kernel: Float[Array, "r c i o"],
) -> Float[Array, "b h2 w2 o"]:
    """`conv` of x enlarged to twice its size by nearest neighbours; the padding keeps that size.

    Folded, it is four convolutions of x as it is, one for each quarter of the output's pixels: the
    taps that see the same pixel are one (of 3x3 taps 2x2 are left, at 4/9 of the cost).

    Args:
      x: batch, height, width, channels.
      kernel: an odd number of taps each way, input channels, output channels.
    """
    if not _folds():
        x = jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)
        pads = tuple((taps // 2,) * 2 for taps in kernel.shape[:2])
        window = Window(kernel.shape[:2], (1, 1), pads, x.shape[1:-1], fold=False)
        return _correlate(window, x, kernel)
    quarters = []
    for row in range(2):
        rows, above = _merged(kernel, 0, row)
        for column in range(2):
            merged, left = _merged(rows, 1, column)
            pads = tuple(
                (low, taps - 1 - low)
                for low, taps in zip((above, left), merged.shape, strict=False)
            )
            window = Window(merged.shape[:2], (1, 1), pads, x.shape[1:-1], fold=True)
            quarters.append(_correlate(window, x, merged))
    return cpu.interleaved(quarters, (2, 2))


def _merged(kernel: Array, axis: int, phase: int) -> tuple[Array, int]:
    """The kernel with those taps added up that see the same pixel of the smaller picture.

    Args:
      kernel: an odd number of taps along `axis`.
      axis: of the kernel.
      phase: of the output's pixels, the even ones (0) or the odd ones (1).

    Returns:
      The kernel; how many of its taps lie before the pixel that the output's is in.
    """
    taps = kernel.shape[axis]
    places = [(phase + tap - taps // 2) // 2 for tap in range(taps)]
    sums: dict[int, Array] = {}
    for tap, place in enumerate(places):
        one = jnp.take(kernel, tap, axis)
        sums[place] = sums[place] + one if place in sums else one
    return jnp.stack(list(sums.values()), axis), -places[0]


def _each(value: int | Sequence[int], dims: int) -> tuple[int, ...]:
    return (value,) * dims if isinstance(value, int) else tuple(value)


# ------------------------------------------------------------------ the three bilinear operations


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _correlate(window: Window, x: Array, kernel: Array) -> Array:
    if not _in_time(window):
        return cpu.convolution(window, x, kernel)
    if _few_outputs(window, kernel.shape):
        y = jax.ShapeDtypeStruct((x.shape[0], *window.outputs, kernel.shape[-1]), x.dtype)
        back, turned = _exchanged(window), cpu.turned(kernel)
        return cpu.adjoint(lambda y: _folded(back, y, turned, 1), y, x)
    return _folded(window, x, kernel, _frames_at_once(window, kernel.shape[-1]))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _spread(window: Window, y: Array, kernel: Array) -> Array:
    x = jax.ShapeDtypeStruct((y.shape[0], *window.inputs, kernel.shape[-2]), y.dtype)
    if not _in_time(window):
        if window.fold and cpu.stamps(window, y):
            return cpu.stamped(window, y, kernel)
        if window.fold and set(window.stride) != {1}:
            return cpu.by_phases(window, y, kernel)
        back = _exchanged(window)
        if window.fold and min(itertools.chain(*back.padding)) >= 0:
            return cpu.convolution(back, y, cpu.turned(kernel))
        return cpu.adjoint(lambda x: cpu.convolution(window, x, kernel), x, y)
    if _few_outputs(window, kernel.shape):
        size = _frames_at_once(_exchanged(window), kernel.shape[-2])
        return _folded(_exchanged(window), y, cpu.turned(kernel), size)
    size = _frames_at_once(window, kernel.shape[-1])
    return cpu.adjoint(lambda x: _folded(window, x, kernel, size), x, y)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _kernel_gradient(window: Window, x: Array, y: Array) -> Array:
    kernel = jax.ShapeDtypeStruct((*window.kernel, x.shape[-1], y.shape[-1]), x.dtype)
    if not _in_time(window):
        if window.fold and len(window.kernel) == 2:
            return cpu.kernel_gradient(window, x, y)
        return cpu.adjoint(lambda kernel: cpu.convolution(window, x, kernel), kernel, y)
    if _few_outputs(window, kernel.shape):
        turned = jax.eval_shape(cpu.turned, kernel)
        back = _exchanged(window)
        return cpu.turned(cpu.adjoint(lambda kernel: _folded(back, y, kernel, 1), turned, x))
    size = _frames_per_gradient(window)
    return cpu.adjoint(lambda kernel: _folded(window, x, kernel, size), kernel, y)


_correlate.defvjp(
    lambda window, x, kernel: (_correlate(window, x, kernel), (x, kernel)),
    lambda window, saved, g: (
        _spread(window, g, saved[1]),
        _kernel_gradient(window, saved[0], g),
    ),
)
_spread.defvjp(
    lambda window, y, kernel: (_spread(window, y, kernel), (y, kernel)),
    lambda window, saved, g: (
        _correlate(window, g, saved[1]),
        _kernel_gradient(window, g, saved[0]),
    ),
)
_kernel_gradient.defvjp(
    lambda window, x, y: (_kernel_gradient(window, x, y), (x, y)),
    lambda window, saved, g: (
        _spread(window, saved[1], g),
        _correlate(window, saved[0], g),
    ),
)


def _in_time(window: Window) -> bool:
    """Whether this is a 3-D operation to be written as 2-D ones."""
    return window.fold and len(window.kernel) == 3


def _exchanged(window: Window) -> Window:
    """The stride-1 window of the convolution from y to x that `spread` is."""
    sides = zip(window.kernel, window.padding, strict=True)
    pads = tuple((taps - 1 - low, taps - 1 - high) for taps, (low, high) in sides)
    return window._replace(padding=pads, inputs=window.outputs)


# ------------------------------------------------------------------------------- formulations


def _few_outputs(window: Window, kernel: tuple[int, ...]) -> bool:
    """Whether the roles of x and y are exchanged, so that the wide side has the columns."""
    return kernel[-1] < min(kernel[-2], _COLUMNS // 2) and set(window.stride) == {1}


def _frames_at_once(window: Window, channels: int) -> int:
    """How many output frames one 2-D convolution makes, in `_correlate` and `_spread`."""
    useful, best = _products(window, 1), 1
    for size in range(2, min(window.outputs[0], _COLUMNS // channels) + 1):
        if _products(window, size) <= _WASTE * useful:
            best = size
    return best


def _frames_per_gradient(window: Window) -> int:
    """As `_frames_at_once`, for `_kernel_gradient`: all where that wastes nothing, else one."""
    total = window.outputs[0]
    return total if _products(window, total) == _products(window, 1) else 1


def _products(window: Window, size: int) -> int:
    """How many products of an input frame with a tap blocks of `size` frames take."""
    return sum(block.count * block.size * block.reads for block in _blocks(window, size))


class _Blocks(NamedTuple):
    """`count` neighbouring blocks of `size` output frames that read alike.

    Block n reads the input frames `first + n * size * stride` and the `reads - 1` after it; its
    first output frame meets them from tap `shift` on.
    """

    count: int
    size: int
    first: int
    reads: int
    shift: int


def _blocks(window: Window, size: int) -> list[_Blocks]:
    """Cuts the output's time axis into blocks; taps that fall on the padding are left out."""
    frames, total = window.inputs[0], window.outputs[0]
    taps, step, low = window.kernel[0], window.stride[0], window.padding[0][0]
    found: list[_Blocks] = []
    for start in range(0, total, size):
        here = min(size, total - start)
        begin, end = step * start - low, step * (start + here - 1) - low + taps
        first = max(0, begin)
        block = _Blocks(1, here, first, min(frames, end) - first, first - begin)
        if found and found[-1][1:2] + found[-1][3:] == block[1:2] + block[3:]:
            found[-1] = found[-1]._replace(count=found[-1].count + 1)
        else:
            found.append(block)
    return found


def _folded(window: Window, x: Array, kernel: Array, size: int) -> Array:
    """A 3-D convolution as 2-D ones whose channels are (frame, channel) pairs.

    Each block of `size` output frames is one 2-D convolution from the frames that it reads, stacked
    on channels, to its frames, stacked on channels: its kernel is the block's Toeplitz matrix over
    time. Blocks that read alike go through together, as one batch.
    """
    flat = Window(*(side[1:] for side in window[:4]), fold=True)
    if window.kernel[0] == 1 and window.padding[0] == (0, 0):
        x = x[:, :: window.stride[0]]
        y = cpu.convolution(flat, x.reshape(-1, *x.shape[2:]), kernel[0])
        return y.reshape(*x.shape[:2], *y.shape[1:])
    outputs = [_block_conv(window, flat, block, x, kernel) for block in _blocks(window, size)]
    return jnp.concatenate(outputs, axis=1)


def _block_conv(window: Window, flat: Window, block: _Blocks, x: Array, kernel: Array) -> Array:
    step = window.stride[0]
    hop, span = block.size * step, (block.count - 1) * block.size * step + 1
    starts = range(block.first, block.first + block.reads)
    frames = jnp.concatenate([x[:, i : i + span : hop] for i in starts], axis=-1)
    wide = _toeplitz(kernel, block, step)
    y = cpu.convolution(flat, frames.reshape(-1, *frames.shape[2:]), wide)
    y = y.reshape(x.shape[0], block.count, *flat.outputs, block.size, kernel.shape[-1])
    y = jnp.moveaxis(y, -2, 2)
    return y.reshape(x.shape[0], block.count * block.size, *flat.outputs, kernel.shape[-1])


def _toeplitz(kernel: Array, block: _Blocks, step: int) -> Array:
    """The 2-D kernel (h w reads*i size*o) of one block; taps outside the kernel are zero."""
    columns = []
    for frame in range(block.size):
        begin = block.shift - step * frame
        low, high = max(0, -begin), max(0, begin + block.reads - kernel.shape[0])
        taps = kernel[max(0, begin) : begin + block.reads]
        taps = jnp.pad(taps, ((low, high), *((0, 0),) * 4)) if low or high else taps
        taps = jnp.moveaxis(taps, 0, 2)
        columns.append(taps.reshape(*taps.shape[:2], -1, taps.shape[-1]))
    return columns[0] if len(columns) == 1 else jnp.concatenate(columns, axis=-1)
