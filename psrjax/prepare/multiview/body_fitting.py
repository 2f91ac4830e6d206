"""Fits the body template to a person in several views: time lag, joints and girths."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, UInt8
from tqdm import tqdm

from psrjax.errors import UserError
from psrjax.prepare.multiview import joint_fitting, silhouette
from psrjax.vision import body, raster
from psrjax.vision.backgrounds import overlap, person_masks
from psrjax.vision.camera import Camera

# Girths in the order of the search, with their bones, and the range of plausible factors.
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
GIRTH_RANGE = (0.75, 1.35)
NOISE = 0.004  # typical error of a detected joint, as a fraction of the picture's longer side
REACH = 0.045  # largest distance of the person from the posed body, as a fraction of the height
OUTLINE_NOISE = 0.004  # typical error of an outline, as a fraction of the crop's height
SHAPE_FRAMES = 8  # number of frames that girths are fitted on
STEPS = (0.12, 0.05)  # girths' step in each round of fitting joints and girths in turn


@dataclass
class Measurements:
    """The person's joints in the pixels of n videos, and the cameras of those pixels.

    `errors` are median reprojection errors in pixels, `bound` the largest accepted; `kinds` are the
    joint orders of the files, by camera; `problems` tell of cameras that disagreed with the others:
    {"what", "detail", "advice"}.
    """

    names: list[str]
    cameras: list[Camera]
    joints: Float[np.ndarray, "n t 26 3"]
    rate: float
    frames: int
    errors: dict[str, float]
    bound: float
    kinds: dict[str, str]
    notes: list[str] = field(default_factory=list)
    problems: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class ViewFrames:
    """Frames of one view and the camera of their pixels."""

    frames: UInt8[np.ndarray, "t h w 3"]
    camera: Camera


@dataclass(frozen=True)
class FittedBody:
    """The body fitted to a person.

    Attributes:
      fit: joints in space at the videos' frames.
      lag: number of frames that the detected joints ran ahead of the videos.
      girths: factors by `GIRTHS`.
      model: the template with these girths.
      masks: the person in each view's frames.
    """

    fit: joint_fitting.JointFit
    lag: int
    girths: Mapping[str, float]
    model: body.BodyModel
    masks: list[Bool[np.ndarray, "t h w"]]


def fit_body(
    found: Measurements, views: Sequence[ViewFrames], *, lag: int | None = None
) -> FittedBody:
    """Fits a body to detected joints and to the person's masks.

    Args:
      found: the person's joints in the videos.
      views: the frames that masks are found in; their cameras may be of other crops and sizes.
      lag: number of frames that the joints run ahead of the videos; None to estimate it.
    """
    cameras = [view.camera for view in views]
    fit, model = fit_joints(found, lag or 0), body.template()
    drawn, masks = _find_masks(fit, model, views)
    if lag is None:
        lag = find_lag(drawn, masks)
        if lag:
            fit = fit_joints(found, lag)
            _, masks = _find_masks(fit, model, views)
    chosen = np.unique(np.linspace(0, len(masks[0]) - 1, SHAPE_FRAMES).astype(int))
    few = [mask[chosen] for mask in masks]
    girths = dict.fromkeys(GIRTHS, 1.0)
    for step in STEPS:
        fit = fit_joints(found, lag, _hints(fit, model, masks, cameras))
        girths = fit_girths(fit.joints[chosen], few, cameras, start=girths, step=step)
        model = shaped(girths)
    fit = fit_joints(found, lag, _hints(fit, model, masks, cameras))
    return FittedBody(fit, lag, girths, model, _find_masks(fit, model, views)[1])


def _find_masks(
    fit: joint_fitting.JointFit, model: body.BodyModel, views: Sequence[ViewFrames]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Silhouettes of the posed body and the person's masks found near them, by view."""
    vertices = body.pose(model, fit.joints)
    drawn, masks = [], []
    for view in tqdm(views, "masks", unit="view"):
        drawn.append(silhouettes(model, vertices, view.camera))
        reach = max(2.0, REACH * view.camera.size[0])
        masks.append(person_masks(view.frames, drawn[-1], reach=reach))
    return drawn, masks


def _hints(
    fit: joint_fitting.JointFit,
    model: body.BodyModel,
    masks: Sequence[np.ndarray],
    cameras: Sequence[Camera],
) -> joint_fitting.JointObservations:
    """Joints moved so that the body's outlines meet the masks."""
    vertices = body.pose(model, fit.joints)
    moved = [
        silhouette.moved_joints(model, vertices, fit.joints, mask, camera)
        for mask, camera in zip(masks, tqdm(cameras, "outlines", unit="view"))
    ]
    noise = OUTLINE_NOISE * max(camera.size[0] for camera in cameras)
    return joint_fitting.JointObservations(np.stack(moved), cameras, noise)


def fit_joints(
    found: Measurements, lag: int, hints: joint_fitting.JointObservations | None = None
) -> joint_fitting.JointFit:
    """Fits joints in space at the videos' frames."""
    longest = max(max(camera.size) for camera in found.cameras)
    seen = joint_fitting.JointObservations(
        shifted(found.joints, lag), found.cameras, NOISE * longest
    )
    return joint_fitting.fit(seen, rate=found.rate, hints=hints)


def shifted(joints: Float[np.ndarray, "n t 26 3"], lag: int) -> Float[np.ndarray, "n t 26 3"]:
    """Moves joints `lag` frames later; frames that none move into have zeros: no joints."""
    moved = np.zeros_like(joints)
    if lag >= 0:
        moved[:, lag:] = joints[:, : joints.shape[1] - lag]
    else:
        moved[:, :lag] = joints[:, -lag:]
    return moved


def shaped(girths: Mapping[str, float]) -> body.BodyModel:
    """Returns the template with other girths (factors by `GIRTHS`).

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
    """Renders the pixels where a camera sees the body."""
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
    """Searches, one girth at a time, the girths under which the posed body covers the masks best.

    Returns `start` where the masks are too poor (intersection over union below one half).
    """
    girths = dict(start)
    best = agreement(shaped(girths), joints, masks, cameras)
    if best < 0.5:
        return girths
    for name in tqdm(GIRTHS, "girths"):
        for direction in (1.0 + step, 1.0 / (1.0 + step)):
            while True:
                tried = girths | {name: girths[name] * direction}
                if not GIRTH_RANGE[0] <= tried[name] <= GIRTH_RANGE[1]:
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
    """Estimates by how many frames the joints run ahead of the videos: where masks cover best.

    The lag is the same for all views, `most` frames at most; one other than 0 needs `gain` more
    mean intersection over union than none.
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
    best = max(scores, key=lambda lag: scores[lag])
    return best if scores[best] > scores[0] + gain else 0
