"""Marks by which a synthesized video is known: in its file, and in sight."""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

import psrjax

WORD = "synthesized"  # what every mark begins with, and what is to be seen
_SHARE = 0.35  # of a frame's width, that the visible mark takes
_LEGIBLE = 72  # pixels that it takes at least, where there are so many


@dataclass(frozen=True)
class Mark:
    """Names what made a synthesized video, for its file, and for its frames where that is wanted.

    Attributes:
      method: that made it, or "".
      run: the name of its run's directory, or "".
      stage: of the run, or "".
      visible: whether every frame shows the word "synthesized".
      signer: of the file, "CERTIFICATES.pem,KEY.pem", see `content_credentials`; "" is nobody.
    """

    method: str = ""
    run: str = ""
    stage: str = ""
    visible: bool = False
    signer: str = ""

    @classmethod
    def of_run(cls, method: str, run: str | os.PathLike, stage: str) -> "Mark":
        """Makes the mark of a run's videos; of the run's place it tells the last part alone."""
        return cls(method, Path(run).name, stage)

    @property
    def text(self) -> str:
        """The line for the file: "synthesized by psrjax 1.2; method m; run r; stage s"."""
        facts = {"method": self.method, "run": self.run, "stage": self.stage}
        told = [f"{name} {value}" for name, value in facts.items() if value]
        return "; ".join([f"{WORD} by psrjax {psrjax.__version__}", *told])

    def on(self, frame: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """Returns a frame with the word at the bottom right; or the frame itself."""
        return _with_word(frame) if self.visible else frame


UNNAMED = Mark()  # of what is synthesized, by nobody in particular


def _with_word(frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    plate = _plate()
    wide = min(width, max(_LEGIBLE, round(_SHARE * width)))
    tall = min(height, max(1, round(wide * plate.shape[0] / plate.shape[1])))
    drawn = frame.copy()
    drawn[height - tall :, width - wide :] = cv2.resize(
        plate, (wide, tall), interpolation=cv2.INTER_AREA
    )
    return drawn


@cache
def _plate() -> UInt8[np.ndarray, "h w 3"]:
    """The word in white on black, larger than it will be shown."""
    font, scale, line, margin = cv2.FONT_HERSHEY_SIMPLEX, 2.0, 5, 16
    (wide, tall), below = cv2.getTextSize(WORD, font, scale, line)
    plate = np.zeros((tall + below + 2 * margin, wide + 2 * margin, 3), np.uint8)
    place = (margin, margin + tall)
    return cv2.putText(plate, WORD, place, font, scale, (255, 255, 255), line, cv2.LINE_AA)
