"""Units of convolution, batch norm and ReLU for frozen networks, and untrained weights for tests.

Weights are {unit: {"kernel", "scale", "bias", "mean", "var"}}.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

Weights = Mapping[str, Mapping[str, Any]]  # {unit: {array: values}}
EPSILON = 1e-3  # of the batch norms, as TensorFlow trained them


def norm_relu(unit: Mapping[str, Any], y: Array) -> Array:
    """Applies a unit's batch norm with frozen statistics, and a ReLU, to its convolution y.

    In float32; the result is of y's type.
    """
    factor = unit["scale"] * lax.rsqrt(jnp.asarray(unit["var"]) + EPSILON)
    return jax.nn.relu(y * factor + (unit["bias"] - unit["mean"] * factor)).astype(y.dtype)


def unit_shapes(kernel: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Returns {array: shape} of one unit."""
    return {"kernel": kernel, **dict.fromkeys(("scale", "bias", "mean", "var"), kernel[-1:])}


def random_kernel(shape: tuple[int, ...], name: str, seed: int) -> np.ndarray:
    """Draws a kernel (*size i o) from a normal of He's std; each name has its own."""
    rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
    return rng.normal(0.0, np.sqrt(2.0 / np.prod(shape[:-1])), shape).astype(np.float32)


def random_units(
    walk: Callable, convolve: Callable, kernels: Mapping[str, np.ndarray], noise: np.ndarray
) -> dict[str, dict[str, np.ndarray]]:
    """Makes weights whose statistics and scale give each unit's output a std of 1 on `noise`.

    Args:
      walk: runs the network on `noise` with `apply(unit, x)` for its units.
      convolve: (unit, kernel, x) -> the unit's convolution.
      kernels: of the units.
      noise: an input.
    """

    def build(kernels: Mapping, noise: Array) -> dict:
        done: dict[str, dict[str, Array]] = {}

        def calibrate(name: str, x: Array) -> Array:
            y = convolve(name, kernels[name], x)
            ones = jnp.ones(y.shape[-1])  # one mean and variance for the layer: few positions
            unit = {"kernel": kernels[name], "scale": ones, "bias": 0.0 * ones}
            unit |= {"mean": y.mean() * ones, "var": y.var() * ones}
            done[name] = {**unit, "scale": ones / norm_relu(unit, y).std()}
            return norm_relu(done[name], y)

        walk(calibrate, noise)
        return done

    return jax.tree.map(np.asarray, jax.jit(build)(dict(kernels), noise))
