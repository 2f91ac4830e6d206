"""INTERnet: first-order motion with intrinsic temporal regularization.

    psrjax train --config=configs/internet.py:VARIANT --workdir=DIR

VARIANT is a comma-separated list of presets and ablations, applied in order. Presets:

  (none)      the paper's numbers: 512x512, motion at 128x128, 10 key points, batch 16, RAdam 2e-4
              with drops after epochs 60 and 90 of 100. Needs VGG-19's weights and a stored set of
              512x512 clips with optical flow (config.data.path). Cost: 24-36 h on 8 V100, not run.
              The paper's Table 2 (MS-SSIM / FID / LPIPS): SS4x-a .879 / 87.7 / .098, SS4x-b .911 /
              74.4 / .079, SS4x-c .919 / 73.9 / .075, MS-b .951 / 41.8 / .041, MS-c .960 / 36.5 /
              .035.
  demo        the synthetic dataset at 64x48 on 2 CPU cores: narrow nets, no VGG-19. On four new
              people's whole clips, from frame 0: PSNR 22.26, SSIM .710, temporal error .742 (the
              copied source: 20.87, .710, .736; warmup alone, twice as long: 22.34, .743, .925).
              18 minutes on one core.
  show        128x128, twice the people and wider nets, at first at 64x64 (`grow`): two hours on one
              CPU core. Two real men's last frames, SSIM / PSNR: .797 / 21.41, the copied source
              .790 / 18.84.
  tiny        as demo, smaller and shorter: minutes, for tests. On four new people's whole clips,
              PSNR of the frame and of the person in two runs of one seed, apart by rounding:
              after warmup 22.68, 16.33 and 21.40, 16.50; after joint 22.02, 15.74 and 22.09, 16.07
              (the copied source: 22.11, 14.94).
  bf16        bfloat16 products.

Ablations of Table 2, by their labels (generator, and scheme a, b or c of the temporal loss):

  SS4x-a, SS4x-b, SS4x-c, MS-a, MS-b, MS-c (default), FoM (the first-order model's own losses,
  sampling and optimizer)

Of tiny's new people after 600 steps, means of three seeds (SSIM / temporal error): SS4x-a .658 /
.497, SS4x-b .655 / .500, SS4x-c .631 / .475, MS-b .732 / .658, MS-c .699 / .605. Further ablations:

  w/o L_reg, mask_grid=warped, gan=bce (Eq. 8's logarithms), random_perceptual, w/o perceptual,
  instance_norm,
  quick (demo's and tiny's departures, without which a thousand steps teach no motion: local maps
  near their points, and before the paper's stage "joint" another, "warmup", in which points are
  drawn to what moves, confidence is kept open, and the warped source stays where it is trusted)

Stages: joint, the paper's training; with quick warmup before it. Without VGG-19 ("demo", "tiny",
"w/o perceptual") L1 between pictures, at their size, a half and a quarter of it, and the
discriminators' features stand in for it.
"""

from psrjax.config import RunConfig, apply_variant, base, in_stage, update

DEMO = {"minutes": 18}  # of `psrjax demo --method=internet`, processor time on one core

_EPOCH = 500 * 50 // 16  # steps: 500 videos, each 50 times, as the first-order model repeats them

# Upright pictures, as people are: a quarter of the room less.
_SYNTHETIC = {"kind": "many", "size": (64, 48), "people_train": 16, "people_test": 4, "frames": 100}
# Departs from: source = first frame, driving frame at least 2 s away. Synthetic clips are short:
# that would leave a few driving frames of each. Any two frames of a clip make many more pairs.
_ANY_TWO = {"data.sampling.source": "disjoint", "data.sampling.gap_seconds": 0.4}

# Departs from: the papers, where a field that starts from nothing learns in tens of thousands of
# steps. In a stage of its own before the paper's, key points are drawn to what moves, and a
# generator that knows nothing yet leaves the source as it is. See the fields' own descriptions.
_WARMUP = {
    "method.keeps_source": True,
    "method.points_on_motion": True,
    "weights.generator.points_moving": 1.0,
    "weights.generator.points_apart": 0.5,
    "weights.generator.generated": 2.0,  # or it never learns: the warped source is soon the better
    # Eq. 4 is least where the confidence is 0 everywhere, and Eq. 6 does not stand firm against
    # that: norms behind the gates undo common factors (mean 0.13 after 600 steps from nothing).
    # -log M is in balance with the temporal term at M = 0.3 / (10 error): 1 where frames fit to
    # 0.03.
    "weights.generator.confidence_prior": 0.3,
}
# The stage "joint" behind it is Eq. 1 and Eq. 6 alone. Key points go on moving what is near them:
# what a net has learned beside that would fall apart without it.
_QUICK = {
    "stages": ("warmup", "joint"),
    "method.locality": 20.0,
    "method.points_padding": 3,
    **in_stage("warmup", _WARMUP),
}

# A difference of blurred pictures tells which way to move also where nothing overlaps yet.
_NO_VGG = {
    "method.perceptual": "off",
    "method.perceptual_factors": (1, 2, 4),
    "weights.generator.reconstruction": 10.0,
    "weights.generator.feature_matching": 0.3,  # of features that are learned here at least
}


def _drops(*milestones: int) -> dict:
    """The steps at which both learning rates drop."""
    return {f"optimizer.{each}.milestones": milestones for each in ("generator", "discriminator")}


