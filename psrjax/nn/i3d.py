"""The I3D trunk up to Mixed_4b, as a pure function of a dict of weights; nothing here is trained.

Carreira and Zisserman's two-stream inflated 3-D Inception (RGB). Weights are
{unit: {"kernel": (t h w i o), "scale", "bias", "mean", "var": (o,)}}, a unit being a convolution
without bias, a batch norm (epsilon 1e-3) and a ReLU. All padding is TensorFlow's "SAME".
"""

import functools
import zlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from psrjax.ops import conv as conv_ops

TAPS = ("Conv3d_1a_7x7", "Conv3d_2b_1x1", "Mixed_3c", "Mixed_4b")
Weights = Mapping[str, Mapping[str, Any]]  # {unit: {array: values}}
_EPSILON = 1e-3


class Unit(NamedTuple):
    """Size of one unit: input and output channels, taps of its cubic kernel, stride."""

    inputs: int
    outputs: int
    taps: int
    stride: int = 1


def _inception(name: str, inputs: int, widths: tuple[int, ...]) -> dict[str, Unit]:
    one, narrow3, wide3, narrow5, wide5, pooled = widths
    return {
        f"{name}.b0": Unit(inputs, one, 1),
        f"{name}.b1a": Unit(inputs, narrow3, 1),
        f"{name}.b1b": Unit(narrow3, wide3, 3),
        f"{name}.b2a": Unit(inputs, narrow5, 1),
        f"{name}.b2b": Unit(narrow5, wide5, 3),
        f"{name}.b3b": Unit(inputs, pooled, 1),
    }


UNITS: dict[str, Unit] = {
    "Conv3d_1a_7x7": Unit(3, 64, 7, 2),
    "Conv3d_2b_1x1": Unit(64, 64, 1),
    "Conv3d_2c_3x3": Unit(64, 192, 3),
    **_inception("Mixed_3b", 192, (64, 96, 128, 16, 32, 32)),
    **_inception("Mixed_3c", 256, (128, 128, 192, 32, 96, 64)),
    **_inception("Mixed_4b", 480, (192, 96, 208, 16, 48, 64)),
}


def features(weights: Weights, video: Float[Array, "b t h w 3"]) -> dict[str, Array]:
    """The features at `TAPS` of a video in [-1, 1], in float32."""
    return _walk(functools.partial(_unit, weights), video.astype(jnp.float32))


def _walk(apply: Callable, video: Array) -> dict[str, Array]:
    """Runs the trunk with `apply(unit, x)` for its units."""
    taps = {}
    x = taps["Conv3d_1a_7x7"] = apply("Conv3d_1a_7x7", video)
    x = _max_pool(x, (1, 3, 3), (1, 2, 2))
    x = taps["Conv3d_2b_1x1"] = apply("Conv3d_2b_1x1", x)
    x = apply("Conv3d_2c_3x3", x)
    x = _max_pool(x, (1, 3, 3), (1, 2, 2))
    x = taps["Mixed_3c"] = _mixed(apply, "Mixed_3c", _mixed(apply, "Mixed_3b", x))
    taps["Mixed_4b"] = _mixed(apply, "Mixed_4b", _max_pool(x, (3, 3, 3), (2, 2, 2)))
    return taps


def random_weights(seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """Untrained weights for tests: each unit's outputs have unit deviation on a noise clip.

    Features of these weights say little about appearance: no score with them compares with a paper.
    """
    noise = np.random.default_rng(seed).uniform(-1, 1, (1, 8, 32, 32, 3)).astype(np.float32)
    kernels = {
        name: _random_kernel(parts["kernel"], name, seed) for name, parts in shapes().items()
    }
    return jax.tree.map(np.asarray, jax.jit(_calibrated)(kernels, noise))


def _random_kernel(shape: tuple[int, ...], name: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
    deviation = np.sqrt(2.0 / np.prod(shape[:-1]))
    return rng.normal(0.0, deviation, shape).astype(np.float32)


def _calibrated(kernels: dict[str, Array], noise: Array) -> dict[str, dict[str, Array]]:
    """Weights whose statistics and scale give each unit's output unit deviation on `noise`."""
    done = {}

    def calibrate(name: str, x: Array) -> Array:
        y = _same_conv(x, kernels[name], UNITS[name].stride)
        ones = jnp.ones(UNITS[name].outputs)  # one mean and variance for the layer: few positions
        unit = {"kernel": kernels[name], "scale": ones, "bias": 0.0 * ones}
        done[name] = {**unit, "mean": y.mean() * ones, "var": y.var() * ones}
        done[name]["scale"] = ones / _unit(done, name, x).std()
        return _unit(done, name, x)

    _walk(calibrate, noise)
    return done


def shapes() -> dict[str, dict[str, tuple[int, ...]]]:
    """{unit: {array: shape}} of the weights."""
    vectors = ("scale", "bias", "mean", "var")
    return {
        name: {
            "kernel": (unit.taps, unit.taps, unit.taps, unit.inputs, unit.outputs),
            **dict.fromkeys(vectors, (unit.outputs,)),
        }
        for name, unit in UNITS.items()
    }


def _mixed(apply: Callable, name: str, x: Array) -> Array:
    branches = (
        apply(f"{name}.b0", x),
        apply(f"{name}.b1b", apply(f"{name}.b1a", x)),
        apply(f"{name}.b2b", apply(f"{name}.b2a", x)),
        apply(f"{name}.b3b", _max_pool(x, (3, 3, 3), (1, 1, 1))),
    )
    return jnp.concatenate(branches, -1)


def _unit(weights: Weights, name: str, x: Array) -> Array:
    mine = weights[name]
    factor = mine["scale"] * lax.rsqrt(jnp.asarray(mine["var"]) + _EPSILON)
    y = _same_conv(x, jnp.asarray(mine["kernel"]), UNITS[name].stride)
    return jax.nn.relu(y * factor + (mine["bias"] - mine["mean"] * factor))


def _same_conv(x: Array, kernel: Array, stride: int) -> Array:
    pads = [_same(size, kernel.shape[0], stride) for size in x.shape[1:4]]
    return conv_ops.conv(jnp.pad(x, ((0, 0), *pads, (0, 0))), kernel, stride=stride)


def _max_pool(x: Array, window: tuple[int, ...], stride: tuple[int, ...]) -> Array:
    return lax.reduce_window(x, -jnp.inf, lax.max, (1, *window, 1), (1, *stride, 1), "SAME")


def _same(size: int, taps: int, stride: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + taps - size, 0)
    return total // 2, total - total // 2
