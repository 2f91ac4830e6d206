"""D2G-Net: a person from one short video, by a learned texture and a net of dynamic details.

"Robust Pose Transfer with Dynamic Details using Neural Video Rendering" (Sun et al.). Equation
numbers are the paper's. One model belongs to one person, before a camera that stands still. Stages:
`uv` teaches the UV generator on many people (Eq. 5); `warmup` trains it, the texture and the
background on the person's clip, without dynamic details; `joint` trains all nets (Eq. 6).

`Departs from:` the paper, which has no `warmup`: details cannot be right where coordinates are not.
Without the stage `warmup` the training is the paper's.

`Departs from:` Eq. 6 in `warmup` and `joint`, where Eq. 5's terms go on, as in the repository's
scripts; weights of 0 leave them out.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.typing import DTypeLike
from jaxtyping import Array, Float, UInt8
from scipy import ndimage

from psrjax.errors import UserError
from psrjax.losses import adversarial, style, temporal
from psrjax.methods import base
from psrjax.methods.base import Batch, flatten_time, split_time
from psrjax.models import dynamic_details, uv_generator
from psrjax.nn.discriminators import multiscale
from psrjax.ops import flow, geometry, limb, pose_label, pose_normalization, texture
from psrjax.pretrained import vgg
from psrjax.vision import backgrounds

STAGES = ("uv", "warmup", "joint")
VGG_LAYERS = {f"relu{block}_1": 2.0 ** (block - 6 + (block == 5)) for block in range(1, 6)}
_PAIR = 2  # frames t - 1 and t are trained together
_LOOKED_AT = 96  # frames that the background begins from
_RIM = 0.02  # of the height, by which the person is widened where the background is wanted
_MOVING = 8.0  # of 255: mean change of the background by which a camera counts as moving


class Method(base.Method):
    """D2G-Net as a method: `uv`, `texture`, `background` and `details`, against `discriminator`.

    Attributes:
      history: frames whose poses are in the label: 3 is this one and the last two, or 1.
      skeleton: the label's stick figure: OpenPose's "body25", or "coco18", which has no feet and no
        middle hip. `Departs from:` OpenPose, which finds hands too: the contract's 26 joints have
        none.
      label3d: whether the label has the rendered features of the body's mesh too.
      uv_width: channels of the UV generator's first layer.
      uv_num_downsamples: how often it halves the size.
      uv_blocks: its residual blocks.
      uv_kernel_size: side of its heads' kernels.
      uv_skips: whether its first half's maps are added to its second half's.
      uv_factor: it sees labels this many times smaller, and its maps are enlarged: one that has
        learned bodies at 128 pixels serves 256. `Departs from:` the paper where it is above 1.
      tex_size: texels on the side of a part of the texture.
      tex_channels: of each texel; 3 is a texture of colours only ("w/o HybridTex").
      mask_tex: at synthesis the learned channels count as 0 ("MaskTex").
      d2g: D2G makes the person's "picture", a "residual" to the texture's colours, or is "off"
        ("w/o D2G"). `Departs from:` the paper where it is "residual": short trainings then keep
        what the texture has already.
      d2g_width: channels of D2G's first layer.
      d2g_max_ch: no layer of it has more.
      d2g_num_downsamples: how often it halves the size.
      d2g_blocks: its residual blocks.
      pose_cond: the pose label joins D2G in its middle ("mid"), or not ("none").
      pose_level: by what the size is divided there.
      pose_width: channels of the pose encoder's first layer.
      discriminator_width: channels of the discriminators' first layers.
      discriminator_layers: their strided layers.
      discriminator_scales: sizes at which frames are judged.
      gan: the adversarial loss, see `psrjax.losses.adversarial`: "bce" is Eq. 7 (whose 1 - log D is
        read as log(1 - D): as printed it has no bound). `Departs from:` Eq. 7 where it is
        "least_squares", as in pix2pixHD, on which the paper's nets are built.
      perceptual: weights of VGG-19: "vgg19", "random" (tests) or "off".
      retarget: what happens to driving poses: moved by the "head" (see
        `psrjax.ops.pose_normalization`), brought to the size and place of the person's "limbs" (see
        `psrjax.ops.limb.aligned`), or "none".
    """

    history: int = 3
    skeleton: str = "body25"
    label3d: bool = True
    uv_width: int = 64
    uv_num_downsamples: int = 4
    uv_blocks: int = 9
    uv_kernel_size: int = 7
    uv_skips: bool = False
    uv_factor: int = 1
    tex_size: int = 200
    tex_channels: int = 18
    mask_tex: bool = False
    d2g: str = "picture"
    d2g_width: int = 64
    d2g_max_ch: int = 1024
    d2g_num_downsamples: int = 4
    d2g_blocks: int = 9
    pose_cond: str = "mid"
    pose_level: int = 8
    pose_width: int = 32
    discriminator_width: int = 64
    discriminator_layers: int = 3
    discriminator_scales: int = 2
    gan: str = "least_squares"
    perceptual: str = "vgg19"
    retarget: str = "head"

    @property
    def choices(self) -> dict[str, Collection[Any]]:
        """See the attributes."""
        return {
            "stage": STAGES,
            "history": (1, 3),
            "skeleton": pose_label.FIGURES,
            "d2g": ("picture", "residual", "off"),
            "pose_cond": ("mid", "none"),
            "gan": adversarial.MODES,
            "perceptual": base.VGG19,
            "retarget": ("head", "limbs", "none"),
        }

    @property
    def transfer_fields(self) -> tuple[str, ...]:
        """See the base class."""
        return ("retarget",)

    def setup(self):
        """Builds the nets of this stage."""
        if self.tex_channels < 3:
            raise UserError(f"config.method.tex_channels={self.tex_channels}: three are colours")
        compute: dict[str, Any] = {"dtype": self.dtype}
        common: dict[str, Any] = {**compute, "remat": self.remat}
        self.uv = uv_generator.UVGenerator(
            self.uv_width,
            self.uv_num_downsamples,
            self.uv_blocks,
            self.uv_kernel_size,
            skips=self.uv_skips,
            **common,
        )
        if self.stage == "uv":
            return
        self.texture = dynamic_details.HybridTexture(self.tex_size, self.tex_channels)
        self.background = dynamic_details.Background()
        if self.stage != "joint":
            return
        if self.d2g != "off":
            self.details = dynamic_details.DynamicDetails(
                width=self.d2g_width,
                max_channels=self.d2g_max_ch,
                num_downsamples=self.d2g_num_downsamples,
                blocks=self.d2g_blocks,
                pose_width=self.pose_width,
                pose_level=self.pose_level if self.pose_cond == "mid" else 0,
                zero_init_last=self.d2g == "residual",
                **common,
            )
        self.discriminator = multiscale.MultiScaleDiscriminator(
            self.discriminator_scales,
            self.discriminator_width,
            self.discriminator_layers,
            **compute,
        )

    @property
    def updates(self) -> dict[str, tuple[str, ...]]:
        """The generator's update; in `joint` then the discriminator's, on the same fakes."""
        if self.stage == "uv":
            return {"generator": ("uv",)}
        drawn = ("uv", "texture", "background")
        if self.stage == "warmup":
            return {"generator": drawn}
        details = ("details",) * (self.d2g != "off")
        return {"generator": (*drawn, *details), "discriminator": ("discriminator",)}

    @property
    def reads(self) -> tuple[str, ...]:
        """Frames with poses and body parts; in `joint` the flow between them."""
        flows = ("target_flow", "target_flow_forward") if self.stage == "joint" else ()
        return (*self.synthesis_reads, "target", "target_iuv", *flows)

    @property
    def synthesis_reads(self) -> tuple[str, ...]:
        """Of the driving clip only its poses; the person's looks are in the parameters."""
        mesh = ("target_mesh_label",) if self.label3d else ()
        return ("source", "target_joints", *mesh)

    @property
    def baseline_reads(self) -> tuple[str, ...]:
        """The source frames' poses, of which the nearest is copied, and their body parts."""
        return ("source_joints", "source_iuv")

    @property
    def pretrained(self) -> tuple[str, ...]:
        """VGG-19's weights, for the perceptual terms."""
        if self.stage == "uv":
            return ()
        return base.frozen_weights("vgg19", self.perceptual)

    def __call__(self, batch: Batch) -> None:
        """Runs every net once, for initialisation."""
        labels = self._window_labels(batch)
        if self.stage == "uv":
            self._find_uv(labels[:, -1], True)
            return
        label = flatten_time(labels)
        made = self._render(label, True)
        if self.stage == "joint":
            self._judge(label, made["frame"])

    # -------------------------------------------------------------------------- initialisation

    def warm_start(self, params: Mapping, clips: Any) -> Mapping:
        """Takes the texture from unwrapped frames, and the background behind the person.

        Sec. 3.2 and 3.3.

        `Departs from:` the paper, which inpaints the background of each frame and takes the mean:
        here the median over the frames in which a pixel is not the person's, as `prepare` does it.

        Raises:
          UserError: if frames are cropped at random places, where no background stands still.
        """
        if self.stage == "uv":
            return params
        if not clips.steady:
            raise UserError(
                "config.data.crop: d2gnet learns one background for all frames, so they cannot be "
                "cropped at random: set it to the stored size, or to (0, 0)"
            )
        read = clips.frames(("target", "target_iuv"))
        unwrapped = texture.unwrap(
            ((sample["target"], sample["target_iuv"]) for sample in read), size=self.tex_size
        )
        atlas = np.zeros(params["texture"]["atlas"].shape, np.float32)
        atlas[..., :3] = _filled(unwrapped) / 255.0
        picture = _clean_background(
            clips.frames(("target", "target_iuv", "target_mask"), count=_LOOKED_AT)
        )
        picture = picture.astype(np.float32) / 127.5 - 1.0
        return {
            **params,
            "texture": {"atlas": atlas},
            "background": {"picture": picture[None]},
        }

    # -------------------------------------------------------------------------------- training

    def loss(self, update: str, batch: Batch, shared: Batch, pretrained: Batch) -> dict[str, Any]:
        """Computes this stage's share of Eq. 5 and 6, or the discriminator's side of Eq. 7."""
        if update == "discriminator":
            return self._discriminator_loss(shared)
        labels, iuv = self._window_labels(batch), batch["target_iuv"][:, -_PAIR:]
        if self.stage == "uv":
            terms = uv_terms(self._find_uv(labels[:, -1], True), iuv[:, -1])
            return {"terms": terms, "shared": {}, "log": {}}
        label, iuv = flatten_time(labels), flatten_time(iuv)
        made, truth = self._render(label, True), flatten_time(batch["target"][:, -_PAIR:])
        terms = {**uv_terms(made["uv"], iuv), "regular": jnp.square(made["raw"] - truth).mean()}
        for name in self.pretrained:
            terms["perceptual_regular"] = _perceptual(
                pretrained[name], made["raw"], truth, self.dtype
            )
        log = {"matte": made["matte"].mean()}
        if self.stage == "warmup":
            return {"terms": terms, "shared": {}, "log": log}
        frame = made["frame"]
        judged = self._judge(label, frame)
        terms |= {
            "reconstruction": jnp.square(frame - truth).mean(),
            "adversarial": adversarial.generator_total(judged, mode=self.gan),
            "temporal": _temporal(frame, batch),
        }
        for name in self.pretrained:
            terms["perceptual"] = _perceptual(pretrained[name], frame, truth, self.dtype)
        log["absolute_error"] = jnp.abs(frame - truth).mean()
        shared = {"label": label, "frame": frame, "truth": truth}
        return {"terms": terms, "shared": shared, "log": log}

    def _discriminator_loss(self, shared: Batch) -> dict[str, Any]:
        real = self._judge(shared["label"], shared["truth"])
        fake = self._judge(shared["label"], shared["frame"])
        total = adversarial.discriminator_total(real, fake, mode=self.gan)
        log = {"real": adversarial.mean_logit(real), "fake": adversarial.mean_logit(fake)}
        return {"terms": {"adversarial": total}, "shared": {}, "log": log}

    def _judge(self, label: Float[Array, "n h w c"], frame: Float[Array, "n h w 3"]) -> tuple:
        return self.discriminator(jnp.concatenate([label, frame], -1), True)

    def _window_labels(self, batch: Batch) -> Float[Array, "b 2 h w c"]:
        """Draws the labels of a training window's last two frames, history included.

        Raises:
          UserError: if the window is too short.
        """
        need = _PAIR + self.history - 1
        labels = self._labels(batch)
        if labels.shape[1] < need:
            raise UserError(
                f"d2gnet trains on two frames, with poses of {need} in a row: set "
                f"config.data.sampling.t to at least {need}"
            )
        before = labels[:, labels.shape[1] - need : -_PAIR]
        return _with_history(labels[:, -_PAIR:], before)

    def _labels(self, batch: Batch) -> Float[Array, "b t h w c"]:
        """Draws each frame's own pose: stick figure and features of the mesh, in [-1, 1]."""
        joints = batch["target_joints"]
        height, width = batch["source"].shape[2:4]
        sticks = pose_label.stick_figure(
            flatten_time(joints), height=height, width=width, figure=self.skeleton
        )
        sticks = sticks.reshape(*joints.shape[:2], height, width, 3) * 2.0 - 1.0
        if not self.label3d:
            return sticks
        return jnp.concatenate([sticks, batch["target_mesh_label"]], -1)

    def _render(self, label: Float[Array, "n h w c"], train: bool) -> dict[str, Any]:
        """Renders frames by Eq. 1 to 4.

        Returns:
          "uv": the UV generator's output; "raw": the frame of colours alone; "matte": 1 - P_0;
          "background"; and, from `joint` on, "person" and "frame". All (n h w …).
        """
        uv = self._find_uv(label, train)
        parts = jax.nn.softmax(uv["logits"])
        mapped = self.texture(uv["coordinates"], parts[..., 1:], colors_only=self._masks(train))
        # By Eq. 1 the sum has the factor 1 - P_0 already, and Eq. 3 has it again: as published.
        colors, matte = 2.0 * mapped[..., :3] - 1.0, 1.0 - parts[..., :1]
        background = self.background(*label.shape[1:3])
        behind = background * parts[..., :1]
        found = {"uv": uv, "raw": colors * matte + behind, "matte": matte, "person": colors}
        if self.stage == "joint" and self.d2g != "off":
            person = self.details(mapped, label, train)
            found["person"] = colors + person if self.d2g == "residual" else person
        found["frame"] = found["person"] * matte + behind
        return {**found, "background": jnp.broadcast_to(background, colors.shape)}

    def _find_uv(self, label: Float[Array, "n h w c"], train: bool) -> dict[str, Array]:
        """Finds parts and coordinates at the label's size; see `uv_generator.UVGenerator`."""
        if self.uv_factor == 1:
            return self.uv(label, train)
        height, width = label.shape[1:3]
        if height % self.uv_factor or width % self.uv_factor:
            raise UserError(
                f"config.method.uv_factor={self.uv_factor}: frames of {height}x{width} pixels are "
                "no multiple of it: change it or config.data.crop"
            )
        small = geometry.resize(
            label, height=height // self.uv_factor, width=width // self.uv_factor
        )
        found = self.uv(small, train)

        def enlarged(maps: Array) -> Array:
            flat = maps.reshape(*maps.shape[:3], -1)
            return geometry.resize(flat, height=height, width=width).reshape(
                len(maps), height, width, *maps.shape[3:]
            )

        return jax.tree.map(enlarged, found)

    def _masks(self, train: bool) -> bool:
        return self.mask_tex and not train

    # ------------------------------------------------------------------------------- synthesis

    def start(self, batch: Batch) -> dict[str, Array]:
        """Takes the first frame's pose for those before it."""
        labels = self._labels(batch)
        return {"labels": jnp.repeat(labels[:, :1], self.history - 1, 1)}

    def synthesize(self, batch: Batch, carry: Any, intermediates: bool = False) -> tuple[dict, Any]:
        """Generates frame by frame, passing only poses on; see the base class.

        Before `joint` the video is the raw branch's (Eq. 4), which in `joint` is a step of its own;
        in `uv` it is a picture of parts and coordinates. Intermediates are "pose", "part map" and
        "uv map", from `warmup` on also "raw", the frame without details, the "background", and the
        texture's colours as an "atlas".
        """
        labels = self._labels(batch)
        b, t = labels.shape[:2]
        label = flatten_time(_with_history(labels, carry["labels"]))
        seen = jnp.concatenate([carry["labels"], labels], 1)
        carry = {"labels": seen[:, seen.shape[1] - (self.history - 1) :]}
        if self.stage == "uv":
            made: dict[str, Any] = {"uv": self._find_uv(label, False)}
            shown: dict[str, Any] = {"video": uv_picture(made["uv"])}
        else:
            made = self._render(label, False)
            shown = {
                "video": jnp.clip(made["frame"], -1.0, 1.0),
                "mask": made["matte"],
                "foreground": jnp.clip(made["person"], -1.0, 1.0),
            }
        if intermediates:
            shown["intermediates"] = {
                "pose": label[..., :3],
                "part map": jax.nn.softmax(made["uv"]["logits"]),
                "uv map": uv_picture(made["uv"]),
            }
            if self.stage != "uv":
                shown["intermediates"]["raw"] = jnp.clip(made["raw"], -1.0, 1.0)
        shown = jax.tree.map(lambda x: split_time(x, b), shown)
        if self.stage == "joint" and self.d2g != "off":
            raw = split_time(jnp.clip(made["raw"], -1.0, 1.0), b)
            shown["steps"] = {"raw": raw, self.stage: shown["video"]}
        if intermediates and self.stage != "uv":
            background = made["background"][::t]
            shown["intermediates"] |= {"atlas": self._atlas(b), "background": background}
        return shown, carry

    def _atlas(self, count: int) -> Float[Array, "b h w 3"]:
        """Lays out the texture's colours, 4 rows of 6 parts."""
        colors = self.variables["params"]["texture"]["atlas"][..., :3]
        size = colors.shape[1]
        rows = colors.reshape(4, 6, size, size, 3).swapaxes(1, 2)
        picture = jnp.clip(rows.reshape(4 * size, 6 * size, 3), 0.0, 1.0) * 2.0 - 1.0
        return jnp.broadcast_to(picture, (count, *picture.shape))

    def fit_joints(
        self, driving: Float[np.ndarray, "t 26 3"], own: Float[np.ndarray, "s 26 3"]
    ) -> Float[np.ndarray, "t 26 3"]:
        """Fits driving joints as `retarget` says.

        Raises:
          UserError: if the two clips show different joints, or the driving one never shows a head.
        """
        pose_normalization.check_same_joints(driving, own)
        if self.retarget == "limbs":
            return limb.aligned(driving, own)
        return pose_normalization.normalize(driving, own, rule=self.retarget)

    def baselines(self, batch: Batch) -> dict[str, Array]:
        """Returns the source frame whose pose is nearest, for each frame, and an oracle.

        The oracle is a still texture, the mean of the source frames, at the true parts and
        coordinates of each frame, before the run's background: what a perfect UV generator would
        give without dynamic details.
        """
        poses = (batch["source_joints"], batch["target_joints"])
        found = {"nearest_pose": pose_label.take_nearest(batch["source"], *poses)}
        if self.stage == "uv":
            return found  # it has no background yet
        behind = self.background(*batch["source"].shape[2:4])

        def render(frames: Array, iuv: Array, true: Array) -> Array:
            atlas = texture.static_texture(frames, iuv, size=self.tex_size)
            return _at_true_coordinates(atlas, true, behind)

        still = jax.vmap(render)(batch["source"], batch["source_iuv"], batch["target_iuv"])
        return {**found, base.ORACLE + "still texture, true uv": still}


