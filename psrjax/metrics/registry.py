"""The metrics by the names that results carry: what each needs, and which way is better."""

import dataclasses

from psrjax.errors import UserError

RANDOM = "rand_"  # begins the name of a metric of an untrained network: it compares with nothing


@dataclasses.dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
      function: where it is computed, "module.function" in `psrjax.metrics`.
      of: what one value is of: "frame", "pair" of neighbouring frames, "clip" or "set".
      needs: what it reads beside the made frames: "truth", "mask", "flow" (`target_flow`),
        "flow_forward", "joints" (detected in made and true frames, pixels), "true_joints"
        (`target_joints`), "training_joints".
      networks: names in `psrjax.pretrained.registry`.
      lower: whether less is better.
      frames: how many consecutive frames a clip must have at least.
      side: how many pixels the shorter side must have at least.
    """

    function: str
    of: str = "frame"
    needs: tuple[str, ...] = ("truth",)
    networks: tuple[str, ...] = ()
    lower: bool = False
    frames: int = 1
    side: int = 1


_MASKED = ("truth", "mask")
_JOINTS = ("joints",)


def _of_joints(*, lower: bool = False) -> Metric:
    return Metric("keypoints.scores", of="set", needs=_JOINTS, lower=lower)


_METRICS: dict[str, Metric] = {
    "ssim": Metric("image.ssim", side=11),
    "ssim_uniform7": Metric("image.ssim_uniform7", side=7),
    "psnr": Metric("image.psnr"),
    "m_ssim_zero": Metric("image.m_ssim_zero", needs=_MASKED, side=7),
    "m_psnr_zero": Metric("image.m_psnr_zero", needs=_MASKED),
    "m_ssim_in": Metric("image.m_ssim_in", needs=_MASKED, side=11),
    "m_psnr_in": Metric("image.m_psnr_in", needs=_MASKED),
    "ms_ssim": Metric("detail.ms_ssim", side=161),
    "sd_lua": Metric("detail.sd_lua", side=3),
    "sd_eq": Metric("detail.sd_eq", side=2),
    "r_ssim": Metric("image.ssim", needs=("truth", "training_joints"), side=11),
    "r_psnr": Metric("image.psnr", needs=("truth", "training_joints")),
    "lpips_alex": Metric(
        "features.lpips_distance", networks=("alexnet", "lpips_alex"), lower=True, side=31
    ),
    "lpips_vgg": Metric(
        "features.lpips_distance", networks=("vgg16", "lpips_vgg"), lower=True, side=16
    ),
    "fid": Metric("frechet.frechet_distance", of="set", networks=("inception",), lower=True),
    "clip_fid": Metric(
        "frechet.frechet_distance", of="clip", networks=("inception",), lower=True, frames=2
    ),
    "is": Metric("frechet.InceptionScore", of="set", needs=(), networks=("inception",)),
    "fvd": Metric(
        "frechet.frechet_distance", of="set", networks=("i3d_whole",), lower=True, frames=16
    ),
    "vfid": Metric(
        "frechet.frechet_distance", of="set", networks=("i3d_whole",), lower=True, frames=10
    ),
    "act_l1_logits": Metric(
        "frechet.act_l1", of="clip", networks=("i3d_whole",), lower=True, frames=16
    ),
    "face_psnr": Metric("image.psnr", needs=("truth", "true_joints"), side=4),
    "e_temp": Metric("temporal.temporal_error", of="clip", needs=("flow",), lower=True, frames=2),
    "e_temp_gap": Metric(
        "temporal.temporal_gap", of="clip", needs=("truth", "flow"), lower=True, frames=2
    ),
    "warping_error": Metric(
        "temporal.warping_error", of="pair", needs=("flow", "flow_forward"), lower=True, frames=2
    ),
    "flicker": Metric("temporal.flicker", of="pair", needs=("mask",), lower=True, frames=2),
    "interp_psnr[dis]": Metric("interpolation.interp_psnr", frames=3),
    "kp_l2": _of_joints(lower=True),
    "pck@0.2": _of_joints(),
    "pck@0.05": _of_joints(),
    "pck@0.01": _of_joints(),
    "precision": _of_joints(),
    "recall": _of_joints(),
    "f1": _of_joints(),
    "akd": _of_joints(lower=True),
    "mkr": _of_joints(lower=True),
}


def available() -> dict[str, Metric]:
    """All metrics by name; those with networks also exist as `rand_<name>`, of untrained ones."""
    return dict(_METRICS)


def get(name: str) -> Metric:
    """The metric of a name; `rand_<name>` is the metric with the untrained networks' names.

    Raises:
      UserError: for an unknown name, or `rand_` before a metric that has no network.
    """
    plain = name.removeprefix(RANDOM)
    metric = _METRICS.get(plain)
    if metric is None or (plain != name and not metric.networks):
        raise UserError(f"no metric {name!r}; there are {', '.join(_METRICS)}")
    if plain == name:
        return metric
    return dataclasses.replace(metric, networks=tuple(f"{n}:random" for n in metric.networks))
