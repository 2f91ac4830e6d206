"""The 3-D residual block, and recomputation of blocks in the backward pass."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from psrjax.errors import UserError
from psrjax.nn import layers

REMATS = ("none", "blocks")


class Residual3D(nn.Module):
    """conv - norm - ReLU - conv - norm, added to the input; no activation after the sum.

    Attributes:
      norm: see `psrjax.nn.layers.make_norm`.
      scale: what the last norm's scale begins at; near 0 a new block is almost the identity.
      dtype: compute type.
    """

    norm: str = "batch"
    scale: float = 1.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"], train: bool) -> Float[Array, "b t h w c"]:
        """Applies the block; the shape stays."""
        y = self._conv_norm(x, train, 0, scale=1.0, slope=0.0)
        return x + self._conv_norm(y, train, 1, scale=self.scale)

    def _conv_norm(
        self, x: Array, train: bool, index: int, *, scale: float, slope: float | None = None
    ) -> Array:
        x = layers.Conv(
            x.shape[-1],
            (3, 3, 3),
            padding=1,
            use_bias=False,
            dtype=self.dtype,
            init=layers.kaiming_fan_out,
            name=f"conv{index}",
        )(x)
        norm = layers.make_norm(self.norm, dtype=self.dtype, name=f"norm{index}", scale=scale)
        return norm(x, train, slope=slope)


def maybe_remat(block: type[nn.Module], policy: str) -> type[nn.Module]:
    """Returns the block class, recomputed in the backward pass if `policy` is "blocks".

    The block is called as `block(x, train)`, `train` positional.

    Raises:
      UserError: for an unknown policy.
    """
    if policy not in REMATS:
        raise UserError(f"config.method.remat: no policy {policy!r}; there are {', '.join(REMATS)}")
    return nn.remat(block, static_argnums=(2,)) if policy == "blocks" else block