def uv_terms(
    found: Mapping[str, Array], iuv: Float[Array, "n h w 3"]
) -> dict[str, Float[Array, ""]]:
    """Computes Eq. 5: cross entropy of the parts, and the true part's coordinates' absolute error.

    The error is divided by all pixels and all parts' coordinates: the divisor is not stated, and
    this one keeps the published weight of 1000 from drowning the other terms.

    Args:
      found: see `uv_generator.UVGenerator`.
      iuv: the part 0..24 and its u, v in [0, 1].
    """
    # Sums over masks: no gather, and none of the scatters that its gradient would be.
    mine = iuv[..., :1].astype(jnp.int32) == np.arange(found["logits"].shape[-1])
    likely = jnp.where(mine, jax.nn.log_softmax(found["logits"]), 0.0).sum(-1)
    error = jnp.zeros(())
    for i in (0, 1):
        here = 2.0 * iuv[..., 1 + i, None] - 1.0
        apart = jnp.abs(found["coordinates"][..., i] - here)
        error += jnp.where(mine[..., 1:], apart, 0.0).sum()
    return {"parts": -likely.mean(), "coordinates": error / found["coordinates"].size}


def _at_true_coordinates(
    atlas: Float[Array, "p s s 4"], iuv: Float[Array, "t h w 3"], behind: Float[Array, "1 h w 3"]
) -> Float[Array, "t h w 3"]:
    """Renders a still texture (`texture.static_texture`) at given parts and coordinates."""
    parts = jax.nn.one_hot(iuv[..., 0].astype(jnp.int32) - 1, uv_generator.PARTS)
    places = jnp.broadcast_to(2.0 * iuv[..., None, 1:] - 1.0, (*parts.shape, 2))
    colors, weight = jnp.split(texture.sample_texture(atlas, places, parts), [3], -1)
    return jnp.where(weight > 0, colors / jnp.where(weight > 0, weight, 1.0), behind)


