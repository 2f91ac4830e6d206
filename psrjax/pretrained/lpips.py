"""LPIPS: distances of frozen features, weighed by learned heads; nothing here is trained.

Zhang et al. 2018, version 0.1 of the published heads. Heads are {"lin0": {"weight": (c,)}, …}, one
for each layer.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from psrjax.pretrained import alexnet, frozen, vgg

WIDTHS = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}
BACKBONES = {"alex": "alexnet", "vgg": "vgg16"}  # names in `psrjax.pretrained.registry`
_EPSILON = 1e-10


def distance(
    backbone: frozen.Weights,
    heads: frozen.Weights,
    video: Float[Array, "b h w 3"],
    truth: Float[Array, "b h w 3"],
    *,
    net: str = "alex",
) -> Float[Array, " b"]:
    """Returns LPIPS of images in [0, 1]; less is better. It depends on the resolution.

    The features of each layer are divided by their length at each pixel (1e-10 is added to it, as
    the reference does), their squared differences weighed and added over channels, averaged over
    pixels, and added over layers. The reference's scaling of [-1, 1] is ImageNet's of [0, 1].

    Args:
      backbone: weights of `psrjax.pretrained.alexnet`, or of VGG-16.
      heads: see the module.
      video: generated frames.
      truth: true frames.
      net: "alex" or "vgg".
    """
    total = jnp.zeros(len(video))
    ours, theirs = (_features(backbone, frames, net) for frames in (video, truth))
    for index, (made, true) in enumerate(zip(ours, theirs, strict=True)):
        apart = jnp.square(_unit_length(made) - _unit_length(true))
        total = total + (apart * heads[f"lin{index}"]["weight"]).sum(-1).mean((1, 2))
    return total


def shapes(net: str = "alex") -> dict[str, dict[str, tuple[int, ...]]]:
    """Returns {unit: {array: shape}} of the heads."""
    return {f"lin{index}": {"weight": (width,)} for index, width in enumerate(WIDTHS[net])}


def random_weights(seed: int = 0, net: str = "alex") -> dict[str, dict[str, np.ndarray]]:
    """Draws non-negative heads for tests: no score with them compares with a paper."""
    random = np.random.default_rng(seed)
    return {
        name: {"weight": np.abs(random.normal(size=parts["weight"])).astype(np.float32)}
        for name, parts in shapes(net).items()
    }


def _features(backbone: frozen.Weights, image: Array, net: str) -> list[Array]:
    if net == "alex":
        return list(alexnet.features(backbone, image).values())
    return list(vgg.features(backbone, image, vgg.LPIPS_LAYERS).values())


def _unit_length(features: Array) -> Array:
    return features / (jnp.sqrt(jnp.square(features).sum(-1, keepdims=True)) + _EPSILON)
