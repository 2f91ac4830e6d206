"""Convolutions in the formulations that are fast on CPUs; each was measured against XLA's own.

Three bilinear operations hold everything. Each is the derivative of the other two, so gradients of
any order stay inside the family:

  correlate(x, kernel)          y[o] = sum_k x[stride * o + k - padding] kernel[k]
  spread(y, kernel)             the adjoint of `correlate` in x: a transposed convolution
  kernel_gradient(x, y)         the adjoint of `correlate` in the kernel

A 3-D operation is a few 2-D ones, because XLA on CPUs runs 3-D gradients and dilated 3-D
convolutions in a naive loop (5 to 40 times slower). A 2-D one is a matrix product, or what XLA runs
in its fast loop. Reverse mode only: the three are `custom_vjp`s, so `jax.jvp` raises.
"""

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from psrjax.ops.conv.native import ConvShape, adjoint, convolve

# XLA's convolution is a matrix product whose columns are the output channels, and it wants many of
# them: 3-D layers narrower than this compute several output frames in one product, as long as the
# zeros of that product's kernel cost less than this factor (both measured, see `_frames_at_once`).
_COLUMNS = 128
_WASTE = 1.5
_WIDE = 64  # channels on both sides, from which kernel gradients are products
_NARROW = 32  # outputs, below which they are too
_FEW = 17  # inputs, below which they are not
_LONG_ROW = 5  # of the kernel, from which they are not but for wide outputs
_PIECES = 4  # of a row of images that are put side by side
_LEAST = 2**26  # products, below which copying costs what threads gain
_ODD = 40  # inputs, below which an odd number of them is made even


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def correlate(shape: ConvShape, x: Array, kernel: Array) -> Array:
    """Convolves x (b *size i) with a kernel (*kernel_size i o)."""
    if _is_flat(shape):
        return _flat(shape, x, kernel)
    if _few_outputs(shape, kernel.shape):
        y = jax.ShapeDtypeStruct((x.shape[0], *shape.outputs, kernel.shape[-1]), x.dtype)
        back, flipped = _exchanged(shape), _flipped(kernel)
        return adjoint(lambda y: _folded(back, y, flipped, 1), y, x)
    return _folded(shape, x, kernel, _frames_at_once(shape, kernel.shape[-1]))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def spread(shape: ConvShape, y: Array, kernel: Array) -> Array:
    """Applies the adjoint of `correlate` in x: (b *out o) to (b *size i)."""
    if _is_flat(shape):
        return _flat_spread(shape, y, kernel)
    if _few_outputs(shape, kernel.shape):
        size = _frames_at_once(_exchanged(shape), kernel.shape[-2])
        return _folded(_exchanged(shape), y, _flipped(kernel), size)
    x = jax.ShapeDtypeStruct((y.shape[0], *shape.inputs, kernel.shape[-2]), y.dtype)
    size = _frames_at_once(shape, kernel.shape[-1])
    return adjoint(lambda x: _folded(shape, x, kernel, size), x, y)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def kernel_gradient(shape: ConvShape, x: Array, y: Array) -> Array:
    """Applies the adjoint of `correlate` in the kernel: (*kernel_size i o)."""
    if _is_flat(shape):
        return _flat_kernel_gradient(shape, x, y)
    kernel = jax.ShapeDtypeStruct((*shape.kernel_size, x.shape[-1], y.shape[-1]), x.dtype)
    if _few_outputs(shape, kernel.shape):
        flipped, back = jax.eval_shape(_flipped, kernel), _exchanged(shape)
        return _flipped(adjoint(lambda kernel: _folded(back, y, kernel, 1), flipped, x))
    size = _frames_per_gradient(shape)
    return adjoint(lambda kernel: _folded(shape, x, kernel, size), kernel, y)


correlate.defvjp(
    lambda shape, x, kernel: (correlate(shape, x, kernel), (x, kernel)),
    lambda shape, saved, g: (
        spread(shape, g, saved[1]),
        kernel_gradient(shape, saved[0], g),
    ),
)
spread.defvjp(
    lambda shape, y, kernel: (spread(shape, y, kernel), (y, kernel)),
    lambda shape, saved, g: (
        correlate(shape, g, saved[1]),
        kernel_gradient(shape, g, saved[0]),
    ),
)
kernel_gradient.defvjp(
    lambda shape, x, y: (kernel_gradient(shape, x, y), (x, y)),
    lambda shape, saved, g: (
        spread(shape, saved[1], g),
        correlate(shape, saved[0], g),
    ),
)


