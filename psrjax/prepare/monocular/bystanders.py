"""Counts bystanders with a detector that sees one person at a time."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from psrjax.data import codec
from psrjax.ops import pose
from psrjax.prepare.common.detector import PoseDetector
from psrjax.prepare.common.openpose import height
from psrjax.prepare.monocular.person_tracking import OTHER

LOOKS = 8  # frames searched again, at least, of a clip that has as many
SURE = 0.6  # least confidence of a bystander's joint
JOINTS = 10  # of the body's 15 that must be sure
BEYOND = 0.12  # of the person's height: margin of what is painted over


class FrameSample:
    """Evenly spaced frames of a clip of unknown length: `kept` {number: picture}.

    Every frame is kept at first. Whenever there are twice as many as needed, every other one is
    dropped and the step doubles.
    """

    def __init__(self):
        self.kept: dict[int, UInt8[np.ndarray, "h w 3"]] = {}
        self._step = 1

    def passing(self, images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Yields the images unchanged and keeps some of them."""
        for number, image in enumerate(images):
            if number % self._step == 0:
                self.kept[number] = image
            if len(self.kept) == 2 * LOOKS:
                self._step *= 2
                self.kept = {n: i for n, i in self.kept.items() if n % self._step == 0}
            yield image


def bystander_fraction(
    kept: dict[int, UInt8[np.ndarray, "h w 3"]],
    joints: Float[np.ndarray, "t 26 3"],
    masks: Sequence[bytes],
    detector: PoseDetector,
) -> float:
    """Returns the fraction of the kept frames in which somebody else is detected.

    The person is painted over with the surrounding colour before the detector runs again. People
    less than `OTHER` times as tall do not count.
    """
    found = []
    for number, image in kept.items():
        person = joints[number]
        if not pose.present(person).any():
            continue
        rest = _without(image, person, codec.decode_png(masks[number]))
        (again,) = detector.detect([rest])
        sure = (again.joints[:15, 2] >= SURE).sum() >= JOINTS
        found.append(sure and height(again.joints) > OTHER * height(person))
    return float(np.mean(found)) if found else 0.0


def _without(image: np.ndarray, person: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Paints over the person's box and mask."""
    seen = person[pose.present(person), :2]
    reach = BEYOND * height(person)
    low, high = seen.min(0) - reach, seen.max(0) + reach
    rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
    hidden = (columns >= low[0]) & (columns <= high[0]) & (rows >= low[1]) & (rows <= high[1])
    hidden = hidden | (mask > 64)
    rest = image.copy()
    rest[hidden] = np.median(image[~hidden], axis=0) if not hidden.all() else 0
    return rest
