"""Self-attention over the positions of a feature map (Zhang et al. 2019, SAGAN)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from psrjax.nn import layers


class SelfAttention(nn.Module):
    """x + gamma (attention over all positions); gamma is learnt and begins at 0.

    Keys and values are the largest of each 2x2; scores are not divided by the root of their width;
    1x1 convolutions without bias, under spectral norm.

    Attributes:
      dtype: compute type; the softmax is float32.
      impl: see `psrjax.ops.conv`.
    """

    dtype: DTypeLike = jnp.float32
    impl: str = "auto"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w c"]:
        """Same shape out as in."""
        b, h, w, c = x.shape
        query = self._project(x, "query", max(c // 8, 1), train).reshape(b, h * w, -1)
        key = _pooled(self._project(x, "key", max(c // 8, 1), train))
        value = _pooled(self._project(x, "value", max(c // 2, 1), train))
        scores = jnp.einsum("bnc,bmc->bnm", query, key).astype(jnp.float32)
        weights = jax.nn.softmax(scores, -1).astype(self.dtype)
        seen = jnp.einsum("bnm,bmc->bnc", weights, value).reshape(b, h, w, -1)
        gamma = self.param("gamma", nn.initializers.zeros, ()).astype(self.dtype)
        return x + gamma * self._project(seen, "out", c, train)

    def _project(self, x: Array, name: str, width: int, train: bool) -> Array:
        conv = layers.SpectralConv(
            width,
            (1, 1),
            use_bias=False,
            dtype=self.dtype,
            impl=self.impl,
            init=layers.xavier_small,
            name=name,
        )
        return conv(x, train)


def _pooled(x: Array) -> Array:
    """The largest of each 2x2, positions in one row; a last odd row or column is left out."""
    window = (1, 2, 2, 1)
    x = lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")
    return x.reshape(x.shape[0], -1, x.shape[-1])
