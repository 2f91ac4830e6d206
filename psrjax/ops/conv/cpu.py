"""Convolutions over two dimensions for CPUs: as XLA's fast loop, or as matrix products.

`convolution` is what the backend does with a window; the others are the formulations in which CPUs
are fast, each measured against XLA's own (jaxlib 0.10.2, 2 cores).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

_WIDE = 64  # channels on both sides, from which kernel gradients are products
_NARROW = 32  # outputs, below which they are too
_FEW = 17  # inputs, below which they are not
_MANY_TAPS = 5  # in a row of the kernel, from which they are not but for wide outputs
_PIECES = 4  # of a row of pictures that are put side by side
_LEAST = 2**26  # products, below which copying costs what threads gain
_ODD = 40  # inputs, below which an odd number of them is made even


class Window(NamedTuple):
    """The static side of a convolution: everything but the numbers.

    Attributes:
      kernel: taps in each dimension.
      stride: in each dimension.
      padding: (low, high) in each dimension.
      inputs: the size of x in each dimension.
      fold: whether to use the formulations for CPUs.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    inputs: tuple[int, ...]
    fold: bool

    @property
    def outputs(self) -> tuple[int, ...]:
        """The size of y in each dimension."""
        sides = zip(self.inputs, self.padding, self.kernel, self.stride, strict=True)
        return tuple((size + sum(pad) - taps) // step + 1 for size, pad, taps, step in sides)


def convolution(window: Window, x: Array, kernel: Array) -> Array:
    """x (b *size i) with kernel (*taps i o): of two dimensions and folded as below, else XLA's."""
    if window.fold and len(window.kernel) == 2:
        return _flat(window, x, kernel)
    return _native(x, kernel, window.stride, window.padding)


def _native(
    x: Array, kernel: Array, stride: tuple[int, ...], padding: tuple[tuple[int, int], ...]
) -> Array:
    spatial = "DHW"[-len(stride) :]
    numbers = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
    return lax.conv_general_dilated(x, kernel, stride, padding, dimension_numbers=numbers)


def _flat(window: Window, x: Array, kernel: Array) -> Array:
    """A 2-D convolution for CPUs: as a matrix product, or as one that XLA runs in its fast loop.

    Single taps are a product, which all threads share (64 to 64 channels, 16 maps of 64x64: 1.5
    instead of 3.8 ms). Where the kernel is larger than the maps (fewer places than channels), the
    product reads it once: 3 times faster at 8x8 of 1024 channels, gradients included. A convolution
    without any padding goes to a library that takes 4 to 9 times as long as the loop for padded
    ones, at 64 channels and more (jaxlib 0.10.2), so it gets a row of zeros whose result is
    dropped. The loop takes channels two by two, and an odd number of them one by one: with a
    channel of zeros more, 7x7 of 3 channels at 128x128 takes 1.0 instead of 4.6 ms, of 19 at 64x64
    1.9 instead of 4.4.
    """
    if max(window.kernel) == 1:
        return next(_seen_by_taps(window, x)) @ kernel[0, 0]
    if _few_places(window, x):
        seen = jnp.concatenate(list(_seen_by_taps(window, x)), axis=-1)
        y = seen.reshape(-1, kernel[..., 0].size) @ kernel.reshape(-1, kernel.shape[-1])
        return y.reshape(x.shape[0], *window.outputs, kernel.shape[-1])
    if x.shape[-1] % 2 and x.shape[-1] < _ODD:
        x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, 1)))
        kernel = jnp.pad(kernel, ((0, 0), (0, 0), (0, 1), (0, 0)))
    wanted = _pictures_aside(window, x, kernel)
    if wanted > 1:
        return _side_by_side(window, x, kernel, wanted)
    rows, columns = window.padding
    bare = not any((*rows, *columns))
    y = _native(x, kernel, window.stride, ((0, 1), columns) if bare else window.padding)
    return y[:, : window.outputs[0]]


