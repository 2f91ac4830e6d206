"""HPT: single-person pose transfer by cross-domain correspondence.

    psrjax train --config=configs/hpt.py:VARIANT --workdir=DIR --config.data.path=PREPARED

One model belongs to one person's clip. Three stages, trained in order: transfer, temporal, face
(Algorithm 1). VARIANT is a comma-separated list of presets, stages and ablations, applied in order.
Presets:

  (none)      the paper's losses at 256x256: Eq. 15's weights are ours, the paper gives none (nor
              optimizers, batch or steps: CoCosNet's and "Everybody Dance Now"'s). Needs VGG-19's
              weights and a prepared clip with joints. Cost: 90 000 steps, not run. The paper's
              Table 1, full: SSIM .835, IS 3.364, FID 27.682, LPIPS .035, on data of its own.
  ccn         CoCosNet's own losses and optimizer: hinge, feature matching, L1 of the warp.
  demo        one person of the synthetic dataset at 48x48 on 2 CPU cores: narrow nets, no VGG-19.
  show        128x128 and wider nets, over the clean background (matte), the first half of each
              stage at 64x64 (`grow`): 40 minutes on one CPU core. A juggler's last seconds, SSIM /
              PSNR: .872 / 21.47, the nearest pose's frame .779 / 18.15.
  tiny        as demo at 32x32, as small as it goes: all stages in about three minutes.
  bf16        bfloat16 products.
  transfer …  only these stages.

Ablations, by their labels in the paper's Table 1 (SSIM / IS / FID / LPIPS):

  w/o L_ts (.827 / 3.326 / 30.914 / .038), w/o L_face (.814 / 3.371 / 32.257 / .042),
  w/o L_D (.796 / 3.143 / 34.104 / .053), w/o L_rec (.810 / 3.407 / 29.836 / .044),
  w/o L_per (.803 / 3.125 / 33.471 / .051), w/o L_context (.787 / 3.168 / 31.535 / .047)

and further ones:

  octaves (the pose label also says where a pixel is), ccn20 (CoCosNet's pose label), warp_patch,
  align_real, align_refined (Eq. 10 as printed, which `demo` leaves), smooth_pose (Eq. 8 as printed:
  G1 does not see G's frame), context_blocks (Eq. 13 as its text says: features are matched within
  patch blocks), matte (G makes the person and his outline, over the clip's clean background),
  random_perceptual, w/o perceptual; of other systems, in the stage temporal: D_V (MFCI's
  discriminators of 3, 5 and 7 frames) and D_V^3, temporal=a and temporal=b (INTERnet's Eq. 2 and 3:
  each frame, warped back along the flow, is like the one before)
"""

from psrjax.config import (
    RunConfig,
    apply_variant,
    base,
    in_stage,
    linear_decay,
    stage_weights,
    update,
)

DEMO = {"minutes": 22}  # of `psrjax demo --method=hpt`: processor time, on one core

STAGES = ("transfer", "temporal", "face")


def _stages(*names: str) -> dict:
    return {"stages": names, "method.chain": names}


