"""MFCI: a person in another's motion, from several frames, with attention over these.

Cheng, Huang, Yuan, Zhou, Liu: "Multi-Frame Content Integration with a Spatio-Temporal Attention
Mechanism for Person Video Motion Transfer". Equation numbers are the paper's. The stage `single`
trains the single-frame model (Balakrishnan et al. 2018), a system of its own; in `joint` it is
frozen, and what it finds in K source frames is integrated. `content` before `single` is optional
and ours: the single-frame model by content losses, before its discriminator is there.
"""

import functools
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from psrjax.errors import UserError
from psrjax.losses import adversarial, pixel, style
from psrjax.methods import base
from psrjax.methods.base import Batch, flatten_time
from psrjax.models import integration, posewarp
from psrjax.nn.discriminators import frame_ranges
from psrjax.ops import limb, pose_label, pose_normalization
from psrjax.pretrained import vgg

STAGES = ("content", "single", "joint")
_LAYERS = ("foreground", "background")
VGG_LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")


class Method(base.Method):
    """MFCI as a method: nets `single` and `integrate`, against three discriminators.

    `discriminator` is the opponent of `single`, `image_discriminator` (D_I) and
    `video_discriminator` (D_V) those of `integrate`.

    Attributes:
      fusion: how K maps become one, see `integration.Fusion`.
      sources: K; the fusions with residual blocks can do with no other number.
      ranges: n of the temporal discriminators D_V^n (Eq. 2); () is none.
      frame_discriminator: whether D_I (Eq. 1) judges frames.
      discriminator_kind: "res6" or "patch", see `frame_ranges`.
      discriminator_width: channels of every discriminator's first layer.
      discriminator_layers: strided layers of the "patch" discriminators.
      width: C, channels of the features.
      num_downsamples: of the single-frame model's U-Nets.
      blocks: residual blocks of the fusion.
      attention_stride: see `integration.Fusion`.
      chunk: likewise.
      perceptual: weights of VGG-19: "vgg19", "random" (tests) or "off".
      kernels: "scaled": the scores of source frames begin small, so that fusion begins as almost
        the average, and the kernels of the "res6" discriminators keep the size of what they see.
        `Departs from:` the paper, which is silent: see `frame_ranges`. "default": as every other
        layer begins.
      init_from: the last layers of `joint` begin "fresh" or as those of the "single" model.
        `Departs from:` the paper, which is silent, where it is "single": the first steps then
        improve on the single-frame model instead of learning it anew.
      matte: whether the footage's outlines and clean backgrounds teach M and O_bg too. `Departs
        from:` the paper, which sees their composition only: where a person hardly moves from his
        place, the background branch may then generate him too, and in transfer he stays as a ghost.
      align: in transfer, driving poses are brought to the source person's size and place by "torso"
        (see `limb.aligned`). `Departs from:` the paper, which is silent: people of other sizes
        would change theirs. "none" leaves the poses as they are.
    """

    stage: str = "joint"
    fusion: str = "rb6_sa2d"
    sources: int = 4
    ranges: tuple[int, ...] = (3, 5, 7)
    frame_discriminator: bool = True
    discriminator_kind: str = "res6"
    discriminator_width: int = 64
    discriminator_layers: int = 3
    width: int = 64
    num_downsamples: int = 5
    blocks: int = 6
    attention_stride: int = 8
    chunk: int = 512
    kernels: str = "scaled"
    perceptual: str = "vgg19"
    init_from: str = "fresh"
    matte: bool = False
    align: str = "torso"

    @property
    def choices(self) -> dict[str, Collection[Any]]:
        """See the attributes."""
        return {
            "stage": STAGES,
            "fusion": integration.FUSIONS,
            "discriminator_kind": frame_ranges.KINDS,
            "kernels": ("scaled", "default"),
            "perceptual": base.VGG19,
            "init_from": ("fresh", "single"),
            "align": ("torso", "none"),
        }

    @property
    def transfer_fields(self) -> tuple[str, ...]:
        """See the base class."""
        return ("align",)

    def setup(self):
        """Builds the nets of this stage, and the single-frame model."""
        common: dict[str, Any] = {"dtype": self.dtype}
        scaled = self.kernels == "scaled"
        self.single = posewarp.PoseWarp(self.width, self.num_downsamples, **common)
        if self.stage == "single":
            self.discriminator = posewarp.PairDiscriminator(
                self.discriminator_width, self.num_downsamples, **common
            )
        if self.stage != "joint":
            return
        self.integrate = integration.Integration(
            self.fusion,
            self.blocks,
            self.attention_stride,
            self.chunk,
            small_scores=scaled,
            remat=self.remat,
            **common,
        )
        judge: dict[str, Any] = {**common, "strided": self.discriminator_layers, "scaled": scaled}
        if self.frame_discriminator:
            self.image_discriminator = frame_ranges.make_discriminator(
                self.discriminator_kind,
                self.discriminator_width,
                name="image_discriminator",
                **judge,
            )
        if self.ranges:
            self.video_discriminator = frame_ranges.FrameRangeDiscriminators(
                self.ranges, self.discriminator_kind, self.discriminator_width, **judge
            )

    @property
    def _discriminators(self) -> tuple[str, ...]:
        if self.stage != "joint":
            return ("discriminator",) * (self.stage == "single")
        return ("image_discriminator",) * self.frame_discriminator + (
            "video_discriminator",
        ) * bool(self.ranges)

    @property
    def updates(self) -> dict[str, tuple[str, ...]]:
        """The generator's update, then its discriminators' where the stage has some."""
        generator = ("integrate",) if self.stage == "joint" else ("single",)
        discriminators = {"discriminator": self._discriminators} if self._discriminators else {}
        return {"generator": generator, **discriminators}

    @property
    def reads(self) -> tuple[str, ...]:
        """Frames, joints, the flow that the temporal discriminators see, and what `matte` needs."""
        flow = ("target_flow",) if "video_discriminator" in self._discriminators else ()
        matte = ("target_mask", "background") if self.matte else ()
        return ("source", "target", "source_joints", "target_joints", *flow, *matte)

    @property
    def synthesis_reads(self) -> tuple[str, ...]:
        """Of the target only its poses."""
        return ("source", "source_joints", "target_joints")

    @property
    def pretrained(self) -> tuple[str, ...]:
        """VGG-19's weights, for the perceptual term."""
        return base.frozen_weights("vgg19", self.perceptual)

    def __call__(self, batch: Batch) -> None:
        """Runs every net once, for initialisation: the single-frame model's last layers too."""
        if self.stage == "joint":
            joints = batch["source_joints"][:, 0]
            self.single(batch["source"][:, 0], joints, batch["target_joints"])
        self._judge(self._made(batch, train=True)["video"], batch)

    def init_from_previous(self, variables: Mapping) -> Mapping:
        """See `init_from`."""
        if self.stage != "joint" or self.init_from == "fresh":
            return variables
        nets = variables["params"]
        begun = {**nets["integrate"], "heads": nets["single"]["heads"]}
        return {**variables, "params": {**nets, "integrate": begun}}

    # -------------------------------------------------------------------------------- training

    def loss(self, update: str, batch: Batch, shared: Batch, pretrained: Batch) -> dict[str, Any]:
        """Computes Eq. 3, or the discriminators' side of Eq. 1 and 2.

        `Departs from:` Eq. 1 and 2 as printed, whose labels contradict each other: least squares
        with 1 for real and 0 for fake. Sums over frames and windows are means, so that the weights
        keep their meaning for windows of any length.
        """
        if update == "generator":
            return self._generator_loss(batch, pretrained)
        real, fake = (self._judge(video, batch) for video in (batch["target"], shared["video"]))
        terms, log = {}, {}
        for name in real:
            terms[f"adversarial_{name}"] = adversarial.discriminator_total(
                real[name], fake[name], mode=self._gan
            )
            for label, judged in (("real", real), ("fake", fake)):
                log[f"{name}_{label}"] = adversarial.mean_logit(judged[name])
        return {"terms": terms, "shared": {}, "log": log}

    @property
    def _gan(self) -> str:
        """The single-frame model's own, or the paper's."""
        return "least_squares" if self.stage == "joint" else "bce"

    def _generator_loss(self, batch: Batch, pretrained: Mapping) -> dict[str, Any]:
        made, target = self._made(batch, train=True), batch["target"]
        video = made["video"]
        terms = {"mse": jnp.square(video - target).mean(), "perceptual": jnp.zeros(())}
        for name in self.pretrained:
            ours, theirs = (
                vgg.features(
                    pretrained[name],
                    (flatten_time(x) + 1.0) / 2.0,
                    VGG_LAYERS,
                    dtype=self.dtype,
                )
                for x in (video, target)
            )
            terms["perceptual"] = style.feature_distance(ours, theirs)
        if self.matte:
            terms |= matte_terms(made, batch)
        for name, judged in self._judge(video, batch).items():
            terms[f"adversarial_{name}"] = adversarial.generator_total(judged, mode=self._gan)
        log = {"absolute_error": jnp.abs(video - target).mean(), "mask": made["mask"].mean()}
        return {"terms": terms, "shared": {"video": video}, "log": log}

    def _judge(self, video: Float[Array, "b t h w 3"], batch: Batch) -> dict[str, Any]:
        """Returns {"image", "video": the answers of its discriminators} in this stage."""
        h, w = video.shape[2:4]
        judged = {}
        if "discriminator" in self._discriminators:
            maps = limb.joint_maps(batch["target_joints"], height=h // 2, width=w // 2)
            source = limb.joint_maps(batch["source_joints"][:, :1], height=h // 2, width=w // 2)
            maps = jnp.concatenate([jnp.broadcast_to(source, maps.shape), maps], -1)
            judged["image"] = (
                {"logits": self.discriminator(flatten_time(video), flatten_time(maps))},
            )
        if "image_discriminator" in self._discriminators:
            maps = limb.joint_maps(batch["target_joints"], height=h, width=w)
            judged["image"] = self.image_discriminator(
                flatten_time(jnp.concatenate([video, maps], -1)), True
            )
        if "video_discriminator" in self._discriminators:
            judged["video"] = self.video_discriminator(video, batch["target_flow"], True)
        return judged

    def _made(self, batch: Batch, *, train: bool) -> dict[str, Array]:
        encoded = self._encode(batch)
        return self._integrated(encoded, batch["target_joints"], train)

    def _encode(self, batch: Batch) -> dict[str, Array]:
        """Computes what depends on the source frames alone; before `joint`, on the first one."""
        source, joints = batch["source"], batch["source_joints"]
        if self.stage != "joint":
            source, joints = source[:, :1], joints[:, :1]
        elif source.shape[1] < self.sources or (
            source.shape[1] != self.sources and self.fusion not in integration.ANY_NUMBER
        ):
            raise UserError(
                f"mfci ({self.fusion}) integrates {self.sources} source frames, "
                f"{source.shape[1]} were given: name footage with as many frames, or set "
                "config.data.sampling.k and config.method.sources and train again"
            )
        return {**self.single.encode(source, joints), "joints": joints, "behind_joints": joints}

    def _integrated(
        self, encoded: Mapping, target_joints: Float[Array, "b t 26 3"], train: bool
    ) -> dict[str, Array]:
        """Returns "video", "mask", "foreground", "background", in `joint` also sources' weights."""
        ahead, behind = self._features(encoded, target_joints)
        if self.stage != "joint":
            return jax.tree.map(lambda x: x[:, :, 0], self._alone(encoded, target_joints))
        maps = functools.partial(limb.joint_maps, height=ahead.shape[3], width=ahead.shape[4])
        return self.integrate(
            ahead,
            behind,
            maps(encoded["joints"]),
            maps(encoded["behind_joints"]),
            maps(target_joints),
            train,
        )

    def _features(
        self, encoded: Mapping, target_joints: Float[Array, "b t 26 3"]
    ) -> tuple[Float[Array, "b t k h w c"], Float[Array, "b 1 k h w c"]]:
        """Returns F_fg of every target pose from every source frame, and F_bg of every frame."""
        ahead = self.single.foreground_features(dict(encoded), encoded["joints"], target_joints)
        return ahead, encoded["features"][:, None]

    def _alone(
        self, encoded: Mapping, target_joints: Float[Array, "b t 26 3"]
    ) -> dict[str, Float[Array, "b t k h w c"]]:
        """Returns what the single-frame model makes of each source frame alone (Fig. 7)."""
        ahead, behind = self._features(encoded, target_joints)
        b, t, k = ahead.shape[:3]
        pairs = (x.reshape(b, t * k, *x.shape[3:]) for x in jnp.broadcast_arrays(ahead, behind))
        made = self.single.heads(*pairs)
        return {name: value.reshape(b, t, k, *value.shape[2:]) for name, value in made.items()}

    # ------------------------------------------------------------------------------- synthesis

    def fit_joints(
        self, driving: Float[np.ndarray, "t 26 3"], own: Float[np.ndarray, "s 26 3"]
    ) -> Float[np.ndarray, "t 26 3"]:
        """Fits driving joints as `align` says.

        Raises:
          UserError: if the source footage shows no joint, or the driving one never shows a joint
            that the source does: it was annotated with another joint set.
        """
        if not (own[..., 2] > 0).any():
            raise UserError(
                "the source footage has no valid joint in any of its frames: annotate it "
                "(psrjax prepare), or take footage that shows the whole person"
            )
        pose_normalization.check_same_joints(driving, own)
        if self.align == "none":
            return driving
        return limb.aligned(driving, own)

    def start(self, batch: Batch) -> dict[str, Any]:
        """Finds limbs and background features of the source frames, once for all target frames."""
        return self._encode(batch)

    def synthesize(self, batch: Batch, carry: Any, intermediates: bool = False) -> tuple[dict, Any]:
        """Generates frame by frame, passing nothing on; see the base class.

        "foreground" is the person without what stands behind, for another background.
        Intermediates are it and the "background"; in `joint` also, as in Fig. 7, what the
        single-frame model makes of each source frame alone, and what each gives to either.
        """
        made = self._integrated(carry, batch["target_joints"], False)
        shown: dict[str, Any] = {name: made[name] for name in ("video", "mask", "foreground")}
        if intermediates:
            shown["intermediates"] = {name: made[name] for name in _LAYERS}
        if intermediates and self.stage == "joint":
            alone = self._alone(carry, batch["target_joints"])
            for name in _LAYERS:
                shown["intermediates"][f"{name} alone"] = alone[name]
                shown["intermediates"][f"{name} from"] = made[f"{name}_weights"][..., None]
        return shown, carry

    def replace_background(self, carry: Any, behind: Any) -> Any:
        """Takes the features of the background branch from other footage (4.3)."""
        taken = {"features": behind["features"], "behind_joints": behind["joints"]}
        return {**carry, **taken}

    def baselines(self, batch: Batch) -> dict[str, Array]:
        """Returns the source frame whose pose is nearest, for each frame; and the first one."""
        poses = (batch["source_joints"], batch["target_joints"])
        nearest = pose_label.take_nearest(batch["source"], *poses)
        return {
            "copy_source": jnp.broadcast_to(batch["source"][:, :1], nearest.shape),
            "nearest_pose": nearest,
        }


def matte_terms(made: Mapping, batch: Batch) -> dict[str, Array]:
    """Computes the terms of `Method.matte`.

    Args:
      made: "mask" (b t h w 1) in [0, 1] and "background" (b t h w 3) in [-1, 1].
      batch: "target_mask" (b t h w 1) and the clean "background" (b h w 3).

    Returns:
      {"matte": cross-entropy of M; "background": squared error of O_bg, behind the person too}.
    """
    clean = batch["background"][:, None]
    return {
        "matte": pixel.cross_entropy(made["mask"], batch["target_mask"]),
        "background": jnp.square(made["background"] - clean).mean(),
    }
