"""Counting the convolutions of a network and of its training step, by one formula for any side."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax

from psrjax.nn import layers


def convolution_flops(
    kernel_elements: int, *, samples: int, inputs: Sequence[int], outputs: Sequence[int]
) -> int:
    """Two per multiply-add of a convolution or its transpose, taps on the padding included.

    A strided convolution uses its kernel once per output position, a transposed one once per input
    position: whichever side is smaller.

    Args:
      kernel_elements: taps times input channels times output channels.
      samples: the batch, frames folded into it included.
      inputs: the input's size in each dimension.
      outputs: the output's.
    """
    return 2 * kernel_elements * samples * min(math.prod(inputs), math.prod(outputs))


def count_forward(forward: Callable, *arguments: Any) -> dict[str, int]:
    """{path of the layer: FLOPs} of the convolutions of one call; nothing is computed."""
    return _count({}, forward, arguments).forward


def count_step(step: Callable, turns: dict[str, tuple[str, ...]], *arguments: Any) -> int:
    """FLOPs of the convolutions of one training step, gradients included; nothing is computed.

    The gradient of a kernel is counted where the turn trains its net, and the gradient of an input
    where it is asked for: not into data, and not through frozen nets. Norms, losses and the
    optimizer are left out (around 1 % here).

    Args:
      step: see `psrjax.training.step.make_step`.
      turns: the method's.
      *arguments: the step's.
    """
    counter = _count(turns, step, arguments)
    return sum(counter.forward.values()) + counter.kernel_gradients + counter.input_gradients


def _count(turns: dict[str, tuple[str, ...]], function: Callable, arguments: tuple) -> "_Counter":
    counter = _Counter(turns)
    with nn.intercept_methods(counter):  # a new function, because JAX remembers traces of old ones
        jax.eval_shape(lambda *arguments: function(*arguments), *arguments)
    return counter


class _Counter:
    """An interceptor of linen's method calls."""

    def __init__(self, turns: dict[str, tuple[str, ...]]):
        self.turns = turns
        self.trained: tuple[str, ...] = ()
        self.forward: dict[str, int] = {}
        self.kernel_gradients = 0
        self.input_gradients = 0

    def __call__(self, call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        module = context.module
        if context.method_name == "loss":
            self.trained = self.turns[args[0]]
        is_convolution = isinstance(module, layers.Conv | layers.ConvTranspose)
        if not is_convolution or context.method_name != "__call__":
            return call(*args, **kwargs)
        x = args[0]
        marker: list[int] = []
        y = call(_noted(functools.partial(self._input_gradient, marker), x), **kwargs)
        flops = convolution_flops(
            math.prod(module.taps) * x.shape[-1] * module.features,
            samples=x.shape[0],
            inputs=x.shape[1:-1],
            outputs=y.shape[1:-1],
        )
        marker.append(flops)
        path = "/".join(module.path)
        self.forward[path] = self.forward.get(path, 0) + flops
        if module.path[0] in self.trained:
            self.kernel_gradients += flops
        return y

    def _input_gradient(self, marker: list[int]) -> None:
        self.input_gradients += marker[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _noted(note: Callable[[], None], x: jax.Array) -> jax.Array:
    """x; `note` is called when a gradient with respect to it is traced."""
    del note
    return x


def _noted_backward(note: Callable[[], None], _: None, gradient: jax.Array) -> tuple[jax.Array]:
    note()
    return (gradient,)


_noted.defvjp(lambda note, x: (x, None), _noted_backward)