def _pictures_aside(window: Window, x: Array, kernel: Array) -> int:
    """How many pictures side by side make the rows of y work for several threads.

    The loop goes through the rows one after the other, and threads share a row in pieces of at
    least `_piece` pixels: the rows of most layers of few channels are one piece, and one thread
    does it all. Four layers with activations, 3x3, 32 channels, 16 pictures of 128x128: 188 ms, and
    90 side by side, where the copying is part of the activations.
    """
    piece, row = _piece(math.prod(kernel.shape[:-1]), kernel.shape[-1]), window.outputs[1]
    small = x.shape[0] * math.prod(window.outputs) * kernel.size < _LEAST
    alone = x.shape[0] == 1 or small or row >= 2 * piece
    return 1 if alone else -(-_PIECES * piece // row)


def _piece(products: int, outputs: int) -> int:
    """How many pixels of a row one thread takes at least: of XNNPACK's rule for its products.

    Pieces grow from 16 pixels by twos until they are 64x64 large (pixels by outputs, or all of
    these) and their sides together times the `products` of each number, of which 1024 count, 65536.
    """
    pixels = 16
    while pixels * outputs < 64 * min(outputs, 64) or (
        (pixels + outputs) * min(products, 1024) < 65536 and pixels * outputs < 65536
    ):
        pixels *= 2
    return pixels


def _side_by_side(window: Window, x: Array, kernel: Array, wanted: int) -> Array:
    """The convolution of pictures that stand side by side, zeros between: `wanted` or more of them
    where there are as many."""
    (batch, height, width, inputs), (rows, columns) = x.shape, window.padding
    aside = next((n for n in range(wanted, batch) if batch % n == 0), batch)
    taps, step = window.kernel[1], window.stride[1]
    place = -(-(width + sum(columns)) // step) * step  # of a picture with its padding
    x = x.reshape(batch // aside, aside, height, width, inputs)
    x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (columns[0], place - width - columns[0]), (0, 0)))
    x = x.swapaxes(1, 2).reshape(batch // aside, height, aside * place, inputs)
    y = _native(x, kernel, window.stride, (rows, (0, max(taps - step, 0))))
    high, wide = window.outputs
    y = y.reshape(batch // aside, high, aside, place // step, -1)[:, :, :, :wide]
    return y.swapaxes(1, 2).reshape(batch, high, wide, -1)


def _few_places(window: Window, given: Array) -> bool:
    """Whether the maps of y have fewer places than `given` has channels: the kernel is larger."""
    return given.shape[0] * math.prod(window.outputs) <= given.shape[-1] and max(window.kernel) > 1


def _seen_by_taps(window: Window, x: Array) -> Iterator[Array]:
    """What each tap of the kernel sees: maps of the output's size."""
    x = jnp.pad(x, ((0, 0), *window.padding, (0, 0)))
    for tap in np.ndindex(window.kernel):
        sides = zip(tap, window.outputs, window.stride, strict=True)
        ends = [k + (count - 1) * step + 1 for k, count, step in sides]
        start, stop = (0, *tap, 0), (x.shape[0], *ends, x.shape[-1])
        yield lax.slice(x, start, stop, (1, *window.stride, 1))


def stamps(window: Window, y: Array) -> bool:
    """Whether `stamped` is the way: for maps smaller than the kernel in size, or in numbers.

    XLA gives the former to a naive loop on CPUs (the last layers of a discriminator on small
    frames: 600 ms instead of 5); for the latter the kernel would have to be turned, which takes as
    long as the product (16x16 of 1024 channels: 50 ms each).
    """
    smaller = any(n < k for n, k in zip(window.outputs, window.kernel, strict=True))
    return smaller or _few_places(window, y)


def stamped(window: Window, y: Array, kernel: Array) -> Array:
    """`spread` as one product, then a sum over taps."""
    marks = jnp.einsum("...o,tio->...ti", y, kernel.reshape(-1, *kernel.shape[-2:]))
    x = 0.0
    for index, tap in enumerate(np.ndindex(window.kernel)):
        config = [(0, 0, 0)]
        sides = zip(tap, window.padding, window.inputs, window.outputs, window.stride, strict=True)
        for k, (low, _), size, count, step in sides:
            config.append((k - low, size - (k - low) - (count - 1) * step - 1, step - 1))
        x += lax.pad(marks[..., index, :], jnp.zeros((), y.dtype), (*config, (0, 0, 0)))
    return x


def by_phases(window: Window, y: Array, kernel: Array) -> Array:
    """`spread` of a 2-D stride as convolutions of y as it is, one for each phase of x's pixels.

    XLA spreads y out with zeros between, and multiplies these too: 3x3 taps of stride 2, 64 to 32
    channels, to 256x256 pixels, take 31 instead of 7 ms for two pictures, 128 to 64 69 instead of
    48. (Of 64x64 pixels and less it is the slower one, by a quarter.)
    """
    counts = [-(-size // step) for size, step in zip(window.inputs, window.stride, strict=True)]
    phases = []
    for phase in np.ndindex(window.stride):
        part, sides = kernel, []
        for axis, place in enumerate(phase):
            ahead, first = divmod(place + window.padding[axis][0], window.stride[axis])
            taps = range(first, part.shape[axis], window.stride[axis])
            part = jnp.take(part, np.asarray(taps, np.int32), axis)
            low = part.shape[axis] - 1 - ahead
            high = counts[axis] + part.shape[axis] - 1 - y.shape[1 + axis] - low
            sides.append((low, high))
        if not part.size:  # fewer taps than strides: no tap meets these pixels
            phases.append(jnp.zeros((y.shape[0], *counts, kernel.shape[-2]), y.dtype))
            continue
        cut = [(min(low, 0), min(high, 0), 0) for low, high in sides]
        seen = lax.pad(y, jnp.zeros((), y.dtype), ((0, 0, 0), *cut, (0, 0, 0)))
        pads = tuple((max(low, 0), max(high, 0)) for low, high in sides)
        alone = Window(part.shape[:2], (1, 1), pads, seen.shape[1:3], fold=True)
        phases.append(convolution(alone, seen, turned(part)))
    return interleaved(phases, window.stride)[:, : window.inputs[0], : window.inputs[1]]


def turned(kernel: Array) -> Array:
    """The kernel of the convolution from y to x."""
    return jnp.swapaxes(jnp.flip(kernel, range(kernel.ndim - 2)), -1, -2)


def interleaved(phases: Sequence[Array], stride: tuple[int, ...]) -> Array:
    """The maps (b h*r w*c o) whose every r-th row and c-th column the r*c `phases` are, row by
    row."""
    (batch, height, width, _), (rows, columns) = phases[0].shape, stride
    x = jnp.stack(phases, 3).reshape(batch, height, width, rows, columns, -1).swapaxes(2, 3)
    return x.reshape(batch, height * rows, width * columns, -1)


def kernel_gradient(window: Window, x: Array, y: Array) -> Array:
    """`kernel_gradient` of a 2-D convolution for CPUs, as matrix products where they are faster.

    XLA takes it for a convolution whose channels are the batch and whose kernel is as large as the
    maps. Where y is larger than x, or has few channels, that runs in a loop 10 to 40 times slower
    than products (7x7, 32 to 3 channels, 128x128: 31 against 2 ms; 4x4, 32 to 64, 33x33: 17 against
    0.5); of other layers it takes up to twice as long (3x3, 32 channels, 128x128, 8 pictures: 36
    against 20 ms), but of few inputs or many taps half as long.
    """
    inputs, outputs = x.shape[-1], y.shape[-1]
    wide = min(inputs, outputs) >= _WIDE
    if set(window.stride) == {1}:
        grows = any(b > a for a, b in zip(window.inputs, window.outputs, strict=True))
        suits = inputs >= _FEW and (window.kernel[1] < _MANY_TAPS or outputs >= _WIDE)
        if wide or outputs < _NARROW or suits:
            return _by_rows(window, x, y)
        if grows:
            return _by_taps(window, x, y)
    elif wide:
        return _by_taps(window, x, y)
    kernel = jax.ShapeDtypeStruct((*window.kernel, inputs, outputs), x.dtype)
    return adjoint(lambda kernel: convolution(window, x, kernel), kernel, y)


def _by_rows(window: Window, x: Array, y: Array) -> Array:
    """One product for each row of the kernel: x with shifted copies of y, one for each tap, side by
    side. Of stride 1."""
    x = jnp.pad(x, ((0, 0), *window.padding, (0, 0)))
    rows, taps = window.kernel
    height, width = window.outputs
    places = ((tap, x.shape[2] - width - tap) for tap in range(taps))
    shifted = [jnp.pad(y, ((0, 0), (0, 0), place, (0, 0))) for place in places]
    met = jnp.concatenate(shifted, -1)
    products = jnp.stack([_inner(x[:, row : row + height], met) for row in range(rows)])
    return products.reshape(rows, x.shape[-1], taps, y.shape[-1]).swapaxes(1, 2)


def _by_taps(window: Window, x: Array, y: Array) -> Array:
    """One product for each tap."""
    products = [_inner(seen, y) for seen in _seen_by_taps(window, x)]
    return jnp.stack(products).reshape(*window.kernel, x.shape[-1], y.shape[-1])


def _inner(x: Float[Array, "*places i"], y: Float[Array, "*places o"]) -> Float[Array, "i o"]:
    """The sum over all places of the products of channels."""
    rows, columns = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
    return lax.dot_general(rows, columns, (((0,), (0,)), ((), ())))


def adjoint(linear: Callable, argument: jax.ShapeDtypeStruct, y: Array) -> Array:
    """The transpose of a linear function of an array like `argument`, applied to y."""
    return jax.linear_transpose(linear, argument)(y)[0]
