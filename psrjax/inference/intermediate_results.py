"""Pictures of a method's intermediate results, one panel beside another.

An array of `Method.synthesize`'s "intermediates" is drawn by its axes:

  (b t h w 3)    pictures in [-1, 1]
  (b t h w 1)    maps in [0, 1], black to white
  (b t h w 2)    motion in pixels of the array's own grid: the hue is its direction
  (b t h w p)    shares of p > 3 parts, the first one background: black, as in Yang et al.'s Fig. 8
  (b t k h w 1), (b t k h w 3)   a map or a picture of each source frame
  (b t j 2)      points in [-1, 1] on the driving (or true) frames, in the colours of the parts
  (b j 2)        points of the source: one whose name begins with "source"
  (b h w 3), (b h w 1)   one for the whole clip: a picture file of its own
  (b t)          numbers, of which `transfer` logs the mean: not drawn
"""

import colorsys
import os
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from psrjax import io
from psrjax.data import codec, video
from psrjax.inference import output_files
from psrjax.inference.marks import UNNAMED, Mark
from psrjax.ops import geometry

SMALLEST = 192  # pixels a panel is enlarged to, at least
_SOURCES = 4  # source frames that are shown: methods may read a hundred
_STRIP = 6  # frames of the picture of a whole clip
_FULL_MOTION = 0.2  # of the width: motion that is drawn in full colour


def colors(count: int) -> UInt8[np.ndarray, "count 3"]:
    """Returns colours that differ, the same for a part and for its point."""
    hues = [(0.61803 * number) % 1.0 for number in range(count)]
    rgb = [colorsys.hsv_to_rgb(h, 0.85 - 0.25 * (i % 2), 1.0) for i, h in enumerate(hues)]
    return np.round(255 * np.asarray(rgb).reshape(count, 3)).astype(np.uint8)


