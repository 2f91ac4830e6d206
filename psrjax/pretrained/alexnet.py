"""AlexNet's convolutions as a pure function of a dict of weights; nothing here is trained.

Krizhevsky 2014 ("one weird trick"), as torchvision has it. Weights are {"conv1": {"kernel": (k k i
o), "bias": (o,)}, …}; a tap "relu1" is what follows "conv1".
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from psrjax.ops import conv as conv_ops
from psrjax.pretrained import frozen, vgg

# name -> (input channels, output channels, taps, stride, zeros on both sides)
UNITS = {
    "conv1": (3, 64, 11, 4, 2),
    "conv2": (64, 192, 5, 1, 2),
    "conv3": (192, 384, 3, 1, 1),
    "conv4": (384, 256, 3, 1, 1),
    "conv5": (256, 256, 3, 1, 1),
}
TAPS = tuple(f"relu{i}" for i in range(1, 6))


def features(weights: frozen.Weights, image: Float[Array, "b h w 3"]) -> dict[str, Array]:
    """The features at `TAPS` of pictures in [0, 1], in float32; at least 31 pixels a side."""
    x, found = vgg.normalized(image), {}
    for name, (*_, stride, padding) in UNITS.items():
        if name in ("conv2", "conv3"):
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "VALID")
        kernel = jnp.asarray(weights[name]["kernel"])
        x = conv_ops.conv(x, kernel, stride=stride, padding=padding) + weights[name]["bias"]
        x = found[f"relu{name.removeprefix('conv')}"] = jax.nn.relu(x)
    return found


def shapes() -> dict[str, dict[str, tuple[int, ...]]]:
    """{unit: {array: shape}} of the weights."""
    return {
        name: {"kernel": (taps, taps, inputs, outputs), "bias": (outputs,)}
        for name, (inputs, outputs, taps, *_) in UNITS.items()
    }


def random_weights(seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """Untrained weights for tests, of He's deviation: no score with them compares with a paper."""
    return {
        name: {
            "kernel": frozen.random_kernel(parts["kernel"], name, seed),
            "bias": np.zeros(parts["bias"], np.float32),
        }
        for name, parts in shapes().items()
    }
