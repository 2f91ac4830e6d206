"""A body that sits on the filmed person: its joints' frames and its girths, by silhouette."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float, UInt8
from tqdm import tqdm

from psrjax.errors import UserError
from psrjax.prepare.multiview import joint_fitting, silhouette
from psrjax.vision import body, raster
from psrjax.vision.backgrounds import overlap, person_masks
from psrjax.vision.camera import Camera

# What the silhouettes may change, in the order of the search, and the factors that are believed.
GIRTHS = {
    "chest": ("chest", "neck", "collar"),
    "pelvis": ("pelvis",),
    "thigh": ("hip", "thigh"),
    "shin": ("shin",),
    "upper_arm": ("shoulder", "upper_arm"),
    "forearm": ("forearm",),
    "head": ("head",),
    "hand": ("hand",),
    "foot": ("foot",),
}
BELIEVED = (0.75, 1.35)
NOISE = 0.004  # of a picture's longer side: how far a detected joint usually lies from the true one
REACH = 0.045  # of a picture's height: how far from the posed body the person may be
OUTLINE_NOISE = 0.004  # of a crop's height: how far an outline usually lies from the true one
SHAPE_FRAMES = 8  # frames that girths are fitted on
STEPS = (0.12, 0.05)  # of the girths, one a round of moving joints and girths in turn


class Detections(Protocol):
    """Joints (n, t, 26, 3) in the pixels of n cameras, at `rate` frames a second."""

    joints: np.ndarray
    cameras: list[Camera]
    rate: float


@dataclass(frozen=True)
class ViewFrames:
    """One view: frames (t, h, w, 3) and the camera of their pixels."""

    frames: UInt8[np.ndarray, "t h w 3"]
    camera: Camera


@dataclass(frozen=True)
class FittedBody:
    """A body on a filmed person.

    `fit` holds the joints at the videos' frames, `lag` how many frames the detections ran ahead of
    them; `model` is the template with `girths` (factors by `GIRTHS`); `masks` are (t, h, w) bool in
    each view's footage.
    """

    fit: joint_fitting.JointFit
    lag: int
    girths: Mapping[str, float]
    model: body.BodyModel
    masks: list[Bool[np.ndarray, "t h w"]]


@dataclass(frozen=True)
class _Outlined:
    """Silhouettes of a posed body and the masks found near them, by view."""

    drawn: list[np.ndarray]
    masks: list[np.ndarray]


def settle(
    found: Detections, footage: Sequence[ViewFrames], *, lag: int | None = None
) -> FittedBody:
    """Fits a body to detected joints and to the footage.

    Args:
      found: the person's joints in the videos.
      footage: the views that masks are found in; their cameras may be of other crops and sizes.
      lag: how many frames the joints run ahead of the videos; None to measure it.
    """
    cameras = [view.camera for view in footage]
    fit, model = fit_joints(found, lag or 0), body.template()
    seen = _outlined(fit, model, footage)
    if lag is None:
        lag = find_lag(seen.drawn, seen.masks)
        if lag:
            fit = fit_joints(found, lag)
            seen = _outlined(fit, model, footage)
    chosen = np.unique(np.linspace(0, len(seen.masks[0]) - 1, SHAPE_FRAMES).astype(int))
    girths = dict.fromkeys(GIRTHS, 1.0)
    for step in STEPS:
        fit = fit_joints(found, lag, _hints(fit, model, seen.masks, cameras))
        masks = [mask[chosen] for mask in seen.masks]
        girths = fit_girths(fit.joints[chosen], masks, cameras, start=girths, step=step)
        model = shaped(girths)
    fit = fit_joints(found, lag, _hints(fit, model, seen.masks, cameras))
    return FittedBody(fit, lag, girths, model, _outlined(fit, model, footage).masks)


def _outlined(fit: joint_fitting.JointFit, model: body.BodyModel, footage: Sequence[ViewFrames]):
    vertices = body.pose(model, fit.joints)
    drawn, masks = [], []
    for view in tqdm(footage, "masks", unit="view"):
        drawn.append(silhouettes(model, vertices, view.camera))
        reach = max(2.0, REACH * view.camera.size[0])
        masks.append(person_masks(view.frames, drawn[-1], reach=reach))
    return _Outlined(drawn, masks)


def _hints(
    fit: joint_fitting.JointFit,
    model: body.BodyModel,
    masks: Sequence[np.ndarray],
    cameras: Sequence[Camera],
) -> joint_fitting.JointObservations:
    """What the masks ask of the joints."""
    vertices = body.pose(model, fit.joints)
    asked = [
        silhouette.moved_joints(model, vertices, fit.joints, mask, camera)
        for mask, camera in zip(masks, tqdm(cameras, "outlines", unit="view"))
    ]
    noise = OUTLINE_NOISE * max(camera.size[0] for camera in cameras)
    return joint_fitting.JointObservations(np.stack(asked), cameras, noise)


def fit_joints(
    found: Detections, lag: int, hints: joint_fitting.JointObservations | None = None
) -> joint_fitting.JointFit:
    """Joints in space at the videos' frames."""
    longest = max(max(camera.size) for camera in found.cameras)
    seen = joint_fitting.JointObservations(
        shifted(found.joints, lag), found.cameras, NOISE * longest
    )
    return joint_fitting.fit(seen, rate=found.rate, hints=hints)


