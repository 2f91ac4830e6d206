"""Adversarial losses of generators and discriminators, on logits."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from psrjax.errors import UserError

MODES = ("bce", "least_squares", "hinge")


def generator_loss(logits: Float[Array, "*b"], *, mode: str = "bce") -> Float[Array, ""]:
    """Returns the mean loss of the generator for logits of its fakes.

    Args:
      logits: the discriminator's.
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
    """Returns the mean of the discriminator's losses on real and on fake samples.

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


def generator_total(judged: Any, *, mode: str = "bce") -> Float[Array, ""]:
    """Sums `generator_loss` over discriminators of several sizes or time ranges.

    Cheng et al., Eq. 2.

    Args:
      judged: any tree of logits, or of {"logits", …} as discriminators give them; each counts by
        the mean of its logits.
      mode: as in `generator_loss`.
    """
    return sum((generator_loss(logits, mode=mode) for logits in _logits(judged)), jnp.zeros(()))


def discriminator_total(real: Any, fake: Any, *, mode: str = "bce") -> Float[Array, ""]:
    """Sums `discriminator_loss` likewise, over two trees of the same structure."""
    pairs = zip(_logits(real), _logits(fake), strict=True)
    return sum((discriminator_loss(r, f, mode=mode) for r, f in pairs), jnp.zeros(()))


def feature_matching(real: Any, fake: Any) -> Float[Array, ""]:
    """The mean absolute difference of features, summed over layers and discriminators.

    Args:
      real: the discriminators' {"logits", "features"} of real samples; constant.
      fake: of fakes.
    """
    gaps = (
        jnp.abs(ours - jax.lax.stop_gradient(theirs)).mean()
        for r, f in zip(real, fake, strict=True)
        for theirs, ours in zip(r["features"], f["features"], strict=True)
    )
    return sum(gaps, jnp.zeros(()))


def mean_logit(judged: Any) -> Float[Array, ""]:
    """Returns the mean over discriminators of their mean logits, for the log."""
    return jnp.stack([logits.mean() for logits in _logits(judged)]).mean()


def _logits(judged: Any) -> list[Array]:
    def is_answer(node: Any) -> bool:
        return isinstance(node, Mapping) and "logits" in node

    answers = jax.tree.leaves(judged, is_leaf=is_answer)
    return [answer["logits"] if is_answer(answer) else answer for answer in answers]


def _check(mode: Any) -> None:
    if mode not in MODES:
        raise UserError(f"adversarial loss: no mode {mode!r}; there are {', '.join(MODES)}")
