"""The sizes of a convolution, XLA's convolution with them, and its adjoint."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax import lax
from jaxtyping import Array


class ConvShape(NamedTuple):
    """The static side of a convolution of x to y.

    Attributes:
      kernel_size: in each dimension.
      stride: in each dimension.
      padding: (low, high) in each dimension.
      inputs: the size of x in each dimension.
    """

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    inputs: tuple[int, ...]

    @property
    def outputs(self) -> tuple[int, ...]:
        """The size of y in each dimension."""
        sides = zip(self.inputs, self.padding, self.kernel_size, self.stride, strict=True)
        return tuple((size + sum(pad) - k) // step + 1 for size, pad, k, step in sides)


def convolve(shape: ConvShape, x: Array, kernel: Array) -> Array:
    """Convolves x (b *size i) with a kernel (*kernel_size i o) as XLA does."""
    spatial = "DHW"[-len(shape.stride) :]
    numbers = (f"N{spatial}C", f"{spatial}IO", f"N{spatial}C")
    return lax.conv_general_dilated(
        x, kernel, shape.stride, shape.padding, dimension_numbers=numbers
    )


def adjoint(linear: Callable, argument: jax.ShapeDtypeStruct, y: Array) -> Array:
    """Applies the transpose of a linear function of an array like `argument` to y."""
    return jax.linear_transpose(linear, argument)(y)[0]
