"""Calibrated cameras (OpenCV's model, NumPy): projection, lens distortion, triangulation.

Pixel (0, 0) is the centre of the top-left pixel. Camera axes: x right, y down, z forward.
"""

import dataclasses
import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class Camera:
    """A pinhole camera with OpenCV's five lens coefficients.

    Attributes:
      matrix: (3, 3) pixels; skew is honoured.
      rotation: (3, 3) world -> camera: x_camera = rotation @ x_world + translation.
      translation: (3,) metres.
      distortion: (5,) k1 k2 p1 p2 k3; zeros for none.
      size: (height, width) of the image in pixels.
    """

    matrix: np.ndarray
    rotation: np.ndarray
    translation: np.ndarray
    distortion: np.ndarray
    size: tuple[int, int]

    def __post_init__(self):
        shapes = {"matrix": (3, 3), "rotation": (3, 3), "translation": (3,), "distortion": (5,)}
        for name, shape in shapes.items():
            value = np.asarray(getattr(self, name), np.float64)
            if value.shape != shape:
                raise ValueError(f"camera {name} has shape {value.shape}, not {shape}")
            object.__setattr__(self, name, value)
        object.__setattr__(self, "size", (int(self.size[0]), int(self.size[1])))

    @property
    def centre(self) -> Float[np.ndarray, "3"]:
        """The camera's position in the world, metres."""
        return -self.rotation.T @ self.translation

    @functools.cached_property
    def field_limit(self) -> float:
        """Squared tangent of the angle beyond which the lens polynomial folds back, or inf.

        A point farther from the axis has no image, though the polynomial would give it one.
        """
        k1, k2, _, _, k3 = self.distortion
        roots = np.roots([7 * k3, 5 * k2, 3 * k1, 1.0])
        folds = roots.real[(np.abs(roots.imag) < 1e-9) & (roots.real > 0)]
        return float(folds.min(initial=np.inf))

    def project(self, points: Float[np.ndarray, "*n 3"]) -> dict[str, np.ndarray]:
        """Projects world points into the image.

        Returns {"pixels": (*n, 2), "depth": (*n) metres along the optical axis}. A point at
        depth <= 0, or outside the lens's field (`field_limit`), has NaN pixels.
        """
        seen = points @ self.rotation.T + self.translation
        depth = seen[..., 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            rays = np.where(depth[..., None] > 0, seen[..., :2] / depth[..., None], np.nan)
        rays = np.where((rays**2).sum(-1, keepdims=True) < self.field_limit, rays, np.nan)
        if self.distortion.any():
            rays = _bend(rays, self.distortion)["rays"]
        return {"pixels": rays @ self.matrix[:2, :2].T + self.matrix[:2, 2], "depth": depth}

    def undistort(self, pixels: Float[np.ndarray, "*n 2"]) -> Float[np.ndarray, "*n 2"]:
        """Inverts the lens: rays (x/z, y/z) in camera axes of points seen at `pixels`.

        Uses Newton's method. NaN where a pixel lies outside the lens's field.
        """
        target = (pixels - self.matrix[:2, 2]) @ np.linalg.inv(self.matrix[:2, :2]).T
        if not self.distortion.any():
            return target
        rays = target
        for _ in range(12):
            bent = _bend(rays, self.distortion)
            (a, b), (c, d) = bent["across"], bent["down"]
            x, y = np.moveaxis(bent["rays"] - target, -1, 0)
            with np.errstate(divide="ignore", invalid="ignore"):
                step = np.stack([d * x - b * y, a * y - c * x], -1) / (a * d - b * c)[..., None]
            rays = rays - step
        inside = (rays**2).sum(-1, keepdims=True) < self.field_limit
        close = np.abs(step).max(-1, keepdims=True) < 1e-7
        return np.where(inside & close, rays, np.nan)

    def resized(self, height: int, width: int) -> "Camera":
        """Returns the camera of the image resized to `height` x `width` pixels."""
        scale = np.array([width / self.size[1], height / self.size[0]])
        matrix = self.matrix.copy()
        matrix[:2] *= scale[:, None]
        matrix[:2, 2] += (scale - 1) / 2  # the image's corner, not its first pixel's centre, stays
        return dataclasses.replace(self, matrix=matrix, size=(height, width))

    def windowed(self, box: tuple[int, int, int, int], size: tuple[int, int]) -> "Camera":
        """Returns the camera of `box` (top, left, height, width) resized to `size`."""
        top, left, height, width = box
        return self.cropped(top, left, height=height, width=width).resized(*size)

    def cropped(self, top: int, left: int, *, height: int, width: int) -> "Camera":
        """Returns the camera of the image cropped (or padded) to rows top.. and columns left..."""
        matrix = self.matrix.copy()
        matrix[:2, 2] -= (left, top)
        return dataclasses.replace(self, matrix=matrix, size=(height, width))


def _bend(rays: np.ndarray, distortion: np.ndarray) -> dict[str, np.ndarray]:
    """Applies OpenCV's lens model to rays (*n, 2); also returns the rows of its Jacobian."""
    k1, k2, p1, p2, k3 = distortion
    x, y = rays[..., 0], rays[..., 1]
    square = x * x + y * y
    radial = 1 + square * (k1 + square * (k2 + square * k3))
    slope = 2 * (k1 + square * (2 * k2 + square * 3 * k3))
    bent_x = x * radial + 2 * p1 * x * y + p2 * (square + 2 * x * x)
    bent_y = y * radial + p1 * (square + 2 * y * y) + 2 * p2 * x * y
    mixed = x * y * slope + 2 * p1 * x + 2 * p2 * y
    return {
        "rays": np.stack([bent_x, bent_y], -1),
        "across": np.stack([radial + x * x * slope + 2 * p1 * y + 6 * p2 * x, mixed]),
        "down": np.stack([mixed, radial + y * y * slope + 6 * p1 * y + 2 * p2 * x]),
    }


def triangulate(
    pixels: Float[np.ndarray, "n *s 2"],
    confidences: Float[np.ndarray, " n *s"],
    cameras: Sequence[Camera],
    *,
    minimum: float = 0.1,
    tolerance: float = 0.01,
    iterations: int = 10,
) -> dict[str, np.ndarray]:
    """Triangulates world points from their images in n calibrated views.

    Starts from the best of the weighted linear solutions (DLT on undistorted rays) of all views
    together and of every pair of views, so that one wrong view of three cannot spoil it, then
    minimises the reprojection error by Gauss-Newton with Cauchy weights.

    Args:
      pixels: detections, of any leading shape s (for example frames x joints).
      confidences: 0..1, weights of the detections.
      cameras: n of them.
      minimum: the least confidence of a detection that is used.
      tolerance: scale of the Cauchy weights, as a fraction of each image's height.
      iterations: of Gauss-Newton.

    Returns:
      {"points": (*s, 3) metres, NaN where missing; "confidence": (*s) second largest of the views'
      confidences times their final Cauchy weights, 0 where fewer than two views are confident or
      the point would lie behind one of them; "error": (n, *s) reprojection error in each view's
      own (distorted) pixels, NaN where there is no detection or no point}.
    """
    shape = confidences.shape[1:]
    count = len(cameras)
    pixels = pixels.reshape(count, -1, 2).astype(np.float64)
    confidences = confidences.reshape(count, -1)
    rays = np.stack([camera.undistort(view) for camera, view in zip(cameras, pixels, strict=True)])
    used = (confidences >= minimum) & np.isfinite(rays).all(-1)
    weights = np.where(used, confidences, 0.0)
    rays = np.where(used[..., None], rays, 0.0)
    poses = np.stack([np.c_[camera.rotation, camera.translation] for camera in cameras])
    # Residuals in units of the tolerance: rays x focal length / (fraction x height).
    unit = [
        np.sqrt(abs(np.linalg.det(camera.matrix[:2, :2]))) / (tolerance * camera.size[0])
        for camera in cameras
    ]
    unit = np.asarray(unit)[:, None]
    points = _start(rays, weights, poses, unit)
    for _ in range(iterations):
        residual, jacobian = _residuals(points, rays, poses, unit)
        scale = weights / (1 + (residual**2).sum(-1))
        normal = np.einsum("nmij,nm,nmik->mjk", jacobian, scale, jacobian)
        gradient = np.einsum("nmij,nm,nmi->mj", jacobian, scale, residual)
        damping = 1e-9 * np.trace(normal, axis1=1, axis2=2) + 1e-30
        normal += damping[:, None, None] * np.eye(3)
        points = points - np.linalg.solve(normal, gradient[..., None])[..., 0]
    residual, _ = _residuals(points, rays, poses, unit)
    trust = np.sort(weights / (1 + (residual**2).sum(-1)), axis=0)[-2]
    projected = [camera.project(points) for camera in cameras]
    behind = [view["depth"] <= 0 for view in projected] & used
    found = (used.sum(0) >= 2) & ~behind.any(0)
    error = np.stack([view["pixels"] for view in projected]) - pixels
    error = np.where(used & found, np.linalg.norm(error, axis=-1), np.nan)
    return {
        "points": np.where(found[:, None], points, np.nan).reshape(*shape, 3),
        "confidence": np.where(found, trust, 0.0).reshape(shape),
        "error": error.reshape(count, *shape),
    }


def _residuals(points: np.ndarray, rays: np.ndarray, poses: np.ndarray, unit: np.ndarray):
    """Returns reprojection residuals (n, m, 2) in units of the tolerance, and their Jacobian."""
    seen = np.einsum("nij,mj->nmi", poses[..., :3], points) + poses[:, None, :, 3]
    depth = np.where(np.abs(seen[..., 2:]) > 1e-9, seen[..., 2:], 1e-9)
    image = seen[..., :2] / depth
    slope = poses[:, None, :2, :3] - image[..., None] * poses[:, None, 2:, :3]
    residual = (image - rays) * unit[..., None]
    return residual, slope / depth[..., None] * unit[..., None, None]


def _start(rays, weights, poses, unit) -> np.ndarray:
    """Picks the linear solution, of all views or of a pair, that explains the views best."""
    count = len(rays)
    subsets = [tuple(range(count))]
    if count > 2:
        subsets += itertools.combinations(range(count), 2)
    best = np.zeros((rays.shape[1], 3))
    lowest = np.full(len(best), np.inf)
    for subset in map(list, subsets):
        points = _linear(rays[subset], weights[subset] * unit[subset], poses[subset])
        residual, _ = _residuals(points, rays, poses, unit)
        cost = (weights * np.log1p((residual**2).sum(-1))).sum(0)
        enough = (weights[subset] > 0).sum(0) >= 2
        better = enough & (cost < lowest)
        best[better], lowest[better] = points[better], cost[better]
    return best


def _linear(rays: np.ndarray, weights: np.ndarray, poses: np.ndarray) -> np.ndarray:
    """Solves the weighted DLT: points (m, 3) of least homogeneous residual."""
    rows = rays[..., None] * poses[:, None, 2:] - poses[:, None, :2]
    rows = rows * weights[..., None, None]
    system = np.moveaxis(rows, 1, 0).reshape(rays.shape[1], -1, 4)
    solution = np.linalg.svd(system, full_matrices=True)[2][:, -1]
    tiny = np.abs(solution[:, 3]) < 1e-12
    return solution[:, :3] / np.where(tiny, 1e-12, solution[:, 3])[:, None]
