"""HPT: a person dances another's dance, through correspondence of poses and pictures.

Wang, Huang, Wu, Li, Zhang: "Supervised Video-to-Video Synthesis for Single Human Pose Transfer".
Equation numbers are the paper's; what it leaves open is CoCosNet's (Zhang et al. 2020) and
"Everybody Dance Now"'s (Chan et al. 2019), on which it is built. One model belongs to one person's
video. Its stages (Algorithm 1) train three pairs of nets, one after the other: `transfer` generates
single frames from an exemplar, `temporal` smooths their sequence, `face` refines the head.
"""

from collections.abc import Collection, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

from psrjax.errors import UserError
from psrjax.losses import adversarial, contextual, pixel, style, temporal
from psrjax.methods import base
from psrjax.methods.base import Batch, flatten_time, split_time
from psrjax.models import correspondence, global_generator, spade_generator
from psrjax.nn.discriminators import frame_ranges, multiscale, patch, spectral
from psrjax.ops import face_box, pose_label, pose_normalization
from psrjax.pretrained import vgg

STAGES = ("transfer", "temporal", "face")
# CoCosNet's layers of L_per, and pix2pixHD's, which the later stages take; the weights are equal.
SECONDS = {f"relu{block}_2": 2.0 ** (block - 6 + (block == 5)) for block in range(1, 6)}
FIRSTS = {tap.replace("_2", "_1"): weight for tap, weight in SECONDS.items()}
_COLLAPSED = 0.95  # share of the person's cells, and weight, from which matches are the identity
_UNROLLED = 8  # windows up to this length are smoothed without a loop, which is faster on CPUs