_DEMO = {
    **_NO_VGG,
    **_ANY_TWO,
    **_QUICK,
    # People of 64x64 pictures are 14 pixels wide: motion at a quarter of that could not tell limbs.
    "method.factor": 2,
    "method.levels": 1,
    "method.points": 10,
    "method.points_width": 16,
    "method.motion_width": 16,
    "method.depth": 3,
    "method.max_channels": 128,
    "method.width": 16,
    "method.blocks": 3,
    "method.discriminator_width": 16,
    "method.discriminator_layers": 2,
    "method.discriminator_scales": 2,
    "weights.generator.adversarial": 0.02,
    "data.synthetic": _SYNTHETIC,
    "data.crop": (64, 48),
    "data.flip": 0.5,
    "batch": 8,
    "steps": 1200,
    "checkpoint_steps": 500,
    "log_steps": 50,
    # Departs from: RAdam, which with b2 = .999 spends its first 2000 steps warming up.
    "optimizer.generator.name": "adam",
    "optimizer.discriminator.name": "adam",
    "optimizer.generator.learning_rate": 5e-4,
    **_drops(850, 1100),
    **in_stage("warmup", {"steps": 600, **_drops(600)}),
}

PRESETS = {
    "paper": {},
    "demo": _DEMO,
    "show": {
        **_DEMO,
        "method.points_width": 24,
        "method.motion_width": 24,
        "method.depth": 4,
        "method.max_channels": 256,
        "method.width": 24,
        "method.blocks": 4,
        "method.discriminator_width": 24,
        "method.discriminator_layers": 3,
        "data.synthetic": {**_SYNTHETIC, "size": (128, 128), "people_train": 32},
        "data.crop": (128, 128),
        "batch": 4,
        "ema": 0.998,
        "grow": 0.5,
        "overrides.joint.grow": 2 / 3,
        "steps": 2700,
        "checkpoint_steps": 100,
        **_drops(2200, 2600),
        **in_stage("warmup", {"steps": 1800, **_drops(1800)}),
    },
    "tiny": {
        **_DEMO,
        "method.jacobians": "none",  # fewer ways to tear the background while little is learnt
        "method.points": 8,
        "method.points_width": 8,
        "method.motion_width": 8,
        "method.max_channels": 32,
        "method.width": 8,
        "method.blocks": 1,
        "method.discriminator_width": 8,
        "method.discriminator_scales": 1,
        "data.synthetic": {**_SYNTHETIC, "frames": 40},
        "batch": 4,
        "steps": 600,
        "optimizer.generator.learning_rate": 1e-3,
        **_drops(400, 550),
    },
}

# The first-order model's own sampling: any two frames of a clip in either order, which is what its
# flips in time leave of a pair, and another hue.
_FOM = {
    "data.sampling.source": "disjoint",
    "data.sampling.gap_seconds": 0.0,
    "data.hue": 0.1,
    "method.generator_kind": "ss4x",
    "method.temporal": "none",
    "method.blocks": 6,
    "method.discriminator_kind": "valid",
    "method.discriminator_width": 32,
    "method.discriminator_layers": 4,
    "method.perceptual_factors": (1, 2, 4, 8),
    "weights.generator.feature_matching": 10.0,
    "weights.generator.style": 0.0,
    "weights.discriminator.adversarial": 2.0,  # the official loss is not halved
    "optimizer.generator.name": "adam",
    "optimizer.discriminator.name": "adam",
}

ABLATIONS = {
    **{
        f"{label}-{scheme}": {"method.generator_kind": generator, "method.temporal": scheme}
        for label, generator in (("SS4x", "ss4x"), ("MS", "ms"))
        for scheme in "abc"
    },
    "FoM": _FOM,
    "w/o L_reg": {"method.temporal": "none"},
    "mask_grid=warped": {"method.mask_grid": "warped"},
    "gan=bce": {"method.gan": "bce"},
    "random_perceptual": {  # at the pictures' own size: VGG-19 halves them four times
        "method.perceptual": "random",
        "method.perceptual_factors": (1,),
    },
    "w/o perceptual": _NO_VGG,
    "instance_norm": {"method.norm": "instance"},
    "quick": _QUICK,
}

_RADAM = {
    "name": "radam",
    "learning_rate": 2e-4,
    "b1": 0.5,
    "b2": 0.999,
    "schedule": "milestones",
    "milestones": (60 * _EPOCH, 90 * _EPOCH),
    "factor": 0.1,
}


def get_config(variant: str = "") -> RunConfig:
    """Returns the config of a variant, see above."""
    config = update(
        base("internet"),
        {
            "stages": ("joint",),
            "data.crop": (512, 512),
            "data.flip": 0.5,
            "data.sampling.source": "first",
            "data.sampling.t": 2,
            "data.sampling.gap_seconds": 2.0,  # in training; all frames but the first are scored
            "batch": 16,
            "steps": 100 * _EPOCH,
            "checkpoint_steps": _EPOCH,
            "log_steps": 100,
            "weights.generator": {
                "adversarial": 1.0,
                "feature_matching": 0.0,
                "reconstruction": 0.0,  # not the paper's: stands in for VGG-19 where there is none
                "generated": 0.0,  # likewise, of what the generator makes by itself
                "perceptual": 10.0,
                "style": 250.0,
                "equivariance_value": 10.0,
                "equivariance_jacobian": 10.0,
                "points_moving": 0.0,  # with method.points_on_motion
                "points_apart": 0.0,
                "temporal": 10.0,
                "confidence_prior": 0.0,  # above 0 it keeps Eq. 4 from switching itself off
            },
            "weights.discriminator.adversarial": 1.0,
            "optimizer": {"generator": _RADAM, "discriminator": _RADAM},
        },
    )
    return apply_variant(config, variant, presets=PRESETS, ablations=ABLATIONS)
