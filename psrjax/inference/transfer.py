"""Transfer: one person's looks, another's motion; frames are read, made and written as they come.

What a method must provide (see `psrjax.methods.base`):

  synthesis_reads   the contract's keys that `start` and `synthesize` read. Keys that begin with
                    "source" come from the source footage, at k frames chosen once; those that begin
                    with "target" from the driving footage, window by window, with
                    `config.data.sampling.history` frames before each (the first frame again where
                    there are none). "background" is `TransferInputs.background`, else the source's.
  start             gets the source frames and the first window, or with `find_best_frame` the one
                    driving frame whose pose is most like the source's; gives the carry.
  synthesize        one window and the carry. Windows follow one another and do not overlap; the
                    last is filled up with its last frame, and what is made of that is dropped.
                    Windows of any length must give what the whole clip would give.
  "video", "mask"   are written; with a background that the method does not read, the mask puts the
                    "foreground", else the video, upon it.
  "explain"         is drawn by `driving_pictures`.
  poses             only for `find_best_frame` and `adapt_scale`.
  fit_joints        gets all of the driving joints at once, before the first window, where the
                    method reads them; windows then have what it returns. Where that is others than
                    before, or the footage has no mesh label, that of the moved joints is drawn.

A method's own options are its fields: `Options.fields` replaces them for one transfer.
"""

import functools
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from psrjax.data import loader, spec
from psrjax.errors import UserError
from psrjax.inference import driving_poses, frame_choice
from psrjax.inference.footage_reader import Footage, open_footage, require_person
from psrjax.inference.video_files import VideoWriters
from psrjax.methods.base import Method
from psrjax.synthetic import dataset

_WINDOW = 8  # frames made at a time, at least: more of them only cost memory
_BACKGROUND = "background"


@dataclass(frozen=True)
class TransferInputs:
    """Whose looks, whose motion, and what stands behind (None: the source's background)."""

    source: Footage
    driving: Footage
    background: Footage | None = None


def open_inputs(
    config: Any,
    *,
    source: str,
    driving: str,
    background: str = "",
    fit: str = "exact",
    reads: Iterable[str] = (),
) -> TransferInputs:
    """Opens the footage at the run's frame size; places as `driving_footage.open_footage` has them.

    Args:
      config: of the run.
      source: whose looks; "" is the run's own clip.
      driving: whose motion.
      background: what stands behind; "" is the source's.
      fit: see `open_footage`.
      reads: see `driving_poses.reads`.

    Raises:
      UserError: as `open_footage` does.
    """
    size = tuple(config["data"]["crop"])
    if not all(size):
        data = loader.open_split(dataset.located(config["data"]), config["data"]["eval_split"])
        size = next(iter(data.clips[0].views.values())).size
    reads = set(reads) - ({_BACKGROUND} if background else set())
    sides = (
        (source or config["data"]["path"], [key for key in reads if not key.startswith("target")]),
        (driving, [key for key in reads if key.startswith("target")]),
        (background, []),
    )
    found = [
        open_footage(place, config, size=size, fit=fit, reads=keys) if place else None
        for place, keys in sides
    ]
    return TransferInputs(*found)


def _of_side(method: Method, side: str) -> tuple[str, ...]:
    return tuple(key for key in method.synthesis_reads if key.startswith(side))


@dataclass(frozen=True)
class Options:
    """How to transfer.

    Attributes:
      source_frames: see `frame_choice.source_frames`; "" is "first" for methods trained with
        the clip's first frames, "spread" for one that is evaluated with more source frames than it
        is trained with, else "random".
      k: how many; 0 is the config's.
      seed: of "random".
      window: frames made at a time; 0 is the config's, at least 8.
      frames: first and end of the driving frames; an end of 0 is its last.
      find_best_frame: whether the motion is relative to the driving frame whose pose is most like
        the source's, instead of to the first; for a method with the field `relative`.
      adapt_scale: whether the motion is scaled by how much larger the source's person is; for a
        method with the field `relative_scale`.
      check_person: whether the driving footage must show a person.
      audio: whether the driving video's sound is copied.
      explain: whether what the method tells of its workings is drawn.
      fields: {field of the method: value}, for this transfer.
    """

    source_frames: str = ""
    k: int = 0
    seed: int = 0
    window: int = 0
    frames: tuple[int, int] = (0, 0)
    find_best_frame: bool = False
    adapt_scale: bool = False
    check_person: bool = True
    audio: bool = False
    explain: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict)