def uv_picture(found: Mapping[str, Array]) -> Float[Array, "n h w 3"]:
    """Draws I, U, V of each pixel's most likely part as red, green and blue in [-1, 1]."""
    part = found["logits"].argmax(-1)
    place = jnp.maximum(part - 1, 0)[..., None, None]
    mine = jnp.take_along_axis(found["coordinates"], place, -2)[..., 0, :]
    red = part[..., None] * (2.0 / uv_generator.PARTS) - 1.0
    return jnp.concatenate([red, jnp.where(part[..., None] > 0, mine, -1.0)], -1)


def _perceptual(
    weights: Mapping, picture: Array, truth: Array, dtype: DTypeLike
) -> Float[Array, ""]:
    """pix2pixHD's perceptual distance.

    `Departs from:` pix2pixHD, which gives VGG-19 pictures in [-1, 1], for which it was not made.
    """
    ours, theirs = (
        vgg.features(weights, (x + 1.0) / 2.0, VGG_LAYERS, dtype=dtype) for x in (picture, truth)
    )
    return style.feature_distance(ours, theirs, VGG_LAYERS)


def _temporal(frames: Float[Array, "n h w 3"], batch: Batch) -> Float[Array, ""]:
    """Compares frame t - 1, warped onto frame t, with frame t where the flow can be trusted."""
    pairs = frames.reshape(-1, _PAIR, *frames.shape[1:])
    backward, forward = (batch[key][:, -1] for key in ("target_flow", "target_flow_forward"))
    trusted = flow.agreement(backward, forward)
    return temporal.flow_warp(pairs[:, 0], pairs[:, 1], backward, trusted)


