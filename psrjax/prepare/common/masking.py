"""Masks a person by joints and frames, for joints that come without a mask."""

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from psrjax.vision import backgrounds

SAMPLED = 96  # frames that the background is computed from
REACH = 0.05  # of a person's height: margin around the drawn body
RUN = 64  # frames processed at once

# Half widths and lengths of an adult's limbs, as fractions of the height.
_WIDTHS = {
    (2, 3): 0.034, (3, 4): 0.028, (5, 6): 0.034, (6, 7): 0.028, (9, 10): 0.054, (10, 11): 0.036,
    (12, 13): 0.054, (13, 14): 0.036, (1, 0): 0.040, (11, 22): 0.025, (14, 19): 0.025,
    (11, 24): 0.025, (14, 21): 0.025,
}  # fmt: skip
_LENGTHS = {(1, 8): 0.30, (9, 10): 0.24, (12, 13): 0.24, (10, 11): 0.24, (13, 14): 0.24}
_TORSO = (2, 5, 12, 9)
_HEAD = (0, 15, 16, 17, 18)
_HEAD_RADIUS, _HAND, _TORSO_RIM = 0.065, 0.09, 0.03


def stature(joints: Float[np.ndarray, "t 26 3"]) -> float:
    """Returns a person's standing height in pixels by the limbs' largest visible lengths.

    Limbs look shorter when they point at the camera, so that of each the 90th percentile over the
    clip is taken, and of all limbs the median. 0 if no limb is visible.
    """
    found = []
    for (one, other), fraction in _LENGTHS.items():
        seen = (joints[:, (one, other), 2] > 0).all(1)
        if seen.any():
            length = np.linalg.norm(joints[seen, one, :2] - joints[seen, other, :2], axis=-1)
            found.append(np.percentile(length, 90) / fraction)
    return float(np.median(found)) if found else 0.0


def draw_silhouettes(
    joints: Float[np.ndarray, "t 26 3"], size: tuple[int, int]
) -> Bool[np.ndarray, "t h w"]:
    """Draws a body of average girths on joints in pixels of pictures of `size`."""
    tall = stature(joints)
    return np.stack([_silhouette(person, size, tall) for person in joints])


def _silhouette(person: np.ndarray, size: tuple[int, int], tall: float) -> np.ndarray:
    drawn = np.zeros(size, np.uint8)
    at = np.round(np.clip(person[:, :2], -4096, 4096)).astype(int)
    seen = person[:, 2] > 0
    for (one, other), width in _WIDTHS.items():
        if seen[one] and seen[other]:
            cv2.line(drawn, at[one].tolist(), at[other].tolist(), 1, _pixels(2 * width * tall))
    for elbow, wrist in ((3, 4), (6, 7)):
        if seen[elbow] and seen[wrist]:
            way = person[wrist, :2] - person[elbow, :2]
            tip = person[wrist, :2] + way / max(np.linalg.norm(way), 1.0) * _HAND * tall
            tip = np.round(np.clip(tip, -4096, 4096)).astype(int)
            cv2.line(drawn, at[wrist].tolist(), tip.tolist(), 1, _pixels(0.05 * tall))
    if seen[list(_TORSO)].all():
        corners = at[list(_TORSO)]
        cv2.fillConvexPoly(drawn, cv2.convexHull(corners), 1)
        cv2.polylines(drawn, [corners], True, 1, _pixels(2 * _TORSO_RIM * tall))
    head = [joint for joint in _HEAD if seen[joint]]
    if head:
        centre = np.round(person[head, :2].mean(0)).astype(int)
        cv2.circle(drawn, centre.tolist(), _pixels(_HEAD_RADIUS * tall), 1, -1)
    return drawn > 0


def _pixels(length: float) -> int:
    return max(1, round(float(length)))


def masks_by_background(
    frames: UInt8[np.ndarray, "t h w 3"], joints: Float[np.ndarray, "t 26 3"]
) -> UInt8[np.ndarray, "t h w"]:
    """Masks a person in front of a static camera by background subtraction.

    Args:
      frames: the clip.
      joints: in pixels of the frames.
    """
    size = frames.shape[1:3]
    drawn = draw_silhouettes(joints, size)
    reach = max(2.0, REACH * stature(joints))
    chosen = sampled(len(frames))
    model = backgrounds.BackgroundModel.fit(np.asarray(frames[chosen]), drawn[chosen], reach=reach)
    masks = np.zeros(frames.shape[:3], np.uint8)
    for start in range(0, len(frames), RUN):
        run = slice(start, start + RUN)
        masks[run] = 255 * model.masks(np.asarray(frames[run]), drawn[run])
    return masks


