"""Learned texture: PSR-Net whose prior is the person of another method's run, such as D2G-Net's.

No paper has this. A texture that was learned from one person's video knows the sides that the
source view does not show. The run's method is the net `estimate`, frozen.
"""

import jax
from jaxtyping import Array, Float

from psrjax.methods import base, psrnet
from psrjax.methods.base import Batch


class Method(psrnet.Method):
    """PSR-Net from that person, laid over what `prior` has behind the texture; see `psrnet.Method`.

    Attributes:
      estimator: the other method's fields, as JSON; `base.RUN`: those of `config.init.run`.
    """

    estimator: str = base.RUN

    def setup(self):
        """Adds the other method to PSR-Net's nets."""
        super().setup()
        self.estimate = base.from_json(self.estimator)

    @property
    def reads(self) -> tuple[str, ...]:
        """As PSR-Net; what lies behind the person, and what the other method needs."""
        other = base.from_json(self.estimator).synthesis_reads
        return tuple(dict.fromkeys((*super().reads, self._behind, *other)))

    def _prior(self, batch: Batch) -> Float[Array, "b t h w 3"]:
        made, _ = self.estimate.synthesize(batch, self.estimate.start(batch))
        person, matte = jax.lax.stop_gradient((made["foreground"], made["mask"]))
        # Off the body the prior is the background itself, which `background=change` keeps.
        matte = matte * (batch["target_visibility"] > 0)
        return matte * person + (1.0 - matte) * batch[self._behind][:, None]

    def baselines(self, batch: Batch) -> dict[str, Array]:
        """Returns PSR-Net's, and the prior as `estimate`."""
        return super().baselines(batch) | {"estimate": self._prior(batch)}
