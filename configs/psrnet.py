"""PSR-Net: multi-view video synthesis through progressive synthesis and refinement.

    psrjax train --config=configs/psrnet.py:VARIANT --workdir=DIR

VARIANT is a comma-separated list of presets, stages and ablations, applied in order. Presets:

  (none)      the paper's numbers, and GTNet's where it is silent: width 64, 112x112, 8 frames, one
              clip a step (each of its three views as the source, at the same time), 50 epochs of
              NTU RGB+D in each stage. Needs I3D's weights and a stored NTU set (config.data.path).
              Cost: days on an accelerator, not run. The paper's Table 3 (SSIM / M-SSIM / PSNR /
              M-PSNR): layer1 .801 / .981 / 23.13 / 32.38, layer2 .835 / .979 / 23.89 / 31.81,
              layer3 .841 / .979 / 24.01 / 31.81.
  demo        the synthetic dataset at 48x48 on 2 CPU cores, in minutes: narrow nets, no I3D, one
              encoder for each input, later layers that begin as the one before, the camera's
              mean training frame behind the texture (texture_on_mean). Measured (SSIM, dB):
              layer1 .432, 18.90; layer2 .462, 19.45; layer3 .497, 20.30.
  real        as demo at 64x64 and longer, for the calibrated recording (`psrjax prepare`): give
              config.data.path. Behind the texture is the camera's clean background. Measured on the
              balancing man after 600, 300 and 300 steps (means of two seeds):
              layer1 .872, 24.85; layer2 .874, 25.07; layer3 .873, 25.08.
  show        128x128, width 24, the first half of layer1 at 64x64 (`grow`): 80 minutes on one CPU
              core. On the synthetic people, or on a calibrated recording prepared at 128: give
              config.data.path. Behind the texture is the clean background, as in real. Measured on
              the balancing man, one seed: layer1 .895, 25.93; layer2 .895, 25.94.
  refine      not the paper's: the later layers refine the frames of any system's run, given as
              config.init.run=RUN, on that run's data, beside the source frame and the pose.
  learned_texture
              not the paper's: as real, of one person, whose textured body comes from a run of
              d2gnet on the same frames, config.init.run=RUN, instead of from the source view.
  tiny        for tests: everything as small as it goes; the pictures mean nothing.
  bf16        bfloat16 products.
  layer1 …    only these stages.

Ablations, by their labels in the paper's tables:

  Table 1     context, common_head, separate_heads (default)
  Table 2     separate, concat_all, concat_videos (default); with alpha=1 as the table has them
  Figure 7    alpha=.1, alpha=.3, alpha=.5 (default), alpha=.7, alpha=.9, alpha=1 (no mixing)
  Table 3     K=1, K=2, K=3 (default): the number of layers
  further     zeta=0, warp_all, regions=none, regions=fgbg, w/o D_t, w/o L_p, random_perceptual,
              D_V (discriminators of 3, 5 and 7 frames, MFCI's), D_V^3, w/o x0, texture_on_mean,
              texture_on_background (the camera's clean background behind the texture, from training
              frames), instance_norm, init_before, later_regions=bvo (later layers' loss too),
              background=change (what is behind the person is the prior or estimate, changed),
              background=frame (the paper's)

Words that undo a departure of the small presets:

  gtnet_init  initial weights as GTNet's script has them
  one_clip    a step sees one clip's three pairs of views at the same time, as in GTNet's script
"""

from psrjax.config import RunConfig, apply_variant, base, in_stage, linear_decay, update

DEMO = {"minutes": 7, "default": True}  # of `psrjax demo --method=psrnet` on 2 CPU cores


def _steps(rest: int, **counts: int) -> dict:
    """So many steps of each stage (`rest` of the others), at rates that fall linearly to 0."""
    updates = ("generator", "discriminator")
    found = linear_decay(rest, *updates)
    for stage, count in counts.items():
        found |= in_stage(stage, linear_decay(count, *updates))
    return found


_DEMO = {
    "method.width": 16,
    "method.discriminator_width": 16,
    "method.discriminator_layers": 2,
    "method.video_width": 8,
    "method.video_depth": 2,
    "method.video_time_padding": 2,
    "method.perceptual": "off",
    # With an encoder for each input, the second layer can begin as exactly the first.
    "method.encoder": "separate",
    "method.init_from": "before",
    # Departs from: GTNet's initial weights, from which minutes are not enough.
    "method.initialization": "gentle",
    # Departs from: the paper. The camera's mean frame behind the texture is a start from which
    # minutes are enough: without it layer 1 needs three times the steps to beat every baseline.
    "method.prior": "texture_on_mean",
    "optimizer.generator.learning_rate": 1e-3,
    "optimizer.discriminator.learning_rate": 2e-5,  # faster ones teach texture, not scenes
    # Windows of 4 frames: twice as many scenes a second as windows of 8.
    "data.sampling.k": 4,
    "data.sampling.t": 4,
    "data.crop": (48, 48),
    "data.stored": (0, 0),
    # As many clips to render as three each of 20 and 6 people: who sees more people learns less of
    # an average one.
    "data.synthetic": {
        "size": (48, 48),
        "people_train": 60,
        "people_test": 18,
        "clips_per_person": 1,
    },
    # Departs from: GTNet's script, whose steps see one clip each: four clips teach more in minutes.
    "batch": 4,
    "data.sampling.together": False,
    **_steps(150, layer1=450),
    "checkpoint_steps": 150,
    "log_steps": 25,
}

# Departs from: the paper. Where the camera's clean background is known, what stands in the room
# need not be learned from the other view.
_CLEAN = {"method.prior": "texture_on_background", "method.background": "change"}

