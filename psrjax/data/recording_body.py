"""A body that sits on the filmed person: its joints' frames and its girths, by silhouette."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from jaxtyping import Bool, Float, UInt8
from tqdm import tqdm

from psrjax.data import recording_fitting
from psrjax.data.recording_plates import overlap, person_masks
from psrjax.ops import body, raster
from psrjax.ops.camera import Camera

# What the silhouettes may change, and the factors that are believed; the order of the search.
GIRTHS = ("torso", "leg", "arm", "head", "hand", "foot")
BELIEVED = (0.75, 1.35)
WHOLE = {"hand": ("left_hand", "right_hand"), "foot": ("left_foot", "right_foot")}
NOISE = 0.004  # of a picture's longer side: how far a detected joint usually lies from the true one
REACH = 0.045  # of a picture's height: how far from the posed body the person may be
SHAPE_FRAMES = 10  # frames that girths are fitted on


class Detections(Protocol):
    """Joints (n, t, 26, 3) in the pixels of n cameras, at `rate` frames a second."""

    joints: np.ndarray
    cameras: list[Camera]
    rate: float


@dataclass(frozen=True)
class Footage:
    """One view: frames (t, h, w, 3) and the camera of their pixels."""

    frames: UInt8[np.ndarray, "t h w 3"]
    camera: Camera


@dataclass(frozen=True)
class Person:
    """A body on a filmed person.

    `fit` holds the joints at the videos' frames, `lag` how many frames the detections ran ahead of
    them; `model` is the template with `girths` (factors by `GIRTHS`); `masks` are (t, h, w) bool in
    each view's footage.
    """

    fit: recording_fitting.Fit
    lag: int
    girths: Mapping[str, float]
    model: body.BodyModel
    masks: list[Bool[np.ndarray, "t h w"]]


def settle(found: Detections, footage: Sequence[Footage], *, lag: int | None = None) -> Person:
    """Fits a body to detected joints and to the footage.

    Args:
      found: the person's joints in the videos.
      footage: the views that masks are found in; their cameras may be of other crops and sizes.
      lag: how many frames the joints run ahead of the videos; None to measure it.
    """
    cameras = [view.camera for view in footage]
    fit = fit_joints(found, lag or 0)
    drawn, masks = _outlined(fit, body.template(), footage)
    if lag is None:
        lag = find_lag(drawn, masks)
        if lag:
            fit = fit_joints(found, lag)
            drawn, masks = _outlined(fit, body.template(), footage)
    chosen = np.unique(np.linspace(0, len(masks[0]) - 1, SHAPE_FRAMES).astype(int))
    girths = fit_girths(fit.joints[chosen], [mask[chosen] for mask in masks], cameras)
    model = shaped(girths)
    _, masks = _outlined(fit, model, footage)
    return Person(fit, lag, girths, model, masks)


def _outlined(fit: recording_fitting.Fit, model: body.BodyModel, footage: Sequence[Footage]):
    vertices = body.pose(model, fit.joints)
    drawn, masks = [], []
    for view in tqdm(footage, "masks", unit="view"):
        drawn.append(silhouettes(model, vertices, view.camera))
        reach = max(2.0, REACH * view.camera.size[0])
        masks.append(person_masks(view.frames, drawn[-1], reach=reach))
    return drawn, masks


def fit_joints(found: Detections, lag: int) -> recording_fitting.Fit:
    """Joints in space at the videos' frames."""
    longest = max(max(camera.size) for camera in found.cameras)
    joints = shifted(found.joints, lag)
    return recording_fitting.fit(joints, found.cameras, rate=found.rate, noise=NOISE * longest)


def shifted(joints: Float[np.ndarray, "n t 26 3"], lag: int) -> Float[np.ndarray, "n t 26 3"]:
    """Joints moved `lag` frames later; missing where nothing moves in."""
    moved = np.zeros_like(joints)
    if lag >= 0:
        moved[:, lag:] = joints[:, : joints.shape[1] - lag]
    else:
        moved[:, :lag] = joints[:, -lag:]
    return moved


def shaped(girths: Mapping[str, float]) -> body.BodyModel:
    """The template with other girths (factors by `GIRTHS`)."""
    by_bone: dict[str, float] = {}
    for name, factor in girths.items():
        by_bone |= dict.fromkeys(WHOLE.get(name, (name,)), factor)
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
    steps: Sequence[float] = (0.12, 0.05),
) -> dict[str, float]:
    """Girths under which the posed body covers the masks best: a search, one girth at a time.

    Where masks are too poor to tell (intersection over union below one half), the template's own
    proportions are kept.
    """
    girths = dict.fromkeys(GIRTHS, 1.0)
    best = agreement(shaped(girths), joints, masks, cameras)
    if best < 0.5:
        return girths
    for step in tqdm(steps, "girths", unit="round"):
        for name in GIRTHS:
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
