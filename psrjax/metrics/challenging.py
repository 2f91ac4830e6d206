"""Challenging poses of D2G-Net: the frames whose pose is farthest from all training poses.

R-SSIM and R-PSNR are the means of SSIM and PSNR over these frames alone.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

COUNT = 10  # the paper's M
_ROWS, _COLUMNS = 64, 512  # poses compared at a time: memory does not grow with the dataset


def challenging_frames(
    poses: Float[np.ndarray, "n j 3"],
    training: Float[np.ndarray, "m j 3"],
    *,
    count: int = COUNT,
) -> Int[np.ndarray, " count"]:
    """Returns the indices of the frames with the largest `pose_distances`, farthest first.

    Equal distances keep the order of the frames; a pose without joints is never chosen.
    """
    distances = pose_distances(poses, training)
    usable = np.flatnonzero(np.isfinite(distances))
    return usable[np.argsort(-distances[usable], kind="stable")[:count]]


def pose_distances(
    poses: Float[np.ndarray, "n j 3"], training: Float[np.ndarray, "m j 3"]
) -> Float[np.ndarray, " n"]:
    """Computes min_j |p_i - p_j|₂ of the joints' concatenated coordinates (D2G-Net, Sec. IV).

    Only joints with a confidence in both poses count, and the square is scaled to all joints:
    |.|² = joints / common · sum over common. Poses without a common joint are infinitely far. Both
    sets are to be normalized alike. Confidence is the third number, 0 = missing.
    """
    found = np.full(len(poses), np.inf, np.float32)
    for row in range(0, len(poses), _ROWS):
        mine = np.asarray(poses[row : row + _ROWS], np.float32)
        for column in range(0, len(training), _COLUMNS):
            other = np.asarray(training[column : column + _COLUMNS], np.float32)
            nearest = np.asarray(_nearest(_filled(mine, _ROWS), _filled(other, _COLUMNS)))
            end = row + len(mine)
            found[row:end] = np.minimum(found[row:end], nearest[: len(mine)])
    return found


def _filled(poses: np.ndarray, count: int) -> np.ndarray:
    """Adds poses without joints, so that one compiled program serves every block."""
    return np.pad(poses, [(0, count - len(poses)), (0, 0), (0, 0)])


@jax.jit
def _nearest(poses: jax.Array, training: jax.Array) -> jax.Array:
    common = (poses[:, None, :, 2] > 0) & (training[None, :, :, 2] > 0)
    squares = jnp.square(poses[:, None, :, :2] - training[None, :, :, :2]).sum(-1)
    count = common.sum(-1)
    mean = jnp.where(common, squares, 0.0).sum(-1) / jnp.maximum(count, 1)
    distance = jnp.sqrt(mean * poses.shape[1])
    return jnp.where(count > 0, distance, jnp.inf).min(-1)
