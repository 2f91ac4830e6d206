"""Self-attention over the positions of one or several feature maps (Zhang et al. 2019, SAGAN)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from psrjax.nn import layers, resampling
from psrjax.ops import correlation


class SelfAttention(nn.Module):
    """x + gamma (attention over all positions); gamma is learned and begins at 0.

    Keys and values are max-pooled 2x2; scores are not divided by the root of their width; the 1x1
    convolutions have spectral norm and no bias. The positions of several maps (time, or source
    frames) form one set; pooling is within each.

    Attributes:
      chunk: rows of the scores that exist at a time, forward and backward; 0 is all.
      residual: whether x is added.
      dtype: compute type; the softmax is float32.
    """

    chunk: int = 0
    residual: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b *size c"], train: bool) -> Float[Array, "b *size c"]:
        """Attends over (b h w c) or (b k h w c); the shape stays."""
        h, w, c = x.shape[-3:]
        maps = x.reshape(-1, h, w, c)
        narrow = max(c // 8, 1)
        key, value = (
            resampling.max_pool(self._project(maps, name, width, train)).reshape(len(x), -1, width)
            for name, width in (("key", narrow), ("value", max(c // 2, 1)))
        )
        query = self._project(maps, "query", narrow, train).reshape(len(x), -1, narrow)
        seen = attend(query, key, value, chunk=self.chunk).reshape(-1, h, w, value.shape[-1])
        gamma = self.param("gamma", nn.initializers.zeros, ()).astype(self.dtype)
        change = (gamma * self._project(seen, "out", c, train)).reshape(x.shape)
        return x + change if self.residual else change

    def _project(self, x: Array, name: str, width: int, train: bool) -> Array:
        conv = layers.SpectralConv(
            width,
            (1, 1),
            use_bias=False,
            dtype=self.dtype,
            init=layers.xavier_small,
            name=name,
        )
        return conv(x, train)


def attend(
    query: Float[Array, "b n c"],
    key: Float[Array, "b m c"],
    value: Float[Array, "b m d"],
    *,
    chunk: int = 0,
) -> Float[Array, "b n d"]:
    """Returns softmax(query keyᵀ) value, the softmax in float32.

    Memory: b m chunk float32 scores exist at a time; the backward pass computes them again.

    Args:
      query: of the output's positions.
      key: of the positions attended to.
      value: likewise.
      chunk: rows of the scores at a time; 0 is all of them, kept for the backward pass.
    """

    def rows(query: Array) -> Array:
        scores = jnp.einsum("bnc,bmc->bnm", query, key).astype(jnp.float32)
        weights = jax.nn.softmax(scores, -1).astype(value.dtype)
        return jnp.einsum("bnm,bmd->bnd", weights, value)

    n = query.shape[1]
    if not chunk or chunk >= n:
        return rows(query)
    parts = correlation.chunk_rows(query, chunk)
    return correlation.join_rows(lax.map(jax.checkpoint(rows), parts), n)
