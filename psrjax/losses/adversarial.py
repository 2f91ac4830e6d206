"""Adversarial objectives for either side of the game, on unsquashed logits."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from psrjax.errors import UserError

MODES = ("bce", "least_squares", "hinge")


def generator_loss(logits: Float[Array, "*b"], *, mode: str = "bce") -> Float[Array, ""]:
    """What the generator pays for logits of its fakes, averaged.

    Args:
      logits: the critic's answers.
      mode: "bce" (non-saturating), "least_squares" or "hinge".

    Raises:
      UserError: for an unknown mode.
    """
    if mode == "bce":
        return jax.nn.softplus(-logits).mean()
    if mode == "least_squares":
        return jnp.square(logits - 1.0).mean()
    _check(mode)
    return -logits.mean()


def discriminator_loss(
    real: Float[Array, "*b"], fake: Float[Array, "*b"], *, mode: str = "bce"
) -> Float[Array, ""]:
    """What the critic pays: the mean of its losses on real and on fake samples.

    Args:
      real: logits of real samples.
      fake: logits of fakes.
      mode: as in `generator_loss`.

    Raises:
      UserError: for an unknown mode.
    """
    if mode == "bce":
        return 0.5 * (jax.nn.softplus(-real).mean() + jax.nn.softplus(fake).mean())
    if mode == "least_squares":
        return 0.5 * (jnp.square(real - 1.0).mean() + jnp.square(fake).mean())
    _check(mode)
    return 0.5 * (jax.nn.relu(1.0 - real).mean() + jax.nn.relu(1.0 + fake).mean())


def _check(mode: Any) -> None:
    if mode not in MODES:
        raise UserError(f"adversarial loss: no mode {mode!r}; there are {', '.join(MODES)}")
