"""D2G-Net: a person from one short video, by a learned texture and a net of dynamic details.

    psrjax train --config=configs/d2gnet.py:VARIANT --workdir=DIR --config.data.path=PREPARED

One model belongs to one person's clip, filmed by a camera that stands still. Three stages, trained
in order: uv (the UV generator, on many people: rendered ones in demo, show and tiny; others as
--config.overrides.uv.data.path=OTHERS; without, the person's own clip serves), warmup (UV
generator, texture and background, without dynamic details; ours: "w/o warmup" is the paper's),
joint (all nets). Its inputs come from `psrjax prepare --body`. A run that has learned uv can start
others: "w/o uv" with --config.init.path=RUN --config.init.stage=uv. VARIANT is a comma-separated
list of presets, stages and ablations, applied in order. Presets:

  (none)      the published numbers at 512x512, and ours where there are none: the supplement, with
              loss weights and rates, is not available. Needs VGG-19's weights and a
              prepared clip with joints, body parts (iuv), flow and mesh labels. Cost: 60 000 steps
              of 4 frames at 512x512, not run. The paper's Table 1: SSIM .933, PSNR 37.44, R-SSIM
              .930, R-PSNR 36.99, temporal .41, FID 53.49, on data of its own.
  script      the temporal weight of the repository's training script (500), and the five residual
              blocks of its pre-training script.
  light       narrower nets: two residual blocks and 512 channels in D2G, for small data and CPUs.
  demo        one person of the synthetic dataset, in clothes that fold, at 64x48 on 2 CPU cores:
              narrow nets, no VGG-19. 22 minutes on one core. On frames held back, SSIM /
              PSNR, three seeds: full .947 / 30.6, the nearest pose's frame .825 / 24.1, the oracle
              of `evaluate` .945 / 30.6; see docs/results.md.
  show        128x128 and wider nets: half an hour on one CPU core. One's own clip from
              docs/checkpoints/d2gnet-uv.safetensors, as "show,warmup": two minutes. A juggler's
              last seconds, SSIM / PSNR: .849 / 21.8, the nearest pose's frame .779 / 18.1.
  show256     as show at 256x256, where the UV generator goes on seeing labels of 128x128. One's own
              clip from the same file, as "show256,warmup": four minutes. The juggler: .860 / 21.5,
              the nearest pose's frame .807 / 17.9.
  tiny        as demo at 32x32, as small as it goes: all stages in less than three minutes.
  bf16        bfloat16 products.
  uv …        only these stages.

Ablations, by their labels in the paper's Table 2 (SSIM / PSNR):

  w/o D2G (.913 / 36.35), w/o HybridTex (.921 / 36.87), w/o Pose cond (.918 / 36.62), MaskTex (a
  figure only; at synthesis, on the full model's run: evaluate --method.mask_tex=True)

of the supplement: w/o regular, w/o temporal, w/o history; and further ones:

  w/o label3d (no mesh features), w/o uv (no pre-training), w/o warmup, paper_strict (Eq. 6 alone:
  no UV terms in the later stages), residual (D2G adds to the texture's colours), random_perceptual,
  w/o perceptual
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

DEMO = {"minutes": 22}  # processor time: 17 to train and score (8edf381), about 5 to render

STAGES = ("uv", "warmup", "joint")


def _steps(**counts: int) -> dict:
    """So many steps of each stage; rates are constant for half of them, then fall to 0."""
    found = {}
    for stage, count in counts.items():
        updates = ("generator", "discriminator") if stage == "joint" else ("generator",)
        found |= in_stage(stage, linear_decay(count, *updates, start=count // 2))
    return found


def _rate(rate: float, **stages: float) -> dict:
    return {
        f"overrides.{stage}.optimizer.generator.learning_rate": stages.get(stage, rate)
        for stage in STAGES
    }


_NO_VGG = {
    "method.perceptual": "off",
    **stage_weights("warmup", perceptual_regular=0.0),
    **stage_weights("joint", perceptual_regular=0.0, perceptual=0.0),
}
_LIGHT = {"method.d2g_blocks": 2, "method.d2g_max_ch": 512}
_STREAMS = ("frames", "mask", "iuv", "joints", "flow", "flow_forward", "mesh_label")
_LONG = {"kind": "long", "size": (64, 48), "frames": 1000, "folds": 1.0, "streams": _STREAMS}
_MANY = {**_LONG, "kind": "many", "people_train": 144, "people_test": 0, "frames": 64}
_DEMO = {
    **_NO_VGG,
    **stage_weights("uv", coordinates=2000.0),
    **stage_weights("joint", adversarial=0.1),
    "method.d2g": "residual",
    "method.uv_width": 16,
    "method.uv_skips": True,
    "method.uv_num_downsamples": 2,
    "method.uv_blocks": 3,
    "method.uv_kernel_size": 3,
    "method.tex_size": 16,
    "method.d2g_width": 12,
    "method.d2g_num_downsamples": 2,
    "method.d2g_blocks": 2,
    "method.pose_level": 4,
    "method.pose_width": 8,
    "method.discriminator_width": 12,
    "method.discriminator_layers": 2,
    "data.synthetic": _LONG,
    "data.crop": (64, 48),
    "data.sampling.held_back": 0.2,
    "overrides.uv.data.path": "synthetic",  # many people, whoever the other stages learn
    "overrides.uv.data.synthetic": _MANY,
    "overrides.uv.batch": 4,
    "batch": 2,
    "checkpoint_steps": 250,
    "log_steps": 50,
    **_rate(1e-3, uv=2e-3),
    **{
        f"overrides.{stage}.optimizer.generator.nets.{net}.learning_rate": rate
        for stage in ("warmup", "joint")
        for net, rate in (
            ("texture", 5e-3),  # as fast as colours must change that no frame has shown well
            ("uv", 1e-4),  # slowly: what many people taught serves poses that this one never took
        )
    },
    **_steps(uv=6000, warmup=200, joint=2000),
}

_SHOW = {
    **_DEMO,
    "method.uv_width": 24,
    "method.uv_num_downsamples": 3,
    "method.tex_size": 32,
    "method.d2g_width": 24,
    "method.d2g_num_downsamples": 3,
    "method.d2g_blocks": 3,
    "method.pose_level": 8,
    "method.pose_width": 16,
    "method.discriminator_width": 16,
    "method.discriminator_layers": 3,
    "data.synthetic": {**_LONG, "size": (128, 128)},
    "data.crop": (128, 128),
    "overrides.uv.data.synthetic": {**_MANY, "size": (128, 128), "people_train": 96},
    # Ten times as fast, texels leave the range of colours and stand out as specks.
    "overrides.joint.optimizer.generator.nets.texture.learning_rate": 5e-4,
    "ema": 0.998,
    "checkpoint_steps": 100,
    # A UV generator that rendered people have taught for longer fits a real one worse.
    **_steps(uv=1200, warmup=150, joint=1500),
}

PRESETS = {
    "paper": {},
    "script": {
        "method.uv_blocks": 5,
        **stage_weights("joint", temporal=500.0),
    },
    "light": _LIGHT,
    "demo": _DEMO,
    "show": _SHOW,
    # The UV generator goes on seeing 128x128: what was learned there need not be learned again.
    "show256": {
        **_SHOW,
        "method.uv_factor": 2,
        "overrides.uv.method.uv_factor": 1,
        "method.tex_size": 48,
        "data.synthetic": {**_LONG, "size": (256, 256)},
        "data.crop": (256, 256),
        "overrides.uv.data.crop": (128, 128),
    },
    "tiny": {
        **_DEMO,
        "method.uv_width": 8,
        "method.uv_blocks": 1,
        "method.tex_size": 16,
        "method.d2g_width": 8,
        "method.d2g_blocks": 1,
        "method.pose_width": 4,
        "method.discriminator_width": 4,
        "data.synthetic": {**_LONG, "size": (32, 32), "frames": 96},
        "data.crop": (32, 32),
        "overrides.uv.data.synthetic": {**_MANY, "size": (32, 32), "people_train": 3, "frames": 48},
        "checkpoint_steps": 40,
        "log_steps": 10,
        **_steps(uv=80, warmup=40, joint=80),
    },
}

ABLATIONS = {
    "w/o D2G": {
        "method.d2g": "off",
        # The frame is then the raw branch's, which the regular terms compare already.
        **stage_weights("joint", reconstruction=0.0, perceptual=0.0),
    },
    "w/o HybridTex": {"method.tex_channels": 3},
    "w/o Pose cond": {"method.pose_cond": "none"},
    "MaskTex": {"method.mask_tex": True},
    "w/o regular": stage_weights("joint", regular=0.0, perceptual_regular=0.0),
    "w/o temporal": stage_weights("joint", temporal=0.0),
    "w/o history": {"method.history": 1},
    "w/o label3d": {"method.label3d": False},
    "w/o uv": {"stages": ("warmup", "joint")},
    "w/o warmup": {"stages": ("uv", "joint")},
    "paper_strict": {
        **stage_weights("warmup", parts=0.0, coordinates=0.0),
        **stage_weights("joint", parts=0.0, coordinates=0.0),
    },
    "residual": {"method.d2g": "residual"},
    "random_perceptual": {  # with the weights that presets without VGG-19 have set to 0
        "method.perceptual": "random",
        **stage_weights("warmup", perceptual_regular=10.0),
        **stage_weights("joint", perceptual_regular=10.0, perceptual=10.0),
    },
    "w/o perceptual": _NO_VGG,
}

_ADAM = {"name": "adam", "learning_rate": 2e-4, "b1": 0.5, "b2": 0.999}


def get_config(variant: str = "") -> RunConfig:
    """Returns the config of a variant, see above."""
    regular = {"regular": 500.0, "perceptual_regular": 10.0}
    config = update(
        base("d2gnet"),
        {
            "stages": STAGES,
            "data.eval_split": "train",  # its frames held back
            "data.crop": (512, 512),
            "data.sampling.source": "random",
            "data.sampling.t": 4,
            "data.sampling.held_back": 0.1,
            "data.sampling.k_evaluation": 64,
            "batch": 2,  # pairs of frames
            "overrides.uv.batch": 6,
            "log_steps": 100,
            # Eq. 5 has no weights of its own: these are those of the later stages.
            "weights.generator": {"parts": 10.0, "coordinates": 1000.0},
            **stage_weights("warmup", **regular),
            **stage_weights(
                "joint",
                **regular,
                reconstruction=500.0,
                perceptual=10.0,
                temporal=10.0,
                adversarial=1.0,
            ),
            **stage_weights("joint", "discriminator", adversarial=1.0),
            "optimizer.generator": _ADAM,
            "overrides.joint.optimizer.discriminator": _ADAM,
            **_steps(uv=20_000, warmup=4_000, joint=36_000),
        },
    )
    return apply_variant(config, variant, presets=PRESETS, ablations=ABLATIONS)
