"""The driving joints, fitted to the person to be shown before any frame is synthesized."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from psrjax import io
from psrjax.errors import UserError
from psrjax.inference.footage import Footage
from psrjax.methods.base import Method
from psrjax.prepare.common import lifting
from psrjax.prepare.monocular import body_streams
from psrjax.vision import drawing

SOURCE_JOINTS, DRIVING_JOINTS = "source_joints", "target_joints"
MESH_LABEL = "target_mesh_label"
_CHUNK = 64  # frames whose joints are read at a time
_COLUMNS, _SIDE = 6, 160  # of the preview: frames, and pixels of each


@dataclass(frozen=True, eq=False)
class FittedJoints:
    """The joints of a driving clip after `Method.fit_joints`.

    Attributes:
      joints: (t, 26, 3), of the frames from the first to the end.
      moved: whether they are others than before.
      preview: three rows of skeletons: before, after, and those of the person to be shown, whose
        place and size the second row should have.
    """

    joints: np.ndarray
    moved: bool
    preview: np.ndarray


def fits(method: Method) -> bool:
    """Tells whether a method fits a driving clip's joints to the person's."""
    return (
        DRIVING_JOINTS in method.synthesis_reads
        and type(method).fit_joints is not Method.fit_joints
    )


def reads(method: Method) -> tuple[str, ...]:
    """Returns the keys that a transfer reads: the method's, and what its joints are fitted to."""
    fitted_to = (SOURCE_JOINTS,) if fits(method) else ()
    return tuple(dict.fromkeys((*method.synthesis_reads, *fitted_to)))


def fit(method: Method, source: Footage, driving: Footage, frames: tuple[int, int]) -> FittedJoints:
    """Fits the driving joints.

    Args:
      method: one that `fits`.
      source: footage of the person to be shown: all of it counts.
      driving: footage of the other.
      frames: first and end of the driving frames.

    Raises:
      UserError: as the method does.
    """
    before = _read(driving, DRIVING_JOINTS, *frames)
    own = _read(source, SOURCE_JOINTS, 0, source.frames)
    after = method.fit_joints(before, own)
    rows = {"driving": before, "normalized": after, source.name: own}
    preview = np.concatenate([_draw_row(label, joints) for label, joints in rows.items()])
    return FittedJoints(after, not np.array_equal(before, after), preview)


def _read(footage: Footage, key: str, first: int, end: int) -> Float[np.ndarray, "t 26 3"]:
    chunks = (range(start, min(start + _CHUNK, end)) for start in range(first, end, _CHUNK))
    return np.concatenate([footage.read((key,), chunk)[key] for chunk in chunks])


class MeshLabels:
    """`MESH_LABEL` of joints: the built-in body on them, lifted from the picture into space."""

    def __init__(self, name: str, joints: Float[np.ndarray, "t 26 3"], size: tuple[int, int]):
        """Lifts the joints; `name` is the footage's, for messages.

        Raises:
          UserError: if too little of the body is seen to put a mesh there.
        """
        try:
            self._body = body_streams.lift_joints(joints, size)
        except UserError as error:
            raise UserError(
                f"{name}: {error}. The mesh label, which this run reads, is of a mesh on the "
                "joints: give footage that shows the whole person"
            ) from error

    def __getitem__(self, frames: Sequence[int]) -> UInt8[np.ndarray, "n h w 3"]:
        distinct, places = np.unique(frames, return_inverse=True)
        seen = lifting.render_streams(self._body.joints[distinct], self._body.camera)
        return seen[MESH_LABEL.removeprefix("target_")][places]


def write_preview(output: str | os.PathLike, picture: UInt8[np.ndarray, "y x 3"]) -> Path:
    """Writes `<stem>.poses.png` beside the output; returns its path."""
    path = Path(output).with_suffix(".poses.png")
    with io.replacing(path) as temporary:
        Image.fromarray(picture).save(temporary, "png")
    return path


def _draw_row(label: str, joints: np.ndarray) -> np.ndarray:
    chosen = np.linspace(0, len(joints) - 1, _COLUMNS).round().astype(int)
    shown = np.zeros((_COLUMNS, _SIDE, _SIDE, 3), np.uint8)
    for picture, pose in zip(shown, joints[chosen]):
        drawing.draw_joints(picture, pose)
    shown = np.pad(shown, ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=90)  # a thin grid
    row = np.ascontiguousarray(np.concatenate(list(shown), 1))
    cv2.putText(row, label, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1)
    return row