def panels(
    intermediates: Mapping[str, np.ndarray],
    shown: Mapping[str, UInt8[np.ndarray, "h w 3"]],
    number: int,
) -> dict[str, UInt8[np.ndarray, "y x 3"]]:
    """Draws the panels of one frame: the frames that are shown, and every array that has time.

    Args:
      intermediates: of one window, without the batch axis.
      shown: {label: frame} of one size; points are drawn on "source" and "driving" or "truth".
      number: the frame's place in the window.
    """
    height, width = next(iter(shown.values())).shape[:2]
    scale = max(1, -(-SMALLEST // width))
    size = (height * scale, width * scale)
    drawn = {label: _enlarged(image, size) for label, image in shown.items()}
    for name, array in intermediates.items():
        if array.ndim == 2:  # (j 2)
            drawn["source"] = _with_points(drawn["source"], array)
        elif array.ndim == 3 and array.shape[-1] == 2:  # (t j 2)
            for label in {"driving", "truth"} & set(drawn):
                drawn[label] = _with_points(drawn[label], array[number])
        elif array.ndim == 5:  # (t k h w c)
            many = enumerate(array[number])
            drawn |= {f"{name} {i + 1}": _enlarged(draw(one), size) for i, one in many}
        elif array.ndim == 4:
            drawn[name] = _enlarged(draw(array[number]), size)
    return drawn


def still_pictures(
    intermediates: Mapping[str, np.ndarray],
) -> dict[str, UInt8[np.ndarray, "h w 3"]]:
    """Draws the arrays without time, by name; small ones are enlarged."""
    pictures = {
        name: draw(array)
        for name, array in intermediates.items()
        if array.ndim == 3 and array.shape[-1] in (1, 3)
    }
    for name, picture in pictures.items():
        times = max(1, -(-2 * SMALLEST // picture.shape[1]))
        pictures[name] = picture.repeat(times, 0).repeat(times, 1)
    return pictures


def write(
    output: str | os.PathLike,
    intermediates: Mapping[str, np.ndarray],
    shown: Mapping[str, UInt8[np.ndarray, "t h w 3"]],
    times: Float[np.ndarray, " t"],
    *,
    mark: Mark = UNNAMED,
) -> list[Path]:
    """Writes the intermediate results of a whole clip.

    Files: `<stem>.intermediates<suffix>`, a strip of its frames `<stem>.intermediates.png`, and
    `<stem>.intermediates.NAME.png` of arrays without time.

    Args:
      output: the result that they belong to.
      intermediates: of the whole clip, without the batch axis.
      shown: {label: video}: as `panels` takes their frames.
      times: seconds at which the frames are shown.
      mark: what the video says of itself.

    Returns:
      The paths of the files, the video first.

    Raises:
      UserError: if the place cannot be written to.
    """
    output = Path(output)
    moving = output.with_name(f"{output.stem}.intermediates{output.suffix}")

    def row(number: int) -> UInt8[np.ndarray, "y x 3"]:
        frames = {label: frames[number] for label, frames in shown.items()}
        return beside(panels(intermediates, frames, number))

    rows = (row(number) for number in range(len(times)))
    suffix = output_files.suffix_of(output)
    output_files.write(moving, rows, times=times, suffix=suffix, mark=mark)
    pictures = {"": np.concatenate([row(number) for number in strip_frames(len(times))])}
    pictures |= {f".{name}": image for name, image in still_pictures(intermediates).items()}
    paths = [output.with_name(f"{output.stem}.intermediates{name}.png") for name in pictures]
    for path, image in zip(paths, pictures.values(), strict=True):
        write_picture(path, image)
    return [moving, *paths]


def strip_frames(count: int) -> list[int]:
    """Chooses frames of a clip, spread over it, for a picture."""
    return np.unique(np.linspace(0, count - 1, _STRIP).round().astype(int)).tolist()


def write_picture(path: Path, image: UInt8[np.ndarray, "h w 3"]) -> None:
    """Writes a PNG, whole or not at all."""
    with io.replacing(path) as temporary:
        temporary.write_bytes(codec.encode_png(image))


def sources(frames: UInt8[np.ndarray, "k h w 3"]) -> dict[str, UInt8[np.ndarray, "h w 3"]]:
    """Labels the source frames that are shown beside a result, the first ones."""
    return {f"source {i + 1}" if i else "source": p for i, p in enumerate(frames[:_SOURCES])}


def beside(
    images: Mapping[str, UInt8[np.ndarray, "h w 3"]],
) -> UInt8[np.ndarray, "height width 3"]:
    """Places pictures side by side, each under its label."""
    return video.beside({label: image[None] for label, image in images.items()})[0]


def draw(image: Float[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w 3"]:
    """Draws one array by its channels; see the module."""
    channels = image.shape[-1]
    if channels == 1:
        return _map(image)
    if channels == 2:
        return _motion(image)
    if channels == 3:
        return np.clip(np.round((image + 1.0) * 127.5), 0, 255).astype(np.uint8)
    parts = np.concatenate([np.zeros((1, 3)), colors(channels - 1)])
    return np.clip(np.round(image @ parts), 0, 255).astype(np.uint8)


def _map(image: np.ndarray) -> np.ndarray:
    return np.clip(np.round(image * 255.0), 0, 255).astype(np.uint8).repeat(3, -1)


def _motion(flow: np.ndarray) -> np.ndarray:
    hue = np.arctan2(flow[..., 1], flow[..., 0]) / (2 * np.pi) % 1.0
    strength = np.linalg.norm(flow, axis=-1) / (_FULL_MOTION * flow.shape[1])
    hsv = np.stack([hue * 179, np.minimum(strength, 1.0) * 255, np.full_like(hue, 255)], -1)
    return cv2.cvtColor(np.round(hsv).astype(np.uint8), cv2.COLOR_HSV2RGB)


def _enlarged(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    nearest = size[0] % image.shape[0] == 0 and size[1] % image.shape[1] == 0
    interpolation = cv2.INTER_NEAREST if nearest else cv2.INTER_AREA
    return cv2.resize(image, size[::-1], interpolation=interpolation)


def _with_points(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    image = image.copy()
    places = geometry.unit_to_pixels(np.asarray(points[:, :2]), height=height, width=width)
    radius = max(3, width // 48)
    for place, color in zip(np.round(places).astype(int), colors(len(points)), strict=True):
        at = (int(place[0]), int(place[1]))
        cv2.circle(image, at, radius + 1, (0, 0, 0), -1, cv2.LINE_AA)
        cv2.circle(image, at, radius, tuple(int(c) for c in color), -1, cv2.LINE_AA)
    return image