def shifted(joints: Float[np.ndarray, "n t 26 3"], lag: int) -> Float[np.ndarray, "n t 26 3"]:
    """Joints moved `lag` frames later; missing where nothing moves in."""
    moved = np.zeros_like(joints)
    if lag >= 0:
        moved[:, lag:] = joints[:, : joints.shape[1] - lag]
    else:
        moved[:, :lag] = joints[:, -lag:]
    return moved


def shaped(girths: Mapping[str, float]) -> body.BodyModel:
    """The template with other girths (factors by `GIRTHS`).

    Raises:
      UserError: for a girth that this version does not know.
    """
    unknown = sorted(set(girths) - set(GIRTHS))
    if unknown:
        raise UserError(
            f"a body with the girth {unknown[0]!r} is of another version of psrjax, this one knows "
            f"{', '.join(GIRTHS)}: prepare the recording again"
        )
    by_bone = {bone: factor for name, factor in girths.items() for bone in GIRTHS[name]}
    return body.shape(body.template(), girths=by_bone)


def silhouettes(
    model: body.BodyModel, vertices: Float[np.ndarray, "t v 3"], camera: Camera
) -> Bool[np.ndarray, "t h w"]:
    """Where a camera sees the body."""
    return np.stack([raster.render(now, model.faces, camera).face >= 0 for now in vertices])


def agreement(
    model: body.BodyModel,
    joints: Float[np.ndarray, "t 26 3"],
    masks: Sequence[Bool[np.ndarray, "t h w"]],
    cameras: Sequence[Camera],
) -> float:
    """Mean intersection over union of posed silhouettes and masks, over frames and cameras."""
    vertices = body.pose(model, joints)
    scores = [
        overlap(drawn, mask)
        for camera, view in zip(cameras, masks)
        for drawn, mask in zip(silhouettes(model, vertices, camera), view)
    ]
    return float(np.mean(scores))


def fit_girths(
    joints: Float[np.ndarray, "t 26 3"],
    masks: Sequence[Bool[np.ndarray, "t h w"]],
    cameras: Sequence[Camera],
    *,
    start: Mapping[str, float],
    step: float,
) -> dict[str, float]:
    """Girths under which the posed body covers the masks best: a search, one girth at a time.

    Where masks are too poor to tell (intersection over union below one half), the template's own
    proportions are kept.
    """
    girths = dict(start)
    best = agreement(shaped(girths), joints, masks, cameras)
    if best < 0.5:
        return girths
    for name in tqdm(GIRTHS, "girths"):
        for direction in (1.0 + step, 1.0 / (1.0 + step)):
            while True:
                tried = girths | {name: girths[name] * direction}
                if not BELIEVED[0] <= tried[name] <= BELIEVED[1]:
                    break
                score = agreement(shaped(tried), joints, masks, cameras)
                if score <= best + 1e-4:
                    break
                girths, best = tried, score
    return {name: round(factor, 4) for name, factor in girths.items()}


def find_lag(
    drawn: Sequence[Bool[np.ndarray, "t h w"]],
    masks: Sequence[Bool[np.ndarray, "t h w"]],
    *,
    most: int = 3,
    gain: float = 0.01,
) -> int:
    """By how many frames the joints run ahead of the videos: where masks cover silhouettes best.

    A lag other than 0 needs `gain` more intersection over union than none, summed over all views
    alike (videos are taken to be synchronous with one another).
    """
    frames = len(drawn[0])
    most = min(most, (frames - 2) // 2)
    middle = range(most, frames - most)
    scores = {
        lag: np.mean([
            overlap(mask[time + lag], shape[time])
            for shape, mask in zip(drawn, masks)
            for time in middle
        ])
        for lag in range(-most, most + 1)
    }  # fmt: skip
    best = max(scores, key=scores.get)
    return best if scores[best] > scores[0] + gain else 0
