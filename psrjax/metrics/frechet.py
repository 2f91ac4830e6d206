"""Fréchet distances (FID, FVD, VFID) and the Inception score, in memory that does not grow.

Features come from the device in float32 and are added up on the host in float64: the products of
rank-deficient covariances take square roots of what rounding leaves, which float32 cannot afford
(at 2048 features it moves FID by points), and accelerators have no fast float64.
"""

import dataclasses

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Float

from psrjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Moments:
    """Count, mean and scatter of feature vectors: all that a Fréchet distance needs of a set.

    Attributes:
      count: how many vectors.
      mean: (d,) float64.
      scatter: (d, d) float64, sum (f - mean)(f - mean)ᵀ.
    """

    count: float
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def empty(cls, size: int) -> "Moments":
        """Of no vectors yet."""
        return cls(0.0, np.zeros(size), np.zeros((size, size)))

    @classmethod
    def of(cls, features: Float[np.ndarray, "n d"]) -> "Moments":
        """Of some vectors.

        Raises:
          UserError: if a feature is not finite.
        """
        features = np.asarray(features, np.float64)
        if not np.isfinite(features).all():
            raise UserError("features are not finite: look for NaN in the frames")
        if len(features) == 0:
            return cls.empty(features.shape[1])
        mean = features.mean(0)
        return cls(float(len(features)), mean, (features - mean).T @ (features - mean))

    def merge(self, other: "Moments") -> "Moments":
        """Of the vectors of both (Chan, Golub, LeVeque 1979)."""
        count = self.count + other.count
        if count == 0:
            return self
        apart = other.mean - self.mean
        mean = self.mean + apart * (other.count / count)
        between = np.outer(apart, apart) * (self.count * other.count / count)
        return Moments(count, mean, self.scatter + other.scatter + between)

    def over_hosts(self) -> "Moments":
        """Of all processes of a run; each must call it."""
        if jax.process_count() == 1:
            return self
        # The bytes are gathered: as float64 they would be rounded to float32 on the way.
        mine = np.concatenate([[self.count], self.mean, self.scatter.ravel()])
        bits = multihost_utils.process_allgather(mine.view(np.uint32))
        size, total = len(self.mean), Moments.empty(len(self.mean))
        for row in np.ascontiguousarray(bits).view(np.float64):
            part = Moments(row[0], row[1 : size + 1], row[size + 1 :].reshape(size, size))
            total = total.merge(part)
        return total

    @property
    def covariance(self) -> Float[np.ndarray, "d d"]:
        """The unbiased covariance, as `numpy.cov`.

        Raises:
          UserError: for fewer than two vectors.
        """
        if self.count < 2:
            raise UserError(
                f"a Fréchet distance needs at least 2 features of each set, this has "
                f"{self.count:.0f}: give more frames (FID) or clips (FVD)"
            )
        return self.scatter / (self.count - 1)


def frechet_distance(a: Moments, b: Moments) -> float:
    """|m_a - m_b|² + tr(S_a + S_b - 2 (S_a S_b)^½) (Heusel et al. 2017; Cheng et al., Sec. 4.2).

    The trace of the root is the sum of the roots of the eigenvalues of S_a^½ S_b S_a^½, which stays
    real and exact for singular covariances, where `sqrtm` does not.

    Raises:
      UserError: if either is of fewer than two vectors.
    """
    first, second = a.covariance, b.covariance
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    mixed = np.linalg.eigvalsh(root @ second @ root)
    overlap = np.sqrt(np.maximum(mixed, 0.0)).sum()
    distance = np.square(a.mean - b.mean).sum() + np.trace(first) + np.trace(second) - 2 * overlap
    return float(max(distance, 0.0))


class InceptionScore:
    """exp(mean KL(p(y|x) || p(y))) of Salimans et al. 2016, over consecutive splits of the images.

    The score depends on the order of the images and the number of splits: both are fixed here.
    """

    def __init__(self, images: int, *, splits: int = 10):
        """Of so many images; each split has `images / splits` of them, up to rounding.

        Raises:
          UserError: if there are fewer images than splits.
        """
        if images < splits:
            raise UserError(
                f"the Inception score of {splits} splits needs as many images: {images}"
            )
        self._images, self._splits, self._seen = images, splits, 0
        self._counts, self._entropy = np.zeros(splits), np.zeros(splits)
        self._mean: np.ndarray | None = None

    def add(self, logits: Float[np.ndarray, "n classes"]) -> None:
        """Adds the classifier's logits of the next images.

        Raises:
          UserError: for more images than announced.
        """
        logits = np.asarray(logits, np.float64)
        if self._seen + len(logits) > self._images:
            raise UserError(f"the Inception score was begun for {self._images} images, not more")
        log = logits - logits.max(1, keepdims=True)
        log -= np.log(np.exp(log).sum(1, keepdims=True))
        p = np.exp(log)
        if self._mean is None:
            self._mean = np.zeros((self._splits, logits.shape[1]))
        split = np.arange(self._seen, self._seen + len(p)) * self._splits // self._images
        np.add.at(self._counts, split, 1)
        np.add.at(self._entropy, split, (p * log).sum(1))
        np.add.at(self._mean, split, p)
        self._seen += len(p)

    def compute(self) -> tuple[float, float]:
        """Mean and standard deviation over the splits.

        Raises:
          UserError: if images are missing.
        """
        if self._seen != self._images or self._mean is None:
            raise UserError(f"the Inception score has {self._seen} of {self._images} images")
        mean = self._mean / self._counts[:, None]
        own = (mean * np.log(np.maximum(mean, 1e-300))).sum(1)
        scores = np.exp(self._entropy / self._counts - own)
        return float(scores.mean()), float(scores.std())


def act_l1(
    video: Float[np.ndarray, "n d"], truth: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, " n"]:
    """Act-Recog-L1 of INTERnet: sum |f(x) - f(y)| of each clip; the metric is the mean of clips.

    The paper names no layer: psrjax takes the 400 logits of I3D on 16-frame clips, and calls it
    `act_l1_logits`.
    """
    return np.abs(np.asarray(video, np.float64) - np.asarray(truth, np.float64)).sum(-1)