def drive(
    method: Method,
    variables: Mapping[str, Any],
    config: Any,
    cast: TransferInputs,
    output: str | os.PathLike,
    *,
    how: Options = Options(),
    show_progress: bool = False,
) -> list[Path]:
    """Writes the transfer, its comparison and what else was asked for.

    Files: where joints are fitted, `<stem>.poses.png`, before anything else; `output`;
    `<stem>.compare<suffix>` (source frames, driving frames, result);
    `<stem>.mask<suffix>` where the method makes one; with `explain`, `<stem>.explain<suffix>`, a
    strip of its frames `<stem>.explain.png`, and `<stem>.explain.NAME.png` of what is made once.
    All have the driving clip's times. Of the clip nothing is kept in memory but its times.

    Args:
      method: as a run restores it.
      variables: its parameters and statistics.
      config: the run's config; `data.sampling` is read.
      cast: the footage.
      output: the video to write.
      how: the options.
      show_progress: whether to show a progress bar.

    Returns:
      The paths of the files, the result first.

    Raises:
      UserError: if the footage cannot give what the method reads, shows no person, or an option
        does not fit.
    """
    method = with_fields(method, how.fields)
    scenes = _WindowBatches(method, config, cast, how)
    previews = scenes.fit_joints(method, output)
    if how.check_person:
        require_person(cast.driving)
    audio = _audio(cast.driving, how)
    place, scale = scenes.first, 1.0
    if how.find_best_frame or how.adapt_scale:
        anchor = _anchor(method, variables, scenes, search=how.find_best_frame)
        place, scale = anchor.frame, anchor.scale
    if how.find_best_frame and not getattr(method, "relative", False):
        raise UserError("--find_best_frame: only relative motion has a best frame: give --relative")
    if how.adapt_scale:
        method = with_fields(method, {"relative_scale": scale})
    start, synthesize = _compiled(method, how.explain)
    carry = start(variables, scenes.batch(place))
    times = cast.driving.times[scenes.first : scenes.end]
    with VideoWriters(output, scenes.source, times - times[0], audio=audio) as films:
        starts = range(scenes.first, scenes.end, scenes.window)
        for first in tqdm(starts, "synthesize", unit="window", disable=not show_progress):
            made, carry = synthesize(variables, scenes.batch(first), carry)
            count = min(scenes.window, scenes.end - first)
            made = jax.tree.map(lambda array: np.asarray(array[0]), made)
            frames = scenes.composed(made, first)[:count]
            mask, explain = made.get("mask"), made.get("explain")
            films.add(
                frames,
                scenes.driving(first)[:count],
                mask=None if mask is None else mask[:count],
                explain=explain,
            )
    return [*films.finish(), *previews]


def with_fields(method: Method, fields: Mapping[str, Any]) -> Method:
    """The method with other values of some fields.

    Raises:
      UserError: for a field that it does not have.
    """
    for name in fields:
        if name not in method.__dataclass_fields__:
            kind = type(method).__module__.split(".")[-1]
            raise UserError(f"{name!r} is no option of the method {kind}")
    return method.clone(**fields) if fields else method


