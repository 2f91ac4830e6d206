"""PSR-Net: the view of another camera, reconstructed from the mesh and refined layer by layer.

Lakhal et al.: "Multi-View Video Synthesis Through Progressive Synthesis and Refinement". Equation
numbers are the paper's. Each stage `layer<k>` trains one layer and its discriminators on the frozen
layers before it.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from psrjax.losses import adversarial, perceptual, pixel
from psrjax.methods import base
from psrjax.methods.base import Batch, flatten_time, split_time
from psrjax.models import volumetric
from psrjax.nn.discriminators import frame_ranges, patch
from psrjax.ops import pose_label

REGIONS = {
    "none": (),
    "fgbg": ((volumetric.BACKGROUND,), (volumetric.VISIBLE, volumetric.OCCLUDED)),
    "bvo": ((volumetric.BACKGROUND,), (volumetric.VISIBLE,), (volumetric.OCCLUDED,)),
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
        the mean training frame of the target's camera) or "zeros". `Departs from:` the paper, which
        has nothing off the mesh, where it is "texture_on_mean": one recording of minutes shows too
        few rooms to learn from a source view what stands in another's picture.
      init_from: how a later layer's net begins: "fresh" (random, as the paper) or "before" (as the
        net of the layer before it). `Departs from:` the paper's random start where it is "before":
        in minutes of training a fresh net does not get past what the estimate already holds.
      initialization: of the generators' weights: "gtnet" (as GTNet's script, which stands behind
        what the paper leaves open: Kaiming's normal by fan-out, norms from 1) or "gentle".
        `Departs from:` GTNet where it is "gentle": the last norm of a residual block begins at 0.1
        instead of 1, so that a stack of new blocks is almost the identity, and a head begins with
        the smaller weights of PyTorch's default, where tanh is steep. Short trainings get further
        (after 500 steps of the demo's layer 1: +0.4 dB inside the person, by the norms alone).
      width: channels of the generators' stems.
      blocks: residual blocks of each encoder.
      discriminator_width: channels of the frame discriminators' first layers.
      discriminator_layers: strided layers of the frame discriminators.
      video_width: channels of the video discriminators' first layers.
      video_depth: strided layers of the video discriminators.
      video_time_padding: frames of zeros at both ends of each of them.
      norm: "batch" or "instance".
      estimator: the fields of another method, as JSON, which is frozen, as the net `estimate`;
        `base.RUN`: those of the run `config.init.run`; "": none. `Departs from:` the paper, which
        has no such net.
      estimate_as: what it makes: the "layers" after the first refine its frames instead of the
        first layer's; the source is then the first source frame, and what is seen beside it is the
        pose where that method reads it, else nothing. Or its person, over the mean training frame
        of the target's camera, is the "prior": D2G-Net's learned texture knows the sides of a
        person that the source view does not show.
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
    width: int = 64
    blocks: int = 6
    discriminator_width: int = 64
    discriminator_layers: int = 3
    video_width: int = 64
    video_depth: int = 4
    video_time_padding: int = 1
    norm: str = "batch"
    estimator: str = ""
    estimate_as: str = "layers"

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
            "prior": ("texture", "texture_on_mean", "zeros"),
            "init_from": ("fresh", "before"),
            "initialization": volumetric.INITIALIZATIONS,
            "estimate_as": ("layers", "prior"),
        }

    def setup(self):
        """Builds the nets of this stage and of those before it."""
        common: dict[str, Any] = {
            "width": self.width,
            "blocks": self.blocks,
            "norm": self.norm,
            "initialization": self.initialization,
            "dtype": self.dtype,
            "remat": self.remat,
        }
        other = self._estimator
        self.posed = other is not None and "target_joints" in other.synthesis_reads
        if other is not None:
            self.estimate = other
        for k in range(1 + self._refines_another, self._current + 1):
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
    def _refines_another(self) -> bool:
        return self._estimates and self.estimate_as == "layers"

    @property
    def _estimates(self) -> bool:
        return self.estimator not in ("", base.RUN)

    @property
    def _estimator(self) -> base.Method | None:
        """The other method, not bound; None where there is none."""
        if not self._estimates:
            return None
        fields: dict[str, Any] = json.loads(self.estimator)
        tuples = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items()}
        return base.build(**tuples)  # pyright: ignore[reportArgumentType]  # its name is a string

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
        """Source, target, and the guidance of the target view; what the estimator reads."""
        flow = ("target_flow",) if self._ranges else ()
        other = () if self._estimator is None else self._estimator.synthesis_reads
        if self._refines_another:
            return tuple(dict.fromkeys((*other, "source", "target", *flow)))
        keys = (
            "source",
            "target",
            "target_depth",
            "target_visibility",
            "target_prior",
            "target_mesh_flow",
            *flow,
        )
        mean = ("target_mean",) if other or self.prior == "texture_on_mean" else ()
        return tuple(dict.fromkeys((*keys, *mean, *other)))

    @property
    def synthesis_reads(self) -> tuple[str, ...]:
        """As `reads`; where another's frames are refined what that needs, and the source."""
        if self._refines_another and (other := self._estimator) is not None:
            return tuple(dict.fromkeys((*other.synthesis_reads, "source")))
        return self.reads

    @property
    def baseline_reads(self) -> tuple[str, ...]:
        """The mean training frame of the target's camera, or what a refined method's need."""
        if self._refines_another and (other := self._estimator) is not None:
            return (*other.reads, *other.baseline_reads)
        return ("target_mean",)

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
        if self.init_from == "fresh" or self._current == 1 + self._refines_another:
            return variables
        new, before = f"layer{self._current}", f"layer{self._current - 1}"
        changed = {}
        for collection, nets in variables.items():
            net = nets.get(before)  # a collection need not have every net
            if net is not None and self._current == 2:
                net = volumetric.begin_refinement(net, encoder=self.encoder)
            changed[collection] = nets if net is None else {**nets, new: net}
        return changed

    def _videos(
        self, batch: Batch, carry: Any, *, train: bool
    ) -> tuple[dict[str, Array], dict[str, Array], Any]:
        """Runs the layers up to this stage's, which alone runs in train mode.

        Returns:
          {"layer1": x̂₁, …}, {region: video} of the first layer's decoders, and the next carry. An
          estimator's video stands under "layer1".
        """
        if self._refines_another:
            made, carry = self.estimate.synthesize(batch, carry)
            video, parts = jax.lax.stop_gradient(made["video"]), {}
            source = jnp.broadcast_to(batch["source"][:, :1], video.shape)
            guide = self._pose(batch) if self.posed else jnp.zeros_like(video)
        else:
            source = batch["source"]
            guide = jnp.repeat(batch["target_depth"] * 2.0 - 1.0, 3, axis=-1)
            video, parts = self._reconstructed(batch, guide, train and self._current == 1)
        videos = {"layer1": video}
        for k in range(2, self._current + 1):
            net, before = getattr(self, f"layer{k}"), videos[f"layer{k - 1}"]
            made = net(source, before, guide, train and k == self._current)
            videos[f"layer{k}"] = self.alpha * made + (1.0 - self.alpha) * before
        return videos, parts, carry

    def _reconstructed(
        self, batch: Batch, depth: Array, learns: bool
    ) -> tuple[Array, dict[str, Array]]:
        """Returns the first layer's video (Eq. 2 and 3), and {region: video} of its decoders."""
        visibility = batch["target_visibility"]
        parts = self.layer1(batch["source"], self._prior(batch), depth, learns)
        raw = volumetric.compose(parts, visibility)
        mesh, flow = (visibility > 0).astype(raw.dtype), batch["target_mesh_flow"]
        made = volumetric.add_previous(raw, flow, mesh, zeta=self.zeta, scope=self.warp_scope)
        return made, parts

    def _pose(self, batch: Batch) -> Float[Array, "b t h w c"]:
        """Draws the target's poses, in [-1, 1]."""
        joints = batch["target_joints"]
        height, width = batch["source"].shape[2:4]
        drawn = pose_label.draw(flatten_time(joints), height=height, width=width)
        return 2.0 * split_time(drawn, len(joints)) - 1.0

    def _prior(self, batch: Batch) -> Float[Array, "b t h w 3"]:
        if self._estimates:
            made, _ = self.estimate.synthesize(batch, self.estimate.start(batch))
            person, matte = jax.lax.stop_gradient((made["foreground"], made["mask"]))
            return matte * person + (1.0 - matte) * batch["target_mean"][:, None]
        if self.prior == "texture_on_mean":
            return _on_mean(batch)
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
        source = batch["source"]
        if self._refines_another:
            source = jnp.broadcast_to(source[:, :1], video.shape)
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
        """Keeps nothing between windows, each a clip of its own, but what an estimator keeps."""
        return self.estimate.start(batch) if self._refines_another else {}

    def synthesize(self, batch: Batch, carry: Any, intermediates: bool = False) -> tuple[dict, Any]:
        """Returns the videos of all layers up to this stage's; see the base class."""
        videos, parts, carry = self._videos(batch, carry, train=False)
        videos = {name: jnp.clip(video, -1.0, 1.0) for name, video in videos.items()}
        made: dict[str, Any] = {"video": videos[self.stage], "steps": videos}
        if self._refines_another:
            return made, carry
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

    def baselines(self, batch: Batch) -> dict[str, Array]:
        """Returns the source view, the transferred texture, and it over the camera's mean frame.

        Where an estimator gives the prior, that too; where its frames are refined, its baselines.
        """
        if self._refines_another:
            return self.estimate.baselines(batch)
        found = {
            "copy_source": batch["source"],
            "x0": batch["target_prior"],
            "x0_background": _on_mean(batch),
        }
        return found | ({"estimate": self._prior(batch)} if self._estimates else {})


def _on_mean(batch: Batch) -> Float[Array, "b t h w 3"]:
    """Lays the transferred texture over the mean training frame of the target's camera."""
    mean = batch["target_mean"][:, None]
    return jnp.where(batch["target_visibility"] > 0, batch["target_prior"], mean)