def masks_by_colour(
    frames: UInt8[np.ndarray, "t h w 3"], joints: Float[np.ndarray, "t 26 3"]
) -> UInt8[np.ndarray, "t h w"]:
    """Masks a person in front of a moving camera by GrabCut from a drawn body.

    Rother, Kolmogorov, Blake, "GrabCut", SIGGRAPH 2004, by OpenCV.
    """
    drawn = draw_silhouettes(joints, frames.shape[1:3])
    tall = stature(joints)
    masks = np.zeros(frames.shape[:3], np.uint8)
    for index, body in enumerate(drawn):
        if not body.any():
            continue
        trimap = np.full(body.shape, cv2.GC_BGD, np.uint8)
        trimap[backgrounds.grow(body, max(2.0, REACH * tall))] = cv2.GC_PR_BGD
        trimap[body] = cv2.GC_PR_FGD
        trimap[backgrounds.grow(body, -max(1.0, 0.02 * tall))] = cv2.GC_FGD
        found = trimap.copy()
        if (trimap == cv2.GC_FGD).any() and (trimap == cv2.GC_BGD).any():
            image = np.ascontiguousarray(frames[index][..., ::-1])
            models = np.zeros((1, 65)), np.zeros((1, 65))
            cv2.grabCut(image, found, (0, 0, 0, 0), *models, 2, cv2.GC_INIT_WITH_MASK)
        masks[index] = 255 * np.isin(found, (cv2.GC_FGD, cv2.GC_PR_FGD))
    return masks


def sampled(count: int) -> np.ndarray:
    """Returns at most `SAMPLED` frame numbers, evenly spaced over a clip."""
    return np.unique(np.linspace(0, count - 1, min(count, SAMPLED)).round().astype(int))


def camera_motion(frames: UInt8[np.ndarray, "t h w 3"], masks: UInt8[np.ndarray, "t h w"]) -> float:
    """Measures the largest motion of the background, as a fraction of the picture's width.

    Corners off the person (Shi-Tomasi) are tracked from the middle frame to eight others and back
    by pyramidal Lucas-Kanade. Corners near the person in either frame do not count, since the
    outline would carry them along. The motion is the largest of the frames' medians; 0 if the
    background has no corners.
    """
    middle = len(frames) // 2
    chosen = np.unique(np.linspace(0, len(frames) - 1, 9).round().astype(int))
    reach = max(3, frames.shape[2] // 24)
    covered = {i: backgrounds.grow(masks[i] > 32, reach) for i in {middle, *chosen.tolist()}}
    first = cv2.cvtColor(frames[middle], cv2.COLOR_RGB2GRAY)
    background = (~covered[middle]).astype(np.uint8)
    corners = cv2.goodFeaturesToTrack(first, 200, 0.01, 4, mask=background)
    if corners is None or len(corners) < 8:
        return 0.0
    moved = []
    for index in chosen.tolist():
        other = cv2.cvtColor(frames[index], cv2.COLOR_RGB2GRAY)
        there, found, _ = _track(first, other, corners)
        back, again, _ = _track(other, first, there)
        ok = (found & again)[:, 0] > 0
        ok &= np.linalg.norm((back - corners)[:, 0], axis=-1) < 1.0
        free = _free(corners, covered[index])
        ok &= free & _free(there, covered[index])
        if ok.sum() >= 8:
            moved.append(np.median(np.linalg.norm((there - corners)[ok, 0], axis=-1)))
        elif free.sum() >= 20 and not ok.any():  # no background is left: the camera has panned away
            moved.append(frames.shape[2])
    return float(max(moved, default=0.0) / frames.shape[2])


def _track(
    before: np.ndarray, after: np.ndarray, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    flow = cv2.calcOpticalFlowPyrLK
    return flow(before, after, points, None)  # pyright: ignore[reportCallIssue, reportArgumentType]


def _free(points: Float[np.ndarray, "n 1 2"], covered: Bool[np.ndarray, "h w"]) -> np.ndarray:
    """Tells which points (x, y) lie off the covered area, or outside the picture."""
    columns, rows = np.round(points[:, 0]).astype(int).T
    height, width = covered.shape
    return ~covered[np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)]