class _WindowBatches:
    """The batches of a transfer, window by window, and the frames that go with them."""

    def __init__(self, method: Method, config: Any, cast: TransferInputs, how: Options):
        sampling = config["data"]["sampling"]
        still, self._moving = _of_side(method, "source"), _of_side(method, "target")
        self._cast = cast
        self._reads_background = _BACKGROUND in method.synthesis_reads
        self._fits = driving_poses.fits(method)
        cast.source.require((*still, driving_poses.OWN) if self._fits else still)
        drawn = {driving_poses.MESH_LABEL} if self._fits else set()
        cast.driving.require([key for key in self._moving if key not in drawn])
        self.window = how.window or max(_WINDOW, sampling["t"])
        self._history = sampling.get("history", 0)
        self.first, self.end = _range(how.frames, cast.driving)
        more = sampling.get("k_evaluation", 0)
        usual = "first" if sampling["source"] == "first" else "spread" if more else "random"
        chosen = frame_choice.source_frames(
            cast.source,
            how.source_frames or usual,
            k=how.k or more or sampling["k"],
            seed=how.seed,
        )
        taken = cast.source.read(dict.fromkeys((*still, "source")), chosen)
        if "source_joints" in taken:
            frame_choice.require_joints(cast.source.name, chosen, taken["source_joints"])
        self.source = taken["source"]
        self._still = {key: taken[key] for key in still}
        if self._reads_background:
            behind = cast.background or cast.source
            self._still[_BACKGROUND] = behind.backdrop((0,))[0]
        self._read: dict[str, np.ndarray] = {}
        self._at = -1
        self._fitted: np.ndarray | None = None
        self._labels: driving_poses.MeshLabels | None = None

    def fit_joints(self, method: Method, output: str | os.PathLike) -> list[Path]:
        """Lets the method fit the driving joints; gives the preview that was written, if any.

        Raises:
          UserError: as the method does, and if there is neither a mesh label nor a body to draw it.
        """
        if not self._fits:
            return []
        cast = self._cast
        found = driving_poses.fitted(method, cast.source, cast.driving, (self.first, self.end))
        self._fitted = found.joints
        label = driving_poses.MESH_LABEL
        if label in self._moving and (found.moved or not _gives(cast.driving, label)):
            size = self.source.shape[1:3]
            self._labels = driving_poses.MeshLabels(cast.driving.name, found.joints, size)
        return [driving_poses.write_preview(output, found.preview)]

    def batch(self, start: int) -> dict[str, np.ndarray]:
        """The wire batch (b = 1) of the window that starts at a driving frame."""
        self._go(start)
        moving = {key: self._read[key] for key in self._moving}
        return {key: value[None] for key, value in (self._still | moving).items()}

    def driving(self, start: int) -> np.ndarray:
        """The driving frames of that window, without what comes before it."""
        self._go(start)
        return self._read["target"][self._history :]

    def posing(self, frames: np.ndarray) -> dict[str, np.ndarray]:
        """A batch whose target frames are these."""
        return {key: value[None] for key, value in (self._still | {"target": frames}).items()}

    def composed(self, made: Mapping[str, np.ndarray], start: int) -> np.ndarray:
        """What was made, upon the background that the method does not know of."""
        if self._cast.background is None or self._reads_background:
            return made["video"]
        if "mask" not in made:
            raise UserError("--background: this method neither reads one nor makes a mask")
        places = range(start - self.first, start - self.first + self.window)
        behind = self._cast.background.backdrop(places)
        share = made["mask"].astype(np.float32) / 255.0
        person = made.get("foreground", made["video"])  # else a soft edge shows the old background
        return np.round(share * person + (1.0 - share) * behind).astype(np.uint8)

    def _go(self, start: int) -> None:
        if start != self._at:
            around = range(start - self._history, start + self.window)
            frames = [min(max(self.first, frame), self.end - 1) for frame in around]
            own = {driving_poses.MESH_LABEL} if self._labels is not None else set()
            keys = [key for key in dict.fromkeys((*self._moving, "target")) if key not in own]
            self._read, self._at = dict(self._cast.driving.read(keys, frames)), start
            places = [frame - self.first for frame in frames]
            if self._fitted is not None:
                self._read[driving_poses.DRIVING] = self._fitted[places]
            if self._labels is not None:
                self._read[driving_poses.MESH_LABEL] = self._labels[places]


def _gives(footage: Footage, key: str) -> bool:
    try:
        footage.require((key,))
    except UserError:
        return False
    return True


def _range(frames: tuple[int, int], driving: Footage) -> tuple[int, int]:
    first, end = frames[0], frames[1] or driving.frames
    if not 0 <= first < end <= driving.frames:
        raise UserError(
            f"{driving.name} has frames 0 to {driving.frames - 1}; {first}:{end} was asked for"
        )
    return first, end


def _audio(driving: Footage, how: Options) -> str:
    if not how.audio:
        return ""
    if not driving.audio or how.frames[0]:
        raise UserError("--audio: the driving footage must be a video file, from its start")
    return driving.audio


def _anchor(
    method: Method, variables: Mapping, scenes: _WindowBatches, *, search: bool
) -> frame_choice.Anchor:
    compiled = jax.jit(lambda v, batch: method.apply(v, spec.decode(batch), method="poses"))

    def poses(frames: np.ndarray) -> np.ndarray:
        return np.asarray(compiled(variables, scenes.posing(frames))[0])

    return frame_choice.anchor(
        poses(scenes.source[:1])[0],
        lambda start: poses(scenes.driving(start))[: scenes.end - start],
        range(scenes.first, scenes.end, scenes.window),
        search=search,
    )


@functools.lru_cache(maxsize=4)
def _compiled(method: Method, explain: bool) -> tuple[Callable, Callable]:
    """(variables, wire batch) -> carry, and (variables, wire batch, carry) -> (made, carry): video,
    foreground and mask as uint8, and what is to be drawn."""

    def start(variables: Mapping, batch: Mapping) -> Any:
        return method.apply(variables, spec.decode(batch), method="start")

    def synthesize(variables: Mapping, batch: Mapping, carry: Any) -> tuple[dict, Any]:
        batch = spec.decode(batch)
        made, carry = method.apply(variables, batch, carry, explain, method="synthesize")
        colors = ("video", "foreground")
        kept = {key: spec.encode_colors(made[key]) for key in colors if key in made}
        if "mask" in made:
            kept["mask"] = jnp.clip(jnp.round(made["mask"] * 255.0), 0, 255).astype(jnp.uint8)
        if explain and made.get("explain"):
            kept["explain"] = made["explain"]
        return kept, carry

    return jax.jit(start), jax.jit(synthesize)