def correlate_upsampled(
    x: Float[Array, "b h w i"], kernel: Float[Array, "r c i o"]
) -> Float[Array, "b h2 w2 o"]:
    """Convolves x upsampled by 2 with nearest neighbours, of stride 1 and the same size.

    It is four convolutions of x itself, one for each phase of the output's pixels: kernel rows that
    see the same pixel are added (of 3x3 there remain 2x2, at 4/9 of the cost).
    """
    phases = []
    for row in range(2):
        rows, above = _merged(kernel, 0, row)
        for column in range(2):
            merged, left = _merged(rows, 1, column)
            size = merged.shape[:2]
            pads = tuple((low, k - 1 - low) for low, k in zip((above, left), size, strict=True))
            phases.append(correlate(ConvShape(size, (1, 1), pads, x.shape[1:-1]), x, merged))
    return _interleaved(phases, (2, 2))


def _merged(kernel: Array, axis: int, phase: int) -> tuple[Array, int]:
    """Adds up those rows of a kernel that see the same pixel before the upsampling.

    Args:
      kernel: of an odd size along `axis`.
      axis: of the kernel.
      phase: of the output's pixels, the even ones (0) or the odd ones (1).

    Returns:
      The smaller kernel; how many of its rows precede the output's own pixel.
    """
    size = kernel.shape[axis]
    places = [(phase + tap - size // 2) // 2 for tap in range(size)]
    sums: dict[int, Array] = {}
    for tap, place in enumerate(places):
        one = jnp.take(kernel, tap, axis)
        sums[place] = sums[place] + one if place in sums else one
    return jnp.stack(list(sums.values()), axis), -places[0]


def _is_flat(shape: ConvShape) -> bool:
    return len(shape.kernel_size) == 2


def _flipped(kernel: Array) -> Array:
    """Returns the kernel of the convolution from y to x."""
    return jnp.swapaxes(jnp.flip(kernel, range(kernel.ndim - 2)), -1, -2)


def _exchanged(shape: ConvShape) -> ConvShape:
    """Returns the stride-1 shape of the convolution from y to x that `spread` is."""
    sides = zip(shape.kernel_size, shape.padding, strict=True)
    pads = tuple((k - 1 - low, k - 1 - high) for k, (low, high) in sides)
    return shape._replace(padding=pads, inputs=shape.outputs)


# ------------------------------------------------------------------------------ two dimensions


def _flat(shape: ConvShape, x: Array, kernel: Array) -> Array:
    """Convolves in two dimensions: as a matrix product, or in XLA's fast loop.

    A 1x1 kernel is a product, which all threads share (64 to 64 channels, 16 maps of 64x64: 1.5
    instead of 3.8 ms). Where the kernel is larger than the maps (fewer positions than channels),
    the product reads it once: 3 times faster at 8x8 of 1024 channels, gradients included. The loop
    takes channels two by two, and an odd number of them one by one: with a channel of zeros more,
    7x7 of 3 channels at 128x128 takes 3.2 instead of 16.6 ms (jaxlib 0.10.1).
    """
    if max(shape.kernel_size) == 1:
        return next(_views(shape, x)) @ kernel[0, 0]
    if _few_positions(shape, x):
        seen = jnp.concatenate(list(_views(shape, x)), axis=-1)
        y = seen.reshape(-1, kernel[..., 0].size) @ kernel.reshape(-1, kernel.shape[-1])
        return y.reshape(x.shape[0], *shape.outputs, kernel.shape[-1])
    if x.shape[-1] % 2 and x.shape[-1] < _ODD:
        x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, 1)))
        kernel = jnp.pad(kernel, ((0, 0), (0, 0), (0, 1), (0, 0)))
    wanted = _images_abreast(shape, x, kernel)
    return _side_by_side(shape, x, kernel, wanted) if wanted > 1 else convolve(shape, x, kernel)


