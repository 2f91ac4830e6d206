"""Renders the built-in body on a clip's joints: DensePose parts and the mesh label, as streams."""

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
    """A clip's joints in space (t, 26, 3), metres, and a camera that projects them."""

    joints: np.ndarray
    camera: Camera


def lift_prepared(prepared: pipeline.PreparedClip) -> LiftedBody:
    """Lifts a prepared clip's joints to space.

    Raises:
      UserError: naming the clip, if too little of the body is visible in it.
    """
    try:
        return lift_joints(prepared.joints, prepared.frames.shape[1:3])
    except UserError as error:
        raise UserError(
            f"{prepared.clip.video}: {error}, so there are no body parts and no mesh label: give "
            "joints of the whole person"
        ) from error


def lift_joints(joints: Float[np.ndarray, "t 26 3"], size: tuple[int, int]) -> LiftedBody:
    """Lifts stored joints of pictures of `size` (height, width) to space.

    Raises:
      UserError: if too little of the body is visible.
    """
    places = geometry.unit_to_pixels(joints[..., :2], height=size[0], width=size[1])
    pixels = np.concatenate([places, joints[..., 2:]], -1)
    return LiftedBody(*lifting.lift_clip(np.where(joints[..., 2:] > 0, pixels, 0.0), size))


def add_body_streams(
    views: Iterator[codec.ClipView],
    start: int,
    lifted: LiftedBody,
    masks: UInt8[np.ndarray, "t h w"],
    charts: UInt8[np.ndarray, "t h w 3"] | None = None,
) -> Iterator[codec.ClipView]:
    """Adds `STREAMS` to the views of a piece of a clip, rendered run by run.

    Args:
      views: of the piece.
      start: the clip's frame at which the piece begins.
      lifted: the whole clip's body.
      masks: the person in the whole clip; rendered IUV is kept inside it only.
      charts: IUV of the whole clip, used in place of the rendered.
    """
    for view in views:
        run = slice(start + view.start, start + view.start + view.frames)
        seen = lifting.render_streams(lifted.joints[run], lifted.camera)
        if charts is None:
            seen["iuv"] = np.where(masks[run][..., None] > 127, seen["iuv"], np.uint8(0))
        else:
            seen["iuv"] = np.ascontiguousarray(charts[run])
        yield dataclasses.replace(view, streams={**view.streams, **seen})
