"""AlexNet's convolutions as a pure function of a dict of weights; nothing here is trained.

Krizhevsky 2014 ("one weird trick"), as torchvision has it. Weights are {"conv1": {"kernel": (k k i
o), "bias": (o,)}, …}; the layer "relu1" follows "conv1".
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from psrjax.ops import conv as conv_ops
from psrjax.pretrained import frozen, vgg

# name -> (input channels, output channels, kernel size, stride, padding)
UNITS = {
    "conv1": (3, 64, 11, 4, 2),
    "conv2": (64, 192, 5, 1, 2),
    "conv3": (192, 384, 3, 1, 1),
    "conv4": (384, 256, 3, 1, 1),
    "conv5": (256, 256, 3, 1, 1),
}
LAYERS = tuple(f"relu{i}" for i in range(1, 6))


def features(weights: frozen.Weights, image: Float[Array, "b h w 3"]) -> dict[str, Array]:
    """Returns the float32 features of `LAYERS` of images in [0, 1], at least 31 pixels a side."""
    x, found = vgg.normalize_image(image), {}
    for name, (*_, stride, padding) in UNITS.items():
        if name in ("conv2", "conv3"):
            x = nn.max_pool(x, (3, 3), (2, 2))
        kernel = jnp.asarray(weights[name]["kernel"])
        x = conv_ops.conv(x, kernel, stride=stride, padding=padding) + weights[name]["bias"]
        x = found[f"relu{name.removeprefix('conv')}"] = jax.nn.relu(x)
    return found


def shapes() -> dict[str, dict[str, tuple[int, ...]]]:
    """Returns {unit: {array: shape}} of the weights."""
    return {
        name: {"kernel": (size, size, inputs, outputs), "bias": (outputs,)}
        for name, (inputs, outputs, size, *_) in UNITS.items()
    }


def random_weights(seed: int = 0) -> dict[str, dict[str, np.ndarray]]:
    """Draws untrained weights for tests, of He's std: no score with them compares with a paper."""
    return {
        name: {
            "kernel": frozen.random_kernel(parts["kernel"], name, seed),
            "bias": np.zeros(parts["bias"], np.float32),
        }
        for name, parts in shapes().items()
    }
