"""What a static camera's frames tell by themselves: clean plate, person masks, optical flow."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from psrjax.errors import UserError

RIM = 2  # pixels over which a person's edge may be smeared
LEAST = 3  # frames that must show a pixel uncovered for its median to be trusted
_FLOW_STEPS = 64  # of a pixel that a flow is rounded to


def clean_plate(
    frames: UInt8[np.ndarray, "t h w 3"], person: Bool[np.ndarray, "t h w"]
) -> dict[str, np.ndarray]:
    """The scene without the person: median over the frames in which a pixel is not the person.

    Args:
      frames: a static camera's frames.
      person: where the person may be; generous is right.

    Returns:
      `plate` (h, w, 3) uint8; `hole` (h, w) bool, pixels that fewer than `LEAST` frames show and
      that are filled from their surroundings (Telea's fast marching).

    Raises:
      UserError: if no pixel is ever free.
    """
    count = (~person).sum(0)
    hole = count < LEAST
    if hole.all():
        raise UserError("the person covers the whole picture in every frame: no clean plate")
    values = np.sort(np.where(person[..., None], np.int16(999), frames), axis=0)
    middle = np.stack([np.maximum(count - 1, 0) // 2, count // 2])[..., None]
    chosen = np.take_along_axis(values, np.minimum(middle, len(frames) - 1), axis=0)
    plate = np.clip(chosen.mean(0) + 0.5, 0, 255).astype(np.uint8)
    if hole.any():
        plate = cv2.inpaint(plate, hole.astype(np.uint8), 5, cv2.INPAINT_TELEA)
    return {"plate": plate, "hole": hole}


def grow(mask: Bool[np.ndarray, "*t h w"], radius: float) -> Bool[np.ndarray, "*t h w"]:
    """Dilates (radius > 0) or erodes (radius < 0) masks by a disc of that many pixels."""
    size = 2 * int(np.ceil(abs(radius))) + 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    change = cv2.dilate if radius > 0 else cv2.erode
    flat = mask.reshape(-1, *mask.shape[-2:]).astype(np.uint8)
    return np.stack([change(m, kernel) > 0 for m in flat]).reshape(mask.shape)


def person_masks(
    frames: UInt8[np.ndarray, "t h w 3"], drawn: Bool[np.ndarray, "t h w"], *, reach: float
) -> Bool[np.ndarray, "t h w"]:
    """Where the person is: where frames differ from the clean plate, near a roughly posed body.

    The difference is taken in CIE Lab with lightness at half weight, because a shadow darkens and
    hardly tints. Its threshold is six times the camera's own noise, read off the pixels that the
    body is never near. Others who move do not count, since only pixels within `reach` of the body
    do. A first plate leaves out all that is near the body; a second, only what the first masks
    found. Where no frame shows the background, the body decides.

    Args:
      frames: a static camera's frames.
      drawn: the posed body's silhouettes.
      reach: pixels.
    """
    return Scene.of(frames, drawn, reach=reach).masks(frames, drawn)


@dataclass(frozen=True)
class Scene:
    """A static camera's room: its clean plate, and what counts as different from it.

    `unknown` are pixels that no frame shows; differences above `threshold` are the person's, where
    they lie within `reach` pixels of the drawn body.
    """

    plate: UInt8[np.ndarray, "h w 3"]
    unknown: Bool[np.ndarray, "h w"]
    threshold: float
    reach: float

    @classmethod
    def of(
        cls, frames: UInt8[np.ndarray, "t h w 3"], drawn: Bool[np.ndarray, "t h w"], *, reach: float
    ) -> "Scene":
        """The scene by some frames of a clip, as many as show what the person covers."""
        covered = near = grow(drawn, reach)
        first = cls._beyond(frames, covered, near, reach)
        covered = grow(first.masks(frames, drawn) | grow(drawn, -2), 3)
        return cls._beyond(frames, covered, near, reach)

    @classmethod
    def _beyond(cls, frames, covered, near, reach: float) -> "Scene":
        scene = clean_plate(frames, covered)
        unknown = grow(scene["hole"], 1)
        difference = _differences(frames, scene["plate"])
        away = ~near.any(0) & ~unknown
        noise = np.median(difference[:, away]) / 0.67 if away.any() else 1.0
        return cls(scene["plate"], unknown, float(np.clip(6.0 * noise, 5.0, 20.0)), reach)

    def masks(
        self, frames: UInt8[np.ndarray, "t h w 3"], drawn: Bool[np.ndarray, "t h w"]
    ) -> Bool[np.ndarray, "t h w"]:
        """The person in frames of this scene; where nobody knows the room, the body decides."""
        difference = _differences(frames, self.plate)
        near = grow(drawn, self.reach)
        seeds = np.where(self.unknown, drawn, (difference > self.threshold) & near)
        solid = (_solid(seed) for seed in seeds)
        return np.stack([_sharp(mask, one) for mask, one in zip(solid, difference)])


def _differences(frames: np.ndarray, plate: np.ndarray) -> np.ndarray:
    weight = np.asarray([0.5, 1.0, 1.0], np.float32)
    still = _lab(plate)
    blurred = (cv2.GaussianBlur((_lab(frame) - still) * weight, (3, 3), 0) for frame in frames)
    return np.stack([np.linalg.norm(difference, axis=-1) for difference in blurred])


def _lab(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image.astype(np.float32) / 255.0, cv2.COLOR_RGB2LAB)


def _sharp(mask: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """A mask without its blurred rim: there the difference is less than half of what it is inside.

    Lenses, resizing and video codecs (which keep colour at half resolution) smear a person by a
    pixel or two over a background that the threshold then takes for the person.
    """
    rim = mask & ~grow(mask, -RIM)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * RIM + 3, 2 * RIM + 3))
    inside = cv2.dilate(np.where(mask, difference, 0.0).astype(np.float32), kernel)
    return mask & ~(rim & (difference < 0.5 * inside))


def _solid(seed: np.ndarray) -> np.ndarray:
    """The largest piece and those at least a tenth of it, with small cracks and holes closed."""
    size = max(3, 2 * (min(seed.shape) // 96) + 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    closed = cv2.morphologyEx(seed.astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(closed)
    if count < 2:
        return closed > 0
    areas = stats[1:, cv2.CC_STAT_AREA]
    kept = np.isin(labels, 1 + np.flatnonzero(areas >= 0.1 * areas.max()))
    count, labels, stats, _ = cv2.connectedComponentsWithStats((~kept).astype(np.uint8))
    small = 1 + np.flatnonzero(stats[1:, cv2.CC_STAT_AREA] < 0.002 * seed.size)
    return kept | np.isin(labels, small)


def optical_flow(frames: UInt8[np.ndarray, "t h w 3"]) -> dict[str, np.ndarray]:
    """Dense inverse search flow both ways between consecutive frames, and how far the two agree.

    Returns:
      `flow` (t, h, w, 2) float16: pixels (x, y) from frame t to t-1 on t's grid; `flow_forward`:
      from t-1 to t on (t-1)'s grid, stored at t; `flow_confidence` (t, h, w) uint8: 255 times
      exp(-e²/2), e pixels being how far a pixel lands from itself when carried back and forth. All
      are zero at the first frame. Flows are multiples of 1/64 pixel.
    """
    count, height, width = frames.shape[:3]
    engine = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
    flow = np.zeros((count, height, width, 2), np.float16)
    forward = np.zeros_like(flow)
    confidence = np.zeros((count, height, width), np.uint8)
    columns, rows = np.meshgrid(
        np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
    )
    for time in range(1, count):
        back = engine.calc(gray[time], gray[time - 1], None)
        ahead = engine.calc(gray[time - 1], gray[time], None)
        there = cv2.remap(
            ahead, columns + back[..., 0], rows + back[..., 1], cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        error = np.sum((back + there) ** 2, axis=-1)
        flow[time], forward[time] = _rounded(back), _rounded(ahead)
        confidence[time] = np.round(255 * np.exp(-error / 2))
    return {"flow": flow, "flow_forward": forward, "flow_confidence": confidence}


def _rounded(flow: Float[np.ndarray, "h w 2"]) -> Float[np.ndarray, "h w 2"]:
    """To 1/64 pixel: finer than the method is right, and a seventh of the bytes once compressed."""
    return np.round(flow * _FLOW_STEPS) / _FLOW_STEPS + 0.0  # no -0.0


def overlap(one: Bool[np.ndarray, "..."], other: Bool[np.ndarray, "..."]) -> float:
    """Intersection over union of two masks; 1 where both are empty."""
    union = (one | other).sum()
    return float((one & other).sum() / union) if union else 1.0
