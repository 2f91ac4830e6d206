"""VGG-19's and VGG-16's convolutions as a pure function of a dict of weights; none is trained.

Simonyan and Zisserman 2014, as torchvision has them. Weights are {"conv1_1": {"kernel": (3 3 i o),
"bias": (o,)}, …}; the layer "relu1_1" follows "conv1_1".
"""

import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from psrjax.ops import conv as conv_ops
from psrjax.pretrained import frozen

_BLOCKS = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))
# name -> (input channels, output channels), in the order of the network
UNITS: dict[str, tuple[int, int]] = {
    f"conv{block}_{layer}": (
        width if layer > 1 else (3 if block == 1 else _BLOCKS[block - 2][1]),
        width,
    )
    for block, (count, width) in enumerate(_BLOCKS, 1)
    for layer in range(1, count + 1)
}
# VGG-16 has three layers where VGG-19 has four, of the same widths.
UNITS16 = {name: sizes for name, sizes in UNITS.items() if not name.endswith("_4")}
LPIPS_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
FIRSTS = tuple(f"relu{block}_1" for block in range(1, 6))
_MEAN = np.array((0.485, 0.456, 0.406), np.float32)  # ImageNet's, of [0, 1] RGB
_STD = np.array((0.229, 0.224, 0.225), np.float32)


def features(
    weights: frozen.Weights,
    image: Float[Array, "b h w 3"],
    layers: Iterable[str] = FIRSTS,
    *,
    dtype: DTypeLike = jnp.float32,
) -> dict[str, Array]:
    """Returns the float32 features of `layers` of images in [0, 1], in the network's order.

    Args:
      weights: see the module; of VGG-16 or VGG-19.
      image: RGB.
      layers: names such as "relu4_2"; those behind the last are not computed.
      dtype: type of the products, and of the maps between them.
    """
    wanted = {f"conv{layer.removeprefix('relu')}" for layer in layers}
    x = normalize_image(image).astype(dtype)
    found = {}
    for name in (unit for unit in UNITS if unit in weights):
        x = _unit(weights[name], _pooled(name, x))
        if name in wanted:
            found[f"relu{name.removeprefix('conv')}"] = x.astype(jnp.float32)
        if len(found) == len(wanted):
            break
    return found


def normalize_image(image: Float[Array, "b h w 3"]) -> Float[Array, "b h w 3"]:
    """Normalizes images in [0, 1] by ImageNet's mean and std, for torchvision's networks."""
    return (image.astype(jnp.float32) - _MEAN) / _STD


def shapes(depth: int = 19) -> dict[str, dict[str, tuple[int, ...]]]:
    """Returns {unit: {array: shape}} of the weights of VGG-19 or VGG-16."""
    return {
        name: {"kernel": (3, 3, inputs, outputs), "bias": (outputs,)}
        for name, (inputs, outputs) in (UNITS if depth == 19 else UNITS16).items()
    }


def random_weights(seed: int = 0, depth: int = 19) -> dict[str, dict[str, np.ndarray]]:
    """Draws untrained weights for tests: each layer's outputs have a std of 1 on noise.

    Features of these weights say little about appearance: no score with them compares with a paper.
    """
    noise = np.random.default_rng(seed).uniform(0, 1, (1, 64, 64, 3)).astype(np.float32)
    x = normalize_image(jnp.asarray(noise))
    weights = {}
    for name, (inputs, outputs) in (UNITS if depth == 19 else UNITS16).items():
        rng = np.random.default_rng((seed, zlib.crc32(name.encode())))
        kernel = rng.normal(0.0, np.sqrt(2.0 / (9 * inputs)), (3, 3, inputs, outputs))
        mine = {"kernel": kernel.astype(np.float32), "bias": np.zeros(outputs, np.float32)}
        pooled = _pooled(name, x)
        std = float(np.asarray(_unit(mine, pooled)).std())
        mine["kernel"] = mine["kernel"] / np.float32(max(std, 1e-6))
        weights[name], x = mine, _unit(mine, pooled)
    return weights


def _pooled(name: str, x: Array) -> Array:
    """Returns a layer's input: max-pooled 2x2 where a new block begins."""
    if not name.endswith("_1") or name == "conv1_1":
        return x
    return nn.max_pool(x, (2, 2), (2, 2))


def _unit(mine: Mapping[str, Any], x: Array) -> Array:
    kernel, bias = (jnp.asarray(mine[name], x.dtype) for name in ("kernel", "bias"))
    return jax.nn.relu(conv_ops.conv(x, kernel, padding=1) + bias)