class Method(base.Method):
    """HPT as a method: `align` and `generator` against `discriminator`, then `smooth`, then `face`.

    Attributes:
      chain: the stages that this run has, in order; "w/o L_ts" and "w/o L_face" leave one out.
      pose_label: see `psrjax.ops.pose_label.draw`.
      octaves: the number of sines and cosines of each axis that say, beside the label, where in the
        frame a pixel is. `Departs from:` the paper, which has none (0): before a fixed camera the
        background depends on the place, which small nets do not find by themselves. The
        correspondence never reads them: by them it would match each place with itself.
      width: channels of the domain adaptors' first layers.
      num_downsamples: how often they halve the size: the shared space is 64x64 for 256x256 at 2.
      match_blocks: residual blocks behind them.
      match_kernel_size: side of the neighbourhoods that are compared.
      sharpness: sigma of Eq. 5.
      sharpness_start: see `correspondence.Correspondence`.
      sharpness_steps: likewise.
      chunk: rows of the correlation, and of the contextual loss, that exist at a time.
      warp: see `correspondence.Correspondence`.
      align_to: what T_I sees in L_D (Eq. 10): the "refined" picture r_I, or the "real" one, as in
        CoCosNet, which is one pair with the pose from the first step on.
      generator_width: channels of G at full size.
      levels: how often G doubles the size.
      hidden: channels inside every SPADE.
      attend: whether G and its discriminator have self-attention.
      matte: whether G makes the person and his outline, over the clip's clean background, and the
        footage's outlines teach it. `Departs from:` the paper, whose G makes the background too:
        it never changes before a fixed camera, and takes most of a short training.
      discriminator_width: channels of the discriminators' first layers.
      discriminator_layers: layers of the discriminator of frames; the others have one less,
        strided.
      discriminator_scales: sizes at which frames, and sequences, are judged.
      gan: the adversarial loss of all stages, see `psrjax.losses.adversarial`.
      history: l of Eq. 8: G1 sees its last l - 1 frames, its discriminator l + 1.
      smooth_input: what G1 sees beside the frames that it made before: "generated", G's frame and
        the pose label, or the "pose" label alone, as Eq. 8 has it. `Departs from:` that equation by
        default: without G's frame nothing that the correspondence found would reach the result.
      smoothing: G1 makes the "frame", or a "residual" that is added to G's frame.
      video_ranges: n of further discriminators of n frames in a row and the flow between them, of
        the stage `temporal`: the multi-range temporal discriminators of MFCI (Cheng et al., Eq. 2),
        not the paper's; () is none.
      temporal: a term of the stage `temporal` that is INTERnet's (Yang et al.), not the paper's:
        each frame, warped back along the flow, is compared with the true one before it, everywhere
        ("a", their Eq. 2) or where the flow can be trusted ("b", Eq. 3); "none" is no such term.
        Their Eq. 4 needs the confidence of a motion field, which HPT has not.
      smooth_width: channels of G1's first layer.
      smooth_num_downsamples: how often G1 halves the size.
      smooth_blocks: residual blocks of G1.
      face_size: side of the head's square, pixels.
      face_width: channels of G2's first layer.
      face_num_downsamples: how often G2 halves the square.
      face_blocks: residual blocks of G2.
      perceptual: weights of VGG-19: "vgg19", "random" (tests) or "off".
      context_blocks: of the contextual term, see `contextual.over_layers`. `Departs from:` the text
        of Eq. 13 by default (1, the published loss): it matches features "in the global image
        context" and then only in patch blocks "at the corresponding position", of no stated size.
      normalize: by what driving poses are moved, see `psrjax.ops.pose_normalization`.
      normalize_position: likewise.
    """

    stage: str = "transfer"
    chain: tuple[str, ...] = STAGES
    pose_label: str = "hpt21"
    octaves: int = 0
    width: int = 64
    num_downsamples: int = 2
    match_blocks: int = 4
    match_kernel_size: int = 3
    sharpness: float = 100.0
    sharpness_start: float = 20.0
    sharpness_steps: int = 0
    chunk: int = 512
    warp: str = "mean"
    align_to: str = "refined"
    generator_width: int = 64
    levels: int = 5
    hidden: int = 128
    attend: bool = True
    matte: bool = False
    discriminator_width: int = 64
    discriminator_layers: int = 4
    discriminator_scales: int = 2
    gan: str = "bce"
    history: int = 2
    smooth_input: str = "generated"
    smoothing: str = "frame"
    video_ranges: tuple[int, ...] = ()
    temporal: str = "none"
    smooth_width: int = 64
    smooth_num_downsamples: int = 3
    smooth_blocks: int = 6
    face_size: int = 64
    face_width: int = 64
    face_num_downsamples: int = 3
    face_blocks: int = 5
    perceptual: str = "vgg19"
    context_blocks: int = 1
    normalize: str = "head"
    normalize_position: str = "smoothed"

    @property
    def choices(self) -> dict[str, Collection[Any]]:
        """See the attributes."""
        return {
            "stage": self.chain,
            "pose_label": pose_label.KINDS,
            "warp": correspondence.WARPS,
            "align_to": ("refined", "real"),
            "smooth_input": ("generated", "pose"),
            "smoothing": ("frame", "residual"),
            "temporal": ("none", "a", "b"),
            "perceptual": base.VGG19,
            "gan": adversarial.MODES,
            "normalize": pose_normalization.RULES,
            "normalize_position": pose_normalization.POSITIONS,
        }

    @property
    def transfer_fields(self) -> tuple[str, ...]:
        """See the base class."""
        return ("normalize", "normalize_position")

    def setup(self):
        """Builds the nets of this stage and of those before it."""
        compute: dict[str, Any] = {"dtype": self.dtype}
        common: dict[str, Any] = {**compute, "remat": self.remat}
        self.align = correspondence.Correspondence(
            width=self.width,
            num_downsamples=self.num_downsamples,
            hidden=self.hidden,
            blocks=self.match_blocks,
            kernel_size=self.match_kernel_size,
            sharpness=self.sharpness,
            sharpness_start=self.sharpness_start,
            sharpness_steps=self.sharpness_steps,
            chunk=self.chunk,
            warp=self.warp,
            **common,
        )
        self.generator = spade_generator.SpadeGenerator(
            self.generator_width,
            self.levels,
            self.hidden,
            self.attend,
            channels=3 + self.matte,
            **common,
        )
        if "temporal" in self._done:
            self.smooth = global_generator.GlobalGenerator(
                self.smooth_width,
                self.smooth_num_downsamples,
                self.smooth_blocks,
                zero_init_last=self.smoothing == "residual",
                **common,
            )
        if "face" in self._done:
            self.face = global_generator.GlobalGenerator(
                self.face_width,
                self.face_num_downsamples,
                self.face_blocks,
                zero_init_last=True,
                **common,
            )
        self._build_discriminator(compute)

    def _build_discriminator(self, compute: Mapping[str, Any]) -> None:
        """Builds the discriminator of this stage; those of earlier ones are not needed any more."""
        if self.stage == "transfer":
            self.discriminator = spectral.SpectralDiscriminator(
                self.discriminator_scales,
                self.discriminator_width,
                self.discriminator_layers,
                self.attend,
                **compute,
            )
        elif self.stage == "temporal":
            self.video_discriminator = multiscale.MultiScaleDiscriminator(
                self.discriminator_scales,
                self.discriminator_width,
                self.discriminator_layers - 1,
                **compute,
            )
            if self.video_ranges:
                self.range_discriminators = frame_ranges.FrameRangeDiscriminators(
                    self.video_ranges, width=self.discriminator_width, **compute
                )
        else:
            self.face_discriminator = patch.PatchDiscriminator(
                self.discriminator_width, strided=self.discriminator_layers - 1, **compute
            )

    @property
    def _done(self) -> tuple[str, ...]:
        """The stages up to this one."""
        return self.chain[: self.chain.index(self.stage) + 1]

    @property
    def updates(self) -> dict[str, tuple[str, ...]]:
        """The generator's update, then the discriminator's on the same fakes."""
        judges = ("video_discriminator", *("range_discriminators",) * bool(self._ranges))
        return {
            "transfer": {"generator": ("align", "generator"), "discriminator": ("discriminator",)},
            "temporal": {"generator": ("smooth",), "discriminator": judges},
            "face": {"generator": ("face",), "discriminator": ("face_discriminator",)},
        }[self.stage]

    @property
    def _ranges(self) -> tuple[int, ...]:
        return self.video_ranges if self.stage == "temporal" else ()

    @property
    def reads(self) -> tuple[str, ...]:
        """Exemplars and frames of the person, both with their joints; what variants' terms need."""
        keys = [*self.synthesis_reads, "target"]
        if self.matte and self.stage == "transfer":
            keys.append("target_mask")
        warps = self.stage == "temporal" and self.temporal != "none"
        if self._ranges or (warps and self.temporal == "b"):
            keys.append("target_flow")
        return (*keys, "target_flow_forward") if warps else tuple(keys)

    @property
    def synthesis_reads(self) -> tuple[str, ...]:
        """Of the driving clip only its joints are read; with `matte` the source's background."""
        behind = ("background",) if self.matte else ()
        return ("source", "source_joints", "target_joints", *behind)

    @property
    def pretrained(self) -> tuple[str, ...]:
        """VGG-19's weights, for the perceptual and the contextual term."""
        return base.frozen_weights("vgg19", self.perceptual)

    def __call__(self, batch: Batch) -> None:
        """Runs every net once, for initialisation."""
        made = self._generate(batch)
        self._judge(made["label"], made["picture"])
        if self._ranges:
            self._judge_ranges(made["video"], batch)

    def loss(self, update: str, batch: Batch, shared: Batch, pretrained: Batch) -> dict[str, Any]:
        """Computes this stage's share of Eq. 15 (Eq. 10 to 14, 8, or 9), or the discriminators'.

        Beside the paper's there are "warp", the error of the warped exemplar (CoCosNet has it for
        pairs of a frame with itself, "warp_self"), "reconstruction" and "feature_matching" in all
        stages (pix2pixHD's), and in `temporal` "change", the error of each frame's difference from
        the one before. Variants have "matte", "adversarial_ranges" and "flow_warp", see `matte`,
        `video_ranges` and `temporal`. Terms with weight 0 in the config are left out.
        """
        if update == "discriminator":
            return self._discriminator_loss(batch, shared)
        made = self._generate(batch)
        label, picture, truth = made["label"], made["picture"], made["truth"]
        fake, real = self._judge(label, picture), self._judge(label, truth)
        terms = {
            "adversarial": adversarial.generator_total(fake, mode=self.gan) / len(fake),
            "feature_matching": adversarial.feature_matching(real, fake) / len(fake),
            "reconstruction": jnp.abs(picture - truth).mean(),
            **made["terms"],
        }
        for name in self.pretrained:
            terms |= self._feature_terms(pretrained[name], picture, truth)
        shared = {"label": label, "picture": picture, "truth": truth}
        if self._ranges:
            judged = self._judge_ranges(made["video"], batch)
            terms["adversarial_ranges"] = adversarial.generator_total(judged, mode=self.gan)
            shared["video"] = made["video"]
        return {"terms": terms, "shared": shared, "log": made.get("log", {})}

    def _discriminator_loss(self, batch: Batch, shared: Batch) -> dict[str, Any]:
        real = self._judge(shared["label"], shared["truth"])
        fake = self._judge(shared["label"], shared["picture"])
        total = adversarial.discriminator_total(real, fake, mode=self.gan) / len(real)
        log = {"real": real[0]["logits"].mean(), "fake": fake[0]["logits"].mean()}
        terms = {"adversarial": total}
        if self._ranges:
            judged = (self._judge_ranges(x, batch) for x in (batch["target"], shared["video"]))
            terms["adversarial_ranges"] = adversarial.discriminator_total(*judged, mode=self.gan)
        return {"terms": terms, "shared": {}, "log": log}

    def _judge_ranges(self, video: Float[Array, "b t h w 3"], batch: Batch) -> dict[str, tuple]:
        return self.range_discriminators(video, batch["target_flow"], True)

    def _feature_terms(self, weights: Mapping, picture: Array, truth: Array) -> dict[str, Array]:
        """Computes Eq. 12 and 13; the later stages have pix2pixHD's perceptual term alone."""
        layers = SECONDS if self.stage == "transfer" else FIRSTS
        pictures = ((_frames_on_channels(x) + 1.0) / 2.0 for x in (picture, truth))
        ours, theirs = (vgg.features(weights, x, layers, dtype=self.dtype) for x in pictures)
        terms = {"perceptual": style.feature_distance(ours, theirs, layers)}
        if self.stage == "transfer":
            deep = ours["relu4_2"] - jax.lax.stop_gradient(theirs["relu4_2"])
            terms["perceptual_deep"] = jnp.square(deep).mean()
            terms["context"] = contextual.over_layers(
                ours, theirs, blocks=self.context_blocks, chunk=self.chunk
            )
        return terms

    def _judge(self, label: Float[Array, "b h w c"], picture: Float[Array, "b h w d"]) -> tuple:
        """Returns the answers of this stage's discriminator to labelled pictures, by scale."""
        both = jnp.concatenate([label, picture], -1)
        if self.stage == "transfer":
            return self.discriminator(both, True)
        if self.stage == "temporal":
            return self.video_discriminator(both, True)
        return (self.face_discriminator(both, True),)

    def _generate(self, batch: Batch) -> dict[str, Any]:
        """Returns this stage's "label", "picture" and "truth" of a training batch, and its "terms".

        Sequences of the stage `temporal` lie on the channels.
        """
        if self.stage == "transfer":
            return self._generate_frames(batch)
        need = self.history + 1 if "temporal" in self._done else 1
        if batch["target"].shape[1] < need:
            raise UserError(
                f"the stage {self.stage!r} trains on {need} frames in a row: set "
                f"config.overrides.{self.stage}.data.sampling.t to at least {need}"
            )
        if self.stage == "temporal":
            return self._generate_sequence(batch)
        return self._generate_faces(batch)

    def _generate_frames(self, batch: Batch) -> dict[str, Any]:
        label, truth = (
            flatten_time(self._labels(batch["target_joints"], batch)),
            flatten_time(batch["target"]),
        )
        exemplar = jnp.repeat(batch["source"][:, 0], batch["target"].shape[1], 0)
        matched = self.align(self._without_places(label), exemplar, True)
        coarse = matched["coarse"]
        made = self._paint(coarse, label, batch, True)
        picture = made["picture"]
        # r_I is constant: else G could make pictures that are easy to align instead of good ones.
        aligned = truth if self.align_to == "real" else jax.lax.stop_gradient(picture)
        found = self.align.picture_features(aligned, True)
        itself = (exemplar == truth).all((1, 2, 3)).astype(jnp.float32)
        apart = jnp.abs(coarse - truth).mean((1, 2, 3))
        terms = {
            "align": jnp.abs(matched["features"] - found).mean(),
            "warp": apart.mean(),
            "warp_self": (itself * apart).sum() / jnp.maximum(itself.sum(), 1.0),
        }
        if self.matte:
            outline = flatten_time(batch["target_mask"])
            terms["matte"] = pixel.cross_entropy(made["mask"], outline)
        cells = self._person_cells(self._sticks(batch))
        errors = [_mean_over(jnp.square(x - truth), cells) for x in (exemplar, coarse)]
        scores = match_scores(matched, cells)
        scores["match_gain"] = 10.0 * (jnp.log10(errors[0] + 1e-6) - jnp.log10(errors[1] + 1e-6))
        pairs = 1.0 - itself
        log = {k: (v * pairs).sum() / jnp.maximum(pairs.sum(), 1.0) for k, v in scores.items()}
        return {"label": label, "picture": picture, "truth": truth, "terms": terms, "log": log}

    def _generate_sequence(self, batch: Batch) -> dict[str, Any]:
        labels = self._labels(batch["target_joints"], batch)
        carry = self.start(batch)
        frames = jax.lax.stop_gradient(self._frozen_frames(labels, carry, batch)[0])
        smooth, _ = self._smooth_frames(labels, frames, carry["previous"], True)
        last = slice(-self.history - 1, None)
        label, picture, truth = (
            _on_channels(video[:, last]) for video in (labels, smooth, batch["target"])
        )
        changes = (jnp.diff(video, axis=1) for video in (smooth, batch["target"]))
        terms = {"change": jnp.abs(jnp.subtract(*changes)).mean()}
        if self.temporal != "none":
            terms["flow_warp"] = self._flow_warp(smooth, batch)
        made = {"label": label, "picture": picture, "truth": truth, "terms": terms}
        return {**made, "video": smooth}

    def _flow_warp(self, video: Float[Array, "b t h w 3"], batch: Batch) -> Float[Array, ""]:
        before = flatten_time(batch["target"][:, :-1])
        forward = flatten_time(batch["target_flow_forward"][:, 1:])
        trusted = None
        if self.temporal == "b":
            backward = flatten_time(batch["target_flow"][:, 1:])
            trusted = temporal.extrinsic_confidence(forward, backward)
        return temporal.flow_warp(flatten_time(video[:, 1:]), before, forward, trusted)

    def _generate_faces(self, batch: Batch) -> dict[str, Any]:
        labels = self._labels(batch["target_joints"], batch)
        videos, _, _ = self._frozen_steps(labels, self.start(batch), batch)
        coarse = jax.lax.stop_gradient(list(videos.values())[-1])
        corner, present = self._boxes(batch)
        crops = [
            # A frame without a head becomes a grey square on both sides, from which none can learn.
            jnp.where(present[:, None, None, None], self._crop(video, corner), 0.0)
            for video in (labels, coarse, batch["target"])
        ]
        label, face, truth = crops
        picture = face + self._face_residual(label, face, True)
        return {"label": label, "picture": picture, "truth": truth, "terms": {}}

    # ----------------------------------------------------------------------- the parts of frames

    def _labels(self, joints: Float[Array, "b t 26 3"], batch: Batch) -> Array:
        """Draws the pose labels, (b t h w c)."""
        height, width = batch["source"].shape[2:4]
        label = pose_label.draw(
            flatten_time(joints), height=height, width=width, kind=self.pose_label
        )
        where = pose_label.places(height, width, octaves=self.octaves)
        where = jnp.broadcast_to(where, (*label.shape[:-1], where.shape[-1]))
        label = jnp.concatenate([label, where], -1)
        return split_time(label, len(joints))

    def _without_places(self, label: Array) -> Array:
        return label[..., : pose_label.KINDS[self.pose_label]]

    def _sticks(self, batch: Batch) -> Array:
        """Draws the driving poses' stick figures, (n h w 3) of all frames in [0, 1]."""
        height, width = batch["source"].shape[2:4]
        joints = flatten_time(batch["target_joints"])
        return pose_label.stick_figure(joints, height=height, width=width)

    def _person_cells(self, sticks: Float[Array, "n h w 3"]) -> Float[Array, "n y x"]:
        """Returns 1 for each cell of the correspondence that the stick figure crosses, else 0."""
        side = 2**self.num_downsamples
        drawn = nn.max_pool(sticks.max(-1, keepdims=True), (side, side), (side, side))
        return (drawn[..., 0] > 0.0).astype(jnp.float32)

    def _paint(self, coarse: Array, label: Array, batch: Batch, train: bool) -> dict[str, Array]:
        """Returns G's "picture" (n h w 3) of all frames and, with `matte`, its "mask" (n h w 1)."""
        made = self.generator(jnp.concatenate([coarse, label], -1), train)
        if not self.matte:
            return {"picture": made}
        person, mask = made[..., :3], (made[..., 3:] + 1.0) / 2.0
        behind = jnp.repeat(batch["background"], len(made) // len(batch["background"]), 0)
        return {"picture": mask * person + (1.0 - mask) * behind, "mask": mask}

    def _frozen_frames(
        self, labels: Array, carry: Mapping, batch: Batch
    ) -> tuple[Array, dict[str, Array]]:
        """Returns frozen G's frames (b t h w 3), and how the carry's exemplar was matched."""
        b, t, height, width, _ = labels.shape
        flat = flatten_time(labels)
        exemplar = jax.tree.map(lambda x: jnp.repeat(x, t, 0), carry["encoded"])
        features = self.align.pose_features(self._without_places(flat), False)
        queries = self.align.encode_pose(features, False)
        matched = self.align.warp_exemplar(queries, exemplar, (height, width))
        made = self._paint(matched["coarse"], flat, batch, False)
        return split_time(made["picture"], b), matched

    def _smooth_frames(
        self, labels: Array, frames: Array, previous: Array, train: bool
    ) -> tuple[Array, Array]:
        """Runs G1 over time; also returns its last l - 1 frames, which the next window needs."""

        def step(smooth: nn.Module, previous: Array, label: Array, frame: Array) -> tuple:
            given = [label, frame] if self.smooth_input == "generated" else [label]
            made = smooth(jnp.concatenate([*given, _on_channels(previous)], -1), train)
            made = frame + made if self.smoothing == "residual" else made
            return jnp.concatenate([previous, made[:, None]], 1)[:, 1:], made

        count = labels.shape[1]
        scan = nn.scan(
            step,
            variable_broadcast="params",
            split_rngs={"params": False},
            in_axes=1,
            out_axes=1,
            unroll=count if count <= _UNROLLED else 1,
        )
        previous, made = scan(self.smooth, previous, labels, frames)
        return made, previous

    def _boxes(self, batch: Batch) -> tuple[Array, Array]:
        height, width = batch["source"].shape[2:4]
        if self.face_size > min(height, width):
            raise UserError(
                f"config.method.face_size={self.face_size} is more than frames of {height}x{width}"
            )
        joints = flatten_time(batch["target_joints"])
        return face_box.locate(joints, height=height, width=width, size=self.face_size)

    def _crop(self, video: Array, corner: Array) -> Array:
        return face_box.crop(flatten_time(video), corner, size=self.face_size)

    def _face_residual(self, label: Array, face: Array, train: bool) -> Array:
        """Computes psi_r of Eq. 9.

        `Departs from:` the paper, which pastes the square as it is: psi_r falls to 0 at its edge,
        so that no seam is left.
        """
        residual = self.face(jnp.concatenate([label, face], -1), train)
        return residual * face_box.fading(self.face_size)

    def _frozen_steps(self, labels: Array, carry: Mapping, batch: Batch) -> tuple[dict, Any, dict]:
        """Returns ({stage: video} of transfer and temporal, their carry, the matches)."""
        frames, matched = self._frozen_frames(labels, carry, batch)
        videos = {"transfer": frames}
        if "temporal" in self._done:
            smooth, previous = self._smooth_frames(labels, frames, carry["previous"], False)
            videos["temporal"], carry = smooth, {**carry, "previous": previous}
        return videos, carry, matched

    # ------------------------------------------------------------------------------- synthesis

    def start(self, batch: Batch) -> dict[str, Any]:
        """Chooses and regenerates the exemplar of a whole clip.

        It is the source frame whose pose is nearest to the first driving one, generated at its own
        pose (the first of the paper's two passes).
        """
        poses = (batch["source_joints"], batch["target_joints"][:, :1])
        picture, joints = (
            pose_label.take_nearest(batch[key], *poses) for key in ("source", "source_joints")
        )
        label = self._labels(joints, batch)
        frames, _ = self._frozen_frames(
            label, {"encoded": self.align.encode_exemplar(picture[:, 0], False)}, batch
        )
        b, _, height, width, _ = frames.shape
        return {
            "exemplar": frames[:, 0],
            "encoded": self.align.encode_exemplar(frames[:, 0], False),
            # z of Eq. 8, zeros as in Chan et al.: "the first frame" does not exist at a new pose.
            "previous": jnp.zeros((b, self.history - 1, height, width, 3)),
        }

    def synthesize(self, batch: Batch, carry: Any, intermediates: bool = False) -> tuple[dict, Any]:
        """Generates the frames of all stages up to this one; see the base class.

        Intermediates are "pose", the stick figures, "coarse", the warped exemplar, "exemplar", and
        "matches", how far each of the person's cells is from the one that it matches, in cells; and
        `match_scores` of each frame.
        """
        labels = self._labels(batch["target_joints"], batch)
        videos, carry, matched = self._frozen_steps(labels, carry, batch)
        if "face" in self._done:
            frames = list(videos.values())[-1]
            corner, present = self._boxes(batch)
            face = self._crop(frames, corner)
            residual = self._face_residual(self._crop(labels, corner), face, False)
            refined = jnp.where(present[:, None, None, None], face + residual, face)
            pasted = face_box.paste(flatten_time(frames), corner, refined)
            videos["face"] = split_time(pasted, len(frames))
        videos = {name: jnp.clip(video, -1.0, 1.0) for name, video in videos.items()}
        made = {"video": videos[self.stage], "steps": videos}
        if intermediates:
            sticks = self._sticks(batch)
            cells = self._person_cells(sticks)
            drawn = {
                "pose": sticks * 2.0 - 1.0,
                "coarse": matched["coarse"],
                "matches": _match_motion(matched["place"]) * cells[..., None],
                **match_scores(matched, cells),
            }
            drawn = {name: split_time(value, len(labels)) for name, value in drawn.items()}
            made["intermediates"] = {**drawn, "exemplar": carry["exemplar"]}
        return made, carry

    def warnings(self, numbers: Mapping[str, float]) -> tuple[str, ...]:
        """Warns of a correspondence that has collapsed to the identity."""
        stays, peak = (numbers.get(f"match_{name}", 0.0) for name in ("stays", "peak"))
        if stays < _COLLAPSED or peak < _COLLAPSED:
            return ()
        return (
            f"the correspondence has collapsed: {stays:.0%} of the person's cells match the cell "
            f"at their own place, with a mean weight of {peak:.2f}, so the exemplar is copied, "
            "not warped; lower config.method.sharpness, or train on pairs of different frames "
            "(config.data.sampling.source=disjoint)",
        )

    def fit_joints(self, driving: np.ndarray, own: np.ndarray) -> np.ndarray:
        """Fits driving joints by Eq. 1, if both clips show the same ones; see the base class.

        Raises:
          UserError: if they do not, or the driving clip never shows a head.
        """
        rule, position = self.normalize, self.normalize_position
        moved = pose_normalization.normalize(driving, own, rule=rule, position=position)
        pose_normalization.check_same_joints(driving, own)
        return moved

    def baselines(self, batch: Batch) -> dict[str, Array]:
        """Returns the source frame whose pose is nearest, for each frame."""
        poses = (batch["source_joints"], batch["target_joints"])
        return {"nearest_pose": pose_label.take_nearest(batch["source"], *poses)}


def match_scores(
    matched: Mapping[str, Array], cells: Float[Array, "n y x"]
) -> dict[str, Float[Array, " n"]]:
    """Measures a correspondence over some cells of each frame; 0 for a frame without any.

    Args:
      matched: "place" and "weight" of `Correspondence.warp_exemplar`.
      cells: 1 for those to measure.

    Returns:
      "match_stays", the share of them that match the cell at their own place, and "match_peak", the
      mean weight of the best match.
    """
    stays = (_match_motion(matched["place"]) == 0).all(-1)
    return {
        "match_stays": _mean_over(stays[..., None], cells),
        "match_peak": _mean_over(matched["weight"][..., None], cells),
    }


def _match_motion(place: Int[Array, "n y x"]) -> Float[Array, "n y x 2"]:
    """Returns how far, in cells, each cell's match lies from it: x, y."""
    height, width = place.shape[1:]
    rows, columns = jnp.divmod(place, width)
    own = jnp.mgrid[:height, :width]
    return jnp.stack([columns - own[1], rows - own[0]], -1).astype(jnp.float32)


def _mean_over(image: Shaped[Array, "n h w c"], cells: Float[Array, "n y x"]) -> Float[Array, " n"]:
    """Averages an image over its cells with 1."""
    n, height, width, _ = image.shape
    _, rows, columns = cells.shape
    means = image.reshape(n, rows, height // rows, columns, width // columns, -1).mean((2, 4, 5))
    return (means * cells).sum((1, 2)) / jnp.maximum(cells.sum((1, 2)), 1.0)


def _on_channels(video: Float[Array, "b t h w c"]) -> Float[Array, "b h w d"]:
    """Lays the frames of a sequence side by side on the channels."""
    b, t, h, w, c = video.shape
    return jnp.moveaxis(video, 1, 3).reshape(b, h, w, t * c)


def _frames_on_channels(picture: Float[Array, "b h w d"]) -> Float[Array, "n h w 3"]:
    """Inverts `_on_channels`: all frames of all sequences in one batch."""
    frames = picture.reshape(*picture.shape[:3], -1, 3)
    return jnp.moveaxis(frames, 3, 1).reshape(-1, *picture.shape[1:3], 3)
