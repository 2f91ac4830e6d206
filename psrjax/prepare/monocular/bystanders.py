"""Who else is in the picture: a second look of an estimator that sees one person at a time."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from psrjax.data import codec
from psrjax.ops import pose
from psrjax.prepare.common.annotations import height
from psrjax.prepare.common.detector import Estimator
from psrjax.prepare.monocular.person_tracking import OTHER

LOOKS = 8  # frames that are looked at again, at least, of a clip that has as many
SURE = 0.6  # confidence of a joint of somebody else that counts
JOINTS = 10  # of a body's 15, so many must be sure
BEYOND = 0.12  # of the person's height: how far around him the picture is painted over


class Spread:
    """Some frames out of a clip of unknown length, spread evenly: {number: picture}.

    Every frame is kept at first; when there are twice as many as needed, every other one goes, and
    from then on only every second is kept, and so on.
    """

    def __init__(self):
        self.kept: dict[int, UInt8[np.ndarray, "h w 3"]] = {}
        self._step = 1

    def watching(self, images: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """The images, unchanged, as they pass by."""
        for number, image in enumerate(images):
            if number % self._step == 0:
                self.kept[number] = image
            if len(self.kept) == 2 * LOOKS:
                self._step *= 2
                self.kept = {n: i for n, i in self.kept.items() if n % self._step == 0}
            yield image


def share(
    kept: dict[int, UInt8[np.ndarray, "h w 3"]],
    joints: Float[np.ndarray, "t 26 3"],
    masks: Sequence[bytes],
    estimator: Estimator,
) -> float:
    """In how many of the kept frames, as a fraction, somebody else is found as well.

    The person is painted over with the colour around him, and the estimator is asked again. Who is
    less than `OTHER` times as tall does not count.
    """
    found = []
    for number, image in kept.items():
        person = joints[number]
        if not pose.present(person).any():
            continue
        rest = _without(image, person, codec.decode_png(masks[number]))
        (again,) = estimator.estimate([rest])
        sure = (again.joints[:15, 2] >= SURE).sum() >= JOINTS
        found.append(sure and height(again.joints) > OTHER * height(person))
    return float(np.mean(found)) if found else 0.0


def _without(image: np.ndarray, person: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A picture with the box of the person and his mask painted over."""
    seen = person[pose.present(person), :2]
    reach = BEYOND * height(person)
    low, high = seen.min(0) - reach, seen.max(0) + reach
    rows, columns = np.indices(image.shape[:2], sparse=True)
    hidden = (columns >= low[0]) & (columns <= high[0]) & (rows >= low[1]) & (rows <= high[1])
    hidden = hidden | (mask > 64)
    rest = image.copy()
    rest[hidden] = np.median(image[~hidden], axis=0) if not hidden.all() else 0
    return rest
