"""pix2pixHD's global generator: down, residual blocks, up (Wang et al. 2018).

Two of the pose transfer's nets are such: the smoother of sequences and the face's residual.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from psrjax.errors import UserError
from psrjax.nn import blocks, layers, spade


class _Residual(nn.Module):
    """Twice mirrored padding - convolution - instance norm, a ReLU between them, and the input."""

    dtype: DTypeLike
    impl: str

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w c"]:
        y = x
        for i in (0, 1):
            conv = layers.Conv(
                x.shape[-1],
                (3, 3),
                dtype=self.dtype,
                impl=self.impl,
                init=layers.normal_small,
                name=f"conv{i}",
            )
            y = _norm(conv(spade.mirrored(y, 1)), train, self.dtype, f"norm{i}")
            y = y if i else nn.relu(y)
        return x + y


class GlobalGenerator(nn.Module):
    """7x7, so many halvings, residual blocks, as many doublings, 7x7, tanh; instance norms.

    Attributes:
      width: channels of the first layer, doubled with each halving.
      halvings: how often the size is halved.
      blocks: residual blocks at the smallest size.
      quiet: whether the last layer begins near 0, for a net whose result is a residual.
      dtype: compute type; the result is float32.
      remat: see `psrjax.nn.blocks.maybe_remat`.
      impl: see `psrjax.ops.conv`.
    """

    width: int = 64
    halvings: int = 3
    blocks: int = 6
    quiet: bool = False
    dtype: DTypeLike = jnp.float32
    remat: str = "none"
    impl: str = "auto"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w 3"]:
        """Values in [-1, 1].

        Raises:
          UserError: if the size cannot be halved so often, or is too small to be mirrored.
        """
        if any(n % 2**self.halvings or n < 2 ** (self.halvings + 1) for n in x.shape[1:3]):
            raise UserError(
                f"pictures of {x.shape[1]}x{x.shape[2]} cannot be halved {self.halvings} times to "
                "at least 2x2: change config.data.crop or the halvings of the config's nets"
            )
        options = {"dtype": self.dtype, "impl": self.impl, "init": layers.normal_small}
        block = blocks.maybe_remat(_Residual, self.remat)
        x = layers.Conv(self.width, (7, 7), name="first", **options)(
            spade.mirrored(x.astype(self.dtype), 3)
        )
        x = nn.relu(_norm(x, train, self.dtype, "first_norm"))
        for i in range(self.halvings):
            width = self.width * 2 ** (i + 1)
            down = layers.Conv(width, (3, 3), stride=2, padding=1, name=f"down{i}", **options)
            x = nn.relu(_norm(down(x), train, self.dtype, f"down{i}_norm"))
        for i in range(self.blocks):
            x = block(dtype=self.dtype, impl=self.impl, name=f"block{i}")(x, train)
        for i in range(self.halvings):
            up = layers.ConvTranspose(
                self.width * 2 ** (self.halvings - 1 - i),
                (3, 3),
                stride=2,
                padding=1,
                output_padding=1,
                name=f"up{i}",
                **options,
            )
            x = nn.relu(_norm(up(x), train, self.dtype, f"up{i}_norm"))
        if self.quiet:
            options["init"] = nn.initializers.normal(1e-3)
        last = layers.Conv(3, (7, 7), name="last", **options)
        return jnp.tanh(last(spade.mirrored(x, 3)).astype(jnp.float32))


def _norm(x: Array, train: bool, dtype: DTypeLike, name: str) -> Array:
    return layers.make_norm("instance_fixed", dtype=dtype, name=name)(x, train)
