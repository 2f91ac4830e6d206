"""Inception-v3 as the Fréchet Inception distance uses it: a pure function of a dict of weights.

Szegedy et al. 2015 with the changes of TensorFlow's graph of 2015 that pytorch-fid carries over:
average pools leave the padding out of their mean, the last block has a max pool, and there are 1008
classes. Units are named as in torchvision ("Mixed_5b.branch1x1"), see `psrjax.pretrained.frozen`.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from psrjax.ops import conv as conv_ops
from psrjax.pretrained import frozen

FEATURES, CLASSES = 2048, 1008


class Unit2D(NamedTuple):
    """Input and output channels, kernel size (height, width), and stride of one unit."""

    inputs: int
    outputs: int
    kernel_size: tuple[int, int] = (1, 1)
    stride: int = 1

    @property
    def padding(self) -> tuple[int, int]:
        """Zeros on both sides: as many as keep the size with stride 1, none with stride 2."""
        return (self.kernel_size[0] // 2, self.kernel_size[1] // 2) if self.stride == 1 else (0, 0)


def _chain(name: str, inputs: int, *parts: tuple[str, int, tuple[int, int]]) -> dict[str, Unit2D]:
    units = {}
    for suffix, outputs, kernel_size in parts:
        units[f"{name}.{suffix}"] = Unit2D(inputs, outputs, kernel_size)
        inputs = outputs
    return units


_ONE, _THREE, _FIVE, _WIDE, _HIGH = (1, 1), (3, 3), (5, 5), (1, 7), (7, 1)


def _block_a(name: str, inputs: int, pooled: int) -> dict[str, Unit2D]:
    return {
        f"{name}.branch1x1": Unit2D(inputs, 64),
        **_chain(name, inputs, ("branch5x5_1", 48, _ONE), ("branch5x5_2", 64, _FIVE)),
        **_chain(
            name,
            inputs,
            ("branch3x3dbl_1", 64, _ONE),
            ("branch3x3dbl_2", 96, _THREE),
            ("branch3x3dbl_3", 96, _THREE),
        ),
        f"{name}.branch_pool": Unit2D(inputs, pooled),
    }


def _block_c(name: str, narrow: int) -> dict[str, Unit2D]:
    return {
        f"{name}.branch1x1": Unit2D(768, 192),
        **_chain(
            name,
            768,
            ("branch7x7_1", narrow, _ONE),
            ("branch7x7_2", narrow, _WIDE),
            ("branch7x7_3", 192, _HIGH),
        ),
        **_chain(
            name,
            768,
            ("branch7x7dbl_1", narrow, _ONE),
            ("branch7x7dbl_2", narrow, _HIGH),
            ("branch7x7dbl_3", narrow, _WIDE),
            ("branch7x7dbl_4", narrow, _HIGH),
            ("branch7x7dbl_5", 192, _WIDE),
        ),
        f"{name}.branch_pool": Unit2D(768, 192),
    }


def _block_e(name: str, inputs: int) -> dict[str, Unit2D]:
    return {
        f"{name}.branch1x1": Unit2D(inputs, 320),
        f"{name}.branch3x3_1": Unit2D(inputs, 384),
        f"{name}.branch3x3_2a": Unit2D(384, 384, (1, 3)),
        f"{name}.branch3x3_2b": Unit2D(384, 384, (3, 1)),
        **_chain(name, inputs, ("branch3x3dbl_1", 448, _ONE), ("branch3x3dbl_2", 384, _THREE)),
        f"{name}.branch3x3dbl_3a": Unit2D(384, 384, (1, 3)),
        f"{name}.branch3x3dbl_3b": Unit2D(384, 384, (3, 1)),
        f"{name}.branch_pool": Unit2D(inputs, 192),
    }


UNITS: dict[str, Unit2D] = {
    "Conv2d_1a_3x3": Unit2D(3, 32, _THREE, 2),
    "Conv2d_2a_3x3": Unit2D(32, 32, _THREE),
    "Conv2d_2b_3x3": Unit2D(32, 64, _THREE),
    "Conv2d_3b_1x1": Unit2D(64, 80),
    "Conv2d_4a_3x3": Unit2D(80, 192, _THREE),
    **_block_a("Mixed_5b", 192, 32),
    **_block_a("Mixed_5c", 256, 64),
    **_block_a("Mixed_5d", 288, 64),
    "Mixed_6a.branch3x3": Unit2D(288, 384, _THREE, 2),
    "Mixed_6a.branch3x3dbl_1": Unit2D(288, 64),
    "Mixed_6a.branch3x3dbl_2": Unit2D(64, 96, _THREE),
    "Mixed_6a.branch3x3dbl_3": Unit2D(96, 96, _THREE, 2),
    **_block_c("Mixed_6b", 128),
    **_block_c("Mixed_6c", 160),
    **_block_c("Mixed_6d", 160),
    **_block_c("Mixed_6e", 192),
    "Mixed_7a.branch3x3_1": Unit2D(768, 192),
    "Mixed_7a.branch3x3_2": Unit2D(192, 320, _THREE, 2),
    "Mixed_7a.branch7x7x3_1": Unit2D(768, 192),
    "Mixed_7a.branch7x7x3_2": Unit2D(192, 192, _WIDE),
    "Mixed_7a.branch7x7x3_3": Unit2D(192, 192, _HIGH),
    "Mixed_7a.branch7x7x3_4": Unit2D(192, 192, _THREE, 2),
    **_block_e("Mixed_7b", 1280),
    **_block_e("Mixed_7c", 2048),
}
_UNPADDED = ("Conv2d_2a_3x3", "Conv2d_4a_3x3")  # 3x3 with stride 1 and yet without padding


def features(
    weights: frozen.Weights, image: Float[Array, "b h w 3"]
) -> dict[str, Float[Array, "b _"]]:
    """Returns "features" (b 2048), pool3, and "logits" (b 1008), of images in [-1, 1].

    FID takes images of 299x299. The logits are without the bias, as TensorFlow's graph gives them
    to the Inception score.
    """
    unit = functools.partial(_unit, weights)
    pooled = _walk(unit, image.astype(jnp.float32)).mean((1, 2))
    kernel = jnp.asarray(weights["fc"]["kernel"])
    logits = jnp.matmul(pooled, kernel, precision=lax.Precision.HIGHEST)
    return {"features": pooled, "logits": logits}


def shapes() -> dict[str, dict[str, tuple[int, ...]]]:
    """Returns {unit: {array: shape}} of the weights."""
    units = {
        name: frozen.unit_shapes((*unit.kernel_size, unit.inputs, unit.outputs))
        for name, unit in UNITS.items()
    }
    return {**units, "fc": {"kernel": (FEATURES, CLASSES), "bias": (CLASSES,)}}


def random_weights(seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """Draws untrained weights for tests: each unit's outputs have a std of 1 on noise.

    Features of these weights say little about appearance: no score with them compares with a paper.
    """
    noise = np.random.default_rng(seed).uniform(-1, 1, (1, 107, 107, 3)).astype(np.float32)
    kernels = {n: frozen.random_kernel(shapes()[n]["kernel"], n, seed) for n in UNITS}
    fc = {"kernel": frozen.random_kernel((FEATURES, CLASSES), "fc", seed)}
    units = frozen.random_units(_walk, _convolve, kernels, noise)
    return {**units, "fc": {**fc, "bias": np.zeros(CLASSES, np.float32)}}


def _walk(apply: Callable, x: Array) -> Array:
    """Returns the last map before pooling, with `apply(unit, x)` for the units."""
    for name in ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"):
        x = apply(name, x)
    x = apply("Conv2d_4a_3x3", apply("Conv2d_3b_1x1", _max_pool(x)))
    x = _max_pool(x)
    for name in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
        x = _mixed(apply, name, x, ("branch5x5", 2), ("branch3x3dbl", 3))
    double = _run(apply, "Mixed_6a.branch3x3dbl", x, 3)
    x = jnp.concatenate([apply("Mixed_6a.branch3x3", x), double, _max_pool(x)], -1)
    for name in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
        x = _mixed(apply, name, x, ("branch7x7", 3), ("branch7x7dbl", 5))
    branches = (
        _run(apply, f"Mixed_7a.{n}", x, c) for n, c in (("branch3x3", 2), ("branch7x7x3", 4))
    )
    x = jnp.concatenate([*branches, _max_pool(x)], -1)
    x = _block_last(apply, "Mixed_7b", x, _mean_pool)
    return _block_last(apply, "Mixed_7c", x, lambda y: _max_pool(y, stride=1, padding=1))


def _run(apply: Callable, name: str, x: Array, count: int) -> Array:
    for i in range(1, count + 1):
        x = apply(f"{name}_{i}", x)
    return x


def _mixed(apply: Callable, name: str, x: Array, *chains: tuple[str, int]) -> Array:
    branches = [apply(f"{name}.branch1x1", x)]
    branches += [_run(apply, f"{name}.{chain}", x, count) for chain, count in chains]
    return jnp.concatenate([*branches, apply(f"{name}.branch_pool", _mean_pool(x))], -1)


def _block_last(apply: Callable, name: str, x: Array, pool: Callable) -> Array:
    single = apply(f"{name}.branch3x3_1", x)
    double = _run(apply, f"{name}.branch3x3dbl", x, 2)
    branches = [apply(f"{name}.branch1x1", x)]
    branches += [apply(f"{name}.branch3x3_2{side}", single) for side in "ab"]
    branches += [apply(f"{name}.branch3x3dbl_3{side}", double) for side in "ab"]
    return jnp.concatenate([*branches, apply(f"{name}.branch_pool", pool(x))], -1)


def _unit(weights: frozen.Weights, name: str, x: Array) -> Array:
    return frozen.norm_relu(weights[name], _convolve(name, weights[name]["kernel"], x))


def _convolve(name: str, kernel: ArrayLike, x: Array) -> Array:
    unit = UNITS[name]
    padding = 0 if name in _UNPADDED else unit.padding
    return conv_ops.conv(x, jnp.asarray(kernel), stride=unit.stride, padding=padding)


def _max_pool(x: Array, *, stride: int = 2, padding: int = 0) -> Array:
    around: Any = ((padding, padding),) * 2  # flax says "str", and takes pairs
    return nn.max_pool(x, (3, 3), (stride, stride), around)


def _mean_pool(x: Array) -> Array:
    return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)
