"""Losses between features of frozen networks, as functions of a dict of weights."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from psrjax.pretrained import i3d


def temporal_perceptual(
    weights: i3d.Weights,
    prediction: Float[Array, "b t h w 3"],
    target: Float[Array, "b t h w 3"],
) -> Float[Array, ""]:
    """Squared error between I3D features of whole clips: means over four layers, summed.

    Lakhal et al. 2019 (View-LSTM), layers and weights as GTNet's. Videos are in [-1, 1].
    """
    ours, theirs = (i3d.features(weights, video) for video in (prediction, target))
    return sum(jnp.square(ours[name] - theirs[name]).mean() for name in i3d.TAPS)
