"""What a prepared clip looks like: joints, mask, flow and plate, as a video and as a strip."""

import os
from collections.abc import Iterator

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from psrjax import files
from psrjax.data import recording_preview, video
from psrjax.data.preparation import RUN, Prepared

HEIGHT = 256  # of a panel, about
LONGEST = 1500  # frames that a preview shows; a longer clip's first
STRIP = 6  # frames of a strip
_TINT = np.array([255, 40, 160], np.float32)


def write(path: str | os.PathLike, prepared: Prepared) -> None:
    """Writes the preview of a clip: joints and mask on the frames, flow, and the person cut out.

    Raises UserError as `video.write` does.
    """
    times = prepared.times[:LONGEST]
    video.write(path, panels(prepared, len(times)), times=times)


def panels(prepared: Prepared, count: int) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """The first `count` pictures of the preview, side by side: see `write`."""
    fastest = 1.0
    for start in range(0, count, RUN):
        run = slice(start, min(start + RUN, count))
        streams = prepared.streams(run, first=start == 0)
        speed = np.linalg.norm(streams["flow"].astype(np.float32), axis=-1)
        fastest = max(fastest, float(np.percentile(speed, 99.5)))
        for index in range(len(streams["frames"])):
            yield panel(
                streams["frames"][index],
                streams["joints"][index],
                streams["mask"][index],
                streams["flow"][index],
                streams["flow_confidence"][index],
                streams.get("background"),
                fastest=fastest,
            )


def panel(
    frame: UInt8[np.ndarray, "h w 3"],
    joints: Float[np.ndarray, "26 3"],
    mask: UInt8[np.ndarray, "h w"],
    flow: Float[np.ndarray, "h w 2"],
    confidence: UInt8[np.ndarray, "h w"],
    plate: UInt8[np.ndarray, "h w 3"] | None,
    *,
    fastest: float,
) -> UInt8[np.ndarray, "hh ww 3"]:
    """One picture of the preview. Flow: hue is its direction, light its length up to `fastest`
    pixels, grey where both directions disagree. The last is the plate without the person."""
    times = max(1, round(HEIGHT / frame.shape[0]))
    size = (frame.shape[1] * times, frame.shape[0] * times)
    large = cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC)
    soft = cv2.resize(mask, size).astype(np.float32)[..., None] / 255.0
    drawn = large.copy()
    edges, _ = cv2.findContours(
        (soft[..., 0] > 0.5).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
    )
    cv2.drawContours(drawn, edges, -1, recording_preview.OUTLINE, 1, cv2.LINE_AA)
    recording_preview.sticks(drawn, joints)
    cut = np.uint8(large * soft + _TINT * 0.15 * (1.0 - soft))
    flowing = cv2.resize(_flow_colours(flow, confidence, fastest), size)
    shown = [drawn, cut, flowing]
    if plate is not None:
        shown.append(cv2.resize(plate, size, interpolation=cv2.INTER_CUBIC))
    return np.concatenate(shown, axis=1)


def _flow_colours(flow: np.ndarray, confidence: np.ndarray, fastest: float) -> np.ndarray:
    length, angle = cv2.cartToPolar(*np.moveaxis(flow.astype(np.float32), -1, 0).copy())
    hsv = np.stack(
        [
            np.uint8(angle * 90 / np.pi),
            confidence,
            np.uint8(255 * np.clip(length / fastest, 0.0, 1.0)),
        ],
        axis=-1,
    )
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)


def write_strip(path: str | os.PathLike, prepared: Prepared) -> None:
    """Writes a picture of `STRIP` frames, spread over the clip, with joints and outline."""
    count = len(prepared.times)
    chosen = np.unique(np.linspace(0, count - 1, STRIP).round().astype(int))
    shown = []
    for index in chosen:
        run = slice(int(index), int(index) + 1)
        blank = np.zeros((*prepared.masks.shape[1:], 2), np.float32)
        picture = panel(
            np.ascontiguousarray(prepared.frames[index]),
            prepared.joints[index],
            np.ascontiguousarray(prepared.masks[run][0]),
            blank,
            np.zeros(prepared.masks.shape[1:], np.uint8),
            None,
            fastest=1.0,
        )
        shown.append(picture[:, : picture.shape[1] // 3])
    done = cv2.imencode(".jpg", np.concatenate(shown, 1)[..., ::-1])[1].tobytes()
    with files.replacing(path) as temporary:
        temporary.write_bytes(done)
