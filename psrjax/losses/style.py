"""Losses between feature maps of frozen networks: the maps themselves, and their Gram matrices."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from psrjax.errors import UserError

STYLES = ("l1gram", "paper")


def feature_distance(
    ours: Mapping[str, Array],
    theirs: Mapping[str, Array],
    weights: Mapping[str, float] | None = None,
) -> Float[Array, ""]:
    """Sums mean absolute differences over layers; `theirs` is constant.

    Yang et al., Eq. 9, whose norm is not named; the mean is the first-order model's. Wang et al.,
    Eq. 12, sums weighted layers.

    Args:
      ours: {layer: (b h w c)}.
      theirs: the same of the truth.
      weights: {layer: weight} of the layers to compare; by default all of `ours`, with weight 1.
    """
    chosen = dict.fromkeys(ours, 1.0) if weights is None else weights
    errors = {
        name: jnp.abs(ours[name] - jax.lax.stop_gradient(theirs[name])).mean() for name in chosen
    }
    return sum((chosen[name] * error for name, error in errors.items()), jnp.zeros(()))


def gram(features: Float[Array, "b h w c"]) -> Float[Array, "b c c"]:
    """Returns inner products of channels over positions, divided by C H W (Yang et al., Eq. 11)."""
    b, h, w, c = features.shape
    flat = features.reshape(b, h * w, c)
    products = jnp.einsum("bni,bnj->bij", flat, flat, precision=jax.lax.Precision.HIGHEST)
    return products / (c * h * w)


def style_distance(
    ours: Mapping[str, Array], theirs: Mapping[str, Array], *, kind: str = "l1gram"
) -> Float[Array, ""]:
    """Sums distances between Gram matrices over layers; `theirs` is constant.

    Args:
      ours: {layer: (b h w c)}.
      theirs: the same of the truth.
      kind: "l1gram" is the mean absolute difference (Ren et al. 2020); "paper" the squared
        Frobenius norm divided by C H W (Yang et al., Eq. 10), many orders of magnitude smaller.

    Raises:
      UserError: for an unknown kind.
    """
    if kind not in STYLES:
        raise UserError(f"config.method.style: no {kind!r}; there are {', '.join(STYLES)}")
    total = jnp.zeros(())
    for name, features in ours.items():
        error = gram(features) - jax.lax.stop_gradient(gram(theirs[name]))
        if kind == "l1gram":
            total += jnp.abs(error).mean()
        else:
            total += jnp.square(error).sum((1, 2)).mean() / features[0].size
    return total
