"""The built-in body on a prepared clip's joints: its parts and its shape, as streams.

D2G-Net reads both: IUV where no DensePose lies beside the video, and the mesh's label.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from psrjax.data import codec
from psrjax.errors import UserError
from psrjax.ops import geometry
from psrjax.prepare.common import lifting
from psrjax.prepare.monocular import pipeline
from psrjax.vision.camera import Camera

STREAMS = ("iuv", "mesh_label")


@dataclass(frozen=True, eq=False)
class LiftedBody:
    """A clip's joints in space (t, 26, 3), metres, and the camera that sees them."""

    joints: np.ndarray
    camera: Camera


def lift_prepared(prepared: pipeline.PreparedClip) -> LiftedBody:
    """A prepared clip's joints in space, by `raw_lift.in_space`.

    Raises:
      UserError: naming the clip, if too little of a body is seen in it.
    """
    try:
        return lift_joints(prepared.joints, prepared.frames.shape[1:3])
    except UserError as error:
        raise UserError(
            f"{prepared.clip.video}: {error}, so there are no body parts and no mesh label: give "
            "joints of the whole person"
        ) from error


def lift_joints(joints: Float[np.ndarray, "t 26 3"], size: tuple[int, int]) -> LiftedBody:
    """Joints of the contract, in the units of pictures of `size` (height, width), in space.

    Raises:
      UserError: if too little of a body is seen.
    """
    places = geometry.unit_to_pixels(joints[..., :2], height=size[0], width=size[1])
    pixels = np.concatenate([places, joints[..., 2:]], -1)
    return LiftedBody(*lifting.lift_clip(np.where(joints[..., 2:] > 0, pixels, 0.0), size))


def add_body_streams(
    views: Iterator[codec.ClipView],
    start: int,
    acted: LiftedBody,
    masks: UInt8[np.ndarray, "t h w"],
    charts: UInt8[np.ndarray, "t h w 3"] | None = None,
) -> Iterator[codec.ClipView]:
    """Views of a piece of a clip with `STREAMS`, rendered run by run.

    Args:
      views: of the piece.
      start: the clip's frame with which the piece begins.
      acted: the whole clip's body.
      masks: the person in the whole clip: IUV of the body is kept inside it only.
      charts: IUV of the whole clip that is known better.
    """
    for view in views:
        run = slice(start + view.start, start + view.start + view.frames)
        seen = lifting.render_streams(acted.joints[run], acted.camera)
        if charts is None:
            seen["iuv"] = np.where(masks[run][..., None] > 127, seen["iuv"], np.uint8(0))
        else:
            seen["iuv"] = np.ascontiguousarray(charts[run])
        yield dataclasses.replace(view, streams={**view.streams, **seen})
