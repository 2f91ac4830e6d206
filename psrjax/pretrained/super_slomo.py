"""Super SloMo: the frame between two others, as a pure function of a dict of weights.

Jiang, Sun, Jampani, Yang, Learned-Miller, Kautz 2018, as avinashpaliwal/Super-SloMo has it, whose
weights stand for the paper's own, which were not published. Weights are
{unit: {"kernel": (y x i o), "bias": (o,)}}; a unit "flow.…" is of the network that estimates the
flow between both frames, "synthesis.…" of the one that mends it and tells what is visible.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from psrjax.ops import conv as conv_ops
from psrjax.ops import geometry, local_affine
from psrjax.pretrained import frozen

_MEAN = np.array((0.429, 0.431, 0.397), np.float32)  # of the training frames
_MULTIPLE = 32  # pixels: five halvings
_SLOPE = 0.1  # of the leaky ReLUs
_NETS = {"flow": (6, 4), "synthesis": (20, 5)}  # input and output channels
_DOWN = ((32, 64, 5), (64, 128, 3), (128, 256, 3), (256, 512, 3), (512, 512, 3))
_UP = ((512, 512), (512, 256), (256, 128), (128, 64), (64, 32))


def _net_shapes(inputs: int, outputs: int) -> dict[str, tuple[int, ...]]:
    """Returns {unit: the shape of its kernel} of one U-net, in its order."""
    found = {"conv1": (7, 7, inputs, 32), "conv2": (7, 7, 32, 32)}
    for number, (narrow, wide, side) in enumerate(_DOWN, 1):
        found[f"down{number}.conv1"] = (side, side, narrow, wide)
        found[f"down{number}.conv2"] = (side, side, wide, wide)
    for number, (wide, narrow) in enumerate(_UP, 1):
        found[f"up{number}.conv1"] = (3, 3, wide, narrow)
        found[f"up{number}.conv2"] = (3, 3, 2 * narrow, narrow)
    return {**found, "conv3": (3, 3, 32, outputs)}


def shapes() -> dict[str, dict[str, tuple[int, ...]]]:
    """Returns {unit: {array: shape}} of the weights."""
    return {
        f"{net}.{unit}": {"kernel": shape, "bias": shape[-1:]}
        for net, sizes in _NETS.items()
        for unit, shape in _net_shapes(*sizes).items()
    }


def random_weights(seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """Draws untrained weights for tests: kernels of He's std, no bias."""
    return {
        unit: {
            "kernel": frozen.random_kernel(arrays["kernel"], unit, seed),
            "bias": np.zeros(arrays["bias"], np.float32),
        }
        for unit, arrays in shapes().items()
    }


def halfway(
    weights: frozen.Weights, before: Float[Array, "b h w 3"], after: Float[Array, "b h w 3"]
) -> Float[Array, "b h w 3"]:
    """Returns the frame halfway between two, all in [0, 1].

    `Departs from:` the published script, which resizes frames to multiples of 32 pixels: here
    they are continued beyond their borders, so that those of other sizes stay sharp.
    """
    height, width = before.shape[1:3]
    margin = [(0, 0), (0, -height % _MULTIPLE), (0, -width % _MULTIPLE), (0, 0)]
    one, two = (jnp.pad(frame - _MEAN, margin, "edge") for frame in (before, after))
    ahead, back = jnp.split(_unet(weights, "flow", jnp.concatenate([one, two], -1)), 2, -1)
    # The motion is taken to be straight, and halfway that of the same pixel of either frame.
    to_one, to_two = 0.25 * (back - ahead), 0.25 * (ahead - back)
    seen = [one, two, ahead, back, to_two, to_one, _warp(two, to_two), _warp(one, to_one)]
    found = _unet(weights, "synthesis", jnp.concatenate(seen, -1))
    share = jax.nn.sigmoid(found[..., 4:])  # how much of the first frame is visible
    first = _warp(one, to_one + found[..., :2])
    second = _warp(two, to_two + found[..., 2:4])
    return (share * first + (1.0 - share) * second)[:, :height, :width] + _MEAN


def _unet(weights: frozen.Weights, net: str, x: Array) -> Array:
    def unit(name: str, x: Array) -> Array:
        mine: Any = weights[f"{net}.{name}"]
        kernel = jnp.asarray(mine["kernel"])
        y = conv_ops.conv(x, kernel, padding=kernel.shape[0] // 2) + mine["bias"]
        return jax.nn.leaky_relu(y, _SLOPE)

    x = unit("conv2", unit("conv1", x))
    kept = []
    for number in range(1, len(_DOWN) + 1):
        kept.append(x)
        b, h, w, c = x.shape
        x = x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))
        x = unit(f"down{number}.conv2", unit(f"down{number}.conv1", x))
    for number in range(1, len(_UP) + 1):
        x = unit(f"up{number}.conv1", local_affine.upsample(x, 2))
        x = unit(f"up{number}.conv2", jnp.concatenate([x, kept.pop()], -1))
    return unit("conv3", x)


def _warp(frame: Array, flow: Array) -> Array:
    """Warps backward on the published grid, where pixel p of n is read at p (n - 1) / n."""
    height, width = frame.shape[1:3]
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
    grid = 2.0 * (flow + pixels) / np.array((width, height), np.float32) - 1.0
    return geometry.grid_sample(frame, grid, align_corners=True)
