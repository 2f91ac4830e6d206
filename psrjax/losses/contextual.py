"""The contextual loss: the similarity of each feature to its best match in another image."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from psrjax.errors import UserError
from psrjax.nn import resampling
from psrjax.ops import correlation

# CoCosNet's layers and weights; relu3_2 is average-pooled first.
LAYERS = {"relu3_2": 2.0, "relu4_2": 4.0, "relu5_2": 8.0}
HALVED = ("relu3_2",)


def over_layers(
    ours: Mapping[str, Array],
    theirs: Mapping[str, Array],
    *,
    blocks: int = 1,
    chunk: int = 512,
) -> Float[Array, ""]:
    """Sums `contextual_loss` over `LAYERS` with their weights, as CoCosNet does.

    Args:
      ours: {layer: (b h w c)} features of VGG-19.
      theirs: the same of the truth.
      blocks: along each axis. Features are matched within blocks at corresponding positions, the
        same regions of the image in every layer, and the losses of the blocks averaged; 1 matches
        them in the whole image.
      chunk: see `contextual_loss`.

    Raises:
      UserError: if a layer cannot be divided into so many blocks of at least 2x2 positions.
    """
    total = jnp.zeros(())
    for name, weight in LAYERS.items():
        pair = (ours[name], theirs[name])
        if name in HALVED and min(ours[name].shape[1:3]) > 1:
            pair = tuple(resampling.avg_pool(x) for x in pair)
        if blocks > 1:
            pair = tuple(_blocks(x, blocks, name) for x in pair)
        total += weight * contextual_loss(*pair, chunk=chunk)
    return total


def contextual_loss(
    ours: Float[Array, "b h w c"],
    theirs: Float[Array, "b y x c"],
    *,
    bandwidth: float = 0.1,
    chunk: int = 512,
) -> Float[Array, ""]:
    """Returns -log CX (Wang et al., Eq. 13), CX the mean best similarity of our features.

    Mechrez et al. 2018, as CoCosNet computes it: d_ij = 1 - cosine of features centred by the mean
    of `theirs` over positions; A_ij = softmax_j(-d_ij / ((min_k d_ik + 1e-3) bandwidth)); CX = mean
    over i of max_j A_ij. The matrix of all pairs never exists whole: `chunk` of its rows at a time,
    and once more in the backward pass. `theirs` is constant.

    `Departs from:` CoCosNet's switch PONO, which centres by the mean over channels at each place.

    Args:
      ours: features of the generated image, from one layer.
      theirs: of the true one.
      bandwidth: h.
      chunk: at most so many rows of the matrix are there at a time.
    """
    centre = theirs.mean((1, 2), keepdims=True)
    queries, keys = (_flat(x.astype(jnp.float32) - centre) for x in (ours, theirs))
    keys = lax.stop_gradient(keys)

    @jax.checkpoint
    def best(part: Array) -> Array:
        similarity = jnp.einsum("bnc,bmc->bnm", part, keys, precision=correlation.exact())
        # At a match 1 - cosine is rounding noise, which may be negative.
        distance = jnp.maximum(1.0 - similarity, 0.0)
        relative = distance / (distance.min(-1, keepdims=True) + 1e-3)
        return jax.nn.softmax(-relative / bandwidth, -1).max(-1, keepdims=True)

    found = lax.map(best, correlation.chunk_rows(queries, chunk))
    found = correlation.join_rows(found, queries.shape[1])
    return -jnp.log(found.mean((1, 2))).mean()


def _blocks(x: Float[Array, "b h w c"], count: int, name: str) -> Float[Array, "n y x c"]:
    """Cuts features into count x count blocks, which join the batch."""
    b, h, w, c = x.shape
    if h % count or w % count or min(h, w) < 2 * count:
        raise UserError(
            f"config.method.context_blocks={count}: {name} has {h}x{w} positions, which are not "
            f"{count}x{count} blocks of at least 2x2: use fewer blocks, or larger frames"
        )
    blocks = x.reshape(b, count, h // count, count, w // count, c).swapaxes(2, 3)
    return blocks.reshape(-1, h // count, w // count, c)


def _flat(x: Array) -> Array:
    return correlation.unit_length(x.reshape(x.shape[0], -1, x.shape[-1]))
