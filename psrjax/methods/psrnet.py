"""PSR-Net: the view of another camera, reconstructed from the mesh and refined layer by layer.

Lakhal et al.: "Multi-View Video Synthesis Through Progressive Synthesis and Refinement". Equation
numbers are the paper's. Each stage `layer<k>` trains one layer and its discriminators on the frozen
layers before it.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from psrjax.losses import adversarial, perceptual, pixel
from psrjax.methods import base
from psrjax.methods.base import Batch
from psrjax.models import volumetric
from psrjax.nn.discriminators import frame_ranges, patch

REGIONS = {
    "none": (),
    "fgbg": ((volumetric.BACKGROUND,), (volumetric.VISIBLE, volumetric.OCCLUDED)),
    "bvo": ((volumetric.BACKGROUND,), (volumetric.VISIBLE,), (volumetric.OCCLUDED,)),
}
_BEHIND = {  # prior: the key of what lies behind its texture
    "texture_on_mean": "target_mean",
    "texture_on_background": "background",
}
# Of background, visible and occluded pixels in pictures of the visibility map (Fig. 3): black,
# green, orange.
_REGION_COLORS = ((-1.0, -1.0, -1.0), (-0.4, 0.6, -0.2), (0.9, 0.1, -0.6))


class Discriminators(nn.Module):
    """The discriminators of one layer: of frames beside their source, of clips, of n frames.

    Attributes:
      width: channels of the frame discriminator's first layer.
      strided: strided layers of the frame discriminator.
      video_width: channels of the video discriminator's first layer; 0 is no video discriminator.
      video_depth: strided layers of the video discriminator.
      video_time_padding: frames of zeros at both ends of each of them.
      ranges: n of discriminators of n frames and the flow between them; () is none.
      norm: see `psrjax.nn.layers.make_norm`.
      dtype: compute type.
    """

    width: int
    strided: int
    video_width: int
    video_depth: int
    video_time_padding: int
    ranges: tuple[int, ...]
    norm: str
    dtype: Any

    @nn.compact
    def __call__(
        self,
        source: Float[Array, "b t h w 3"],
        video: Float[Array, "b t h w 3"],
        flow: Float[Array, "b t h w 2"] | None,
        train: bool,
    ) -> dict[str, Any]:
        """Returns {"frame": logits}, and where there are such nets "video" and "ranges".

        Args:
          source: the source frames.
          video: the frames to judge.
          flow: of the real target video, which only the discriminators of n frames see.
          train: whether norms learn.
        """
        pairs = jnp.concatenate([source, video], -1)
        common: dict[str, Any] = {"norm": self.norm, "dtype": self.dtype}
        frame = patch.PatchDiscriminator(self.width, strided=self.strided, name="frame", **common)
        logits = {"frame": frame(pairs.reshape(-1, *pairs.shape[2:]), train)["logits"]}
        if self.video_width:
            clip = patch.VideoDiscriminator(
                self.video_width,
                depth=self.video_depth,
                time_padding=self.video_time_padding,
                name="video",
                **common,
            )
            logits["video"] = clip(video, train)["logits"]
        if self.ranges and flow is not None:
            several = frame_ranges.FrameRangeDiscriminators(
                self.ranges, width=self.width, dtype=self.dtype, name="ranges"
            )
            logits["ranges"] = several(video, flow, train)
        return logits


class Method(base.Method):
    """PSR-Net as a method: nets `layer<k>` and `discriminator<k>`, one stage for each layer.

    Attributes:
      layers: K, how many layers there are.
      decoder: Table 1: how the first layer decodes regions (`volumetric.DECODERS`).
      encoder: Table 2: how later layers encode their inputs (`volumetric.ENCODERS`).
      alpha: Eq. 1: the share of a later layer's own video; 1 is no mixing.
      zeta: Eq. 3: how much of the warped frame before is added.
      warp_scope: where it is added: "mesh" or "all".
      recon_regions: over which regions the first layer's Huber loss is averaged one by one: "bvo"
        (background, visible, occluded), "fgbg" (GTNet's two) or "none" (all pixels alike).
      later_regions: the same of the later layers. `Departs from:` the paper where it is not "none"
        (§3.2); §4.4 tells why "none" makes the person worse from layer to layer.
      video_discriminator: whether the later layers have a discriminator of whole clips.
      video_ranges: n of further discriminators of n frames in a row, of the later layers: the
        multi-range temporal discriminators of MFCI (Cheng et al., Eq. 2), not the paper's; () is
        none.
      perceptual: weights of the temporal perceptual term: "i3d", "random" (tests) or "off".
      prior: the initial estimate: "texture" (transferred texture), "texture_on_mean" (the same over
        the mean training frame of the target's camera), "texture_on_background" (over that camera's
        clean background) or "zeros". `Departs from:` the paper, which has nothing off the mesh,
        where something lies behind the texture: one recording of minutes shows too few rooms to
        learn from a source view what stands in another's picture.
      init_from: how a later layer's net begins: "fresh" (random, as the paper) or "before" (as the
        net of the layer before it). `Departs from:` the paper's random start where it is "before":
        in minutes of training a fresh net does not get past what the estimate already holds.
      initialization: of the generators' weights: "gtnet" (as GTNet's script, which stands behind
        what the paper leaves open: Kaiming's normal by fan-out, norms from 1) or "gentle".
        `Departs from:` GTNet where it is "gentle": the last norm of a residual block begins at 0.1
        instead of 1, so that a stack of new blocks is almost the identity, and a head begins with
        the smaller weights of PyTorch's default, where tanh is steep. Short trainings get further
        (after 500 steps of the demo's layer 1: +0.4 dB inside the person, by the norms alone).
      background: what the nets make behind the person: the "frame", as the paper's; or the "change"
        of the prior, and of the estimate of the layer before. `Departs from:` the paper where it is
        "change": the fine grain of a room that the prior has need not pass through the nets, which
        have no skip connections.
      width: channels of the generators' stems.
      blocks: residual blocks of each encoder.
      discriminator_width: channels of the frame discriminators' first layers.
      discriminator_layers: strided layers of the frame discriminators.
      video_width: channels of the video discriminators' first layers.
      video_depth: strided layers of the video discriminators.
      video_time_padding: frames of zeros at both ends of each of them.
      norm: "batch" or "instance".
    """

    stage: str = "layer1"
    layers: int = 3
    decoder: str = "separate_heads"
    encoder: str = "concat_videos"
    alpha: float = 0.5
    zeta: float = 0.1
    warp_scope: str = "mesh"
    recon_regions: str = "bvo"
    later_regions: str = "none"
    video_discriminator: bool = True
    video_ranges: tuple[int, ...] = ()
    perceptual: str = "i3d"
    prior: str = "texture"
    init_from: str = "fresh"
    initialization: str = "gtnet"
    background: str = "frame"
    width: int = 64
    blocks: int = 6
    discriminator_width: int = 64
    discriminator_layers: int = 3
    video_width: int = 64
    video_depth: int = 4
    video_time_padding: int = 1
    norm: str = "batch"

    @property
    def choices(self) -> dict[str, Collection[Any]]:
        """See the attributes."""
        return {
            "stage": self._stages,
            "decoder": volumetric.DECODERS,
            "encoder": volumetric.ENCODERS,
            "warp_scope": volumetric.WARP_SCOPES,
            "recon_regions": REGIONS,
            "later_regions": REGIONS,
            "perceptual": ("i3d", "random", "off"),
            "prior": ("texture", *_BEHIND, "zeros"),
            "init_from": ("fresh", "before"),
            "initialization": volumetric.INITIALIZATIONS,
            "background": volumetric.BACKGROUNDS,
        }

    def setup(self):
        """Builds the nets of this stage and of those before it."""
        common: dict[str, Any] = {
            "width": self.width,
            "blocks": self.blocks,
            "norm": self.norm,
            "initialization": self.initialization,
            "background": self.background,
            "dtype": self.dtype,
            "remat": self.remat,
        }
        for k in range(1, self._current + 1):
            if k == 1:
                net = volumetric.Reconstruction(decoder=self.decoder, **common)
            else:
                net = volumetric.Refinement(encoder=self.encoder, **common)
            setattr(self, f"layer{k}", net)
        discriminator = Discriminators(
            self.discriminator_width,
            self.discriminator_layers,
            self.video_width if self.video_discriminator and self._current > 1 else 0,
            self.video_depth,
            self.video_time_padding,
            self._ranges,
            self.norm,
            self.dtype,
        )
        setattr(self, f"discriminator{self._current}", discriminator)

    @property
    def _ranges(self) -> tuple[int, ...]:
        return self.video_ranges if self._current > 1 else ()

    @property
    def _discriminator(self) -> Discriminators:
        return getattr(self, f"discriminator{self._current}")

    @property
    def _current(self) -> int:
        """The number of the layer that this stage trains."""
        return self._stages.index(self.stage) + 1

    @property
    def _stages(self) -> tuple[str, ...]:
        return tuple(f"layer{k}" for k in range(1, self.layers + 1))

    @property
    def updates(self) -> dict[str, tuple[str, ...]]:
        """The generator's update, then the discriminator's on the fakes of the same forward pass.

        `Departs from:` GTNet's script, where the discriminator comes first; the paper is silent.
        """
        return {
            "generator": (f"layer{self._current}",),
            "discriminator": (f"discriminator{self._current}",),
        }

    @property
    def reads(self) -> tuple[str, ...]:
        """Source, target, and the guidance of the target view."""
        keys = (
            "source",
            "target",
            "target_depth",
            "target_visibility",
            "target_prior",
            "target_mesh_flow",
        )
        behind = (self._behind,) if self.prior in _BEHIND else ()
        return (*keys, *behind, *self._flow_reads)

    @property
    def _behind(self) -> str:
        """The key of what lies behind the texture in the prior, or at least in the baseline."""
        return _BEHIND.get(self.prior, "target_mean")

    @property
    def _flow_reads(self) -> tuple[str, ...]:
        return ("target_flow",) if self._ranges else ()

    @property
    def baseline_reads(self) -> tuple[str, ...]:
        """What lies behind the texture; the mean training frame where `prior` says nothing."""
        return (self._behind,)

    @property
    def pretrained(self) -> tuple[str, ...]:
        """I3D's weights, for the first layer's perceptual term."""
        return () if self._current > 1 else base.frozen_weights("i3d", self.perceptual)

    def __call__(self, batch: Batch) -> None:
        """Runs the layers of this stage and its discriminators once, for initialisation."""
        videos, _, _ = self._videos(batch, self.start(batch), train=True)
        self._judge(videos[self.stage], batch)

    def init_from_previous(self, variables: Mapping) -> Mapping:
        """See `init_from`; the discriminators begin fresh in every stage."""
        if self.init_from == "fresh" or self._current == 1:
            return variables
        new, before = f"layer{self._current}", f"layer{self._current - 1}"
        changed = {}
        for collection, nets in variables.items():
            net = nets.get(before)  # a collection need not have every net
            if net is not None and self._current == 2:
                net = volumetric.begin_refinement(net, encoder=self.encoder)
            if net is not None and volumetric.CHANGE in (fresh := nets[new]["decode"]):
                change = {volumetric.CHANGE: fresh[volumetric.CHANGE]}
                net = {**net, "decode": net["decode"] | change}
            changed[collection] = nets if net is None else {**nets, new: net}
        return changed

    def _videos(
        self, batch: Batch, carry: Any, *, train: bool
    ) -> tuple[dict[str, Array], dict[str, Array], Any]:
        """Runs the layers up to this stage's, which alone runs in train mode.

        Returns:
          {"layer1": x̂₁, …}, {region: video} of the first layer's decoders, and the next carry.
        """
        video, parts, carry = self._first_video(batch, carry, train and self._current == 1)
        source = jnp.broadcast_to(self._source(batch), video.shape)
        guide = self._guide(batch)
        guide = jnp.broadcast_to(guide, (*video.shape[:-1], guide.shape[-1]))
        videos = {"layer1": video}
        for k in range(2, self._current + 1):
            net, before = getattr(self, f"layer{k}"), videos[f"layer{k - 1}"]
            made = net(source, before, guide, train and k == self._current)
            if "background" in made:
                person = batch["target_visibility"] > 0
                made = {"frame": jnp.where(person, made["frame"], made["background"])}
            videos[f"layer{k}"] = self.alpha * made["frame"] + (1.0 - self.alpha) * before
        return videos, parts, carry

    def _first_video(
        self, batch: Batch, carry: Any, learns: bool
    ) -> tuple[Array, dict[str, Array], Any]:
        """Returns x̂₁ (Eq. 2 and 3), {region: video} of its decoders, and the next carry."""
        visibility = batch["target_visibility"]
        parts = self.layer1(self._source(batch), self._prior(batch), self._guide(batch), learns)
        raw = volumetric.compose(parts, visibility)
        mesh, flow = (visibility > 0).astype(raw.dtype), batch["target_mesh_flow"]
        made = volumetric.add_previous(raw, flow, mesh, zeta=self.zeta, scope=self.warp_scope)
        return made, parts, carry

    def _source(self, batch: Batch) -> Float[Array, "b t h w 3"]:
        """Returns what the target's frames are made from and judged beside, or one for all."""
        return batch["source"]

    def _guide(self, batch: Batch) -> Float[Array, "b t h w c"]:
        """Returns what shows the target's body, in [-1, 1]: its depth; or one frame for all."""
        return jnp.repeat(batch["target_depth"] * 2.0 - 1.0, 3, axis=-1)

    def _prior(self, batch: Batch) -> Float[Array, "b t h w 3"]:
        if self.prior in _BEHIND:
            return self._texture_on_behind(batch)
        prior = batch["target_prior"]
        return prior if self.prior == "texture" else jnp.zeros_like(prior)

    def loss(self, update: str, batch: Batch, shared: Batch, pretrained: Batch) -> dict[str, Any]:
        """Eq. 4 (layer 1) and Eq. 5 (later layers), and the discriminators' side."""
        if update == "generator":
            return self._generator_loss(batch, pretrained)
        real = self._judge(batch["target"], batch)
        fake = self._judge(shared["video"], batch)
        terms = self._adversarial_terms(
            lambda name: adversarial.discriminator_total(real[name], fake[name]), real
        )
        log = {f"{name}_real": adversarial.mean_logit(logits) for name, logits in real.items()}
        log |= {f"{name}_fake": adversarial.mean_logit(logits) for name, logits in fake.items()}
        return {"terms": terms, "shared": {}, "log": log}

    def _generator_loss(self, batch: Batch, pretrained: Mapping) -> dict[str, Any]:
        videos, _, _ = self._videos(batch, self.start(batch), train=True)
        video, target = videos[self.stage], batch["target"]
        errors = pixel.huber(video, target)
        terms = {"reconstruction": self._reconstruction(errors, batch)}
        if self._current == 1:
            terms["perceptual"] = jnp.zeros(())
            for name in self.pretrained:
                terms["perceptual"] = perceptual.temporal_perceptual(
                    pretrained[name], video, target, dtype=self.dtype
                )
        logits = self._judge(video, batch)
        terms |= self._adversarial_terms(
            lambda name: adversarial.generator_total(logits[name]), logits
        )
        log = {"absolute_error": jnp.abs(video - target).mean()}
        return {"terms": terms, "shared": {"video": video}, "log": log}

    def _judge(self, video: Array, batch: Batch) -> dict[str, Any]:
        source = jnp.broadcast_to(self._source(batch), video.shape)
        return self._discriminator(source, video, batch.get("target_flow"), True)

    def _adversarial_terms(
        self, loss: Callable[[str], Array], discriminators: Iterable[str]
    ) -> dict:
        """Returns a term for each discriminator of the stage; a constant 0 for one that is off."""
        names = ("frame",) if self._current == 1 else ("frame", "video")
        names += ("ranges",) if self._ranges else ()
        return {
            f"adversarial_{name}": loss(name) if name in discriminators else jnp.zeros(())
            for name in names
        }

    def _reconstruction(self, errors: Array, batch: Batch) -> Array:
        """Later layers give all pixels the same weight in the paper (§3.2)."""
        groups = REGIONS[self.recon_regions if self._current == 1 else self.later_regions]
        if not groups:
            return errors.mean()
        visibility = batch["target_visibility"]
        regions = [jnp.isin(visibility[..., 0], jnp.asarray(group)) for group in groups]
        return pixel.region_mean(errors, jnp.stack(regions, -1))

    def start(self, batch: Batch) -> dict:
        """Keeps nothing between windows: each is a clip of its own."""
        del batch
        return {}

    def synthesize(self, batch: Batch, carry: Any, intermediates: bool = False) -> tuple[dict, Any]:
        """Returns the videos of all layers up to this stage's; see the base class."""
        videos, parts, carry = self._videos(batch, carry, train=False)
        made = self._clipped(videos)
        made["mask"] = (batch["target_visibility"] > 0).astype(jnp.float32)
        if intermediates:
            regions = jnp.asarray(_REGION_COLORS)[batch["target_visibility"][..., 0]]
            made["intermediates"] = {
                "prior": self._prior(batch),
                "visibility": regions,
                "depth": batch["target_depth"],
                **parts,
            }
        return made, carry

    def _clipped(self, videos: Mapping[str, Array]) -> dict[str, Any]:
        steps = {name: jnp.clip(video, -1.0, 1.0) for name, video in videos.items()}
        return {"video": steps[self.stage], "steps": steps}

    def baselines(self, batch: Batch) -> dict[str, Array]:
        """Returns the source view, the transferred texture, and it over what the camera shows."""
        return {
            "copy_source": batch["source"],
            "x0": batch["target_prior"],
            "x0_background": self._texture_on_behind(batch),
        }

    def _texture_on_behind(self, batch: Batch) -> Float[Array, "b t h w 3"]:
        behind = batch[self._behind][:, None]
        return jnp.where(batch["target_visibility"] > 0, batch["target_prior"], behind)
