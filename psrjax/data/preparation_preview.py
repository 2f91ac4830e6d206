"""What a prepared clip looks like: joints, mask, flow and plate, as a video and as a strip."""

import os
from collections.abc import Iterator, Mapping

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from psrjax import files
from psrjax.data import recording_preview, video
from psrjax.data.preparation import RUN, Prepared

HEIGHT = 256  # of a panel, about
LONGEST = 1500  # frames that a preview shows; a longer clip's first
STRIP = 6  # frames of a strip
_TINT = 0.15 * np.array([255, 40, 160], np.float32)  # behind a person who is cut out


def write(path: str | os.PathLike, prepared: Prepared) -> None:
    """Writes the preview of a clip: joints and mask on the frames, flow, and the person cut out.

    Raises UserError as `video.write` does.
    """
    times = prepared.times[:LONGEST]
    video.write(path, panels(prepared, len(times)), times=times)


def panels(prepared: Prepared, count: int) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """The first `count` pictures of the preview, side by side: see `panel`."""
    fastest = 1.0
    for start in range(0, count, RUN):
        run = slice(start, min(start + RUN, count))
        streams = prepared.streams(run, first=start == 0)
        fastest = max(fastest, speed(streams["flow"]))
        for index in range(run.stop - run.start):
            yield panel(at(streams, index), fastest=fastest)


def speed(flow: Float[np.ndarray, "t h w 2"]) -> float:
    """Pixels a frame that all but the fastest half percent of the pixels move at most."""
    return float(np.percentile(np.linalg.norm(flow.astype(np.float32), axis=-1), 99.5))


def at(streams: Mapping[str, np.ndarray], index: int) -> dict[str, np.ndarray]:
    """One frame of streams; the plate is that of all frames."""
    return {name: s if name == "background" else s[index] for name, s in streams.items()}


def panel(
    streams: Mapping[str, np.ndarray], *, fastest: float = 1.0
) -> UInt8[np.ndarray, "hh ww 3"]:
    """One picture of what streams of a data set hold at one frame, side by side.

    Joints and the mask's outline on the frame; the person cut out; the flow, whose hue is its
    direction and whose light is its length up to `fastest` pixels, grey where both directions
    disagree; body parts; the mesh's label; the plate. What is not among the streams is left out.
    """
    frame = streams["frames"]
    times = max(1, round(HEIGHT / frame.shape[0]))
    size = (frame.shape[1] * times, frame.shape[0] * times)
    large = cv2.resize(frame, size, interpolation=cv2.INTER_CUBIC)
    shown = [large.copy()]
    if "mask" in streams:
        soft = cv2.resize(streams["mask"], size).astype(np.float32)[..., None] / 255.0
        solid = (soft[..., 0] > 0.5).astype(np.uint8)
        edges, _ = cv2.findContours(solid, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(shown[0], edges, -1, recording_preview.OUTLINE, 1, cv2.LINE_AA)
        shown.append(np.uint8(large * soft + _TINT * (1.0 - soft)))
    if "joints" in streams:
        recording_preview.sticks(shown[0], streams["joints"])
    if "flow" in streams:
        sure = streams.get("flow_confidence", np.full(frame.shape[:2], 255, np.uint8))
        shown.append(cv2.resize(_flow_colours(streams["flow"], sure, fastest), size))
    if "iuv" in streams:
        parts = cv2.applyColorMap(np.uint8(10 * streams["iuv"][..., 0]), cv2.COLORMAP_TURBO)
        shown.append(cv2.resize(parts[..., ::-1], size, interpolation=cv2.INTER_NEAREST))
    if "mesh_label" in streams:
        shown.append(cv2.resize(streams["mesh_label"], size, interpolation=cv2.INTER_NEAREST))
    if "background" in streams:
        shown.append(cv2.resize(streams["background"], size, interpolation=cv2.INTER_CUBIC))
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
    chosen = np.linspace(0, len(prepared.times) - 1, STRIP).round().astype(int)
    streams = {
        "frames": np.ascontiguousarray(prepared.frames[chosen]),
        "mask": np.ascontiguousarray(prepared.masks[chosen]),
        "joints": prepared.joints[chosen],
    }
    shown = [panel(at(streams, index)) for index in range(len(chosen))]
    shown = [picture[:, : picture.shape[1] // 2] for picture in shown]
    done = cv2.imencode(".jpg", np.concatenate(shown, 1)[..., ::-1])[1].tobytes()
    with files.replacing(path) as temporary:
        temporary.write_bytes(done)
