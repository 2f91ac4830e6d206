"""MFCI: person video motion transfer by integration of several source frames.

    psrjax train --config=configs/mfci.py:VARIANT --workdir=DIR --config.data.path=PREPARED

One model for any pair of people. Two stages, trained in order: single (the single-frame model by
squared error and a discriminator of frames), joint (the integration of K frames, the single model
frozen). VARIANT is a comma-separated list of presets, stages and ablations, applied in order.
Presets:

  (none)      the paper's numbers at 256x256: the final model RB6+SA2D, K = 4 source frames, L = 8
              targets, batch 2. Needs VGG-19's weights and prepared clips with joints and flow.
              Cost: 235 000 steps, not run. The paper's Table 1 (VFID / PSNR): 7.57 / 23.20, on
              data of its own.
  demo        the synthetic dataset at 48x48 on 2 CPU cores: narrow nets, no VGG-19, content_first.
  show        128x128 and wider nets, the first half of the stages content and joint at 64x64
              (`grow`): two hours on one CPU core.
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
  ghosts), content_first (half of the steps of single before it, in a stage `content` without the
  discriminator), default_kernels (see `kernels` of the method)
"""

from psrjax.config import (
    RunConfig,
    apply_variant,
    base,
    in_stage,
    remove,
    stage_weights,
    update,
    validate,
)

DEMO = {"minutes": 20}  # of `psrjax demo --method=mfci`: processor time

STAGES = ("content", "single", "joint")
_CONTENT_FIRST = {"content_first", "demo", "show", "tiny"}  # names that have the stage `content`
_SINGLE = STAGES[:2]
_NO_FUSION = {"MSE", "MSE+VGG"}
_RANGES = (3, 5, 7)
_ADAM = {"name": "adam", "learning_rate": 1e-4, "b1": 0.5, "b2": 0.999}


def _fusion(kind: str, ranges: tuple[int, ...] = _RANGES) -> dict:
    return {"method.fusion": kind, **_temporal(ranges)}


def _temporal(ranges: tuple[int, ...]) -> dict:
    return {"method.ranges": ranges, **({} if ranges else _no_discriminator("adversarial_video"))}


def _no_discriminator(term: str) -> dict:
    sides = ("generator", "discriminator")
    return {f"overrides.joint.weights.{side}.{term}": 0.0 for side in sides}


def _each(stages: tuple[str, ...], changes: dict) -> dict:
    return {key: value for stage in stages for key, value in in_stage(stage, changes).items()}


def _weight(name: str, value: float, *stages: str) -> dict:
    return _each(stages, {f"weights.generator.{name}": value})


def _steps(**counts: int) -> dict:
    return {f"overrides.{stage}.steps": count for stage, count in counts.items()}


def _discriminators_rate(rate: float) -> dict:
    optimizer = {**_ADAM, "learning_rate": rate}
    changes = {f"optimizer.discriminator.{key}": value for key, value in optimizer.items()}
    return _each(STAGES[1:], changes)


_DEMO = {
    "method.perceptual": "off",  # without VGG-19's weights the squared error stands alone
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
    # `Departs from:` the paper, which does not say that it mirrors: there are few people here.
    "data.flip": 0.5,
    "batch": 2,
    "checkpoint_steps": 250,
    "log_steps": 25,
    **_weight("adversarial_image", 0.01, *STAGES[1:]),
    **_weight("adversarial_video", 0.01, "joint"),
    **_each(_SINGLE, {"data.sampling.t": 8, "batch": 2}),
    **_steps(content=2000, single=100, joint=400),
}

