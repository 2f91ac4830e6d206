"""Refinement: PSR-Net's later layers on the frames of any other method's run.

No paper has this. The run's method is the net `estimate`, frozen; its frames stand for those of
PSR-Net's first layer.
"""

from collections.abc import Collection
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from psrjax.methods import base, psrnet
from psrjax.methods.base import Batch, flatten_time, split_time
from psrjax.ops import pose_label


class Method(psrnet.Method):
    """PSR-Net without its first layer; see `psrnet.Method`.

    The source is the first source frame, and what is seen beside it is the target's pose where the
    other method reads it, else nothing.

    Attributes:
      estimator: the other method's fields, as JSON; `base.RUN`: those of `config.init.run`.
      background: what the nets make: the "frame"; or, "everywhere", a change of the frame before,
        which begins as 0, so that what is right already need not pass through them.
    """

    estimator: str = base.RUN

    def setup(self):
        """Adds the other method to PSR-Net's nets."""
        super().setup()
        self.estimate = self._estimator

    @property
    def _estimator(self) -> base.Method:
        return base.from_json(self.estimator)

    @property
    def choices(self) -> dict[str, Collection[Any]]:
        """As PSR-Net's, but that nothing tells the background from the person."""
        return {**super().choices, "background": ("frame", "everywhere")}

    @property
    def reads(self) -> tuple[str, ...]:
        """Lists what the other method needs, the target, and what the discriminators see."""
        return tuple(dict.fromkeys((*self.synthesis_reads, "target", *self._flow_reads)))

    @property
    def synthesis_reads(self) -> tuple[str, ...]:
        """Lists what the other method needs, and the source."""
        return tuple(dict.fromkeys((*self._estimator.synthesis_reads, "source")))

    @property
    def baseline_reads(self) -> tuple[str, ...]:
        """Lists what the other method's baselines need."""
        return (*self._estimator.reads, *self._estimator.baseline_reads)

    def _first_video(
        self, batch: Batch, carry: Any, learns: bool
    ) -> tuple[Array, dict[str, Array], Any]:
        del learns
        made, carry = self.estimate.synthesize(batch, carry)
        return jax.lax.stop_gradient(made["video"]), {}, carry

    def _source(self, batch: Batch) -> Float[Array, "b 1 h w 3"]:
        return batch["source"][:, :1]

    def _guide(self, batch: Batch) -> Float[Array, "b t h w c"]:
        if "target_joints" not in self.estimate.synthesis_reads:
            return jnp.zeros_like(self._source(batch))
        joints = batch["target_joints"]
        height, width = batch["source"].shape[2:4]
        drawn = pose_label.draw(flatten_time(joints), height=height, width=width)
        return 2.0 * split_time(drawn, len(joints)) - 1.0

    def start(self, batch: Batch) -> Any:
        """Keeps what the other method keeps."""
        return self.estimate.start(batch)

    def synthesize(self, batch: Batch, carry: Any, intermediates: bool = False) -> tuple[dict, Any]:
        """Returns the videos of all layers, the other method's as that of the first."""
        del intermediates
        videos, _, carry = self._videos(batch, carry, train=False)
        return self._clipped(videos), carry

    def baselines(self, batch: Batch) -> dict[str, Array]:
        """Returns those of the other method."""
        return self.estimate.baselines(batch)
