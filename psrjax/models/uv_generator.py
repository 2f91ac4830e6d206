"""The UV generator: from a pose label, which part of the body each pixel shows, and where on it."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from psrjax.models import global_generator

PARTS = 24  # DensePose's; label 0 is the background


class UVGenerator(nn.Module):
    """pix2pixHD's generator with a head for parts and one for coordinates (D2G-Net, Sec. 3.2).

    The paper does not say what it looks like; the pre-training script of its repository has five
    residual blocks.

    Attributes:
      kernel_size: of the two heads, which are most of the net's work where it is narrow.
      (the others are those of `global_generator.GlobalGenerator`)
    """

    width: int = 64
    num_downsamples: int = 4
    blocks: int = 9
    kernel_size: int = 7
    dtype: DTypeLike = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(self, label: Float[Array, "b h w c"], train: bool) -> dict[str, Array]:
        """{"logits": (b h w 25) of the parts, "coordinates": (b h w 24 2), (u, v) in [-1, 1]}.

        Raises:
          UserError: if the size cannot be halved so often.
        """
        global_generator.check_size(label.shape[1:3], self.num_downsamples)
        compute = {"dtype": self.dtype}
        widths = [self.width * 2**i for i in range(self.num_downsamples + 1)]
        x = global_generator.passed(label, train, widths, self.blocks, remat=self.remat, **compute)
        heads = global_generator.left(
            x, 1 + PARTS + 2 * PARTS, kernel_size=self.kernel_size, **compute
        )
        coordinates = jnp.tanh(heads[..., 1 + PARTS :])
        return {
            "logits": heads[..., : 1 + PARTS],
            "coordinates": coordinates.reshape(*coordinates.shape[:3], PARTS, 2),
        }
