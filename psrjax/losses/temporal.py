"""Losses over time: frames along the optical flow, and key points that move with their image."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from psrjax.ops import flow, geometry, local_affine, thin_plate


def flow_warp(
    frame: Float[Array, "b h w c"],
    previous: Float[Array, "b h w c"],
    flow_forward: Float[Array, "b h w 2"],
    confidence: Float[Array, "b h w 1"] | None = None,
    *,
    confidence_moves: bool = False,
) -> Float[Array, ""]:
    """Compares a generated frame, warped back, with the true one before (Yang et al., Eq. 2 to 4).

    mean |M (f(O_t) - I_{t-1})|, f(O_t)(p) = O_t(p + F(p)); beyond the border its nearest pixel. The
    paper does not name the norm: L1, averaged over pixels and channels.

    Args:
      frame: O_t.
      previous: I_{t-1}.
      flow_forward: F, pixels, from t-1 to t on the grid of t-1.
      confidence: M; None is 1 everywhere, which is Eq. 2.
      confidence_moves: whether M is of O_t's pixels and is brought back with them.
    """
    error = jnp.abs(geometry.warp(frame, flow_forward, padding="border") - previous)
    if confidence is not None and confidence_moves:
        confidence = geometry.warp(confidence, flow_forward, padding="border")
    return (error if confidence is None else error * confidence).mean()


def extrinsic_confidence(
    flow_forward: Float[Array, "b h w 2"], flow_backward: Float[Array, "b h w 2"]
) -> Float[Array, "b h w 1"]:
    """1 where the optical flow can be trusted, on the grid of the first frame, else 0.

    `ops.flow.confidence` of Sundaram, Brox, Keutzer 2010, with central differences.

    Args:
      flow_forward: from the first frame to the second on the first's grid, pixels.
      flow_backward: from the second to the first on the second's grid.
    """
    return flow.confidence(flow_forward, flow_backward)


def equivariance(
    points: Mapping[str, Array], moved: Mapping[str, Array], transform: thin_plate.ThinPlate
) -> dict[str, Array]:
    """Compares key points of a deformed image, deformed back, with those of the image.

    Siarohin et al. 2019, Eq. 11 and 12: mean |k - T(k')| and mean |1 - J⁻¹ T'(k') J'|.

    Args:
      points: k "value" (b j 2) and J "jacobian" (b j 2 2) of the image.
      moved: k' and J' of `thin_plate.warp(transform, image)`.
      transform: T.

    Returns:
      {"value", "jacobian"}.
    """
    value = jnp.abs(points["value"] - thin_plate.apply(transform, moved["value"])).mean()
    chain = jnp.einsum(
        "bjmn,bjno,bjop->bjmp",
        local_affine.inverse(points["jacobian"]),
        thin_plate.jacobian(transform, moved["value"]),
        moved["jacobian"],
        precision=jax.lax.Precision.HIGHEST,
    )
    return {"value": value, "jacobian": jnp.abs(jnp.eye(2) - chain).mean()}
