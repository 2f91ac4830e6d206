"""Running means of scores over frames, batches, devices and hosts, in fixed memory."""

from collections.abc import Mapping

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from clu import metrics as clu_metrics
from jax.experimental import multihost_utils
from jaxtyping import Array, Bool, Float


@flax.struct.dataclass
class Means(clu_metrics.Metric):
    """Running means of named scores, as clu's metrics merge; NaN scores are left out and counted.

    Means and not sums are kept: a float32 sum of a million scores loses digits, a mean does not.

    Attributes:
      mean: {name: ()} of the scores so far.
      count: {name: ()} their number.
      left_out: {name: ()} the number of NaN, such as masked scores without a person.
    """

    mean: Mapping[str, Array]
    count: Mapping[str, Array]
    left_out: Mapping[str, Array]

    @classmethod
    def from_scores(
        cls, scores: Mapping[str, Float[Array, "*n"]], valid: Bool[Array, "*n"] | None = None
    ) -> "Means":
        """Averages one batch; where `valid` is false (padding) a score does not exist."""
        names = sorted(scores)
        exists = {n: jnp.ones(scores[n].shape, bool) if valid is None else valid for n in names}
        here = {n: exists[n] & ~jnp.isnan(scores[n]) for n in names}
        count = {n: here[n].sum().astype(jnp.float32) for n in names}
        total = {n: jnp.where(here[n], scores[n], 0.0).sum() for n in names}
        mean = {n: total[n] / jnp.maximum(count[n], 1.0) for n in names}
        out = {n: (exists[n] & jnp.isnan(scores[n])).sum().astype(jnp.float32) for n in names}
        return cls(mean, count, out)

    def merge(self, other: "Means") -> "Means":
        """Merges two means of the same names."""
        return jax.tree.map(lambda a, b: jnp.stack([a, b]), self, other).reduce()

    def reduce(self) -> "Means":
        """Merges the entries of a leading axis: devices, hosts or batches."""
        count = {name: value.sum(0) for name, value in self.count.items()}
        mean = {
            name: (value * (self.count[name] / jnp.maximum(count[name], 1.0))).sum(0)
            for name, value in self.mean.items()
        }
        return Means(mean, count, {name: value.sum(0) for name, value in self.left_out.items()})

    def over_hosts(self) -> "Means":
        """Merges the means of all processes of a run; each must call it."""
        if jax.process_count() == 1:
            return self
        return multihost_utils.process_allgather(self).reduce()

    def compute(self) -> dict[str, float]:
        """Returns {name: mean}; NaN where there was no score."""
        return {
            name: float(np.where(self.count[name] > 0, value, np.nan))
            for name, value in self.mean.items()
        }
