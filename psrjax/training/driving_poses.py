"""The driving person's joints, fitted to the person to be shown before any frame is made."""

import os
from pathlib import Path

import cv2
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from psrjax import files
from psrjax.methods.base import Method
from psrjax.ops import pose_label
from psrjax.training.driving_footage import Footage

_RUN = 64  # frames whose joints are read at a time
_COLUMNS, _SIDE = 6, 160  # of the preview: frames, and pixels of each


def read(footage: Footage, key: str, first: int, end: int) -> Float[np.ndarray, "t 26 3"]:
    """The joints of the frames [first, end) of a footage; `key` is the contract's, of its side."""
    runs = (range(start, min(start + _RUN, end)) for start in range(first, end, _RUN))
    return np.concatenate([footage.read((key,), run)[key] for run in runs])


def fitted(
    method: Method, source: Footage, driving: Footage, frames: tuple[int, int]
) -> tuple[Float[np.ndarray, "t 26 3"], UInt8[np.ndarray, "y x 3"]]:
    """(the joints that `Method.fit_joints` makes of the driving frames, a preview of them).

    The preview has three rows of skeletons: as they were, as they are now, and those of the person
    to be shown, whose place and size the second row should have.

    Args:
      method: whose `synthesis_reads` have "source_joints" and "target_joints".
      source: footage of the person to be shown: all of it counts.
      driving: footage of the other.
      frames: first and end of the driving frames.

    Raises:
      UserError: as the method does.
    """
    before = read(driving, "target_joints", *frames)
    own = read(source, "source_joints", 0, source.frames)
    after = method.fit_joints(before, own)
    rows = {"driving": before, "normalized": after, source.name: own}
    return after, np.concatenate([_row(label, joints) for label, joints in rows.items()])


def write_preview(output: str | os.PathLike, picture: UInt8[np.ndarray, "y x 3"]) -> Path:
    """Writes `<stem>.poses.png` beside the output, and returns its path."""
    path = Path(output).with_suffix(".poses.png")
    with files.replacing(path) as temporary:
        Image.fromarray(picture).save(temporary, "png")
    return path


def _row(label: str, joints: np.ndarray) -> np.ndarray:
    chosen = np.linspace(0, len(joints) - 1, _COLUMNS).round().astype(int)
    sticks = pose_label.stick_figure(jnp.asarray(joints[chosen]), height=_SIDE, width=_SIDE)
    shown = np.round(np.asarray(sticks) * 255).astype(np.uint8)
    shown = np.pad(shown, ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=90)  # a thin grid
    row = np.ascontiguousarray(np.concatenate(list(shown), 1))
    cv2.putText(row, label, (6, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255, 255, 255), 1)
    return row
