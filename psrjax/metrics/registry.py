"""Definitions of the metrics by the names that results carry: needs, limits, which way is better.

Evaluation, tables and messages read them here, and nowhere else.
"""

import dataclasses

from psrjax.errors import UserError

RANDOM = "rand_"  # begins the name of a metric of an untrained network: it compares with nothing
FLOWS = ("target_flow", "target_flow_forward")
DETECTED, TRAINING = "detected_joints", "training_joints"

_JOINTS = "target_joints"
_I3D, _INCEPTION = ("i3d_whole",), ("inception",)


@dataclasses.dataclass(frozen=True)
class Metric:
    """One metric.

    Attributes:
      function: where it is computed, "module.function" in `psrjax.metrics`.
      of: what one value is of: "frame", "pair" of neighbouring frames, "clip" or "set" of clips.
      needs: what it reads beside the made frames: keys of the contract ("target", the true frames,
        "target_mask", FLOWS, "target_joints"), DETECTED joints of made and true frames, or TRAINING
        joints, those of all training frames.
      networks: names in `psrjax.pretrained.registry`.
      lower_is_better: whether it is an error or a distance.
      unit: "dB", "%" or "pixels"; "" is a pure number.
      frames: the fewest consecutive frames of a clip.
      side: the fewest pixels of a frame's shorter side.
    """

    function: str
    of: str = "frame"
    needs: tuple[str, ...] = ("target",)
    networks: tuple[str, ...] = ()
    lower_is_better: bool = False
    unit: str = ""
    frames: int = 1
    side: int = 1


def _similarity(function: str, side: int, *needs: str) -> Metric:
    return Metric(function, needs=("target", *needs), side=side)


def _decibels(function: str, *needs: str, side: int = 1, frames: int = 1) -> Metric:
    return Metric(function, needs=("target", *needs), unit="dB", side=side, frames=frames)


def _lpips(*networks: str, side: int) -> Metric:
    return Metric("features.lpips_distance", networks=networks, lower_is_better=True, side=side)


def _frechet(networks: tuple[str, ...], *, of: str = "set", frames: int = 1) -> Metric:
    function = "frechet.frechet_distance"
    return Metric(function, of=of, networks=networks, lower_is_better=True, frames=frames)


def _over_time(name: str, *needs: str, of: str = "pair") -> Metric:
    return Metric(f"temporal.{name}", of=of, needs=needs, lower_is_better=True, frames=2)


def _of_joints(name: str) -> Metric:
    unit = _POSE[name]
    return Metric(
        "keypoints.scores",
        of="set",
        needs=(DETECTED,),
        lower_is_better=unit != "%",
        unit=unit,
    )


_POSE = {
    **{"kp_l2": "pixels", "pck@0.2": "%", "pck@0.05": "%", "pck@0.01": "%"},
    **{"precision": "%", "recall": "%", "f1": "%", "akd": "pixels", "mkr": ""},
}
_METRICS: dict[str, Metric] = {
    "ssim": _similarity("image.ssim", 11),
    "ssim_uniform7": _similarity("image.ssim_uniform7", 7),
    "psnr": _decibels("image.psnr"),
    "m_ssim_zero": _similarity("image.m_ssim_zero", 7, "target_mask"),
    "m_psnr_zero": _decibels("image.m_psnr_zero", "target_mask"),
    "m_ssim_in": _similarity("image.m_ssim_in", 11, "target_mask"),
    "m_psnr_in": _decibels("image.m_psnr_in", "target_mask"),
    "ms_ssim": _similarity("detail.ms_ssim", 161),
    "sd_lua": _decibels("detail.sd_lua", side=3),
    "sd_eq": _decibels("detail.sd_eq", side=2),
    "interp_psnr[dis]": _decibels("interpolation.interp_psnr", side=16, frames=3),
    "interp_psnr[slomo]": Metric(
        "interpolation.interp_psnr", networks=("super_slomo",), unit="dB", frames=3
    ),
    "face_psnr": _decibels("image.psnr", _JOINTS, side=4),
    "e_temp": _over_time("temporal_error", *FLOWS, of="clip"),
    "e_temp_gap": _over_time("temporal_gap", "target", *FLOWS, of="clip"),
    "warping_error": _over_time("warping_error", *FLOWS),
    "flicker": _over_time("flicker", "target_mask"),
    "clip_fid": _frechet(_INCEPTION, of="clip", frames=2),
    "act_l1_logits": Metric(
        "frechet.act_l1", of="clip", networks=_I3D, lower_is_better=True, frames=16
    ),
    "lpips_alex": _lpips("alexnet", "lpips_alex", side=31),
    "lpips_vgg": _lpips("vgg16", "lpips_vgg", side=16),
    "fid": _frechet(_INCEPTION),
    "is": Metric("frechet.InceptionScore", of="set", needs=(), networks=_INCEPTION),
    "fvd": _frechet(_I3D, frames=16),
    "vfid": _frechet(_I3D, frames=10),
    **{name: _of_joints(name) for name in _POSE},
    "r_ssim": _similarity("image.ssim", 11, _JOINTS, TRAINING),
    "r_psnr": _decibels("image.psnr", _JOINTS, TRAINING),
}
# Those that every evaluation takes of each frame, in the order of the results.
BASIC = ("ssim", "ssim_uniform7", "psnr", "m_ssim_zero", "m_psnr_zero", "m_ssim_in", "m_psnr_in")
# Those that an evaluation has to be asked for, those of untrained networks included.
FURTHER = tuple(
    prefix + name
    for name, metric in _METRICS.items()
    for prefix in (("", RANDOM) if metric.networks else ("",))
    if name not in BASIC
)


def available() -> dict[str, Metric]:
    """Returns all metrics by name; those with networks also exist as `rand_<name>`, untrained."""
    return dict(_METRICS)


def get(name: str) -> Metric:
    """Returns the metric of a name; `rand_<name>` has the untrained networks.

    Raises:
      UserError: for an unknown name, or `rand_` before a metric that has no network.
    """
    if name not in (*BASIC, *FURTHER):
        raise UserError(f"no metric {name!r}; there are {', '.join(_METRICS)}")
    metric = _METRICS[name.removeprefix(RANDOM)]
    if not name.startswith(RANDOM):
        return metric
    return dataclasses.replace(metric, networks=tuple(f"{n}:random" for n in metric.networks))
