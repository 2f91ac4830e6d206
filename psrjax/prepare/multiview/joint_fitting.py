"""Fits joints in space to joints in several views, by least squares over a whole clip.

All frames are fitted at once, so that a joint which no two cameras saw is still held by the view
that did see it, by the bones it hangs on and by its own motion.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import sparse
from scipy.sparse import linalg as sparse_linalg

from psrjax.errors import UserError
from psrjax.prepare.common.openpose import SEEN
from psrjax.vision.camera import Camera, triangulate

# Pairs of joints at a fixed distance, and its standard deviation in metres (`SPREADS`): limbs are
# rigid, the head nearly so, the trunk bends.
LIMBS = ((2, 3), (3, 4), (5, 6), (6, 7), (9, 10), (10, 11), (12, 13), (13, 14))
FEET = (
    (11, 22), (11, 23), (11, 24), (22, 23), (22, 24), (23, 24),
    (14, 19), (14, 20), (14, 21), (19, 20), (19, 21), (20, 21),
)  # fmt: skip
HEAD = (
    (25, 0), (25, 15), (25, 16), (25, 17), (25, 18), (0, 15), (0, 16), (0, 17), (0, 18),
    (15, 16), (15, 17), (16, 18), (15, 18), (16, 17), (17, 18), (1, 17), (1, 18), (1, 0), (1, 25),
)  # fmt: skip
TRUNK = ((1, 2), (1, 5), (2, 5), (8, 9), (8, 12), (9, 12), (1, 8))
SPREADS = {LIMBS: 0.004, FEET: 0.006, HEAD: 0.012, TRUNK: 0.015}
BONES = tuple(bone for group in SPREADS for bone in group)
MIRROR = {2: 5, 3: 6, 4: 7, 9: 12, 10: 13, 11: 14, 15: 16, 17: 18, 22: 19, 23: 20, 24: 21}
MIRROR |= {right: left for left, right in MIRROR.items()}
SETTLED = 5e-4  # metres: a smaller step ends the fit
ACCELERATION = 12.0  # m/s², of a walking person's joints: the standard deviation of the prior


@dataclass(frozen=True)
class JointFit:
    """Joints in metres with their confidence, and the lengths of `BONES` in metres.

    `filled` marks joints that fewer than two cameras saw.
    """

    joints: Float[np.ndarray, "t 26 3"]
    confidence: Float[np.ndarray, "t 26"]
    filled: Bool[np.ndarray, "t 26"]
    lengths: Float[np.ndarray, " bones"]


@dataclass(frozen=True)
class JointObservations:
    """Joints in the pixels of n cameras: x, y and confidence, 0 = missing.

    `noise` is the standard deviation of a fully confident joint, in pixels.
    """

    joints: Float[np.ndarray, "n t 26 3"]
    cameras: Sequence[Camera]
    noise: float


def fit(
    seen: JointObservations,
    *,
    rate: float,
    hints: JointObservations | None = None,
    rounds: int = 12,
) -> JointFit:
    """Fits joints in space to those of all views by robust least squares.

    Residuals: reprojection (pixels over the noise, Cauchy weights), bone lengths constant over the
    clip and equal left and right (medians of the triangulation), small accelerations.

    Args:
      seen: detected joints; only they decide which joints are filled in, and the bone lengths.
      rate: frames a second.
      hints: further observations, such as joints moved by outlines.
      rounds: Gauss-Newton steps, at most.

    Raises:
      UserError: if a joint that every body has is never seen by two cameras.
    """
    views = [view for part in (seen, hints) if part for view in _views(part)]
    weights = np.stack([view.weight for view in views[: len(seen.cameras)]])
    found = triangulate(seen.joints[..., :2], weights, seen.cameras)["points"]
    filled = np.asarray(~np.isfinite(found).all(-1))
    start = _interpolate(found)
    lengths = bone_lengths(start, filled)
    points = start.copy()
    for _ in range(rounds):
        step = _step(points, views, lengths, rate)
        points = points + step
        if np.abs(step).max() < SETTLED:
            break
    confidence = weights.sum(0) / np.maximum((weights > 0).sum(0), 1)
    confidence = np.where(filled, np.minimum(0.5 * confidence + 0.1, 0.3), confidence)
    return JointFit(points, confidence.astype(np.float32), filled, lengths)


@dataclass(frozen=True)
class _View:
    rays: np.ndarray  # (t, 26, 2) undistorted
    weight: np.ndarray  # (t, 26)
    camera: Camera
    noise: float


def _views(part: JointObservations) -> list[_View]:
    views = []
    for joints, camera in zip(part.joints, part.cameras):
        rays = camera.undistort(joints[..., :2].astype(np.float64))
        known = np.isfinite(rays).all(-1) & (joints[..., 2] > SEEN)
        weight = np.where(known, joints[..., 2], 0.0)
        views.append(_View(np.nan_to_num(rays), weight, camera, part.noise))
    return views


def _interpolate(points: np.ndarray) -> np.ndarray:
    """Fills frames where a joint is NaN linearly, and with the nearest value at either end."""
    points = points.copy()
    times = np.arange(len(points))
    for joint in range(points.shape[1]):
        known = np.isfinite(points[:, joint, 0])
        if not known.any():
            continue
        for axis in range(3):
            values = points[known, joint, axis]
            points[:, joint, axis] = np.interp(times, times[known], values)
    never = ~np.isfinite(points[0, :, 0])
    if never[[1, 2, 5, 8, 9, 12]].any():
        raise UserError(
            f"joint {np.flatnonzero(never)[0]} of BODY_25 (shoulders, neck or hips) is seen by two "
            "cameras in no frame: the person cannot be placed in space"
        )
    for joint in np.flatnonzero(never):
        points[:, joint] = points[:, _nearest_kept(int(joint), never)]
    return points


def _nearest_kept(joint: int, never: np.ndarray) -> int:
    parents = [a for a, b in BONES if b == joint] + [b for a, b in BONES if a == joint]
    return next((p for p in parents if not never[p]), 1)


def bone_lengths(
    points: Float[np.ndarray, "t 26 3"], filled: Bool[np.ndarray, "t 26"]
) -> Float[np.ndarray, " bones"]:
    """Median lengths of `BONES` over the frames where both ends were seen; equal left and right."""
    ends = np.asarray(BONES)
    lengths = np.linalg.norm(points[:, ends[:, 0]] - points[:, ends[:, 1]], axis=-1)
    unknown = filled[:, ends[:, 0]] | filled[:, ends[:, 1]]
    lengths = np.where(unknown, np.nan, lengths)
    counts = (~unknown).sum(0)
    medians = np.asarray([
        np.median(c[np.isfinite(c)]) if n else np.nan for c, n in zip(lengths.T, counts)
    ])  # fmt: skip
    place = {frozenset(bone): index for index, bone in enumerate(BONES)}
    result = medians.copy()
    for index, (a, b) in enumerate(BONES):
        other = place.get(frozenset((MIRROR.get(a, a), MIRROR.get(b, b))), index)
        both = np.asarray([medians[index], medians[other]])
        share = np.asarray([counts[index], counts[other]], float)
        known = np.isfinite(both)
        result[index] = np.average(both[known], weights=share[known]) if known.any() else np.nan
    return result


def _step(points: np.ndarray, views: list[_View], lengths: np.ndarray, rate: float) -> np.ndarray:
    """One Gauss-Newton step on the sparse normal equations of all frames together.

    Unknowns are ordered by frame: the factors then fill in over two frames' width only.
    """
    frames, joints = points.shape[:2]
    bent = sparse.diags_array(
        [1.0, -2.0, 1.0],
        offsets=[0, 1, 2],  # pyright: ignore[reportArgumentType] (SciPy's stub)
        shape=(max(frames - 2, 0), frames),
    )
    motion = sparse.kron(bent, sparse.eye_array(3 * joints)) * (rate**2 / ACCELERATION)
    bones, off = _bone_residuals(points, lengths)
    matrix, target = _reprojection_normals(points, views)
    matrix = matrix + bones.T @ bones + motion.T @ motion + 1e-3 * sparse.eye_array(points.size)
    target = target + bones.T @ off - motion.T @ (motion @ points.ravel())
    factors = sparse_linalg.splu(matrix.tocsc(), permc_spec="NATURAL", diag_pivot_thresh=0.0)
    return factors.solve(target).reshape(points.shape)


def _reprojection_normals(
    points: np.ndarray, views: list[_View]
) -> tuple[sparse.csr_array, np.ndarray]:
    """Normal matrix and right side of the residuals of undistorted rays, in pixels."""
    flat = points.reshape(-1, 3)
    blocks, target = np.zeros((len(flat), 3, 3)), np.zeros_like(flat)
    for view in views:
        camera = view.camera
        local = flat @ camera.rotation.T + camera.translation
        depth = np.maximum(local[:, 2], 0.1)
        focal = np.asarray([camera.matrix[0, 0], camera.matrix[1, 1]])
        unit = local[:, :2] / depth[:, None]
        residual = (view.rays.reshape(-1, 2) - unit) * focal
        robust = 1.0 / (1.0 + (residual**2).sum(-1) / (3.0 * view.noise) ** 2)
        strength = view.weight.reshape(-1) * robust / view.noise**2
        slope = np.zeros((len(flat), 2, 3))
        slope[:, 0, 0] = focal[0] / depth
        slope[:, 1, 1] = focal[1] / depth
        slope[:, :, 2] = -unit * focal / depth[:, None]
        slope = slope @ camera.rotation
        blocks += np.einsum("mka,mkb,m->mab", slope, slope, strength)
        target += np.einsum("mka,mk,m->ma", slope, residual, strength)
    each = np.arange(len(flat) + 1)
    matrix = sparse.bsr_array((blocks, each[:-1], each), shape=(points.size, points.size))
    return matrix.tocsr(), target.ravel()


def _bone_residuals(points: np.ndarray, lengths: np.ndarray) -> tuple[sparse.csr_array, np.ndarray]:
    """Jacobian and residual of the bones' lengths, over their standard deviations."""
    frames, joints = points.shape[:2]
    known = np.isfinite(lengths)
    ends = np.asarray(BONES)[known]
    spread = np.concatenate([[s] * len(group) for group, s in SPREADS.items()])[known]
    offset = points[:, ends[:, 0]] - points[:, ends[:, 1]]
    now = np.maximum(np.linalg.norm(offset, axis=-1), 1e-6)
    direction = offset / (now * spread)[..., None]
    rows = np.arange(now.size).reshape(now.shape)
    first = 3 * (np.arange(frames)[:, None] * joints + ends.T[:, None])  # (2, t, bones)
    columns = first[..., None] + np.arange(3)
    jacobian = sparse.csr_array(
        (
            np.stack([direction, -direction]).ravel(),
            (np.broadcast_to(rows[None, ..., None], columns.shape).ravel(), columns.ravel()),
        ),
        shape=(now.size, points.size),
    )
    return jacobian, ((lengths[known] - now) / spread).ravel()


def fit_errors(
    joints: Float[np.ndarray, "n t 26 3"],
    cameras: list[Camera],
    points: Float[np.ndarray, "t 26 3"],
) -> Float[np.ndarray, "n t 26"]:
    """Distances in pixels of detected joints from the fit; NaN where nothing was detected."""
    projected = np.stack([camera.project(points)["pixels"] for camera in cameras])
    errors = np.linalg.norm(projected - joints[..., :2], axis=-1)
    return np.where(joints[..., 2] > SEEN, errors, np.nan)


def height(lengths: Float[np.ndarray, " bones"]) -> float:
    """Standing height in metres of a person with these bone lengths: leg, trunk, head and sole."""
    by_bone = dict(zip(BONES, lengths))
    return float(sum(by_bone[bone] for bone in ((9, 10), (10, 11), (1, 8), (1, 25))) + 0.08)