def _images_abreast(shape: ConvShape, x: Array, kernel: Array) -> int:
    """Returns how many images side by side make the rows of y work for several threads.

    The loop goes through the rows one after the other, and threads share a row in pieces of at
    least `_piece` pixels: the rows of most layers of few channels are one piece, and one thread
    does it all. Four layers with activations, 3x3, 32 channels, 16 images of 128x128: 188 ms, and
    90 side by side, where the copying is part of the activations.
    """
    piece, row = _piece(math.prod(kernel.shape[:-1]), kernel.shape[-1]), shape.outputs[1]
    small = x.shape[0] * math.prod(shape.outputs) * kernel.size < _LEAST
    alone = x.shape[0] == 1 or small or row >= 2 * piece
    return 1 if alone else -(-_PIECES * piece // row)


def _piece(products: int, outputs: int) -> int:
    """Returns how many pixels of a row one thread takes at least, by XNNPACK's rule for products.

    Pieces grow from 16 pixels by twos until they are 64x64 large (pixels by outputs, or all of
    these) and their sides together times the `products` of each number, of which 1024 count, 65536.
    """
    pixels = 16
    while pixels * outputs < 64 * min(outputs, 64) or (
        (pixels + outputs) * min(products, 1024) < 65536 and pixels * outputs < 65536
    ):
        pixels *= 2
    return pixels


def _side_by_side(shape: ConvShape, x: Array, kernel: Array, wanted: int) -> Array:
    """Convolves at least `wanted` images at once, side by side with zeros between."""
    (batch, height, width, inputs), (rows, columns) = x.shape, shape.padding
    aside = next((n for n in range(wanted, batch) if batch % n == 0), batch)
    size, step = shape.kernel_size[1], shape.stride[1]
    place = -(-(width + sum(columns)) // step) * step  # of an image with its padding
    x = x.reshape(batch // aside, aside, height, width, inputs)
    x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (columns[0], place - width - columns[0]), (0, 0)))
    x = x.swapaxes(1, 2).reshape(batch // aside, height, aside * place, inputs)
    y = convolve(shape._replace(padding=(rows, (0, max(size - step, 0)))), x, kernel)
    high, wide = shape.outputs
    y = y.reshape(batch // aside, high, aside, place // step, -1)[:, :, :, :wide]
    return y.swapaxes(1, 2).reshape(batch, high, wide, -1)


def _few_positions(shape: ConvShape, given: Array) -> bool:
    """Returns whether the maps of y have fewer positions than `given` has channels."""
    positions = given.shape[0] * math.prod(shape.outputs)
    return positions <= given.shape[-1] and max(shape.kernel_size) > 1


def _views(shape: ConvShape, x: Array) -> Iterator[Array]:
    """Yields what each tap of the kernel sees: maps of the output's size."""
    x = jnp.pad(x, ((0, 0), *shape.padding, (0, 0)))
    for tap in np.ndindex(shape.kernel_size):
        sides = zip(tap, shape.outputs, shape.stride, strict=True)
        ends = [k + (count - 1) * step + 1 for k, count, step in sides]
        start, stop = (0, *tap, 0), (x.shape[0], *ends, x.shape[-1])
        yield lax.slice(x, start, stop, (1, *shape.stride, 1))


def _flat_spread(shape: ConvShape, y: Array, kernel: Array) -> Array:
    """Spreads in two dimensions, in one of four ways.

    Maps smaller than the kernel go through `_shift_and_add`: XLA gives those smaller in size to a
    naive loop (the last layers of a discriminator on small frames: 600 ms instead of 5), and for
    those smaller in numbers the kernel would have to be flipped, which takes as long as the product
    (16x16 of 1024 channels: 50 ms each).
    """
    sides = zip(shape.outputs, shape.kernel_size, strict=True)
    if any(n < k for n, k in sides) or _few_positions(shape, y):
        return _shift_and_add(shape, y, kernel)
    if set(shape.stride) != {1}:
        return _by_phases(shape, y, kernel)
    back = _exchanged(shape)
    if min(itertools.chain(*back.padding)) >= 0:
        return _flat(back, y, _flipped(kernel))
    x = jax.ShapeDtypeStruct((y.shape[0], *shape.inputs, kernel.shape[-2]), y.dtype)
    return adjoint(lambda x: _flat(shape, x, kernel), x, y)


def _shift_and_add(shape: ConvShape, y: Array, kernel: Array) -> Array:
    """Spreads as one product, then a sum over taps."""
    products = jnp.einsum("...o,tio->...ti", y, kernel.reshape(-1, *kernel.shape[-2:]))
    x = jnp.zeros((), y.dtype)
    for index, tap in enumerate(np.ndindex(shape.kernel_size)):
        config = [(0, 0, 0)]
        sides = zip(tap, shape.padding, shape.inputs, shape.outputs, shape.stride, strict=True)
        for k, (low, _), size, count, step in sides:
            config.append((k - low, size - (k - low) - (count - 1) * step - 1, step - 1))
        x += lax.pad(products[..., index, :], jnp.zeros((), y.dtype), (*config, (0, 0, 0)))
    return x


def _by_phases(shape: ConvShape, y: Array, kernel: Array) -> Array:
    """Spreads a 2-D stride as convolutions of y itself, one for each phase of x's pixels.

    XLA spreads y out with zeros between, and multiplies these too: 3x3 of stride 2, 64 to 32
    channels, to 256x256 pixels, takes 31 instead of 7 ms for two images, 128 to 64 69 instead of
    48. (At 64x64 pixels and less the phases are slower, by a quarter.)
    """
    counts = [-(-size // step) for size, step in zip(shape.inputs, shape.stride, strict=True)]
    phases = []
    for phase in np.ndindex(shape.stride):
        part, sides = kernel, []
        for axis, place in enumerate(phase):
            ahead, first = divmod(place + shape.padding[axis][0], shape.stride[axis])
            taps = range(first, part.shape[axis], shape.stride[axis])
            part = jnp.take(part, np.asarray(taps, np.int32), axis)
            low = part.shape[axis] - 1 - ahead
            high = counts[axis] + part.shape[axis] - 1 - y.shape[1 + axis] - low
            sides.append((low, high))
        if not part.size:  # the kernel is smaller than the stride: it does not reach these pixels
            phases.append(jnp.zeros((y.shape[0], *counts, kernel.shape[-2]), y.dtype))
            continue
        cut = [(min(low, 0), min(high, 0), 0) for low, high in sides]
        seen = lax.pad(y, jnp.zeros((), y.dtype), ((0, 0, 0), *cut, (0, 0, 0)))
        pads = tuple((max(low, 0), max(high, 0)) for low, high in sides)
        alone = ConvShape(part.shape[:2], (1, 1), pads, seen.shape[1:3])
        phases.append(_flat(alone, seen, _flipped(part)))
    return _interleaved(phases, shape.stride)[:, : shape.inputs[0], : shape.inputs[1]]


def _interleaved(phases: Sequence[Array], stride: tuple[int, ...]) -> Array:
    """Joins r*c phases (b h w o), row by row, to maps (b h*r w*c o)."""
    (batch, height, width, _), (rows, columns) = phases[0].shape, stride
    x = jnp.stack(phases, 3).reshape(batch, height, width, rows, columns, -1).swapaxes(2, 3)
    return x.reshape(batch, height * rows, width * columns, -1)


def _flat_kernel_gradient(shape: ConvShape, x: Array, y: Array) -> Array:
    """Applies the adjoint in a 2-D kernel, as matrix products where they are faster.

    XLA takes it for a convolution whose channels are the batch and whose kernel is as large as the
    maps. Where y is larger than x, or has few channels, that runs in a loop 10 to 40 times slower
    than products (7x7, 32 to 3 channels, 128x128: 31 against 2 ms; 4x4, 32 to 64, 33x33: 17 against
    0.5); for other layers it takes up to twice as long (3x3, 32 channels, 128x128, 8 images: 36
    against 20 ms), but for few inputs or long rows of the kernel half as long.
    """
    inputs, outputs = x.shape[-1], y.shape[-1]
    wide = min(inputs, outputs) >= _WIDE
    if set(shape.stride) == {1}:
        grows = any(b > a for a, b in zip(shape.inputs, shape.outputs, strict=True))
        suits = inputs >= _FEW and (shape.kernel_size[1] < _LONG_ROW or outputs >= _WIDE)
        if wide or outputs < _NARROW or suits:
            return _by_rows(shape, x, y)
        if grows:
            return _by_taps(shape, x, y)
    elif wide:
        return _by_taps(shape, x, y)
    kernel = jax.ShapeDtypeStruct((*shape.kernel_size, inputs, outputs), x.dtype)
    return adjoint(lambda kernel: _flat(shape, x, kernel), kernel, y)


def _by_rows(shape: ConvShape, x: Array, y: Array) -> Array:
    """Multiplies x with shifted copies of y side by side, for each row of a kernel of stride 1."""
    x = jnp.pad(x, ((0, 0), *shape.padding, (0, 0)))
    rows, columns = shape.kernel_size
    height, width = shape.outputs
    places = ((column, x.shape[2] - width - column) for column in range(columns))
    shifted = [jnp.pad(y, ((0, 0), (0, 0), place, (0, 0))) for place in places]
    beside = jnp.concatenate(shifted, -1)
    products = jnp.stack([_inner(x[:, row : row + height], beside) for row in range(rows)])
    return products.reshape(rows, x.shape[-1], columns, y.shape[-1]).swapaxes(1, 2)


def _by_taps(shape: ConvShape, x: Array, y: Array) -> Array:
    """Multiplies what each tap sees with y."""
    products = [_inner(seen, y) for seen in _views(shape, x)]
    return jnp.stack(products).reshape(*shape.kernel_size, x.shape[-1], y.shape[-1])


def _inner(x: Float[Array, "*places i"], y: Float[Array, "*places o"]) -> Float[Array, "i o"]:
    """Sums the products of channels over all positions."""
    rows, columns = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
    return lax.dot_general(rows, columns, (((0,), (0,)), ((), ())))


# ---------------------------------------------------------------------------- three dimensions


def _few_outputs(shape: ConvShape, kernel: tuple[int, ...]) -> bool:
    """Returns whether x and y exchange their roles, so that the wide side has the columns."""
    return kernel[-1] < min(kernel[-2], _COLUMNS // 2) and set(shape.stride) == {1}


def _frames_at_once(shape: ConvShape, channels: int) -> int:
    """Returns how many output frames one 2-D convolution makes, in `correlate` and `spread`."""
    useful, best = _products(shape, 1), 1
    for size in range(2, min(shape.outputs[0], _COLUMNS // channels) + 1):
        if _products(shape, size) <= _WASTE * useful:
            best = size
    return best


def _frames_per_gradient(shape: ConvShape) -> int:
    """Returns the same for `kernel_gradient`: all frames where that wastes nothing, else one."""
    total = shape.outputs[0]
    return total if _products(shape, total) == _products(shape, 1) else 1


def _products(shape: ConvShape, size: int) -> int:
    """Counts the products of an input frame with a tap in blocks of `size` frames."""
    return sum(block.count * block.size * block.reads for block in _blocks(shape, size))


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


def _blocks(shape: ConvShape, size: int) -> list[_Blocks]:
    """Cuts the output's time axis into blocks; taps that fall on the padding are left out."""
    frames, total = shape.inputs[0], shape.outputs[0]
    taps, step, low = shape.kernel_size[0], shape.stride[0], shape.padding[0][0]
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


def _folded(shape: ConvShape, x: Array, kernel: Array, size: int) -> Array:
    """Convolves in three dimensions by 2-D convolutions whose channels are (frame, channel) pairs.

    Each block of `size` output frames is one 2-D convolution from the frames that it reads, stacked
    on channels, to its frames, stacked on channels: its kernel is the block's Toeplitz matrix over
    time. Blocks that read alike go through together, as one batch.
    """
    flat = ConvShape(shape.kernel_size[1:], shape.stride[1:], shape.padding[1:], shape.inputs[1:])
    if shape.kernel_size[0] == 1 and shape.padding[0] == (0, 0):
        x = x[:, :: shape.stride[0]]
        y = _flat(flat, x.reshape(-1, *x.shape[2:]), kernel[0])
        return y.reshape(*x.shape[:2], *y.shape[1:])
    outputs = [_block_conv(shape, flat, block, x, kernel) for block in _blocks(shape, size)]
    return jnp.concatenate(outputs, axis=1)


def _block_conv(
    shape: ConvShape, flat: ConvShape, block: _Blocks, x: Array, kernel: Array
) -> Array:
    step = shape.stride[0]
    hop, span = block.size * step, (block.count - 1) * block.size * step + 1
    starts = range(block.first, block.first + block.reads)
    frames = jnp.concatenate([x[:, i : i + span : hop] for i in starts], axis=-1)
    wide = _toeplitz(kernel, block, step)
    y = _flat(flat, frames.reshape(-1, *frames.shape[2:]), wide)
    y = y.reshape(x.shape[0], block.count, *flat.outputs, block.size, kernel.shape[-1])
    y = jnp.moveaxis(y, -2, 2)
    return y.reshape(x.shape[0], block.count * block.size, *flat.outputs, kernel.shape[-1])


def _toeplitz(kernel: Array, block: _Blocks, step: int) -> Array:
    """Makes the 2-D kernel (h w reads*i size*o) of one block; taps outside the kernel are zero."""
    columns = []
    for frame in range(block.size):
        begin = block.shift - step * frame
        low, high = max(0, -begin), max(0, begin + block.reads - kernel.shape[0])
        taps = kernel[max(0, begin) : begin + block.reads]
        taps = jnp.pad(taps, ((low, high), *((0, 0),) * 4)) if low or high else taps
        taps = jnp.moveaxis(taps, 0, 2)
        columns.append(taps.reshape(*taps.shape[:2], -1, taps.shape[-1]))
    return columns[0] if len(columns) == 1 else jnp.concatenate(columns, axis=-1)
