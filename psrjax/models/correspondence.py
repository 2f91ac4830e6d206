"""Cross-domain correspondence: a pose and an image matched in one space, and the image warped.

Wang et al., III.C.1, whose base is CoCosNet (Zhang et al. 2020).
"""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from psrjax.errors import UserError
from psrjax.nn import blocks, layers, resampling, spade
from psrjax.ops import correlation

WARPS = ("mean", "patch")


class Adaptor(nn.Module):
    """The encoder of one domain to the shared space: five convolutions, three SPADE blocks.

    The condition of the blocks is the adaptor's own input.

    Attributes:
      width: channels of the first layer; the result has four times as many.
      num_downsamples: 1 or 2.
      hidden: see `psrjax.nn.spade.Spade`.
      dtype: compute type.
      remat: see `psrjax.nn.blocks.maybe_remat`.
    """

    width: int = 64
    num_downsamples: int = 2
    hidden: int = 128
    dtype: DTypeLike = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b y x d"]:
        """Returns features of length 1 at each position, float32.

        Raises:
          UserError: if the size cannot be halved so often.
        """
        if self.num_downsamples not in (1, 2):
            raise UserError(f"config.method.num_downsamples={self.num_downsamples}: use 1 or 2")
        resampling.check_downsamples(x, self.num_downsamples)
        condition = x
        strides = (1, 2, 1, self.num_downsamples, 1)
        for i, (factor, stride) in enumerate(zip((1, 2, 4, 8, 8), strides, strict=True)):
            x = layers.leaky_relu(x) if i else x
            conv = layers.SpectralConv(
                factor * self.width,
                (3, 3),
                stride=stride,
                padding=1,
                use_bias=False,
                init=layers.xavier_small,
                dtype=self.dtype,
                name=f"conv{i}",
            )
            norm = layers.make_norm("instance_fixed", dtype=self.dtype, name=f"norm{i}")
            x = norm(conv(x, train), train)
        block = blocks.maybe_remat(spade.SpadeResidual, self.remat)
        for i, factor in enumerate((8, 8, 4)):
            make = block(factor * self.width, self.hidden, dtype=self.dtype, name=f"block{i}")
            x = make(x, train, condition)
        return correlation.unit_length(x.astype(jnp.float32))


