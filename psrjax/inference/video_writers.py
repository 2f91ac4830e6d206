"""The files of a transfer: videos written as their frames come, each by a thread of its own."""

import contextlib
import os
import queue
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from psrjax.inference import intermediate_results, output_files
from psrjax.inference.marks import UNNAMED, Mark

_AHEAD = 8  # frames that may wait to be encoded: memory does not grow with the video
_END, _ABORT = "end", "abort"


class StreamingVideo:
    """A file that takes its frames one by one; `output_files.write` runs in a thread.

    Use as a context manager: the file appears when the block ends, whole, and not at all if the
    block ends in an error.
    """

    def __init__(self, path: str | os.PathLike, **options: Any):
        """Takes the options of `output_files.write`."""
        self.path = Path(path)
        self._queue: queue.Queue = queue.Queue(_AHEAD)
        self._error: BaseException | None = None
        self._options = options
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "StreamingVideo":
        self._thread.start()
        return self

    def __exit__(self, kind: Any, *details: object) -> None:
        self._put(_ABORT if kind else _END)
        self._thread.join()
        if self._error is not None and kind is None:
            raise self._error

    def push(self, frame: UInt8[np.ndarray, "h w 3"]) -> None:
        """Takes the next frame; waits while many are not yet encoded.

        Raises:
          UserError: if the file cannot be written.
        """
        self._put(frame)
        if self._error is not None:
            raise self._error

    def _put(self, item: Any) -> None:
        while self._thread.is_alive():
            try:
                return self._queue.put(item, timeout=0.2)
            except queue.Full:
                continue
        return None

    def _run(self) -> None:
        try:
            output_files.write(self.path, self._frames(), **self._options)
        except _Aborted:
            pass
        except BaseException as error:  # raised again where the frames are pushed
            self._error = error

    def _frames(self) -> Iterator[np.ndarray]:
        while True:
            item = self._queue.get()
            if isinstance(item, str):
                if item == _ABORT:
                    raise _Aborted
                return
            yield item


class _Aborted(Exception):
    """Ends `output_files.write` from within, so that it takes its half-written file away."""


class VideoWriters:
    """The files of one transfer, written side by side; use as a context manager.

    `add` takes the synthesized frames, window by window; `finish`, after the block, returns the
    paths.
    """

    def __init__(
        self,
        output: str | os.PathLike,
        source: UInt8[np.ndarray, "k h w 3"],
        times: Float[np.ndarray, " t"],
        *,
        audio: str = "",
        lossless: bool = False,
        mark: Mark = UNNAMED,
    ):
        """Opens nothing yet.

        Args:
          output: the result; the others are named after it.
          source: the source frames, of which the first are shown beside it.
          times: seconds at which the frames are shown.
          audio: a file whose sound is copied, or "".
          lossless: of the result.
          mark: what the files say of themselves.
        """
        self._output, self._times = Path(output), times
        self._suffix = output_files.suffix_of(output)
        self._sources = intermediate_results.sources(source)
        self._options, self._mark = {"audio": audio, "lossless": lossless}, mark
        self._stack = contextlib.ExitStack()
        self._videos: dict[str, StreamingVideo] = {}
        self._paths: list[Path] = []
        self._strip = set(intermediate_results.strip_frames(len(times)))
        self._rows: list[np.ndarray] = []
        self._stills: dict[str, np.ndarray] = {}
        self._written = 0

    def __enter__(self) -> "VideoWriters":
        return self

    def __exit__(self, *details: Any) -> None:
        self._stack.__exit__(*details)

    def add(
        self,
        result: UInt8[np.ndarray, "t h w 3"],
        driving: UInt8[np.ndarray, "t h w 3"],
        *,
        mask: UInt8[np.ndarray, "t h w 1"] | None = None,
        intermediates: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Writes the next frames, those of `result`; the other arrays may be longer."""
        if intermediates and not self._written:
            self._stills = intermediate_results.still_pictures(intermediates)
        for number, frame in enumerate(result):
            self._push("", frame, **self._options)
            beside = {**self._sources, "driving": driving[number], "result": frame}
            self._push("compare", intermediate_results.beside(beside))
            if mask is not None:
                self._push("mask", mask[number].repeat(3, -1))
            if intermediates:
                row = intermediate_results.beside(
                    intermediate_results.panels(intermediates, beside, number)
                )
                self._push("intermediates", row)
                if self._written in self._strip:
                    self._rows.append(row)
            self._written += 1

    def finish(self) -> list[Path]:
        """Writes the pictures of intermediate results; returns the paths of all files."""
        for name, image in self._stills.items():
            self._picture(f"intermediates.{name}", image)
        if self._rows:
            self._picture("intermediates", np.concatenate(self._rows))
        return self._paths

    def _push(self, what: str, frame: np.ndarray, **options: Any) -> None:
        if what not in self._videos:
            shared = {"times": self._times, "suffix": self._suffix, "mark": self._mark}
            video_file = StreamingVideo(self._name(what), **shared, **options)
            self._videos[what] = self._stack.enter_context(video_file)
            self._paths.append(video_file.path)
        self._videos[what].push(frame)

    def _picture(self, what: str, image: np.ndarray) -> None:
        path = self._name(what, ".png")
        intermediate_results.write_picture(path, image)
        self._paths.append(path)

    def _name(self, what: str, suffix: str = "") -> Path:
        middle = f".{what}" if what else ""
        return self._output.with_name(f"{self._output.stem}{middle}{suffix or self._output.suffix}")