PRESETS = {
    "paper": {},
    "demo": _DEMO,
    "show": {
        **_DEMO,
        "method.width": 24,
        "method.num_downsamples": 5,
        "method.blocks": 3,
        "method.attention_stride": 8,
        "method.discriminator_width": 16,
        "data.synthetic": {"size": (128, 128)},
        "data.crop": (128, 128),
        "ema": 0.998,
        "grow": 0.5,
        "overrides.single.grow": 0.0,  # its discriminator has a dense layer
        # Three times the usual norm. Without it one seed of two ended in black pictures: a single
        # gradient of a hundred times that, 550 steps after the frames had grown.
        "overrides.content.optimizer.generator.clip_norm": 0.3,
        "checkpoint_steps": 100,
        **_each(_SINGLE, {"data.sampling.t": 4, "batch": 2}),
        **_each(STAGES[2:], {"data.sampling.t": 8, "batch": 1}),
        **_steps(content=3600, single=200, joint=600),
    },
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
        **_steps(content=40, single=20, joint=40),
    },
}

ABLATIONS = {
    "MSE": {"method.perceptual": "off"},
    "MSE+VGG": _weight("perceptual", 0.2, *_SINGLE),
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
    "default_kernels": {"method.kernels": "default"},
    "init_single": {"method.init_from": "single"},
    # `Departs from:` section 4, which trains by squared error and GAN together: the demo's model
    # then shows no person at all (2100 steps, 24.9 dB; the source frame, copied, has 25.3).
    "content_first": {"stages": STAGES},
    "matte": {
        "method.matte": True,
        **_weight("matte", 0.02, *STAGES),
        **_weight("background", 1.0, *STAGES),
    },
    "random_perceptual": {"method.perceptual": "random"},
    "w/o perceptual": {"method.perceptual": "off"},
}


def get_config(variant: str = "") -> RunConfig:
    """Returns the config of a variant, see above."""
    config = update(
        base("mfci"),
        {
            "stages": STAGES,
            "data.crop": (256, 256),
            "data.sampling.source": "disjoint",
            "data.sampling.k": 4,
            "data.sampling.t": 8,
            "batch": 2,
            "checkpoint_steps": 5_000,
            "log_steps": 100,
            "weights.generator.mse": 1.0,
            "optimizer.generator": _ADAM,
            # Section 4: squared error and a GAN, no VGG-19. The GAN's weight is from Balakrishnan
            # et al.; Cheng et al. give one for the stage `joint` only.
            **_weight("perceptual", 0.0, *_SINGLE),
            **stage_weights("single", adversarial_image=0.1),
            **stage_weights("joint", perceptual=0.2, adversarial_image=0.2, adversarial_video=0.1),
            **stage_weights("single", "discriminator", adversarial_image=1.0),
            **stage_weights("joint", "discriminator", adversarial_image=1.0, adversarial_video=1.0),
            # The single-frame model has seen pairs of pictures, four a step.
            **_each(_SINGLE, {"data.sampling.k": 1, "data.sampling.t": 1, "batch": 4}),
            **_discriminators_rate(1e-4),
            **_steps(single=200_000, joint=35_000),
        },
    )
    config = apply_variant(config, variant, presets=PRESETS, ablations=ABLATIONS)
    _finish(config, {name.strip() for name in variant.split(",")})
    validate(config)
    return config


def _finish(config: RunConfig, names: set[str]) -> None:
    """Sets what several names decide together, whatever their order."""
    left_out = {"joint"} if names & _NO_FUSION else set()
    if not names & _CONTENT_FIRST:
        left_out.add("content")
    elif "steps" not in config.overrides["content"]:
        steps = config.overrides["single"].steps
        update(config, _steps(content=steps // 2, single=steps - steps // 2))
    stages = tuple(stage for stage in STAGES if stage not in left_out)
    update(config, {"stages": stages})
    remove(config, *(f"overrides.{stage}" for stage in sorted(left_out)))
    if "MSE+VGG" not in names or config.method.perceptual == "off":
        alone = tuple(stage for stage in stages if stage != "joint")
        update(config, _each(alone, {"method.perceptual": "off"}))
    if config.method.perceptual == "off":
        update(config, _weight("perceptual", 0.0, *stages))
    if "joint" in stages and not (config.method.frame_discriminator or config.method.ranges):
        remove(  # nobody is left to train
            config,
            "overrides.joint.optimizer.discriminator",
            "overrides.joint.weights.discriminator",
        )