class _PReluResidual(nn.Module):
    """Twice reflection-padded convolution - instance norm; one slope for both PReLUs."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool) -> Float[Array, "b h w c"]:
        slope = self.param("slope", nn.initializers.constant(0.25), ()).astype(self.dtype)
        y = self._layer(x, train, 0)
        y = jnp.where(y >= 0, y, slope * y)
        y = x + self._layer(y, train, 1)
        return jnp.where(y >= 0, y, slope * y)

    def _layer(self, x: Array, train: bool, index: int) -> Array:
        conv = layers.Conv(
            x.shape[-1],
            (3, 3),
            padding=1,
            reflect=True,
            dtype=self.dtype,
            init=layers.xavier_small,
            name=f"conv{index}",
        )
        norm = layers.make_norm("instance_fixed", dtype=self.dtype, name=f"norm{index}")
        return norm(conv(x), train)


class Correspondence(nn.Module):
    """Both adaptors, the layers behind them, and the warp of Eq. 4 and 5.

    `Departs from:` the paper in the shared residual blocks and the 3x3 neighbourhoods that are
    compared: it describes neither, CoCosNet has both.

    Attributes:
      width: see `Adaptor`; descriptors have four times as many channels.
      num_downsamples: see `Adaptor`.
      hidden: see `Adaptor`.
      blocks: residual blocks that both domains share.
      kernel_size: side of the neighbourhood that is compared.
      sharpness: sigma of Eq. 5.
      sharpness_start: sigma at the first step, if `sharpness_steps` is not 0.
      sharpness_steps: how many training steps it rises by equal factors; 0 is none. `Departs from:`
        the paper, whose sigma is fixed: a soft match has gradients beside its peak, by which small
        nets learn at all; a sharp one has fewer colours mixed.
      chunk: rows of the correlation that exist at a time.
      warp: "mean" moves the mean colour of each cell (the paper), "patch" whole cells.
      dtype: compute type; descriptors, correlation and softmax are float32.
      remat: see `psrjax.nn.blocks.maybe_remat`.
    """

    width: int = 64
    num_downsamples: int = 2
    hidden: int = 128
    blocks: int = 4
    kernel_size: int = 3
    sharpness: float = 100.0
    sharpness_start: float = 20.0
    sharpness_steps: int = 0
    chunk: int = 512
    warp: str = "mean"
    dtype: DTypeLike = jnp.float32
    remat: str = "none"

    def setup(self):
        """Names the layers after their places."""
        if self.warp not in WARPS:
            raise UserError(f"config.method.warp: no {self.warp!r}; there are {', '.join(WARPS)}")
        adaptor = (self.width, self.num_downsamples, self.hidden, self.dtype, self.remat)
        self.pose_adaptor = Adaptor(*adaptor)
        self.picture_adaptor = Adaptor(*adaptor)
        shared = blocks.maybe_remat(_PReluResidual, self.remat)
        self.shared = [shared(self.dtype) for _ in range(self.blocks)]
        project = {"init": layers.xavier_small, "dtype": self.dtype}
        self.pose_projection = layers.Conv(4 * self.width, (1, 1), **project)
        self.picture_projection = layers.Conv(4 * self.width, (1, 1), **project)
        if self.sharpness_steps:
            self.step = self.variable("schedule", "step", lambda: jnp.zeros(()))

    def pose_features(self, label: Float[Array, "b h w c"], train: bool) -> Array:
        """Returns x_S of Eq. 2, of length 1 at each position: (b y x d)."""
        return self.pose_adaptor(label, train)

    def picture_features(self, picture: Float[Array, "b h w 3"], train: bool) -> Array:
        """Returns y_S of Eq. 3, of length 1 at each position: (b y x d)."""
        return self.picture_adaptor(picture, train)

    def encode_pose(self, features: Float[Array, "b y x d"], train: bool) -> Array:
        """Encodes a pose to descriptors (b n e), to be matched."""
        return self._descriptors(features, train, self.pose_projection)

    def encode_exemplar(self, picture: Float[Array, "b h w 3"], train: bool) -> dict[str, Array]:
        """Encodes an exemplar to be warped: "keys" (b n e) and "values" (b n v)."""
        features = self.picture_features(picture, train)
        return {
            "keys": self._descriptors(features, train, self.picture_projection),
            "values": self._cells(picture),
        }

    def warp_exemplar(
        self, queries: Float[Array, "b n e"], exemplar: dict[str, Array], size: tuple[int, int]
    ) -> dict[str, Array]:
        """Warps an exemplar by Eq. 5 to the full size (height, width).

        Returns:
          "coarse", the warped exemplar (b h w 3); and of each cell, without a gradient, "place"
          (b y x), the number of the exemplar's cell that weighs most in it, and "weight" (b y x).
        """
        cells, place, weight = correlation.softmax_match(
            queries * self._softening(),
            exemplar["keys"],
            exemplar["values"],
            sharpness=self.sharpness,
            chunk=self.chunk,
        )
        side = 2**self.num_downsamples
        rows, columns = size[0] // side, size[1] // side
        inner = side if self.warp == "patch" else 1
        cells = cells.reshape(-1, rows, columns, inner, inner, 3)
        picture = cells.transpose(0, 1, 3, 2, 4, 5).reshape(-1, rows * inner, columns * inner, 3)
        return {
            "coarse": resampling.resize_nearest(picture, *size),
            "place": place.reshape(-1, rows, columns),
            "weight": weight.reshape(-1, rows, columns),
        }

    def __call__(
        self, label: Float[Array, "b h w c"], exemplar: Float[Array, "b h w 3"], train: bool
    ) -> dict[str, Array]:
        """Returns "features", x_S (b y x d), and what `warp_exemplar` returns."""
        features = self.pose_features(label, train)
        queries = self.encode_pose(features, train)
        _, height, width, _ = label.shape
        warped = self.warp_exemplar(queries, self.encode_exemplar(exemplar, train), (height, width))
        if self.sharpness_steps and train and not self.is_initializing():
            self.step.value += 1.0
        return {"features": features, **warped}

    def _softening(self) -> Array | float:
        """Returns today's sigma over its last one: descriptors are multiplied by it."""
        if not self.sharpness_steps:
            return 1.0
        left = 1.0 - jnp.minimum(self.step.value / self.sharpness_steps, 1.0)
        return (self.sharpness_start / self.sharpness) ** left

    def _descriptors(self, features: Array, train: bool, projection: nn.Module) -> Array:
        x = features.astype(self.dtype)
        for block in self.shared:
            x = block(x, train)
        return correlation.descriptors(projection(x), kernel_size=self.kernel_size)

    def _cells(self, picture: Array) -> Array:
        """Returns the image's cells of 2**num_downsamples pixels: mean colours, or all pixels."""
        b, h, w, _ = picture.shape
        side = 2**self.num_downsamples
        cells = picture.reshape(b, h // side, side, w // side, side, 3)
        if self.warp == "mean":
            return cells.mean((2, 4)).reshape(b, -1, 3)
        return cells.transpose(0, 1, 3, 2, 4, 5).reshape(b, -1, side * side * 3)
