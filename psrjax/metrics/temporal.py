"""Metrics over time: a frame against its neighbour, warped by the true video's motion.

Frames are floats in [0, 1]. Flow comes with the footage: the keys `target_flow` (frame t to t-1, on
t's grid, pixels) and `target_flow_forward` (t-1 to t, on t-1's grid) of a batch, which say at index
t how frame t moved; their first entry is not read. It must be the flow of the real video: a made
one would excuse its own flicker.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from psrjax.errors import UserError
from psrjax.ops import flow as flow_ops
from psrjax.ops import geometry

E_TEMP_SCALE = 100.0  # the papers print no unit: psrjax gives hundredths of the data range

Videos = Float[Array, "b t h w c"]
Flows = Float[Array, "b t h w 2"]
Masks = Float[Array, "b t h w 1"]


def temporal_error(video: Videos, flow: Flows, trust: Masks | None = None) -> Float[Array, " b"]:
    """Computes E_temp of Huang et al. 2017 (D2G-Net's Table 1), times 100; less is better.

    100 sqrt(1/(T-1) sum_t 1/D sum_k c_k (x_t^k - W(x_{t-1})^k)²), D = h w c: all pixels divide,
    also those that the mask leaves out. W reads frame t-1 along the flow, bilinearly, beyond the
    border its nearest pixel.

    Args:
      video: the made frames.
      flow: of the real video, frame t to t-1 on t's grid, pixels; the first is not read.
      trust: c, 1 where the flow can be trusted (`trust`), else 0; None is 1 everywhere.

    Raises:
      UserError: for a video of one frame.
    """
    squares = temporal_squares(video, flow, trust)
    return E_TEMP_SCALE * jnp.sqrt(squares.mean(-1))


def temporal_squares(video: Videos, flow: Flows, trust: Masks | None = None) -> Float[Array, "b s"]:
    """Computes 1/D sum_k c_k (x_t^k - W(x_{t-1})^k)² of frames 1..T-1, which E_temp averages.

    A clip that comes in pieces has the mean of its pieces' squares, if each piece begins with the
    last frame of the one before. Arguments and errors as `temporal_error`.
    """
    _check_length(video)
    before = _warped(video[:, :-1], flow[:, 1:])
    squares = jnp.square(video[:, 1:] - before)
    return (squares if trust is None else squares * trust[:, 1:]).mean((-3, -2, -1))


def temporal_gap(
    video: Videos, truth: Videos, flow: Flows, trust: Masks | None = None
) -> Float[Array, " b"]:
    """Computes how the made video's changes differ from the true one's in size, times 100.

    100/(T-1) sum_t |e_t(x) - e_t(y)|, e_t the root of `temporal_squares` of frame t; 0 is best.
    Beside `temporal_error`, which prefers blur to truth: a true video has an error too (texture
    that is read between pixels, light), and where a made one's is less it lacks detail. Sizes only:
    a faint video that flickers can have the true one's. Chu et al. 2020 (TecoGAN) compare changes
    likewise in tLP, which measures them by LPIPS and without motion.

    Args:
      video: the made frames, x.
      truth: the true ones, y.
      flow: as in `temporal_error`.
      trust: likewise.

    Raises:
      UserError: for a video of one frame.
    """
    made, true = (jnp.sqrt(temporal_squares(each, flow, trust)) for each in (video, truth))
    return E_TEMP_SCALE * jnp.abs(made - true).mean(-1)


def warping_error(video: Videos, flow_forward: Flows, trust: Masks) -> Float[Array, "b s"]:
    """Computes the warping error of Lai et al. 2018 of each pair of frames; less is better.

    sum M (x_{t-1} - W(x_t))² / sum M on frame t-1's grid; where nothing is trusted the pair counts
    as 0. A clip's error is the mean of its pairs, a dataset's that of its clips.

    Args:
      video: the made frames.
      flow_forward: of the real video, frame t-1 to t on t-1's grid, pixels; the first is not read.
      trust: M on t-1's grid at index t, as `trust(flow_forward, flow, one_sided=True)` makes it.

    Raises:
      UserError: for a video of one frame.
    """
    _check_length(video)
    after = _warped(video[:, 1:], flow_forward[:, 1:])
    squares = (jnp.square(video[:, :-1] - after) * trust[:, 1:]).sum((-3, -2, -1))
    area = trust[:, 1:].sum((-3, -2, -1)) * video.shape[-1]
    return squares / jnp.maximum(area, 1.0)


def trust(flow: Flows, opposite: Flows, *, one_sided: bool = False) -> Masks:
    """Gives 1 where `flow` can be trusted, on its own grid, else 0: `ops.flow.confidence`.

    Args:
      flow: `target_flow` for E_temp, `target_flow_forward` for the warping error.
      opposite: the other of the two.
      one_sided: as in `ops.flow.confidence`; Lai et al. compute it so.
    """
    flat = (f.reshape(-1, *f.shape[2:]) for f in (flow, opposite))
    found = flow_ops.confidence(*flat, one_sided=one_sided)
    return found.reshape(*flow.shape[:-1], 1)


def flicker(video: Videos, mask: Masks) -> Float[Array, "b s"]:
    """Computes the mean |x_t - x_{t-1}| outside the person of both frames, times 100.

    It is 0 for a still background, NaN where the person fills both frames.

    Raises:
      UserError: for a video of one frame.
    """
    _check_length(video)
    outside = (jnp.maximum(mask[:, 1:], mask[:, :-1]) < 0.5).astype(video.dtype)
    change = (jnp.abs(jnp.diff(video, axis=1)) * outside).sum((-3, -2, -1))
    area = outside.sum((-3, -2, -1)) * video.shape[-1]
    return jnp.where(area > 0, 100.0 * change / jnp.maximum(area, 1.0), jnp.nan)


def _warped(video: Videos, flow: Flows) -> Videos:
    flat = (x.reshape(-1, *x.shape[2:]) for x in (video, flow))
    return geometry.warp(*flat, padding="border").reshape(video.shape)


def _check_length(video: jax.Array) -> None:
    if video.shape[1] < 2:
        raise UserError("metrics over time need clips of at least 2 frames, these have 1")
