"""I3D, whole and up to Mixed_4b, as a pure function of a dict of weights; nothing here is trained.

Carreira and Zisserman's two-stream inflated 3-D Inception (RGB). Weights are
{unit: {"kernel": (t h w i o), "scale", "bias", "mean", "var": (o,)}}, a unit being a convolution
without bias, a batch norm (epsilon 1e-3) and a ReLU. All padding is TensorFlow's "SAME".
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float

from psrjax.errors import UserError
from psrjax.ops import conv as conv_ops
from psrjax.pretrained import frozen

LAYERS = ("Conv3d_1a_7x7", "Conv3d_2b_1x1", "Mixed_3c", "Mixed_4b")
Weights = frozen.Weights
FEATURES, CLASSES = 1024, 400
SHORTEST, SMALLEST = 9, 193  # frames, and pixels a side, that fill the pooling window of 2x7x7


class Unit3D(NamedTuple):
    """Input and output channels, side of the cubic kernel, and stride of one unit."""

    inputs: int
    outputs: int
    kernel_size: int
    stride: int = 1


def _inception(name: str, inputs: int, widths: tuple[int, ...]) -> dict[str, Unit3D]:
    one, narrow3, wide3, narrow5, wide5, pooled = widths
    return {
        f"{name}.b0": Unit3D(inputs, one, 1),
        f"{name}.b1a": Unit3D(inputs, narrow3, 1),
        f"{name}.b1b": Unit3D(narrow3, wide3, 3),
        f"{name}.b2a": Unit3D(inputs, narrow5, 1),
        f"{name}.b2b": Unit3D(narrow5, wide5, 3),
        f"{name}.b3b": Unit3D(inputs, pooled, 1),
    }


UNITS: dict[str, Unit3D] = {
    "Conv3d_1a_7x7": Unit3D(3, 64, 7, 2),
    "Conv3d_2b_1x1": Unit3D(64, 64, 1),
    "Conv3d_2c_3x3": Unit3D(64, 192, 3),
    **_inception("Mixed_3b", 192, (64, 96, 128, 16, 32, 32)),
    **_inception("Mixed_3c", 256, (128, 128, 192, 32, 96, 64)),
    **_inception("Mixed_4b", 480, (192, 96, 208, 16, 48, 64)),
}
TOP_UNITS: dict[str, Unit3D] = {
    **_inception("Mixed_4c", 512, (160, 112, 224, 24, 64, 64)),
    **_inception("Mixed_4d", 512, (128, 128, 256, 24, 64, 64)),
    **_inception("Mixed_4e", 512, (112, 144, 288, 32, 64, 64)),
    **_inception("Mixed_4f", 528, (256, 160, 320, 32, 128, 128)),
    **_inception("Mixed_5b", 832, (256, 160, 320, 32, 128, 128)),
    **_inception("Mixed_5c", 832, (384, 192, 384, 48, 128, 128)),
}


def features(
    weights: Weights, video: Float[Array, "b t h w 3"], *, dtype: DTypeLike = jnp.float32
) -> dict[str, Array]:
    """Returns the float32 features of `LAYERS` of a video in [-1, 1].

    Args:
      weights: see the module.
      video: RGB.
      dtype: type of the products, and of the maps between them.
    """
    found = _walk(functools.partial(_unit, weights), video.astype(dtype))
    return {name: x.astype(jnp.float32) for name, x in found.items()}


def classify(weights: Weights, video: Float[Array, "b t h w 3"]) -> dict[str, Float[Array, "b _"]]:
    """Returns "features" (b 1024) before the classifier, and "logits" (b 400), of a video.

    The video is in [-1, 1]; the reference sees 16 frames of 224x224. Both results are means over
    time; the logits of Kinetics-400 are before the softmax. The whole network is needed: weights of
    `shapes(whole=True)`.

    Raises:
      UserError: for fewer than 9 frames, or a side of fewer than 193 pixels.
    """
    if video.shape[1] < SHORTEST or min(video.shape[2:4]) < SMALLEST:
        raise UserError(
            f"I3D needs clips of at least {SHORTEST} frames of {SMALLEST}x{SMALLEST}, these have "
            f"shape {video.shape[1:4]}: join windows into longer clips"
        )
    return classify_features(weights, features(weights, video)["Mixed_4b"])


def classify_features(
    weights: Weights, x: Float[Array, "b t y x 512"]
) -> dict[str, Float[Array, "b _"]]:
    """Returns the same as `classify`, from the features of Mixed_4b."""
    x = _walk_top(functools.partial(_unit, weights), x)
    pooled = nn.avg_pool(x, (2, 7, 7)).mean((1, 2, 3))
    kernel = jnp.asarray(weights["logits"]["kernel"])
    logits = jnp.matmul(pooled, kernel, precision=lax.Precision.HIGHEST)
    return {"features": pooled, "logits": logits + weights["logits"]["bias"]}


def _walk(apply: Callable, video: Array) -> dict[str, Array]:
    """Runs the trunk with `apply(unit, x)` for its units."""
    found = {}
    x = found["Conv3d_1a_7x7"] = apply("Conv3d_1a_7x7", video)
    x = _max_pool(x, (1, 3, 3), (1, 2, 2))
    x = found["Conv3d_2b_1x1"] = apply("Conv3d_2b_1x1", x)
    x = apply("Conv3d_2c_3x3", x)
    x = _max_pool(x, (1, 3, 3), (1, 2, 2))
    x = found["Mixed_3c"] = _mixed(apply, "Mixed_3c", _mixed(apply, "Mixed_3b", x))
    found["Mixed_4b"] = _mixed(apply, "Mixed_4b", _max_pool(x, (3, 3, 3), (2, 2, 2)))
    return found


def _walk_top(apply: Callable, x: Array) -> Array:
    """Runs what follows Mixed_4b, up to Mixed_5c."""
    for name in ("Mixed_4c", "Mixed_4d", "Mixed_4e", "Mixed_4f"):
        x = _mixed(apply, name, x)
    x = _max_pool(x, (2, 2, 2), (2, 2, 2))
    return _mixed(apply, "Mixed_5c", _mixed(apply, "Mixed_5b", x))


def random_weights(seed: int = 0, *, whole: bool = False) -> dict[str, dict[str, np.ndarray]]:
    """Draws untrained weights for tests: each unit's outputs have a std of 1 on a noise clip.

    Features of these weights say little about appearance: no score with them compares with a paper.
    """
    noise = np.random.default_rng(seed).uniform(-1, 1, (1, 8, 32, 32, 3)).astype(np.float32)
    kernels = {
        name: frozen.random_kernel(parts["kernel"], name, seed)
        for name, parts in shapes(whole=whole).items()
    }

    def walk(apply: Callable, video: Array) -> None:
        found = _walk(apply, video)["Mixed_4b"]
        if whole:
            _walk_top(apply, found)

    weights = frozen.random_units(walk, _convolve, kernels, noise)
    if whole:
        weights["logits"] = {"kernel": kernels["logits"], "bias": np.zeros(CLASSES, np.float32)}
    return weights


def shapes(*, whole: bool = False) -> dict[str, dict[str, tuple[int, ...]]]:
    """Returns {unit: {array: shape}} of the weights: up to Mixed_4b, or of the whole network."""
    units = UNITS | TOP_UNITS if whole else UNITS
    found = {
        name: frozen.unit_shapes((unit.kernel_size,) * 3 + (unit.inputs, unit.outputs))
        for name, unit in units.items()
    }
    if whole:
        found["logits"] = {"kernel": (FEATURES, CLASSES), "bias": (CLASSES,)}
    return found


def _mixed(apply: Callable, name: str, x: Array) -> Array:
    branches = (
        apply(f"{name}.b0", x),
        apply(f"{name}.b1b", apply(f"{name}.b1a", x)),
        apply(f"{name}.b2b", apply(f"{name}.b2a", x)),
        apply(f"{name}.b3b", _max_pool(x, (3, 3, 3), (1, 1, 1))),
    )
    return jnp.concatenate(branches, -1)


def _unit(weights: Weights, name: str, x: Array) -> Array:
    return frozen.norm_relu(weights[name], _convolve(name, weights[name]["kernel"], x))


def _convolve(name: str, kernel: ArrayLike, x: Array) -> Array:
    kernel, stride = jnp.asarray(kernel, x.dtype), UNITS[name].stride if name in UNITS else 1
    pads = [_same(size, kernel.shape[0], stride) for size in x.shape[1:4]]
    return conv_ops.conv(jnp.pad(x, ((0, 0), *pads, (0, 0))), kernel, stride=stride)


def _max_pool(x: Array, window: tuple[int, ...], stride: tuple[int, ...]) -> Array:
    return nn.max_pool(x, window, stride, "SAME")


def _same(size: int, kernel_size: int, stride: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + kernel_size - size, 0)
    return total // 2, total - total // 2
