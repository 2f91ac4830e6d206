"""Fréchet distances (FID, FVD, VFID) and the Inception score, in memory that does not grow.

Features come from the device in float32 and are added up on the host in float64: the products of
rank-deficient covariances take square roots of what rounding leaves, which float32 cannot afford
(at 2048 features it moves FID by points), and accelerators have no fast float64.
"""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Float

from psrjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Moments:
    """The count, mean and scatter of feature vectors: all that a Fréchet distance needs of a set.

    Attributes:
      count: the number of vectors.
      mean: (d,) float64.
      scatter: (d, d) float64, sum (f - mean)(f - mean)ᵀ.
    """

    count: float
    mean: np.ndarray
    scatter: np.ndarray

    @classmethod
    def empty(cls, size: int) -> "Moments":
        """Returns the moments of no vectors."""
        return cls(0.0, np.zeros(size), np.zeros((size, size)))

    @classmethod
    def of(cls, features: Float[np.ndarray, "n d"]) -> "Moments":
        """Computes the moments of some vectors.

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
        """Returns the moments of the vectors of both (Chan, Golub, LeVeque 1979)."""
        count = self.count + other.count
        if count == 0:
            return self
        apart = other.mean - self.mean
        mean = self.mean + apart * (other.count / count)
        between = np.outer(apart, apart) * (self.count * other.count / count)
        return Moments(count, mean, self.scatter + other.scatter + between)

    @property
    def covariance(self) -> Float[np.ndarray, "d d"]:
        """The unbiased covariance, as of `numpy.cov`.

        Raises:
          UserError: for fewer than two vectors.
        """
        if self.count < 2:
            raise _too_few(self.count)
        return self.scatter / (self.count - 1)


def _too_few(count: float) -> UserError:
    return UserError(
        f"a Fréchet distance needs at least 2 features of each set, this has {count:.0f}: give "
        "more frames (FID) or clips (FVD)"
    )


def frechet_distance(a: Moments, b: Moments) -> float:
    """Computes |m_a - m_b|² + tr(S_a + S_b - 2 (S_a S_b)^½) (Heusel et al. 2017).

    As in Cheng et al., Sec. 4.2. The trace of the root is the sum of the roots of eigenvalues of
    S_a^½ S_b S_a^½, which stays real and exact for singular covariances, where `sqrtm` does not.

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


def frechet_distance_of_few(
    first: Float[np.ndarray, "n d"],
    second: Float[np.ndarray, "m d"],
    first_weights: Float[np.ndarray, " n"] | None = None,
    second_weights: Float[np.ndarray, " m"] | None = None,
) -> float:
    """Computes `frechet_distance` of vectors at hand: fast where n and m are below d.

    With A and B the centred vectors over the root of their number less one, the trace of the root
    is the sum of the singular values of A Bᵀ.

    Args:
      first: vectors of one set.
      second: of the other.
      first_weights: how often each of `first` counts; by default once.
      second_weights: the same of `second`.

    Raises:
      UserError: if either has fewer than two vectors, or one that is not finite.
    """
    sides = [
        (np.asarray(x, np.float64), np.ones(len(x)) if w is None else np.asarray(w, np.float64))
        for x, w in ((first, first_weights), (second, second_weights))
    ]
    for x, weights in sides:
        if weights.sum() < 2:
            raise _too_few(weights.sum())
        if not np.isfinite(x).all():
            raise UserError("features are not finite: look for NaN in the frames")
    means = [weights @ x / weights.sum() for x, weights in sides]
    rows = [
        (x[w > 0] - mean) * np.sqrt(w[w > 0] / (w.sum() - 1))[:, None]
        for (x, w), mean in zip(sides, means)
    ]
    # More rows than columns say no more than their triangle does.
    square: Any = [np.linalg.qr(x, mode="r") if len(x) > x.shape[1] else x for x in rows]
    overlap = np.linalg.svd(square[0] @ square[1].T, compute_uv=False).sum()
    spread = sum(np.square(part).sum() for part in rows)
    return float(max(np.square(means[0] - means[1]).sum() + spread - 2 * overlap, 0.0))


@dataclasses.dataclass(frozen=True)
class InceptionScore:
    """exp(mean KL(p(y|x) || p(y))) of Salimans et al. 2016, mean and std over splits.

    Image i is of split i mod 10. Departs from: the published script, whose splits are consecutive
    images: that needs their number beforehand, and there the images are independent draws, of which
    any fixed partition will do; consecutive frames of a video would make splits of single clips.

    Attributes:
      counts: (splits,) numbers of images.
      entropy: (splits,) sums of p log p.
      classes: (splits, classes) sums of p.
    """

    counts: np.ndarray
    entropy: np.ndarray
    classes: np.ndarray

    SPLITS = 10

    @classmethod
    def empty(cls, classes: int) -> "InceptionScore":
        """Returns the score of no images."""
        return cls(np.zeros(cls.SPLITS), np.zeros(cls.SPLITS), np.zeros((cls.SPLITS, classes)))

    def add(self, logits: Float[np.ndarray, "n classes"]) -> "InceptionScore":
        """Adds the classifier's logits of the next images.

        Raises:
          UserError: if a logit is not finite.
        """
        logits = np.asarray(logits, np.float64)
        if not np.isfinite(logits).all():
            raise UserError("logits are not finite: look for NaN in the frames")
        log = logits - logits.max(1, keepdims=True)
        log -= np.log(np.exp(log).sum(1, keepdims=True))
        p = np.exp(log)
        split = (int(self.counts.sum()) + np.arange(len(p))) % self.SPLITS
        counts, entropy, classes = self.counts.copy(), self.entropy.copy(), self.classes.copy()
        np.add.at(counts, split, 1)
        np.add.at(entropy, split, (p * log).sum(1))
        np.add.at(classes, split, p)
        return InceptionScore(counts, entropy, classes)

    def merge(self, other: "InceptionScore") -> "InceptionScore":
        """Adds up the images of both, each in the split in which it was."""
        return InceptionScore(
            self.counts + other.counts, self.entropy + other.entropy, self.classes + other.classes
        )

    def compute(self) -> tuple[float, float]:
        """Returns the mean and the standard deviation over the splits.

        Raises:
          UserError: if there are fewer images than splits.
        """
        if not self.counts.all():
            raise UserError(
                f"the Inception score of {self.SPLITS} splits needs as many images: "
                f"{self.counts.sum():.0f}"
            )
        mean = self.classes / self.counts[:, None]
        own = (mean * np.log(np.maximum(mean, 1e-300))).sum(1)
        scores = np.exp(self.entropy / self.counts - own)
        return float(scores.mean()), float(scores.std())


def act_l1(
    video: Float[np.ndarray, "n d"], truth: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, " n"]:
    """Computes Act-Recog-L1 (INTERnet): sum |f(x) - f(y)| of each clip, to be averaged over clips.

    The paper names no layer: psrjax takes the 400 logits of I3D on 16-frame clips, and calls it
    `act_l1_logits`.
    """
    return np.abs(np.asarray(video, np.float64) - np.asarray(truth, np.float64)).sum(-1)
