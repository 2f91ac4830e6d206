"""MFCI: person video motion transfer by integration of several source frames.

    psrjax train --config=configs/mfci.py:VARIANT --workdir=DIR --config.data.path=PREPARED

One model for any pair of people. Three stages, trained in order: single (the single-frame model, by
content losses), single_gan (and a discriminator of frames), joint (the integration of K frames, the
single model frozen). VARIANT is a comma-separated list of presets, stages and ablations, applied in
order. Presets:

  (none)      the paper's numbers at 256x256: the final model RB6+SA2D, K = 4 source frames, L = 8
              targets, batch 2. Needs VGG-19's weights and prepared clips with joints and flow.
              Cost: 235 000 steps, not run. The paper's Table 1 (VFID / PSNR): 7.57 / 23.20, on
              data of its own.
  demo        the synthetic dataset at 48x48 on 2 CPU cores: narrow nets, no VGG-19.
  tiny        as demo at 32x32, as small as it goes: all stages in less than three minutes.
  bf16        bfloat16 products.
  single …    only these stages.

Ablations, by their labels in the paper's Table 1 (VFID / PSNR):

  MSE (10.25 / 22.10), MSE+VGG (9.50 / 22.83): the single-frame model, no fusion;
  MSE+VGG+RB6 (7.99 / 22.79): no temporal discriminators; MSE+VGG+RB6+D_V^3 (8.09 / 23.07);
  MSE+VGG+RB6+D_V (7.93 / 22.96), MSE+VGG+Avg+D_V (8.06 / 22.83), MSE+VGG+Max+D_V (7.47 / 21.37),
  MSE+VGG+SA3D+RB6+D_V (7.74 / 23.25), MSE+VGG+RB6+SA2D+D_V (7.57 / 23.20)

and further ones:

  avg, max, rb6, sa3d_rb6, rb6_sa2d (the fusion alone), w/o D_V, D_V^3, w/o D_I,
  patch_discriminators, init_single (last layers begin as the single model's), random_perceptual,
  w/o perceptual, matte (the dataset's masks and backgrounds teach those of the model: against
  ghosts)
"""

from psrjax.config import RunConfig, apply_variant, base, remove, stage_weights, update

DEMO = {"minutes": 20}  # of `psrjax demo --method=mfci`: an estimate, not measured whole

STAGES = ("single", "single_gan", "joint")
_SINGLE = STAGES[:2]
_RANGES = (3, 5, 7)
_ADAM = {"name": "adam", "learning_rate": 1e-4, "b1": 0.5, "b2": 0.999}


def _fusion(kind: str, ranges: tuple[int, ...] = _RANGES) -> dict:
    return {"method.fusion": kind, **_temporal(ranges)}


def _temporal(ranges: tuple[int, ...]) -> dict:
    return {"method.ranges": ranges, **({} if ranges else _no_discriminator("adversarial_video"))}


def _no_discriminator(term: str) -> dict:
    sides = ("generator", "discriminator")
    return {f"overrides.joint.weights.{side}.{term}": 0.0 for side in sides}


def _weight(name: str, value: float, stages: tuple[str, ...] = STAGES) -> dict:
    return {f"overrides.{stage}.weights.generator.{name}": value for stage in stages}


def _steps(single: int, single_gan: int, joint: int) -> dict:
    counts = zip(STAGES, (single, single_gan, joint), strict=True)
    return {f"overrides.{stage}.steps": count for stage, count in counts}


def _discriminators_rate(rate: float) -> dict:
    optimizer = {**_ADAM, "learning_rate": rate}
    return {
        f"overrides.{stage}.optimizer.discriminator.{key}": value
        for stage in STAGES[1:]
        for key, value in optimizer.items()
    }


# Without VGG-19's weights the squared error stands alone.
_NO_VGG = {"method.perceptual": "off", **_weight("perceptual", 0.0)}
_DEMO = {
    **_NO_VGG,
    "method.width": 16,
    "method.num_downsamples": 4,
    "method.blocks": 2,
    "method.attention_stride": 4,
    "method.discriminator_width": 8,
    "method.init_from": "single",
    "optimizer.generator.learning_rate": 1e-3,
    **_discriminators_rate(2e-4),
    "data.synthetic": {"size": (48, 48)},
    "data.crop": (48, 48),
    "batch": 2,
    "checkpoint_steps": 250,
    "log_steps": 25,
    **_weight("adversarial_image", 0.01, STAGES[1:]),
    **_weight("adversarial_video", 0.01, ("joint",)),
    **{f"overrides.{stage}.data.sampling.t": 8 for stage in _SINGLE},
    **{f"overrides.{stage}.batch": 2 for stage in _SINGLE},
    **_steps(2000, 100, 400),
}

