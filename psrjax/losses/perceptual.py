"""The perceptual loss of clips between features of a frozen I3D."""

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from psrjax.pretrained import i3d


def temporal_perceptual(
    weights: i3d.Weights,
    prediction: Float[Array, "b t h w 3"],
    target: Float[Array, "b t h w 3"],
    *,
    dtype: DTypeLike = jnp.float32,
) -> Float[Array, ""]:
    """Returns the mean squared error between I3D features of clips, summed over four layers.

    Lakhal et al. 2019 (View-LSTM), layers and weights as GTNet's. Videos are in [-1, 1].
    `dtype` is the type of I3D's products.
    """
    ours, theirs = (i3d.features(weights, video, dtype=dtype) for video in (prediction, target))
    errors = [jnp.square(ours[name] - theirs[name]).mean() for name in i3d.LAYERS]
    return sum(errors[1:], errors[0])