def _steps(**counts: int) -> dict:
    """So many steps of each stage; rates are constant for half of them, then fall to 0."""
    found = {}
    for stage, count in counts.items():
        decay = linear_decay(count, "generator", "discriminator", start=count // 2)
        found |= in_stage(stage, decay)
    return found


# Without VGG-19's weights an L1 term stands in for its features in the later stages.
_NO_VGG = {
    "method.perceptual": "off",
    **stage_weights("transfer", perceptual=0.0, perceptual_deep=0.0, context=0.0),
    **stage_weights("temporal", perceptual=0.0, feature_matching=1.0, reconstruction=20.0),
    **stage_weights("face", perceptual=0.0, reconstruction=20.0),
}
# Two terms of ours, which the paper's presets weigh 0: "warp", the L1 error of the warped exemplar
# for every pair, teaches the matching of poses directly; "change", that of what changes from frame
# to frame, stands in for long training of the discriminator of sequences. G1 is trained on 8 frames
# in a row: on 3 it hardly meets its own frames.
# The correspondence must have something to find: cells of 2x2 pixels, a softmax that begins soft
# enough to have gradients beside its peak, and exemplars of other times. Else it becomes the
# identity.
# `Departs from:` Eq. 10 in align_to (word `align_refined`): the real picture is one pair with its
# pose from the first step on, the refined one only when G is good.
_DEMO = {
    **_NO_VGG,
    **stage_weights("transfer", reconstruction=40.0, warp=10.0, adversarial=0.2),
    **stage_weights("temporal", adversarial=0.2, change=60.0),
    "overrides.temporal.data.sampling.t": 8,
    **stage_weights("face", adversarial=0.2),
    "method.octaves": 4,
    "method.width": 8,
    "method.num_downsamples": 1,
    "method.match_blocks": 2,
    "method.sharpness": 80.0,
    "method.sharpness_steps": 1000,
    "method.warp": "patch",
    "method.align_to": "real",
    "method.generator_width": 12,
    "method.levels": 3,
    "method.hidden": 16,
    "method.discriminator_width": 8,
    "method.discriminator_layers": 3,
    "method.smoothing": "residual",
    "method.smooth_width": 12,
    "method.smooth_num_downsamples": 1,
    "method.smooth_blocks": 2,
    "method.face_size": 16,  # VGG-19 halves it four times
    "method.face_width": 16,
    "method.face_num_downsamples": 1,
    "method.face_blocks": 3,
    "data.synthetic": {"kind": "long", "size": (48, 48)},
    "data.crop": (48, 48),
    "data.sampling.source": "disjoint",
    "batch": 4,
    "checkpoint_steps": 250,
    "log_steps": 25,
    "overrides.transfer.optimizer.generator.learning_rate": 1e-3,
    "overrides.transfer.optimizer.generator.b1": 0.5,
    "overrides.transfer.optimizer.generator.b2": 0.999,
    "overrides.transfer.optimizer.discriminator.learning_rate": 4e-4,
    "overrides.temporal.optimizer.generator.learning_rate": 1e-3,
    "overrides.face.optimizer.generator.learning_rate": 1e-3,
    **_steps(transfer=1200, temporal=300, face=300),
}

_MATTE = {"method.matte": True, **stage_weights("transfer", matte=10.0)}


def _ranges(*frames: int) -> dict:
    """MFCI's discriminators, on windows of as many frames as MFCI's."""
    return {
        "method.video_ranges": frames,
        "overrides.temporal.data.sampling.t": 8,
        **stage_weights("temporal", adversarial_ranges=0.2),
        **stage_weights("temporal", "discriminator", adversarial_ranges=1.0),
    }


def _flow_warp(scheme: str) -> dict:
    return {"method.temporal": scheme, **stage_weights("temporal", flow_warp=10.0)}


PRESETS = {
    "paper": {},
    "ccn": {
        "method.gan": "hinge",
        "method.align_to": "real",
        **stage_weights(
            "transfer",
            reconstruction=0.0,
            perceptual_deep=1e-3,
            context=10.0,
            feature_matching=10.0,
            warp_self=100.0,
        ),
        # Where gradients are smaller than this, Adam's step follows the scale of the losses.
        "overrides.transfer.optimizer.generator.eps": 1e-3,
    },
    "demo": _DEMO,
    "show": {
        **_DEMO,
        "method.width": 12,
        "method.generator_width": 16,
        "method.levels": 4,
        "method.hidden": 24,
        "method.discriminator_width": 16,
        "method.discriminator_layers": 4,
        "method.smooth_width": 16,
        "method.smooth_num_downsamples": 2,
        "method.smooth_blocks": 3,
        "method.face_size": 32,
        "method.face_num_downsamples": 2,
        "data.synthetic": {"kind": "long", "size": (128, 128)},
        "data.crop": (128, 128),
        "batch": 2,
        "overrides.temporal.batch": 1,
        "ema": 0.998,
        "grow": 0.5,
        "checkpoint_steps": 100,
        # Minutes are for the person: in two hours without it the room was still blurred.
        **_MATTE,
        **_steps(transfer=1000, temporal=160, face=120),
    },
    "tiny": {
        **_DEMO,
        "method.width": 4,
        "method.match_blocks": 1,
        "method.generator_width": 4,
        "method.attend": False,
        "method.levels": 2,
        "method.hidden": 8,
        "method.discriminator_width": 4,
        "method.discriminator_layers": 2,
        "method.smooth_width": 4,
        "method.smooth_num_downsamples": 1,
        "method.smooth_blocks": 1,
        "method.face_width": 4,
        "method.face_blocks": 1,
        "overrides.temporal.data.sampling.t": 3,
        "data.synthetic": {"kind": "long", "size": (32, 32), "frames": 96},
        "data.crop": (32, 32),
        "batch": 2,
        "checkpoint_steps": 30,
        "log_steps": 5,
        **_steps(transfer=60, temporal=30, face=30),
    },
}

ABLATIONS = {
    "w/o L_ts": _stages("transfer", "face"),
    "w/o L_face": _stages("transfer", "temporal"),
    "w/o L_D": stage_weights("transfer", align=0.0),
    "w/o L_rec": stage_weights("transfer", reconstruction=0.0),
    "w/o L_per": stage_weights("transfer", perceptual=0.0),
    "w/o L_context": stage_weights("transfer", context=0.0),
    "octaves": {"method.octaves": 4},
    "ccn20": {"method.pose_label": "ccn20"},
    "warp_patch": {"method.warp": "patch"},
    "align_real": {"method.align_to": "real"},
    "align_refined": {"method.align_to": "refined"},
    "smooth_pose": {"method.smooth_input": "pose"},
    "context_blocks": {"method.context_blocks": 4},
    "matte": _MATTE,
    "D_V": _ranges(3, 5, 7),
    "D_V^3": _ranges(3),
    "temporal=a": _flow_warp("a"),
    "temporal=b": _flow_warp("b"),
    "random_perceptual": {  # with the weights that presets without VGG-19 have set to 0
        "method.perceptual": "random",
        **stage_weights("transfer", perceptual=10.0, context=1.0),
        **stage_weights("temporal", perceptual=10.0),
        **stage_weights("face", perceptual=10.0),
    },
    "w/o perceptual": _NO_VGG,
}

_COCOSNET = {"name": "adam", "learning_rate": 1e-4, "b1": 0.0, "b2": 0.9}
_DANCE = {"name": "adam", "learning_rate": 2e-4, "b1": 0.5, "b2": 0.999}


def get_config(variant: str = "") -> RunConfig:
    """Returns the config of a variant, see above."""
    config = update(
        base("hpt"),
        {
            **_stages(*STAGES),
            "data.eval_split": "train",  # its frames held back
            "data.crop": (256, 256),
            "data.sampling.source": "random",
            "data.sampling.held_back": 0.2,
            "data.sampling.k_evaluation": 64,
            "batch": 4,
            "log_steps": 100,
            "weights.generator.adversarial": 1.0,
            "weights.discriminator.adversarial": 2.0,  # not halved
            # psi_1 to psi_4 and the adversarial term, of which Eq. 15 forgot the weight
            **stage_weights(
                "transfer",
                align=10.0,
                reconstruction=10.0,
                perceptual=10.0,
                perceptual_deep=0.0,
                context=1.0,
                adversarial=10.0,
                feature_matching=0.0,
                warp=0.0,
                warp_self=0.0,
            ),
            # psi_5 and psi_6 are 1; the other terms keep the content, which Eq. 8 has none of
            **stage_weights(
                "temporal", feature_matching=10.0, perceptual=10.0, reconstruction=0.0, change=0.0
            ),
            **stage_weights("face", feature_matching=0.0, perceptual=10.0, reconstruction=0.0),
            "overrides.temporal.data.sampling.t": 3,
            "overrides.face.data.sampling.t": 3,
            "optimizer.generator": _DANCE,
            "optimizer.discriminator": _DANCE,
            "overrides.transfer.optimizer.generator": _COCOSNET,
            "overrides.transfer.optimizer.discriminator": {**_COCOSNET, "learning_rate": 4e-4},
            **_steps(transfer=50_000, temporal=20_000, face=20_000),
        },
    )
    return apply_variant(config, variant, presets=PRESETS, ablations=ABLATIONS)
