"""Draws previews of a prepared clip: joints, mask, flow and background, as video and as strip."""

import os
from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8

from psrjax.data import video
from psrjax.prepare.common import result_page
from psrjax.prepare.monocular.pipeline import RUN, PreparedClip
from psrjax.vision import drawing

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


def write_strip(path: str | os.PathLike, prepared: PreparedClip) -> None:
    """Writes a picture of `result_page.STRIP` frames, evenly spaced, with joints and outline."""
    chosen = np.linspace(0, len(prepared.times) - 1, result_page.STRIP).round().astype(int)
    streams = {
        "frames": np.ascontiguousarray(prepared.frames[chosen]),
        "mask": np.ascontiguousarray(prepared.masks[chosen]),
        "joints": prepared.joints[chosen],
    }
    shown = [drawing.panel(drawing.one_frame(streams, index)) for index in range(len(chosen))]
    shown = [picture[:, : picture.shape[1] // 2] for picture in shown]
    result_page.write_strip(path, shown)