PRESETS = {
    "paper": {},
    "demo": _DEMO,
    "tiny": {
        **_DEMO,
        "method.width": 4,
        "method.blocks": 1,
        "method.fusion": "rb6",
        "method.discriminator_width": 4,
        "method.discriminator_layers": 1,
        "data.synthetic": {
            "size": (32, 32),
            "scenes": 2,
            "people_train": 2,
            "people_test": 1,
            "clips_per_person": 1,
            "frames": 12,
            "cameras": 2,
        },
        "data.crop": (32, 32),
        "checkpoint_steps": 20,
        "log_steps": 5,
        **_steps(40, 20, 40),
    },
}

ABLATIONS = {
    "MSE": {**_NO_VGG, "stages": _SINGLE},
    "MSE+VGG": {"stages": _SINGLE},
    "MSE+VGG+RB6": _fusion("rb6", ()),
    "MSE+VGG+RB6+D_V^3": _fusion("rb6", (3,)),
    "MSE+VGG+RB6+D_V": _fusion("rb6"),
    "MSE+VGG+Avg+D_V": _fusion("avg"),
    "MSE+VGG+Max+D_V": _fusion("max"),
    "MSE+VGG+SA3D+RB6+D_V": _fusion("sa3d_rb6"),
    "MSE+VGG+RB6+SA2D+D_V": _fusion("rb6_sa2d"),
    **{kind: {"method.fusion": kind} for kind in ("avg", "max", "rb6", "sa3d_rb6", "rb6_sa2d")},
    "w/o D_V": _temporal(()),
    "D_V^3": _temporal((3,)),
    "w/o D_I": {"method.frame_discriminator": False, **_no_discriminator("adversarial_image")},
    "patch_discriminators": {"method.discriminator_kind": "patch"},
    "init_single": {"method.init_from": "single"},
    "matte": {"method.matte": True, **_weight("matte", 0.02), **_weight("background", 1.0)},
    "random_perceptual": {"method.perceptual": "random"},
    "w/o perceptual": _NO_VGG,
}


def get_config(variant: str = "") -> RunConfig:
    """Returns the config of a variant, see above."""
    config = update(
        base("mfci"),
        {
            "stages": STAGES,
            "data.crop": (256, 256),
            "data.flip": 0.5,
            "data.sampling.source": "disjoint",
            "data.sampling.k": 4,
            "data.sampling.t": 8,
            "batch": 2,
            "checkpoint_steps": 5_000,
            "log_steps": 100,
            "weights.generator.mse": 1.0,
            "optimizer.generator": _ADAM,
            **_weight("perceptual", 0.2),
            **_weight("adversarial_image", 0.1, ("single_gan",)),
            **_weight("adversarial_image", 0.2, ("joint",)),
            **_weight("adversarial_video", 0.1, ("joint",)),
            **stage_weights("single_gan", "discriminator", adversarial_image=1.0),
            **stage_weights("joint", "discriminator", adversarial_image=1.0, adversarial_video=1.0),
            # The single-frame model has seen pairs of pictures, four a step.
            **{f"overrides.{stage}.data.sampling.k": 1 for stage in _SINGLE},
            **{f"overrides.{stage}.data.sampling.t": 1 for stage in _SINGLE},
            **{f"overrides.{stage}.batch": 4 for stage in _SINGLE},
            **_discriminators_rate(1e-4),
            **_steps(100_000, 100_000, 35_000),
        },
    )
    config = apply_variant(config, variant, presets=PRESETS, ablations=ABLATIONS)
    if not (config.method.frame_discriminator or config.method.ranges):  # nobody is left to train
        remove(
            config,
            "overrides.joint.optimizer.discriminator",
            "overrides.joint.weights.discriminator",
        )
    return config