def _filled(atlas: Float[np.ndarray, "p s s 3"]) -> Float[np.ndarray, "p s s 3"]:
    """Fills each texel that no frame has shown with its part's nearest one that a frame has.

    Black ones would shine through between their neighbours.
    """
    empty = (atlas == 0).all(-1)
    nearest = [
        np.asarray(ndimage.distance_transform_edt(one, return_distances=False, return_indices=True))
        for one in empty
    ]
    return np.stack([part[rows, columns] for part, (rows, columns) in zip(atlas, nearest)])


def _clean_background(samples: Iterable[Mapping[str, np.ndarray]]) -> UInt8[np.ndarray, "h w 3"]:
    """Finds the background behind the person; warns where it does not stand still."""
    found = list(samples)
    frames, iuv, mask = (
        np.concatenate([sample[key] for sample in found])
        for key in ("target", "target_iuv", "target_mask")
    )
    person = (mask[..., 0] > 32) | (iuv[..., 0] > 0)
    covered = backgrounds.grow(person, max(1.0, _RIM * frames.shape[1]))
    background = backgrounds.clean_background(frames, covered)["background"]
    change = np.abs(frames.astype(np.float32) - background)[~covered].mean()
    if change > _MOVING:
        logging.warning(
            "the background changes by %.0f of 255 from frame to frame: the camera moves, or the "
            "light does. d2gnet learns one still picture of it, which will be blurred; the person "
            "is learned all the same: film from a tripod, or give another --background",
            change,
        )
    return background


def _with_history(
    labels: Float[Array, "b t h w c"], before: Float[Array, "b n h w c"]
) -> Float[Array, "b t h w d"]:
    """Lays the labels of the n frames before each frame beside its own, the nearest first."""
    n, t = before.shape[1], labels.shape[1]
    whole = jnp.concatenate([before, labels], 1)
    return jnp.concatenate([whole[:, n - back : n - back + t] for back in range(n + 1)], -1)
