"""Dense correspondence of two feature maps, and warping by it, in chunks.

The matrix of all pairs of positions (4096 x 4096 for maps of 64 x 64) never exists whole: neither
forward nor backward is there more than `chunk` of its rows at a time.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, Shaped

from psrjax.runtime import target


def exact() -> lax.Precision:
    """Returns a precision for correlations of unit vectors whose softmax is sharp.

    Rounding of 1e-3, as of one bfloat16 product, moves its peak. On TPUs three bfloat16 products
    are taken for one (rounding of 1e-5) and not six, elsewhere float32.
    """
    return lax.Precision.HIGH if target.platform() == "tpu" else lax.Precision.HIGHEST


def descriptors(
    features: Float[Array, "b h w c"], *, kernel_size: int = 3
) -> Float[Array, "b n d"]:
    """Describes each position by its neighbourhood, centred over channels, of length 1.

    Wang et al., the factors of Eq. 4; the neighbourhood is CoCosNet's `match_kernel`. float32.

    Args:
      features: of either domain, in the shared space.
      kernel_size: side of the neighbourhood; beyond the border are zeros.
    """
    features = features.astype(jnp.float32)
    b, h, w, c = features.shape
    edge = kernel_size // 2
    padded = jnp.pad(features, ((0, 0), (edge, edge), (edge, edge), (0, 0)))
    shifted = [
        padded[:, y : y + h, x : x + w] for y in range(kernel_size) for x in range(kernel_size)
    ]
    wide = jnp.concatenate(shifted, -1).reshape(b, h * w, kernel_size * kernel_size * c)
    return unit_length(wide - wide.mean(-1, keepdims=True))


def unit_length(x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
    """Scales vectors over the last axis to length 1, with a finite gradient at 0."""
    return x * lax.rsqrt(jnp.square(x).sum(-1, keepdims=True) + 1e-12)


def softmax_warp(
    queries: Float[Array, "b n c"],
    keys: Float[Array, "b m c"],
    values: Float[Array, "b m d"],
    *,
    sharpness: float = 100.0,
    chunk: int = 512,
) -> Float[Array, "b n d"]:
    """Averages all values for each query by a softmax over its correlation with their keys.

    Wang et al., Eq. 4 and 5: out(u) = sum_v softmax_v(sigma M(u, v)) y(v), M the inner products of
    `descriptors`. float32. Reverse mode only; the backward pass computes the rows of M once more.

    Args:
      queries: descriptors of the positions to fill.
      keys: descriptors of the positions to read.
      values: what is read there.
      sharpness: sigma, the inverse of the temperature.
      chunk: at most so many rows of M are there at a time.
    """
    return softmax_match(queries, keys, values, sharpness=sharpness, chunk=chunk)[0]


def softmax_match(
    queries: Float[Array, "b n c"],
    keys: Float[Array, "b m c"],
    values: Float[Array, "b m d"],
    *,
    sharpness: float = 100.0,
    chunk: int = 512,
) -> tuple[Float[Array, "b n d"], Int[Array, "b n"], Float[Array, "b n"]]:
    """Returns `softmax_warp`, and for each query the key of the largest weight and that weight.

    These two are constant: they have no gradient.
    """
    queries, keys, values = (x.astype(jnp.float32) for x in (queries, keys, values))
    return _match(float(sharpness), int(chunk), queries, keys, values)


def chunk_rows(x: Float[Array, "b n c"], chunk: int) -> Float[Array, "s b r c"]:
    """Splits n rows into s chunks of equal size r <= chunk; zeros fill the last one up."""
    b, n, c = x.shape
    count = math.ceil(n / chunk)
    rows = math.ceil(n / count)
    x = jnp.pad(x, ((0, 0), (0, count * rows - n), (0, 0)))
    return x.reshape(b, count, rows, c).swapaxes(0, 1)


def join_rows(x: Shaped[Array, "s b r c"], n: int) -> Shaped[Array, "b n c"]:
    """Inverts `chunk_rows`."""
    s, b, r, c = x.shape
    return x.swapaxes(0, 1).reshape(b, s * r, c)[:, :n]


def _scores(queries: Array, keys: Array, sharpness: float) -> Array:
    return sharpness * jnp.einsum("bnc,bmc->bnm", queries, keys, precision=exact())


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _match(sharpness: float, chunk: int, queries: Array, keys: Array, values: Array):
    return _forward(sharpness, chunk, queries, keys, values)[0]


def _forward(sharpness: float, chunk: int, queries: Array, keys: Array, values: Array):
    def rows(part: Array) -> tuple[Array, ...]:
        scores = _scores(part, keys, sharpness)
        total = jax.nn.logsumexp(scores, -1, keepdims=True)
        weights = jnp.exp(scores - total)
        out = jnp.einsum("bnm,bmd->bnd", weights, values, precision=exact())
        return out, total, scores.argmax(-1, keepdims=True), weights.max(-1, keepdims=True)

    parts = lax.map(rows, chunk_rows(queries, chunk))
    out, total, place, weight = (join_rows(x, queries.shape[1]) for x in parts)
    return (out, place[..., 0], weight[..., 0]), (queries, keys, values, out, total)


def _backward(sharpness: float, chunk: int, saved: tuple, gradients: tuple):
    queries, keys, values, out, total = saved
    g, *_ = gradients
    # The softmax's own gradient needs the mean of g . v under the weights, which is g . out.
    mean = (g * out).sum(-1, keepdims=True)
    parts = tuple(chunk_rows(x, chunk) for x in (queries, g, total, mean))

    def rows(sums: tuple[Array, Array], part: tuple) -> tuple[tuple[Array, Array], Array]:
        query, grad, total, mean = part
        weights = jnp.exp(_scores(query, keys, sharpness) - total)
        slope = jnp.einsum("bnd,bmd->bnm", grad, values, precision=exact())
        slope = sharpness * weights * (slope - mean)
        d_keys = jnp.einsum("bnm,bnc->bmc", slope, query, precision=exact())
        d_values = jnp.einsum("bnm,bnd->bmd", weights, grad, precision=exact())
        d_query = jnp.einsum("bnm,bmc->bnc", slope, keys, precision=exact())
        return (sums[0] + d_keys, sums[1] + d_values), d_query

    # Rows that only fill up a chunk have g = 0, and so add nothing.
    zeros = (jnp.zeros_like(keys), jnp.zeros_like(values))
    (d_keys, d_values), d_queries = lax.scan(rows, zeros, parts)
    return join_rows(d_queries, queries.shape[1]), d_keys, d_values


_match.defvjp(_forward, _backward)
