"""3-D residual networks over clips: reconstruction by regions, and refinement of an estimate.

The base is the 6-block ResNet of image translation with every convolution in three dimensions:
time is halved twice on the way in and doubled twice on the way out, like height and width.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from psrjax.errors import UserError
from psrjax.nn import blocks, layers
from psrjax.ops import geometry

DECODERS = ("separate_heads", "common_head", "context")
ENCODERS = {  # {encoder of later layers: {one of its encoders: the inputs that it reads}}
    "concat_videos": {"videos": ("source", "estimate"), "depth": ("depth",)},
    "separate": {"source": ("source",), "estimate": ("estimate",), "depth": ("depth",)},
    "concat_all": {"all": ("source", "estimate", "depth")},
}
WARP_SCOPES = ("mesh", "all")
INITIALIZATIONS = ("gtnet", "gentle")
BACKGROUNDS = ("frame", "change")
CHANGE = "change"  # the name of a head that makes a change of a video: without tanh, 0 at first
BACKGROUND, VISIBLE, OCCLUDED = 0, 1, 2  # the labels of `target_visibility`


class Encoder(nn.Module):
    """Stem of 7x7x7, two strides of 2 over time and space, residual blocks.

    Attributes:
      width: channels of the stem; the output has four times as many.
      blocks: how many residual blocks.
      norm: see `psrjax.nn.layers.make_norm`.
      initialization: "gtnet", or "gentle": blocks that begin as almost the identity.
      dtype: compute type.
      remat: see `psrjax.nn.blocks.maybe_remat`.
    """

    width: int = 64
    blocks: int = 6
    norm: str = "batch"
    initialization: str = "gtnet"
    dtype: DTypeLike = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"], train: bool) -> Float[Array, "b t4 h4 w4 d"]:
        """Encodes (b t h w c) to (b t/4 h/4 w/4 4*width)."""
        x = self._layer(x, train, "stem", self.width, kernel_size=7, stride=1)
        x = self._layer(x, train, "down0", 2 * self.width, kernel_size=3, stride=2)
        x = self._layer(x, train, "down1", 4 * self.width, kernel_size=3, stride=2)
        block = blocks.maybe_remat(blocks.Residual3D, self.remat)
        scale = {"gtnet": 1.0, "gentle": 0.1}[self.initialization]
        for i in range(self.blocks):
            x = block(self.norm, scale=scale, dtype=self.dtype, name=f"block{i}")(x, train)
        return x

    def _layer(
        self, x: Array, train: bool, name: str, width: int, *, kernel_size: int, stride: int
    ) -> Array:
        x = layers.Conv(
            width,
            (kernel_size,) * 3,
            stride=stride,
            padding=kernel_size // 2,
            use_bias=False,
            dtype=self.dtype,
            init=layers.kaiming_fan_out,
            name=name,
        )(x)
        norm = layers.make_norm(self.norm, dtype=self.dtype, name=f"{name}_norm")
        return norm(x, train, slope=0.0)


class Decoder(nn.Module):
    """Two transposed convolutions, each doubling time and space, and heads of 7x7x7.

    Attributes:
      width: channels before the head.
      heads: names of the heads, each a video of its own from the same features; see `CHANGE`.
      initialization: "gtnet", or "gentle": heads that begin where tanh is steep.
      (the others are those of `Encoder`)
    """

    width: int = 64
    heads: tuple[str, ...] = ("head",)
    norm: str = "batch"
    initialization: str = "gtnet"
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t4 h4 w4 d"], train: bool) -> dict[str, Array]:
        """Returns {head: (b t h w 3) float32}, four times larger in each dimension.

        They are frames in [-1, 1], but for `CHANGE`.
        """
        for i, width in enumerate((2 * self.width, self.width)):
            x = layers.ConvTranspose(
                width,
                (3, 3, 3),
                stride=2,
                padding=1,
                output_padding=1,
                use_bias=False,
                dtype=self.dtype,
                name=f"up{i}",
            )(x)
            norm = layers.make_norm(self.norm, dtype=self.dtype, name=f"up{i}_norm")
            x = norm(x, train, slope=0.0)
        # Kaiming's fan-out starts a head of 3 channels deep in the flat ends of tanh (inputs of
        # std 4.6).
        init = {"gtnet": layers.kaiming_fan_out, "gentle": layers.uniform_fan_in}
        made = {}
        for name in self.heads:
            head = layers.Conv(
                3,
                (7, 7, 7),
                padding=3,
                dtype=self.dtype,
                init=nn.initializers.zeros if name == CHANGE else init[self.initialization],
                name=name,
            )
            video = head(x).astype(jnp.float32)
            made[name] = video if name == CHANGE else jnp.tanh(video)
        return made


class Reconstruction(nn.Module):
    """PSR-Net's first layer: one encoder per input, one fusion, a decoder for each region.

    Attributes:
      decoder: "separate_heads" (a decoder each for background, visible and occluded),
        "common_head" (visible and occluded share all but the last convolution) or "context" (one
        foreground, one background).
      background: what its decoder makes: the "frame", or the "change" of the prior.
      (the others are those of `Encoder`)
    """

    decoder: str = "separate_heads"
    background: str = "frame"
    width: int = 64
    blocks: int = 6
    norm: str = "batch"
    initialization: str = "gtnet"
    dtype: DTypeLike = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(
        self,
        source: Float[Array, "b t h w 3"],
        prior: Float[Array, "b t h w 3"],
        depth: Float[Array, "b t h w d"],
        train: bool,
    ) -> dict[str, Array]:
        """Returns "background", "visible" and "occluded": videos (b t h w 3), unmasked.

        They are in [-1, 1], but for a changed background.

        Raises:
          UserError: for sizes that are not multiples of 4.
        """
        check_size(source)
        inputs = {"source": source, "prior": prior, "depth": depth}
        latent = _encode(self, inputs, train)
        front_heads = {
            "separate_heads": {"visible": ("head",), "occluded": ("head",)},
            "common_head": {"foreground": ("head_visible", "head_occluded")},
            "context": {"foreground": ("head",)},
        }[self.decoder]
        heads = {"background": (CHANGE if self.background == "change" else "head",), **front_heads}
        made = {
            name: _decoder(self, f"decode_{name}", names)(latent, train)
            for name, names in heads.items()
        }
        ((name, behind),) = made.pop("background").items()
        behind = prior + behind if name == CHANGE else behind
        if self.decoder == "separate_heads":
            return {"background": behind} | {name: each["head"] for name, each in made.items()}
        front = made["foreground"]
        return {
            "background": behind,
            "visible": front["head" if self.decoder == "context" else "head_visible"],
            "occluded": front["head" if self.decoder == "context" else "head_occluded"],
        }


class Refinement(nn.Module):
    """PSR-Net's later layers: encodes source, estimate and depth; decodes one video.

    Attributes:
      encoder: "concat_videos" (source and estimate share an encoder), "separate" (one each) or
        "concat_all" (one for everything, and no fusion).
      background: "frame": the video is one of whole frames; "change": there is a second one, the
        estimate changed, for what is behind the person; "everywhere": that one is the only one.
      (the others are those of `Encoder`)
    """

    encoder: str = "concat_videos"
    background: str = "frame"
    width: int = 64
    blocks: int = 6
    norm: str = "batch"
    initialization: str = "gtnet"
    dtype: DTypeLike = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(
        self,
        source: Float[Array, "b t h w 3"],
        estimate: Float[Array, "b t h w 3"],
        depth: Float[Array, "b t h w d"],
        train: bool,
    ) -> dict[str, Array]:
        """Returns {"frame": the refined video in [-1, 1], before Eq. 1 mixes it with the estimate}.

        Where there is one, "background" is the second video. A changed estimate may leave [-1, 1].

        Raises:
          UserError: for sizes that are not multiples of 4.
        """
        check_size(source)
        given = {"source": source, "estimate": estimate, "depth": depth}
        inputs = {
            name: jnp.concatenate([given[part] for part in parts], -1)
            for name, parts in ENCODERS[self.encoder].items()
        }
        heads = {"frame": ("head",), "change": ("head", CHANGE), "everywhere": (CHANGE,)}
        made = _decoder(self, "decode", heads[self.background])(_encode(self, inputs, train), train)
        if CHANGE not in made:
            return {"frame": made["head"]}
        changed = estimate + made[CHANGE]
        if "head" not in made:
            return {"frame": changed}
        return {"frame": made["head"], "background": changed}


def begin_refinement(
    reconstruction: Mapping[str, Any], *, encoder: str = "concat_videos"
) -> dict[str, Any]:
    """Makes a tree of `Refinement` from `Reconstruction`'s: the second layer begins as the first.

    The estimate takes the place of the prior; the decoder of the visible person, or of the whole
    person, makes the whole frame. With `encoder="separate"` the net then computes what that decoder
    of the first layer does; encoders that share inputs take the stems side by side and the rest
    from the source's encoder.

    Args:
      reconstruction: one collection (parameters, or statistics) of the first layer.
      encoder: of the second.

    Returns:
      The same collection of the second layer.
    """
    old = {**reconstruction, "encode_estimate": reconstruction["encode_prior"]}
    person = old["decode_visible" if "decode_visible" in old else "decode_foreground"]
    heads = {"head_visible": "head", "head_occluded": ""}
    decoder = {heads.get(name, name): layer for name, layer in person.items()}
    made = {"decode": {name: layer for name, layer in decoder.items() if name}}
    inputs = ENCODERS[encoder]
    for name, parts in inputs.items():
        encoders = [old[f"encode_{part}"] for part in parts]
        made[f"encode_{name}"] = dict(encoders[0])
        if "stem" in encoders[0]:
            stems = [encoder["stem"]["kernel"] for encoder in encoders]
            made[f"encode_{name}"]["stem"] = {"kernel": jnp.concatenate(stems, -2)}
    if "fuse" in old and len(inputs) > 1:
        rows = dict(zip(("source", "estimate", "depth"), jnp.split(old["fuse"]["kernel"], 3, -2)))
        kernel = jnp.concatenate([rows[parts[0]] for parts in inputs.values()], -2)
        made["fuse"] = {**old["fuse"], "kernel": kernel}
    return made


def _encode(net: Reconstruction | Refinement, inputs: dict[str, Array], train: bool) -> Array:
    """Encodes each input by its own encoder; several are fused by one 3x3x3 convolution."""
    latents = [
        Encoder(
            net.width,
            net.blocks,
            norm=net.norm,
            initialization=net.initialization,
            dtype=net.dtype,
            remat=net.remat,
            name=f"encode_{name}",
        )(x, train)
        for name, x in inputs.items()
    ]
    if len(latents) == 1:
        return latents[0]
    return layers.Conv(
        4 * net.width,
        (3, 3, 3),
        padding=1,
        dtype=net.dtype,
        init=layers.kaiming_fan_out,
        name="fuse",
    )(jnp.concatenate(latents, -1))


def _decoder(net: Reconstruction | Refinement, name: str, heads: tuple[str, ...]) -> Decoder:
    return Decoder(
        net.width,
        heads,
        norm=net.norm,
        initialization=net.initialization,
        dtype=net.dtype,
        name=name,
    )


def check_size(video: Array) -> None:
    """Refuses clips whose frames, height or width the network cannot halve twice.

    Raises:
      UserError: with the size and what to change.
    """
    frames, height, width = video.shape[1:4]
    if any(size % 4 for size in (frames, height, width)):
        raise UserError(
            f"PSR-Net takes frames, height and width that are multiples of 4, not {frames} frames "
            f"of {height}x{width}: change config.data.sampling.t or config.data.crop"
        )


def compose(
    parts: dict[str, Array], visibility: Int[Array, "b t h w 1"]
) -> Float[Array, "b t h w 3"]:
    """Takes each pixel from the decoder of its region (Eq. 2).

    Args:
      parts: "background", "visible" and "occluded" videos (b t h w 3).
      visibility: 0 background, 1 visible, 2 occluded.
    """
    labels = {"background": BACKGROUND, "visible": VISIBLE, "occluded": OCCLUDED}
    shares = [jnp.where(visibility == label, parts[name], 0.0) for name, label in labels.items()]
    return sum(shares[1:], shares[0])


def add_previous(
    video: Float[Array, "b t h w 3"],
    flow: Float[Array, "b t h w 2"],
    mesh: Float[Array, "b t h w 1"],
    *,
    zeta: float = 0.1,
    scope: str = "mesh",
) -> Float[Array, "b t h w 3"]:
    """Adds zeta times the frame before, warped onto this one by the mesh's flow (Eq. 3).

    The frame before is the raw one (no recurrence) and constant for the gradient, as in GTNet. The
    sum is not renormalized and may leave [-1, 1] by zeta.

    Args:
      video: the composed video.
      flow: pixels, from frame t to t-1, on t's grid; 0 off the mesh.
      mesh: 1 on the mesh of frame t, 0 elsewhere.
      zeta: the paper's factor.
      scope: "mesh" adds on the mesh only; "all" also off it, where the flow is 0.
    """
    if zeta == 0.0:
        return video
    b, t = video.shape[:2]
    before = jax.lax.stop_gradient(video[:, :-1]).reshape(-1, *video.shape[2:])
    moved = geometry.warp(before, flow[:, 1:].reshape(-1, *flow.shape[2:]))
    moved = moved.reshape(b, t - 1, *video.shape[2:])
    if scope == "mesh":
        moved = moved * mesh[:, 1:]
    return video + zeta * jnp.pad(moved, ((0, 0), (1, 0), (0, 0), (0, 0), (0, 0)))
