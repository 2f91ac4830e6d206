"""Draws previews of a prepared clip: joints, mask, flow and background, as video and as strips."""

import os
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from psrjax.data import video
from psrjax.prepare.common import result_page
from psrjax.prepare.monocular import joint_mistakes
from psrjax.prepare.monocular.pipeline import RUN, PreparedClip
from psrjax.vision import drawing

STRIPS = (".jpg", ".mistakes.jpg")  # of the whole clip, and of frames in doubt
LONGEST = 1500  # frames of a preview; the rest of a longer clip is left out


def write(path: str | os.PathLike, prepared: PreparedClip) -> None:
    """Writes the preview video of a clip (see `drawing.panel`).

    Raises UserError as `video.write` does.
    """
    times = prepared.times[:LONGEST]
    video.write(path, panels(prepared, len(times)), times=times)


def panels(prepared: PreparedClip, count: int) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Yields the first `count` pictures of the preview."""
    fastest = 1.0
    for start in range(0, count, RUN):
        run = slice(start, min(start + RUN, count))
        streams = prepared.streams(run, first=start == 0)
        fastest = max(fastest, drawing.flow_range(streams["flow"]))
        for index in range(run.stop - run.start):
            yield drawing.panel(drawing.one_frame(streams, index), fastest=fastest)


def write_strips(folder: Path, prepared: PreparedClip) -> None:
    """Writes `NAME.jpg`, frames of the whole clip, and `NAME.mistakes.jpg`, those in doubt.

    Both are of `result_page.STRIP` frames at most, with their numbers, joints and outlines.
    """
    mistaken = joint_mistakes.frames_of(prepared.report["mistakes"])
    for suffix, frames in zip(STRIPS, (list(range(len(prepared.times))), mistaken)):
        if frames:
            places = np.linspace(0, len(frames) - 1, min(len(frames), result_page.STRIP))
            chosen = [frames[int(place)] for place in places.round()]
            result_page.write_strip(
                folder / f"{prepared.clip.name}{suffix}", _drawn(prepared, chosen)
            )


def _drawn(prepared: PreparedClip, frames: list[int]) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Yields frames with joints, outline and number."""
    streams = {
        "frames": np.ascontiguousarray(prepared.frames[frames]),
        "mask": np.ascontiguousarray(prepared.masks[frames]),
        "joints": prepared.joints[frames],
    }
    for index, number in enumerate(frames):
        panel = drawing.panel(drawing.one_frame(streams, index))
        shown = np.ascontiguousarray(panel[:, : panel.shape[1] // 2])
        place, font = (4, 16), cv2.FONT_HERSHEY_SIMPLEX
        for colour, thick in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(shown, str(number), place, font, 0.45, colour, thick, cv2.LINE_AA)
        yield shown
