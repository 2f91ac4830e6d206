"""Counts the FLOPs of convolutions, of a network and of its training step."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

import flax.linen as nn
import jax

from psrjax.nn import layers
from psrjax.ops import conv as conv_ops

_LAYERS = (layers.Conv, layers.ConvTranspose, layers.SpectralConv, layers.UpsampledConv)


def convolution_flops(
    kernel_elements: int, *, samples: int, inputs: Sequence[int], outputs: Sequence[int]
) -> int:
    """Counts two per multiply-add of a convolution or its transpose, those with padding too.

    A strided convolution uses its kernel once per output position, a transposed one once per input
    position: whichever side is smaller.

    Args:
      kernel_elements: the kernel's size times input channels times output channels.
      samples: the batch, frames folded into it included.
      inputs: the input's size in each dimension.
      outputs: the output's.
    """
    return 2 * kernel_elements * samples * min(math.prod(inputs), math.prod(outputs))


def count_forward(forward: Callable, *arguments: Any) -> dict[str, int]:
    """Returns {path of the layer: FLOPs} of the convolutions of one call; computes nothing."""
    found: dict[str, int] = {}

    def note(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        made, module = call(*args, **kwargs), context.module
        if isinstance(module, _LAYERS) and context.method_name == "__call__":
            path = "/".join(module.path)
            elements = math.prod(module.kernel_size) * args[0].shape[-1] * module.features
            seen = made if isinstance(module, layers.UpsampledConv) else args[0]
            found[path] = found.get(path, 0) + _flops(elements, seen, made)
        return made

    with nn.intercept_methods(note):
        _trace(forward, arguments)
    return found


def count_step(step: Callable, *arguments: Any) -> int:
    """Counts all convolutions of a training step, gradients included; computes nothing.

    What a formulation saves is not taken off: a convolution of an enlarged picture counts as one of
    that size. Those of frozen networks that are no layers (VGG, I3D) are among them. The gradients
    of an input and of a kernel are counted where they are asked for: not into data, nor for frozen
    nets. Norms, losses, resampling and the optimizer are left out (around 1 % here); products of
    attention too.

    Args:
      step: see `psrjax.training.step.make_step`.
      *arguments: the step's.
    """
    total = 0

    def counted(convolve: Callable, *, enlarges: bool = False) -> Callable:
        def note(x: jax.Array, kernel: jax.Array, **options: Any) -> jax.Array:
            flops: list[int] = []

            def add() -> None:
                nonlocal total
                total += flops[0]

            y = convolve(_noted(add, x), _noted(add, kernel), **options)
            pixels = options.get("pixels", 1)
            flops.append(_flops(pixels * kernel.size, y if enlarges else x, y))
            add()
            return y

        return note

    # Every convolution goes through these; nothing else sees them all with their gradients.
    enlarged = counted(conv_ops.conv_upsampled, enlarges=True)
    with (
        mock.patch.object(conv_ops, "conv_upsampled", enlarged),
        mock.patch.object(conv_ops, "conv", counted(conv_ops.conv)),
        mock.patch.object(conv_ops, "conv_transpose", counted(conv_ops.conv_transpose)),
    ):
        _trace(step, arguments)
    return total


def _trace(function: Callable, arguments: tuple) -> None:
    # A new function, because JAX remembers traces of old ones.
    jax.eval_shape(lambda *arguments: function(*arguments), *arguments)


def _flops(kernel_elements: int, x: jax.Array, y: jax.Array) -> int:
    return convolution_flops(
        kernel_elements, samples=x.shape[0], inputs=x.shape[1:-1], outputs=y.shape[1:-1]
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _noted(note: Callable[[], None], x: jax.Array) -> jax.Array:
    """Returns x; calls `note` when a gradient with respect to it is traced."""
    del note
    return x


def _noted_backward(note: Callable[[], None], _: None, gradient: jax.Array) -> tuple[jax.Array]:
    note()
    return (gradient,)


_noted.defvjp(lambda note, x: (x, None), _noted_backward)
