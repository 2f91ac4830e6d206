"""INTERnet: a person's picture, animated by another video through a first-order motion field.

Yang, Gao, Ren, Ma, Gao: "Intrinsic Temporal Regularization for High-resolution Human Video
Synthesis".
Equation numbers are the paper's. Inside, pictures are in [0, 1] and coordinates are those of
`psrjax.ops.local_affine`; the batch and the videos are the contract's. The driving video is
`target`: in training the frames to be reproduced, in synthesis anybody's.
"""

from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from psrjax.errors import UserError
from psrjax.losses import adversarial, landmarks, style, temporal
from psrjax.methods import base
from psrjax.methods.base import Batch, flatten_time, split_time
from psrjax.models import motion, motion_generator
from psrjax.nn.discriminators import multiscale
from psrjax.ops import local_affine, thin_plate
from psrjax.pretrained import vgg

GRAM_LAYERS = ("relu2_2", "relu3_4", "relu4_4", "relu5_2")


class Method(base.Method):
    """INTERnet as a method: nets `keypoints`, `motion`, `generator` against `discriminator`.

    Attributes:
      generator_kind: "ms" or "ss4x" (Table 2), see `motion_generator.MotionGenerator`.
      temporal: Table 2's a (flow warp, Eq. 2), b (extrinsic confidence, Eq. 3), c (intrinsic, Eq.
        4), or "none".
      mask_grid: Eq. 4's confidence lives on frame t, its residual on t-1: "literal" multiplies them
        as printed, "warped" brings the confidence along with the frame.
      relative: in synthesis, the source's key points move as the driving ones have moved since
        their first frame, instead of taking their places.
      relative_scale: of these movements.
      points: the number of key points.
      points_width: channels of the detector's hourglass.
      points_padding: of the detector's heads.
      jacobians: see `motion.KeypointDetector`.
      temperature: likewise.
      locality: of the dense motion, see `motion.DenseMotion`.
      align_corners: likewise, and of the generator; what the official code means depends on the
        PyTorch that runs it, see `psrjax convert --help`.
      keeps_source: whether the picture is, where the confidence is high, the warped source itself:
        see `motion_generator.keep_source`.
      points_on_motion: whether the terms "points_moving" and "points_apart" are given, for which
        the driving frame's flow is read: see `psrjax.losses.landmarks`.
      motion_width: channels of the dense motion's hourglass.
      variance: of the Gaussians around key points.
      depth: of both hourglasses.
      max_channels: no layer of the hourglasses has more channels.
      factor: the motion is estimated on pictures this many times smaller.
      width: channels of the generator's finest scale.
      levels: how often the generator halves the size; factor is 2 to this power.
      generator_max_channels: no layer of the generator has more channels.
      blocks: residual blocks of the generator.
      discriminator_kind: "multiscale" (Eq. 8) or the first-order model's "valid".
      gan: the adversarial loss, see `psrjax.losses.adversarial`. `Departs from:` Eq. 8, which
        prints logarithms ("bce") and cites pix2pixHD for them, whose loss is least squares.
      discriminator_width: channels of the discriminators' first layers.
      discriminator_layers: strided layers, or those of the valid discriminator.
      discriminator_scales: N_D of Eq. 8.
      discriminator_max_channels: of the valid discriminator.
      discriminator_spectral: of the valid discriminator.
      discriminator_sees_points: whether the valid discriminator is given maps of the driving key
        points.
      perceptual: weights of VGG-19: "vgg19", "random" (tests) or "off".
      perceptual_factors: the pictures are compared at their size divided by each of these, by the
        perceptual term and by the plain one.
      style: see `psrjax.losses.style.style_distance`.
      norm: of all nets but the discriminator: "batch" or "instance".
    """

    generator_kind: str = "ms"
    temporal: str = "c"
    mask_grid: str = "literal"
    relative: bool = False
    relative_scale: float = 1.0
    points: int = 10
    points_width: int = 32
    points_padding: int = 0
    jacobians: str = "each"
    temperature: float = 0.1
    locality: float = 0.0
    align_corners: bool = True
    keeps_source: bool = False
    points_on_motion: bool = False
    motion_width: int = 64
    variance: float = 0.01
    depth: int = 5
    max_channels: int = 1024
    factor: int = 4
    width: int = 64
    levels: int = 2
    generator_max_channels: int = 512
    blocks: int = 9
    discriminator_kind: str = "multiscale"
    gan: str = "least_squares"
    discriminator_width: int = 64
    discriminator_layers: int = 3
    discriminator_scales: int = 3
    discriminator_max_channels: int = 512
    discriminator_spectral: bool = False
    discriminator_sees_points: bool = False
    perceptual: str = "vgg19"
    perceptual_factors: tuple[int, ...] = (1,)
    style: str = "l1gram"
    norm: str = "batch"

    @property
    def choices(self) -> dict[str, Collection[Any]]:
        """See the attributes."""
        return {
            "stage": ("warmup", "joint"),
            "generator_kind": motion_generator.GENERATORS,
            "temporal": ("none", "a", "b", "c"),
            "mask_grid": ("literal", "warped"),
            "discriminator_kind": ("multiscale", "valid"),
            "gan": adversarial.MODES,
            "perceptual": base.VGG19,
            "jacobians": ("each", "one", "none"),
            "style": style.STYLES,
        }

    @property
    def transfer_fields(self) -> tuple[str, ...]:
        """See the base class."""
        return ("relative",)

    def setup(self):
        """Builds the four nets."""
        compute: dict[str, Any] = {"dtype": self.dtype}
        common: dict[str, Any] = {**compute, "norm": self.norm, "remat": self.remat}
        hourglass: dict[str, Any] = {
            "depth": self.depth,
            "max_channels": self.max_channels,
            "factor": self.factor,
        }
        self.keypoints = motion.KeypointDetector(
            points=self.points,
            width=self.points_width,
            temperature=self.temperature,
            jacobians=self.jacobians,
            padding=self.points_padding,
            **hourglass,
            **common,
        )
        # Not `motion`, which is the module: its parameters stand under "motion" all the same.
        self.field = motion.DenseMotion(
            width=self.motion_width,
            variance=self.variance,
            locality=self.locality,
            align_corners=self.align_corners,
            **hourglass,
            **common,
            name="motion",
        )
        self.generator = motion_generator.MotionGenerator(
            generator_kind=self.generator_kind,
            width=self.width,
            levels=self.levels,
            max_channels=self.generator_max_channels,
            blocks=self.blocks,
            align_corners=self.align_corners,
            **common,
        )
        if self.discriminator_kind == "valid":
            self.discriminator = multiscale.ValidDiscriminator(
                width=self.discriminator_width,
                depth=self.discriminator_layers,
                max_channels=self.discriminator_max_channels,
                spectral=self.discriminator_spectral,
                **compute,
            )
        else:
            self.discriminator = multiscale.MultiScaleDiscriminator(
                scales=self.discriminator_scales,
                width=self.discriminator_width,
                strided=self.discriminator_layers,
                **compute,
            )

    @property
    def updates(self) -> dict[str, tuple[str, ...]]:
        """The generator's update with both parts of the motion, then the discriminator's."""
        return {
            "generator": ("keypoints", "motion", "generator"),
            "discriminator": ("discriminator",),
        }

    @property
    def reads(self) -> tuple[str, ...]:
        """The source, the driving frames, and the flow that the temporal loss takes."""
        keys = ["source", "target"]
        if self.temporal != "none" or self.points_on_motion:
            keys.append("target_flow_forward")
        return (*keys, "target_flow") if self.temporal == "b" else tuple(keys)

    @property
    def synthesis_reads(self) -> tuple[str, ...]:
        """The source and the driving frames: flow is for training only."""
        return ("source", "target")

    @property
    def intermediate_reads(self) -> tuple[str, ...]:
        """The optical flow of the driving frames, both ways."""
        return ("target_flow_forward", "target_flow")

    @property
    def pretrained(self) -> tuple[str, ...]:
        """VGG-19's weights, for the perceptual and the style term."""
        return base.frozen_weights("vgg19", self.perceptual)

    def __call__(self, batch: Batch) -> None:
        """Runs every net once, for initialisation."""
        made = self._reconstruct(batch)
        self._judge(made["picture"], made["driving_points"]["value"])

    def _reconstruct(self, batch: Batch) -> dict[str, Any]:
        """Generates the last target frame from the source, in train mode."""
        source, driving = _unit_range(batch["source"][:, 0]), _unit_range(batch["target"][:, -1])
        source_points = self.keypoints(source, True)
        driving_points = self.keypoints(driving, True)
        moved = self.field(source, source_points, _with_time(driving_points), True)
        made = self._generate(source, self.generator.encode(source, True), moved, True)
        return {
            "picture": made["picture"][:, 0],
            "generated": made["generated"][:, 0],
            "driving": driving,
            "driving_points": driving_points,
            "motion": moved,
        }

    def _generate(
        self, source: Array, features: Any, moved: Mapping[str, Array], train: bool
    ) -> dict[str, Array]:
        """Returns the "picture" (b t h w 3) in [0, 1], and what of it is "generated"."""
        field = {name: moved[name] for name in ("deformation", "confidence")}
        picture = generated = self.generator.decode(features, **field, train=train)
        if self.keeps_source:
            picture = motion_generator.keep_source(generated, source, **field, levels=self.levels)
        return {"picture": picture, "generated": generated}

    def loss(self, update: str, batch: Batch, shared: Batch, pretrained: Batch) -> dict[str, Any]:
        """Computes Eq. 1 with Eq. 7 and the equivariance of key points, or the other side's."""
        if update == "generator":
            return self._generator_loss(batch, pretrained)
        real = self._judge(_unit_range(batch["target"][:, -1]), shared["points"])
        fake = self._judge(shared["picture"], shared["points"])
        total = adversarial.discriminator_total(real, fake, mode=self.gan)
        log = {"real": real[0]["logits"].mean(), "fake": fake[0]["logits"].mean()}
        return {"terms": {"adversarial": total}, "shared": {}, "log": log}

    def _generator_loss(self, batch: Batch, pretrained: Mapping) -> dict[str, Any]:
        if batch["target"].shape[1] < 2:
            raise UserError(
                "INTERnet trains on a driving frame and the one before it: set "
                "config.data.sampling.t to 2"
            )
        made = self._reconstruct(batch)
        picture, driving = made["picture"], made["driving"]
        points = made["driving_points"]
        real = self._judge(driving, points["value"])
        fake = self._judge(picture, points["value"])
        terms = {
            "adversarial": adversarial.generator_total(fake, mode=self.gan),
            "feature_matching": adversarial.feature_matching(real, fake),
            "reconstruction": self._difference(picture, driving),
            "generated": self._difference(made["generated"], driving),
        }
        terms |= self._feature_terms(picture, driving, pretrained)
        terms |= self._equivariance_terms(driving, points)
        if self.points_on_motion:
            flow = batch["target_flow_forward"][:, -1]
            terms["points_moving"] = landmarks.moving(points["heat"], flow)
            terms["points_apart"] = landmarks.apart(points["value"])
        confidence = made["motion"]["confidence"]
        terms["temporal"] = self._temporal_term(batch, picture, confidence[:, 0])
        terms["confidence_prior"] = -jnp.log(confidence + 1e-8).mean()
        size = jnp.abs(local_affine.determinant(points["jacobian"]))
        log = {
            "confidence_mean": confidence.mean(),
            "points_spread": points["value"].std(0).mean(),
            "determinant_mean": size.mean(),
            "determinant_least": size.min(),
            "background_share": made["motion"]["weights"][..., 0].mean(),
        }
        made = {"picture": picture, "points": points["value"]}
        return {"terms": terms, "shared": made, "log": log}

    def _difference(self, picture: Array, truth: Array) -> Float[Array, ""]:
        """Sums the L1 distances at each size."""
        gap = picture - truth
        sizes = (local_affine.downsample(gap, factor) for factor in self.perceptual_factors)
        return sum((jnp.abs(each).mean() for each in sizes), jnp.zeros(()))

    def _feature_terms(self, picture: Array, driving: Array, pretrained: Mapping) -> dict:
        """Eq. 9 and 10; constant 0 where there is no VGG-19."""
        terms = {"perceptual": jnp.zeros(()), "style": jnp.zeros(())}
        for name in self.pretrained:
            weights = pretrained[name]
            for factor in self.perceptual_factors:
                layers = vgg.FIRSTS + (GRAM_LAYERS if factor == 1 else ())
                ours, theirs = (
                    vgg.features(
                        weights, local_affine.downsample(image, factor), layers, dtype=self.dtype
                    )
                    for image in (picture, driving)
                )
                chosen = {layer: ours[layer] for layer in vgg.FIRSTS}
                terms["perceptual"] += style.feature_distance(chosen, theirs)
                if factor == 1:
                    chosen = {tap: ours[tap] for tap in GRAM_LAYERS}
                    terms["style"] += style.style_distance(chosen, theirs, kind=self.style)
        return terms

    def _equivariance_terms(self, driving: Array, points: Mapping[str, Array]) -> dict:
        transform = thin_plate.sample(self.make_rng("noise"), driving.shape[0])
        moved = self.keypoints(thin_plate.warp(transform, driving), True)
        found = temporal.equivariance(points, moved, transform)
        return {f"equivariance_{name}": value for name, value in found.items()}

    def _temporal_term(
        self, batch: Batch, picture: Float[Array, "b h w 3"], base: Float[Array, "b h w 1"]
    ) -> Float[Array, ""]:
        """Eq. 2, 3 or 4; Eq. 4's gradient also reaches the confidence."""
        if self.temporal == "none":
            return jnp.zeros(())
        previous, forward = _unit_range(batch["target"][:, -2]), batch["target_flow_forward"][:, -1]
        confidence = None
        if self.temporal == "b":
            backward = batch["target_flow"][:, -1]
            confidence = temporal.extrinsic_confidence(forward, backward)
        elif self.temporal == "c":
            confidence = motion.pyramid(base[:, None], levels=self.levels)[-1][:, 0]
        warped = self.mask_grid == "warped" and self.temporal == "c"
        return temporal.flow_warp(picture, previous, forward, confidence, confidence_moves=warped)

    def _judge(self, picture: Array, points: Float[Array, "b j 2"]) -> tuple[dict, ...]:
        if self.discriminator_sees_points:
            height, width = picture.shape[1:3]
            maps = local_affine.gaussians(
                jax.lax.stop_gradient(points), height=height, width=width, variance=self.variance
            )
            picture = jnp.concatenate([picture, maps], -1)
        return self.discriminator(picture, True)

    def start(self, batch: Batch) -> dict[str, Any]:
        """Finds the source's features and key points, and those of the first driving frame."""
        source = _unit_range(batch["source"][:, 0])
        return {
            "source": source,
            "features": self.generator.encode(source, False),
            "points": self.keypoints(source, False),
            "first": self.keypoints(_unit_range(batch["target"][:, 0]), False),
        }

    def synthesize(self, batch: Batch, carry: Any, intermediates: bool = False) -> tuple[dict, Any]:
        """Gives the source's looks each target frame's pose, frame by frame; see the base class.

        Intermediates are, at the motion's size, "confidence" (b t h w 1), the "weights" (b t h w p)
        of the local motions, background first, their "flow" (b t h w 2) to the source in its
        pixels, and "source_points" (b j 2) and "points" (b t j 2) in unit coordinates. Where the
        driving frames' optical flow is known, also what Fig. 3 shows, "optical_flow" (b t h w 2)
        and "occlusion" (b t h w 1), Eq. 3's mask: 1 where the flow can be trusted.
        """
        height, width = batch["target"].shape[2:4]
        driving = self._driving_points(batch)
        if self.relative:
            driving = local_affine.relative(
                carry["points"], driving, carry["first"], scale=self.relative_scale
            )
        moved = self.field(carry["source"], carry["points"], driving, False)
        picture = self._generate(carry["source"], carry["features"], moved, False)["picture"]
        made: dict[str, Any] = {"video": picture * 2.0 - 1.0}
        if intermediates:
            h, w = moved["deformation"].shape[2:4]
            shift = moved["deformation"] - local_affine.corner_grid(h, w)
            size = {"height": height, "width": width}
            made["intermediates"] = {
                "confidence": moved["confidence"],
                "weights": moved["weights"],
                "flow": shift * (jnp.asarray((w, h), jnp.float32) - 1.0) / 2.0,
                "source_points": local_affine.corners_to_unit(carry["points"]["value"], **size),
                "points": local_affine.corners_to_unit(driving["value"], **size),
            }
            if batch.keys() >= set(self.intermediate_reads):
                made["intermediates"] |= _occlusion(batch)
        return made, carry

    def poses(self, batch: Batch) -> Float[Array, "b t j 2"]:
        """Returns the key points of the target frames, in unit coordinates."""
        height, width = batch["target"].shape[2:4]
        found = self._driving_points(batch)["value"]
        return local_affine.corners_to_unit(found, height=height, width=width)

    def _driving_points(self, batch: Batch) -> dict[str, Array]:
        found = self.keypoints(flatten_time(_unit_range(batch["target"])), False)
        return {name: split_time(value, len(batch["target"])) for name, value in found.items()}

    def baselines(self, batch: Batch) -> dict[str, Array]:
        """Returns the source frame, unmoved."""
        return {"copy_source": jnp.broadcast_to(batch["source"][:, :1], batch["target"].shape)}


def _unit_range(video: Array) -> Array:
    """[-1, 1] to [0, 1]."""
    return (video + 1.0) / 2.0


def _occlusion(batch: Batch) -> dict[str, Array]:
    """The flow to each frame from the one before; a window's first frame shows its second's."""
    t = batch["target"].shape[1]
    shown = np.minimum(np.maximum(np.arange(t), 1), t - 1)
    forward, backward = (batch[key][:, shown] for key in ("target_flow_forward", "target_flow"))
    trusted = temporal.extrinsic_confidence(flatten_time(forward), flatten_time(backward))
    return {"optical_flow": forward, "occlusion": split_time(trusted, len(forward))}


def _with_time(points: Mapping[str, Array]) -> dict[str, Array]:
    return {name: value[:, None] for name, value in points.items()}
