"""The UV generator: from a pose label, which part of the body each pixel shows, and where on it."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from psrjax.models import global_generator

PARTS = 24  # DensePose's; label 0 is the background


class UVGenerator(global_generator.GlobalGenerator):
    """pix2pixHD's generator with a head for parts and one for coordinates (D2G-Net, Sec. 3.2).

    The paper does not describe it; the pre-training script of its repository has five residual
    blocks.

    Attributes:
      skips: whether each map of the first half is added to the second half's of its size, as in a
        U-Net: what the label shows of a pixel then need not pass through the smallest size.
      (the others are those of `GlobalGenerator`; where the net is narrow, the last
        layer is most of its work)
    """

    num_downsamples: int = 4
    blocks: int = 9
    skips: bool = False

    @nn.compact
    def __call__(self, label: Float[Array, "b h w c"], train: bool) -> dict[str, Array]:
        """Returns "logits" (b h w 25) of the parts, and "coordinates" (b h w 24 2) in [-1, 1].

        Raises:
          UserError: if the size cannot be halved so often.
        """
        *levels, x = self._levels(label, train)
        x = self._decode(x, train, levels if self.skips else ())
        heads = self._last(x, 1 + PARTS + 2 * PARTS)
        # Of u and v each: who takes one of them need not store both in tiles of 2 by 128.
        places = [jnp.tanh(heads[..., 1 + PARTS + i :: 2]) for i in (0, 1)]
        return {"logits": heads[..., : 1 + PARTS], "coordinates": jnp.stack(places, -1)}