_REAL = {
    **_DEMO,
    **_CLEAN,
    "data.path": "",
    "data.synthetic": {},
    "data.eval_split": "test",
    "data.crop": (64, 64),
    **_steps(500, layer1=1900),
}

PRESETS = {
    "paper": {},
    "demo": _DEMO,
    "real": _REAL,
    "learned_texture": _REAL,
    "show": {
        **_DEMO,
        "method.width": 24,
        "method.discriminator_layers": 3,
        "method.video_depth": 3,
        "data.crop": (128, 128),
        "data.synthetic": {**_DEMO["data.synthetic"], "size": (128, 128)},
        **_CLEAN,
        "batch": 2,
        "ema": 0.998,
        "overrides.layer1.grow": 0.5,  # the later ones begin as it ended, at full size
        **_steps(700, layer1=2800),
        "checkpoint_steps": 50,
    },
    "refine": {
        **_DEMO,
        "data.path": "run",
        "method.background": "everywhere",
        "stages": ("layer2", "layer3"),
        **_steps(500),
    },
    "tiny": {
        "method.initialization": "gentle",  # departs from GTNet's, as above
        "method.width": 4,
        "method.blocks": 1,
        "method.discriminator_width": 4,
        "method.discriminator_layers": 1,
        "method.video_width": 4,
        "method.video_depth": 2,
        "method.perceptual": "off",
        "optimizer.generator.learning_rate": 1e-3,
        "optimizer.discriminator.learning_rate": 1e-3,
        "data.crop": (32, 32),
        "data.stored": (0, 0),
        "data.synthetic": {
            "size": (32, 32),
            "scenes": 2,
            "people_train": 2,
            "people_test": 1,
            "clips_per_person": 1,
            "frames": 12,
            "cameras": 2,
        },
        "batch": 2,
        "data.sampling.together": False,
        "steps": 12,
        "checkpoint_steps": 6,
        "log_steps": 1,
    },
}


_BUILT_ON = {"refine": "refinement", "learned_texture": "learned_texture"}  # preset: its method


def _layers(count: int) -> dict:
    return {"method.layers": count, "stages": tuple(f"layer{k}" for k in range(1, count + 1))}


ABLATIONS = {
    "context": {"method.decoder": "context"},
    "common_head": {"method.decoder": "common_head"},
    "separate_heads": {"method.decoder": "separate_heads"},
    "separate": {"method.encoder": "separate"},
    "concat_all": {"method.encoder": "concat_all"},
    "concat_videos": {"method.encoder": "concat_videos"},
    **{f"alpha=.{tenth}": {"method.alpha": tenth / 10} for tenth in (1, 3, 5, 7, 9)},
    "alpha=1": {"method.alpha": 1.0},
    **{f"K={count}": _layers(count) for count in (1, 2, 3)},
    "zeta=0": {"method.zeta": 0.0},
    "warp_all": {"method.warp_scope": "all"},
    "regions=none": {"method.recon_regions": "none"},
    "regions=fgbg": {"method.recon_regions": "fgbg"},
    "w/o D_t": {"method.video_discriminator": False},
    "D_V": {"method.video_ranges": (3, 5, 7)},
    "D_V^3": {"method.video_ranges": (3,)},
    "w/o L_p": {"method.perceptual": "off"},
    "random_perceptual": {"method.perceptual": "random"},
    "w/o x0": {"method.prior": "zeros"},
    "texture_on_mean": {"method.prior": "texture_on_mean"},
    "texture_on_background": {"method.prior": "texture_on_background"},
    "init_before": {"method.init_from": "before"},
    "background=change": {"method.background": "change"},
    "background=frame": {"method.background": "frame"},
    "later_regions=bvo": {"method.later_regions": "bvo"},
    "gtnet_init": {"method.initialization": "gtnet"},
    "one_clip": {"data.sampling.together": True, "batch": 3},
    "instance_norm": {"method.norm": "instance"},
}

_ADAM = {"name": "adam", "learning_rate": 2e-5, "b1": 0.5, "b2": 0.999}
_PERCEPTUAL = {"weights.generator.perceptual": 0.01}
_VIDEO = {
    "weights.generator.adversarial_video": 0.01,
    "weights.discriminator.adversarial_video": 1.0,
}
_SEVERAL = {  # only where there are discriminators of several ranges
    "weights.generator.adversarial_ranges": 0.01,
    "weights.discriminator.adversarial_ranges": 1.0,
}


def get_config(variant: str = "") -> RunConfig:
    """Returns the config of a variant, see above."""
    words = [word.strip() for word in variant.split(",")]
    config = update(
        base(next((name for word, name in _BUILT_ON.items() if word in words), "psrnet")),
        {
            **_layers(3),
            "data.crop": (112, 112),
            "data.stored": (128, 128),
            "data.sampling.k": 8,
            "data.sampling.t": 8,
            "data.sampling.together": True,  # a clip's three pairs a step, as GTNet's script
            "batch": 3,
            "steps": 50 * 10_976,  # epochs of NTU's training actions
            "checkpoint_steps": 5_000,
            "log_steps": 100,
            "weights.generator": {"reconstruction": 1.0, "adversarial_frame": 0.01},
            "weights.discriminator.adversarial_frame": 1.0,
            "optimizer": {"generator": _ADAM, "discriminator": _ADAM},
        },
    )
    config = apply_variant(config, variant, presets=PRESETS, ablations=ABLATIONS)
    for stage in config.stages:  # Eq. 4 has the perceptual term, Eq. 5 the discriminator of clips
        later = _VIDEO | (_SEVERAL if config.method.video_ranges else {})
        terms = _PERCEPTUAL if stage == "layer1" else later
        update(config, in_stage(stage, terms))
    return config
