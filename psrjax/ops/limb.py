"""A body as ten limbs before a background: joint maps, limb masks, transforms of limbs.

Balakrishnan, Zhao, Dalca, Durand, Guttag: "Synthesizing Images of Humans in Unseen Poses" and its
official code. Joints are the contract's 26, x and y in [-1, 1], confidence 0 where missing, of
which these 14 are used. Sizes in pixels are those of a frame 256 high, and grow with it.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from psrjax.ops import geometry, pose

JOINTS = 14
LIMBS = ((0, 1), (2, 3), (3, 4), (5, 6), (6, 7), (8, 9), (9, 10), (11, 12), (12, 13), (2, 5, 8, 11))
PARTS = len(LIMBS) + 1  # the first is the background
_VIEW = np.asarray(pose.layout("mpii14").view)
_TORSO = len(LIMBS) - 1
_JOINT_STD = 3.5  # 7/4 pixels of maps half as large
_LEAST_STD = 0.7  # pixels of the map itself: a narrower Gaussian falls between its pixels
_LIMB_VARIANCE, _TORSO_VARIANCE = 11.0**2, 13.0**2  # across
_LENGTH_SHARE, _LEAST_VARIANCE = 1.5, 5.0  # along: the squared length divided by this
_LEAST_TORSO = 1e-3
_FLOOR = 1e-10  # of the prior, under the logarithm
_MEMBERS = np.zeros((len(LIMBS), JOINTS), np.float32)
for _limb, _joints in enumerate(LIMBS):
    _MEMBERS[_limb, list(_joints)] = 1.0


def joint_maps(
    joints: Float[Array, "*b 26 3"], *, height: int, width: int
) -> Float[Array, "*b h w 14"]:
    """Draws a Gaussian of height 1 around each joint; 0 everywhere for one missing or outside.

    `Departs from:` the official code where maps are so small that its Gaussian (3.5 pixels of 256)
    would fall between the pixels: it is never narrower than 0.7 pixels of the map.
    """
    points, present = _points(joints, height, width)
    inside = (points > 0.0) & (points < np.asarray((width - 1, height - 1), np.float32))
    present = present & inside.all(-1)
    std = max(_JOINT_STD * height / 256.0, _LEAST_STD)
    # A Gaussian is the product of two: far fewer exponentials.
    across, down = (
        jnp.exp(-0.5 * jnp.square((np.arange(size) - points[..., axis, None]) / std))
        for axis, size in ((0, width), (1, height))
    )
    across = jnp.moveaxis(across * present[..., None], -1, -2)
    return jnp.moveaxis(down, -1, -2)[..., :, None, :] * across[..., None, :, :]


def limb_prior(
    joints: Float[Array, "*b 26 3"], *, height: int, width: int
) -> Float[Array, "*b h w 11"]:
    """Returns the logarithm of masks of the background and of each limb.

    A limb's mask is a Gaussian with its longer axis along the limb, 1 at its middle; a limb with a
    missing joint has none. The segmentation's logits are added to this.
    """
    points, present = _points(joints, height, width)
    scale = height / 256.0
    start, end = (jnp.stack([_end(points, limb, side) for limb in LIMBS], -2) for side in (0, 1))
    along = end - start
    length = jnp.sqrt(jnp.square(along).sum(-1) + 1e-6)
    along = along / length[..., None]
    ahead = jnp.maximum(jnp.square(length) / _LENGTH_SHARE, _LEAST_VARIANCE * scale**2)
    aside = np.full(len(LIMBS), _LIMB_VARIANCE, np.float32)
    aside[_TORSO] = _TORSO_VARIANCE
    offset = _pixels(height, width)[:, :, None] - ((start + end) / 2.0)[..., None, None, :, :]
    along = along[..., None, None, :, :]
    forward = (offset * along).sum(-1)
    sideward = offset[..., 0] * along[..., 1] - offset[..., 1] * along[..., 0]
    exponent = jnp.square(forward) / ahead[..., None, None, :]
    exponent += jnp.square(sideward) / (aside * scale**2)
    whole = ~((~present[..., None, :]) & (_MEMBERS > 0)).any(-1)
    masks = jnp.exp(-0.5 * exponent) * whole[..., None, None, :]
    rest = 1.0 - masks.max(-1, keepdims=True)
    return jnp.log(jnp.concatenate([rest, masks], -1) + _FLOOR)


def limb_transforms(
    source: Float[Array, "*b 26 3"], target: Float[Array, "*b 26 3"], *, height: int, width: int
) -> dict[str, Array]:
    """Fits for each limb the similarity that brings its target joints onto its source joints.

    Least squares over the joints that both poses have, in pixels; with one joint only the limb is
    moved without turning. `Departs from:` the official code, which knows no missing joints.

    Returns:
      "matrix" (*b 10 2 3), applied to (x, y, 1); "present" (*b 10), False where no joint of the
      limb is in both poses (the matrix is then the identity).
    """
    there, have = _points(source, height, width)
    here, want = _points(target, height, width)
    weights = _MEMBERS * (have & want)[..., None, :]
    count = weights.sum(-1, keepdims=True)
    mean_there, mean_here = (_mean(weights, points, count) for points in (there, here))
    to = there[..., None, :, :] - mean_there[..., None, :]
    of = here[..., None, :, :] - mean_here[..., None, :]
    spread = (weights * jnp.square(of).sum(-1)).sum(-1)
    safe = jnp.maximum(spread, 1e-6)
    cosine = (weights * (of * to).sum(-1)).sum(-1) / safe
    sine = (weights * (of[..., 0] * to[..., 1] - of[..., 1] * to[..., 0])).sum(-1) / safe
    turns = spread > 1e-6
    cosine, sine = jnp.where(turns, cosine, 1.0), jnp.where(turns, sine, 0.0)
    x, y = mean_here[..., 0], mean_here[..., 1]
    rows = (
        jnp.stack([cosine, -sine, mean_there[..., 0] - cosine * x + sine * y], -1),
        jnp.stack([sine, cosine, mean_there[..., 1] - sine * x - cosine * y], -1),
    )
    return {"matrix": jnp.stack(rows, -2), "present": count[..., 0] > 0}


def warp_limbs(
    limbs: Float[Array, "b p h w c"], matrix: Float[Array, "b t p 2 3"]
) -> Float[Array, "b t h w d"]:
    """Moves each limb's image by its own transforms: out(z) = limb(M z); d = p times c.

    Beyond the border is its nearest pixel.

    Args:
      limbs: the source's pixels, masked by limb.
      matrix: of `limb_transforms`, from t target poses to the source.
    """
    b, p, h, w, c = limbs.shape
    t = matrix.shape[1]
    pixels, each = _pixels(h, w)[:, :, None], matrix[:, :, None, None]
    # Term by term: accelerators round the coordinates of a matrix product.
    moved = each[..., 2] + sum(each[..., i] * pixels[..., i : i + 1] for i in range(2))
    return geometry.sample_parts(limbs, moved, padding="border").reshape(b, t, h, w, p * c)


@dataclass(frozen=True)
class Stance:
    """Size and place of a person in a clip: the torso's mean length, the hips' mean place.

    The torso runs from the middle of the shoulders to the middle of the hips, in units of [-1, 1].
    """

    length: float
    place: Float[np.ndarray, "2"]


def stance(joints: Float[np.ndarray, "t 26 3"]) -> Stance | None:
    """Measures the stance of a clip; None if no frame shows a whole torso."""
    torso = joints[:, _VIEW[np.asarray(LIMBS[_TORSO])]]
    torso = torso[(torso[..., 2] > 0).all(-1), :, :2]
    if not len(torso):
        return None
    shoulders, hips = torso[:, :2].mean(1), torso[:, 2:].mean(1)
    return Stance(float(np.linalg.norm(shoulders - hips, axis=-1).mean()), hips.mean(0))


def aligned(
    driving: Float[np.ndarray, "t 26 3"], own: Float[np.ndarray, "s 26 3"]
) -> Float[np.ndarray, "t 26 3"]:
    """Scales and moves driving poses to the size and the place of another person.

    One scale and one shift for the whole clip: what Cheng et al. leave open, by the single-frame
    model's own centring. Host side. Where a clip never shows a torso nothing changes.
    """
    of, to = stance(driving), stance(own)
    if of is None or to is None or of.length < _LEAST_TORSO:
        return driving
    points = to.place + to.length / of.length * (driving[..., :2] - of.place)
    there = driving[..., 2:] > 0
    found = np.concatenate([np.where(there, points, 0.0), driving[..., 2:]], -1)
    return found.astype(driving.dtype)


def _end(points: Array, limb: tuple[int, ...], side: int) -> Array:
    """Returns one end of a limb; the torso runs from between the shoulders to between the hips."""
    half = len(limb) // 2
    chosen = limb[side * half : (side + 1) * half]
    return points[..., list(chosen), :].mean(-2)


def _mean(weights: ArrayLike, points: Array, count: ArrayLike) -> Array:
    total = jnp.einsum("...pj,...jc->...pc", weights, points, precision=jax.lax.Precision.HIGHEST)
    return total / jnp.maximum(count, 1.0)


def _points(joints: Array, height: int, width: int) -> tuple[Array, Array]:
    """Returns pixel coordinates (*b 14 2), and whether each joint is there (*b 14)."""
    joints = joints[..., _VIEW, :]
    points = geometry.unit_to_pixels(joints[..., :2], height=height, width=width)
    return points, joints[..., 2] > 0


def _pixels(height: int, width: int) -> np.ndarray:
    """Returns pixel coordinates (h w 2)."""
    grid = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return np.stack(grid, -1)
