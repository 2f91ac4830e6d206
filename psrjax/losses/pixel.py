"""Losses between pixels, with or without regions."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def huber(prediction: Float[Array, "*b c"], target: Float[Array, "*b c"]) -> Float[Array, "*b"]:
    """Returns Huber's function with its corner at 1 (PyTorch's SmoothL1), summed over channels."""
    error = jnp.abs(prediction - target)
    return jnp.where(error < 1.0, 0.5 * jnp.square(error), error - 0.5).sum(-1)


def region_mean(
    values: Float[Array, "*b"], regions: Bool[Array, "*b r"], *, floor: float = 0.01
) -> Float[Array, ""]:
    """Sums the mean values inside each region.

    Args:
      values: one value for each pixel.
      regions: which pixels belong to each of r regions.
      floor: a region counts as at least this fraction of all pixels, so that a sliver cannot
        dominate; an empty region adds 0.
    """
    inside = regions.astype(values.dtype).reshape(-1, regions.shape[-1])
    counts = jnp.maximum(inside.sum(0), floor * values.size)
    return jnp.sum(values.reshape(-1) @ inside / counts)


def cross_entropy(mask: Float[Array, "*b"], outline: Float[Array, "*b"]) -> Float[Array, ""]:
    """Returns the binary cross-entropy of a mask, least where it is the outline, soft as that is.

    Args:
      mask: in [0, 1].
      outline: the true one, in [0, 1].
    """
    mask = jnp.clip(mask, 1e-4, 1.0 - 1e-4)  # finite where the mask is wrong altogether
    return -(outline * jnp.log(mask) + (1.0 - outline) * jnp.log(1.0 - mask)).mean()
