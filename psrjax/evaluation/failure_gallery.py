"""Pictures of an evaluation: the worst frames, and maps of where the result flickers."""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from etils import epath
from jaxtyping import Float, UInt8

from psrjax import io
from psrjax.data import codec

WORST = 10
FOLDER = "pictures"  # in the directory of a run
INDEX = "index.json"


@dataclasses.dataclass(frozen=True)
class WorstFrame:
    """A frame with a low score: its place, its scores, and its pictures by label.

    The labels are the source's where there is one, the result's and the truth's, in this order.
    """

    clip: str
    pair: str
    frame: int
    scores: dict[str, float]
    pictures: dict[str, UInt8[np.ndarray, "h w 3"]]


@dataclasses.dataclass
class Flicker:
    """The change from one frame to the next, summed over the frames of one target view."""

    made: Float[np.ndarray, "h w"]
    truth: Float[np.ndarray, "h w"]
    outside: Float[np.ndarray, "2"]  # sums of both outside the person
    outside_pixels: float = 0.0
    steps: int = 0


class Gallery:
    """Collects pictures while windows are scored; holds ten frames and one map for each view."""

    def __init__(self) -> None:
        self.result = ""
        self.worst: list[WorstFrame] = []
        self.flicker: dict[str, Flicker] = {}

    def add(
        self,
        window: Mapping[str, Any],
        pair: str,
        videos: Mapping[str, np.ndarray],
        mask: UInt8[np.ndarray, "t h w 1"],
        found: Mapping[str, np.ndarray],
    ) -> None:
        """Looks through one window.

        Args:
          window: its "clip", "target_view" and "start".
          pair: the name of its pair of views.
          videos: {label: (t h w 3) uint8}: the truth last, the result before it, and the source
            first where there is one. One of another length shows its last frame where it ends.
          mask: of the person; at least 128 is person.
          found: {metric: (t,)}, the result's scores, of which "psnr" decides.
        """
        *before, self.result, truth = videos
        shown = {label: videos[label] for label in (*before[:1], self.result, truth)}
        made, real = videos[self.result], videos[truth]
        frame = int(np.argmin(found["psnr"]))
        self._keep_worst(
            WorstFrame(
                clip=window["clip"],
                pair=pair,
                frame=window["start"] + frame,
                scores={m: float(v[frame]) for m, v in found.items() if not np.isnan(v[frame])},
                pictures={label: v[min(frame, len(v) - 1)] for label, v in shown.items()},
            )
        )
        self._add_flicker(window["target_view"], made, real, mask)

    def merge(self, other: "Gallery") -> None:
        """Takes in what another process collected."""
        self.result = self.result or other.result
        for frame in other.worst:
            self._keep_worst(frame)
        for view, theirs in other.flicker.items():
            mine = self.flicker.setdefault(view, theirs)
            if mine is not theirs and mine.made.shape == theirs.made.shape:
                for field in dataclasses.fields(Flicker):
                    total = getattr(mine, field.name) + getattr(theirs, field.name)
                    setattr(mine, field.name, total)

    def _keep_worst(self, frame: WorstFrame) -> None:
        """Keeps the worst, at most one of each window: its neighbours look the same."""
        self.worst = sorted([*self.worst, frame], key=lambda f: f.scores["psnr"])[:WORST]

    def _add_flicker(
        self, view: str, made: np.ndarray, truth: np.ndarray, mask: np.ndarray
    ) -> None:
        if len(made) < 2:
            return
        zeros = np.zeros(made.shape[1:3])
        total = self.flicker.setdefault(view, Flicker(zeros, zeros.copy(), np.zeros(2)))
        if total.made.shape != made.shape[1:3]:  # a view filmed in several sizes has no one map
            return
        person = np.maximum(mask[1:], mask[:-1])[..., 0] >= 128
        changes = [_change(made), _change(truth)]
        total.made = total.made + changes[0].sum(0)
        total.truth = total.truth + changes[1].sum(0)
        total.outside = total.outside + [change[~person].sum() for change in changes]
        total.outside_pixels += float((~person).sum())
        total.steps += len(made) - 1


def _change(video: UInt8[np.ndarray, "t h w 3"]) -> Float[np.ndarray, "s h w"]:
    """Computes the mean absolute change of each pixel between frames, in levels of 8 bits."""
    return np.abs(np.diff(video.astype(np.float32), axis=0)).mean(-1)


def write(folder: str | os.PathLike, gallery: Gallery) -> None:
    """Writes the pictures and their index.

    `index.json` holds "result" (its label), "worst" ([{"clip", "pair", "frame",
    "scores", "labels", "picture"}], worst first) and "flicker" ([{"view", "picture", "labels",
    "scale", "made", "truth"}]: the mean change outside the person in levels of 8 bits, and the
    level at the brightest end of the colour scale).

    Raises:
      UserError: if the folder cannot be written to.
    """
    root = epath.Path(folder)
    worst = []
    for number, frame in enumerate(gallery.worst):
        name = f"worst{number:02d}.png"
        _write_png(root / name, np.concatenate([*frame.pictures.values(), _error(frame)], 1))
        entry = {key: getattr(frame, key) for key in ("clip", "pair", "frame", "scores")}
        labels = [*frame.pictures, "error ×2"]
        worst.append(entry | {"labels": labels, "picture": name})
    flicker = []
    for number, (view, total) in enumerate(gallery.flicker.items()):
        name = f"flicker{number:02d}.png"
        maps = [total.made / total.steps, total.truth / total.steps]
        scale = max(1.0, float(np.percentile(maps, 99.5)))
        _write_png(root / name, np.concatenate([_colored(m / scale) for m in maps], 1))
        outside = total.outside / max(total.outside_pixels, 1)
        flicker.append(
            {
                "view": view,
                "picture": name,
                "labels": [gallery.result, "truth"],
                "scale": scale,
                "made": float(outside[0]),
                "truth": float(outside[1]),
            }
        )
    index = {"result": gallery.result, "worst": worst, "flicker": flicker}
    io.write_json(root / INDEX, index)


def _error(frame: WorstFrame) -> UInt8[np.ndarray, "h w 3"]:
    """Draws the difference of result and truth, doubled, so that 128 levels are white."""
    *_, made, truth = (picture.astype(np.float32) for picture in frame.pictures.values())
    return _colored(np.abs(made - truth).mean(-1) / 127.5)


def _colored(values: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    levels = (np.clip(values, 0, 1) * 255).round().astype(np.uint8)
    return cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1]


def _write_png(path: epath.Path, picture: UInt8[np.ndarray, "h w 3"]) -> None:
    with io.replacing(path) as temporary:
        temporary.write_bytes(codec.encode_png(picture))
