"""Transfer: one person's looks in another's motion, read, synthesized and written by windows.

What a method must provide (see `psrjax.methods.base`):

  synthesis_reads   the contract's keys that `start` and `synthesize` read. Keys that begin with
                    "source" come from the source footage, at k frames chosen once; those that begin
                    with "target" from the driving footage, window by window, with
                    `config.data.sampling.history` frames before each (the first frame again where
                    there are none). "background" is `TransferInputs.background`, else the source's.
  start             gets the source frames and the first window, or with `find_best_frame` the one
                    driving frame whose pose is most like the source's; gives the carry.
  synthesize        one window and the carry. Windows follow one another and do not overlap; the
                    last is padded with its last frame, and what is made of that is dropped.
                    Windows of any length must give what the whole clip would give.
  replace_background   gets the carries of the source frames and of as many frames of the
                    background's footage, where the method completes that (see `TransferOptions`).
  "video", "mask"   are written; with a background that the method neither reads nor completes, the
                    mask puts the "foreground", else the video, upon it.
  "intermediates"   are drawn by `intermediate_results`.
  poses             only for `find_best_frame` and `adapt_scale`.
  fit_joints        gets all of the driving joints at once, before the first window, where the
                    method reads them; windows then have what it returns. Where that is others than
                    before, or the footage has no mesh label, that of the moved joints is drawn.

A method's own options are its fields: `TransferOptions.fields` replaces them for one transfer.
"""

import functools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import logging
from tqdm.auto import tqdm

from psrjax.data import loader, spec
from psrjax.errors import UserError
from psrjax.inference import driving_poses, frame_selection, output_files, synthesizer
from psrjax.inference.footage import Footage, open_footage, require_person
from psrjax.inference.marks import UNNAMED, Mark
from psrjax.inference.synthesizer import make_synthesizer
from psrjax.inference.video_writers import VideoWriters
from psrjax.methods.base import Method
from psrjax.prepare.common import clip_reader
from psrjax.synthetic import dataset

_WINDOW = 8  # frames synthesized at a time, at least: more of them only cost memory
_BACKGROUND = "background"
BACKGROUNDS_AS = ("auto", "completed", "as_is")


@dataclass(frozen=True)
class TransferInputs:
    """The footage of a transfer; a background of None is that of the source."""

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
    background_reads: Iterable[str] = (),
) -> TransferInputs:
    """Opens the footage at the run's frame size; for the places see `footage.open_footage`.

    Args:
      config: of the run.
      source: the person to be shown; "" is the run's own clip.
      driving: the motion.
      background: "" is the source's.
      fit: see `open_footage`.
      reads: see `driving_poses.reads`.
      background_reads: see `background_reads`.

    Raises:
      UserError: as `open_footage` does.
    """
    size = frame_size(config)
    reads = set(reads) - ({_BACKGROUND} if background else set())
    moving = {key for key in reads if key.startswith("target")}
    opened = functools.partial(open_footage, config=config, size=size, fit=fit)
    data = config["data"]
    # A model of one person shows the frames that it was trained on.
    split = data["train_split"] if data["sampling"].get("k_evaluation", 0) else ""
    return TransferInputs(
        opened(source or data["path"], split=split, reads=reads - moving),
        opened(driving, reads=moving),
        opened(background, reads=background_reads) if background else None,
    )


def frame_size(config: Any) -> tuple[int, int]:
    """Returns the (height, width) of a run's frames: its crop, else the stored size."""
    height, width = config["data"]["crop"]
    if not (height and width):
        # Not the scored split: a stage of other data than the rest of its run may have none.
        trained = config["data"]["train_split"]
        data = loader.open_split(dataset.resolve_path(config["data"]), trained)
        stored = next(iter(data.clips[0].views.values())).size
        height, width = height or stored[0], width or stored[1]
    return height, width


def background_reads(method: Method, background: str, background_as: str) -> tuple[str, ...]:
    """Lists the keys that the method reads of a background's footage to complete it; may be ().

    Args:
      method: as a run restores it.
      background: the footage's place.
      background_as: see `TransferOptions`; a picture is completed only where that is asked for.
    """
    is_picture = Path(background).suffix.lower() in clip_reader.PICTURES
    if background_as == "as_is" or (background_as == "auto" and is_picture):
        return ()
    return _keys_of(method, "source") if _completes_background(method) else ()


def _completes_background(method: Method) -> bool:
    return type(method).replace_background is not Method.replace_background


def _keys_of(method: Method, side: str) -> tuple[str, ...]:
    return tuple(key for key in method.synthesis_reads if key.startswith(side))


@dataclass(frozen=True)
class TransferOptions:
    """The options of a transfer.

    Attributes:
      source_frames: see `frame_selection.source_frames`; "" is "first" for methods trained with
        the clip's first frames, "spread" for one that is evaluated with more source frames than it
        is trained with, else "random".
      k: the number of source frames; 0 is the config's.
      seed: of "random".
      window: frames synthesized at a time; 0 is the config's, at least 8.
      frames: first and end of the driving frames; an end of 0 is its last.
      find_best_frame: whether the motion is relative to the driving frame whose pose is most like
        the source's, instead of to the first; for a method with the field `relative`.
      adapt_scale: whether the motion is scaled by how much larger the source's person is; for a
        method with the field `relative_scale`.
      check_person: whether the driving footage must show a person.
      audio: whether the driving video's sound is copied.
      intermediates: whether the method's intermediate results are drawn.
      background_as: what is put behind: "completed", what the method's own branch makes of k of the
        background's frames, without the person who may stand in them (Cheng et al., 4.3); "as_is",
        a dataset's clean background or a file's frames; "auto": the first where the method has such
        a branch and the footage has what it reads.
      fit_poses: whether the method fits the driving poses to the source person.
      lossless: whether the result is written without loss, as an .mkv.
      fields: {field of the method: value}, for this transfer.
      mark: what the files say of themselves.
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
    intermediates: bool = False
    background_as: str = "auto"
    fit_poses: bool = True
    lossless: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict)
    mark: Mark = UNNAMED


@dataclass(frozen=True)
class TransferWindow:
    """Consecutive frames of a transfer, as they are made.

    Attributes:
      frames: (t h w 3) uint8, the result.
      driving: (t h w 3) uint8, the driving frames.
      mask: (t h w 1) uint8, of the person, where the method makes one.
      intermediates: {name: array}, see `intermediate_results`; {} unless they were asked for.
    """

    frames: np.ndarray
    driving: np.ndarray
    mask: np.ndarray | None
    intermediates: Mapping[str, np.ndarray]


class Transfer:
    """A transfer that is ready to be made: iterate over it for its windows.

    Attributes:
      source: (k h w 3) uint8, the chosen source frames.
      times: (t,) seconds at which the frames are shown, the first at 0.
      audio: the file whose sound goes with them, or "".
      preview: a picture of the fitted poses, see `driving_poses`; None where there are none.
    """

    def __init__(
        self,
        method: Method,
        variables: Mapping[str, Any],
        config: Any,
        inputs: TransferInputs,
        options: TransferOptions = TransferOptions(),
    ):
        """Reads the source and fits the driving poses to it; nothing is synthesized yet.

        Args:
          method: as a run restores it.
          variables: its parameters and statistics.
          config: the run's config; `data.sampling` is read.
          inputs: the footage.
          options: see `TransferOptions`.

        Raises:
          UserError: if the footage cannot give what the method reads, shows no person, or an option
            does not fit.
        """
        self._method = with_fields(method, options.fields)
        self._variables, self._options = variables, options
        self.audio, self.mark = _audio(inputs.driving, options), options.mark
        self._batches = _WindowBatches(self._method, config, inputs, options)
        self.preview = self._batches.fit_joints(self._method)
        if options.check_person:
            require_person(inputs.driving)
        self.source = self._batches.source
        times = inputs.driving.times[self._batches.first : self._batches.end]
        self.times = times - times[0]
        _tell_times(inputs.driving.name, self.times)

    @property
    def windows(self) -> int:
        """The number of windows."""
        return len(self._batches.starts)

    def __iter__(self) -> Iterator[TransferWindow]:
        """Synthesizes the windows one by one; memory does not grow with the clip."""
        batches, options = self._batches, self._options
        method, anchor = _anchored(self._method, self._variables, batches, options)
        compiled = make_synthesizer(method, intermediates=options.intermediates)
        where = synthesizer.cut(synthesizer.frame_devices(batches.frames_read), axis=1)
        variables = synthesizer.whole(self._variables, where)
        placed = functools.partial(synthesizer.by_frames, where=where, frames=batches.frames_read)
        carry = compiled.start(variables, placed(batches.batch(anchor)))
        if batches.completes_background:
            behind = compiled.start(variables, placed(batches.behind(anchor)))
            carry = method.replace_background(carry, behind)
        measured: dict[str, list[np.ndarray]] = {}
        batch = placed(batches.batch(batches.first))
        for start in batches.starts:
            made, carry = compiled.synthesize(variables, batch, carry)
            count = min(batches.window, batches.end - start)
            driving = batches.driving(start)[:count]
            if start != batches.starts[-1]:  # read while the devices compute
                batch = placed(batches.batch(start + batches.window))
            made = jax.tree.map(lambda array: np.asarray(array[0]), made)
            for name, array in made.get("intermediates", {}).items():
                if array.ndim == 1:
                    measured.setdefault(name, []).append(array[:count])
            yield TransferWindow(
                batches.composed(made, start)[:count],
                driving,
                made["mask"][:count] if "mask" in made else None,
                made.get("intermediates", {}),
            )
        means = {name: float(np.concatenate(parts).mean()) for name, parts in measured.items()}
        if means:
            logging.info("means: %s", ", ".join(f"{name} {v:.2f}" for name, v in means.items()))
        for line in method.warnings(means):
            logging.warning(line)


def write(
    method: Method,
    variables: Mapping[str, Any],
    config: Any,
    inputs: TransferInputs,
    output: str | os.PathLike,
    *,
    options: TransferOptions = TransferOptions(),
    show_progress: bool = False,
) -> list[Path]:
    """Writes the transfer, its comparison and what else was asked for.

    Files: where joints are fitted, `<stem>.poses.png`, before anything else; `output`;
    `<stem>.compare<suffix>` (source frames, driving frames, result); `<stem>.mask<suffix>` where
    the method makes one; with `intermediates`, `<stem>.intermediates<suffix>`, a strip of its
    frames `<stem>.intermediates.png`, and `<stem>.intermediates.NAME.png` of those without time.
    All have the driving clip's times. Memory does not grow with the clip.

    Args:
      method: as a run restores it.
      variables: its parameters and statistics.
      config: the run's config; `data.sampling` is read.
      inputs: the footage.
      output: the file to write, or the folder: see `output_files`.
      options: see `TransferOptions`.
      show_progress: whether to show a progress bar.

    Returns:
      The paths of the files, the result first.

    Raises:
      UserError: as `Transfer` and `output_files.check` do.
    """
    audio = _audio(inputs.driving, options)
    output_files.check(output, audio=audio, lossless=options.lossless)  # before all that takes long
    made = Transfer(method, variables, config, inputs, options)
    return save(made, output, lossless=options.lossless, show_progress=show_progress)


def save(
    made: Transfer,
    output: str | os.PathLike,
    *,
    windows: Iterable[TransferWindow] | None = None,
    lossless: bool = False,
    show_progress: bool = False,
) -> list[Path]:
    """Synthesizes a transfer and writes its files, as `write` does.

    Args:
      made: the transfer.
      output: see `write`.
      windows: its windows, where somebody else looks at them too; by default those of `made`.
      lossless: of the result.
      show_progress: whether to show a progress bar.
    """
    previews = []
    if made.preview is not None:
        previews = [driving_poses.write_preview(output, made.preview)]
    shown = tqdm(
        made if windows is None else windows,
        "synthesize",
        unit="window",
        total=made.windows,
        disable=not show_progress,
    )
    how: Any = {"audio": made.audio, "lossless": lossless, "mark": made.mark}
    with VideoWriters(output, made.source, made.times, **how) as writers:
        for window in shown:
            writers.add(
                window.frames,
                window.driving,
                mask=window.mask,
                intermediates=window.intermediates,
            )
    return [*writers.finish(), *previews]


def _tell_times(name: str, times: np.ndarray) -> None:
    """Says of footage that it is one frame, or that its frames are not evenly spaced."""
    if len(times) == 1:
        logging.info("%s has one frame: a still picture is made", name)
        return
    steps = np.diff(times)
    if steps.max() > 1.25 * steps.min():
        mean = (len(times) - 1) / times[-1]
        logging.info(
            "%s has a variable frame rate: %.4g to %.4g frames a second, %.4g on average; the "
            "result has the same times",
            *(name, 1 / steps.max(), 1 / steps.min(), mean),
        )


def with_fields(method: Method, fields: Mapping[str, Any]) -> Method:
    """Returns the method with other values of some fields.

    Raises:
      UserError: for a field that it does not have.
    """
    for name in fields:
        if name not in method.__dataclass_fields__:
            kind = type(method).__module__.split(".")[-1]
            raise UserError(f"{name!r} is no option of the method {kind}")
    return method.clone(**fields) if fields else method


class _WindowBatches:
    """The batches of a transfer, window by window, and the frames that go with them.

    Attributes:
      source: (k h w 3) uint8, the chosen source frames.
      window: the number of frames of a window.
      first: the first driving frame.
      end: the driving frame behind the last one.
      completes_background: whether the method completes the background's footage.
    """

    def __init__(
        self, method: Method, config: Any, inputs: TransferInputs, options: TransferOptions
    ):
        sampling = config["data"]["sampling"]
        self._inputs = inputs
        self._driving_keys = _keys_of(method, "target")
        self._reads_background = _BACKGROUND in method.synthesis_reads
        self._fits = options.fit_poses and driving_poses.fits(method)
        self._require(method)
        self._history = sampling.get("history", 0)
        self.window = options.window or _window(sampling["t"], self._history)
        driving = inputs.driving
        self.first, self.end = frame_selection.frame_range(
            options.frames, driving.frames, driving.name
        )
        self.completes_background = self._completes(method, options.background_as)
        self._behind: Mapping[str, np.ndarray] = {}  # frames that it is completed from
        self._read_source(_keys_of(method, "source"), sampling, options)
        self._read: dict[str, np.ndarray] = {}  # the window that was read last, and its start
        self._at = -1
        self._fitted: np.ndarray | None = None
        self._labels: driving_poses.MeshLabels | None = None

    def _require(self, method: Method) -> None:
        keys = _keys_of(method, "source")
        drawn = {driving_poses.MESH_LABEL} if self._fits else set()
        fitted_to = (driving_poses.SOURCE_JOINTS,) if self._fits else ()
        self._inputs.source.require((*keys, *fitted_to))
        self._inputs.driving.require([key for key in self._driving_keys if key not in drawn])

    def _completes(self, method: Method, background_as: str) -> bool:
        background = self._inputs.background
        if background_as not in BACKGROUNDS_AS:
            raise UserError(f"--background_as: it is one of {', '.join(BACKGROUNDS_AS)}")
        if background is None or background_as == "as_is":
            return False
        keys = _keys_of(method, "source")
        if background_as == "completed":
            if not _completes_background(method):
                raise UserError(
                    "--background_as=completed: this method does not complete the background of "
                    "other footage; leave the flag out"
                )
            background.require(keys)
        return _completes_background(method) and all(_has(background, key) for key in keys)

    def _read_source(
        self, keys: Sequence[str], sampling: Mapping[str, Any], options: TransferOptions
    ) -> None:
        source = self._inputs.source
        more = sampling.get("k_evaluation", 0)
        usual = "first" if sampling["source"] == "first" else "spread" if more else "random"
        chosen = frame_selection.source_frames(
            source,
            options.source_frames or usual,
            k=options.k or more or sampling["k"],
            seed=options.seed,
        )
        read = source.read(dict.fromkeys((*keys, "source")), chosen)
        if "source_joints" in read:
            frame_selection.require_joints(source.name, chosen, read["source_joints"])
        self.source = read["source"]
        self._fixed = {key: read[key] for key in keys}
        behind = self._inputs.background or source
        if self._reads_background:
            self._fixed[_BACKGROUND] = behind.background((0,))[0]
        if self.completes_background:
            given = options.source_frames in frame_selection.RULES
            rule = options.source_frames if given else usual
            others = frame_selection.source_frames(behind, rule, k=len(chosen), seed=options.seed)
            others = np.resize(others, len(chosen)).tolist()  # again where there are fewer
            logging.info("the background is completed from frames %s of %s", others, behind.name)
            self._behind = behind.read(keys, others)

    @property
    def frames_read(self) -> int:
        """The number of frames of a window with those before it."""
        return self._history + self.window

    @property
    def starts(self) -> range:
        """The first frames of the windows."""
        return range(self.first, self.end, self.window)

    def fit_joints(self, method: Method) -> np.ndarray | None:
        """Lets the method fit the driving joints; returns a picture of them, if there are any.

        Raises:
          UserError: as the method does, and if there is neither a mesh label nor a body to draw it.
        """
        if not self._fits:
            return None
        source, driving = self._inputs.source, self._inputs.driving
        found = driving_poses.fit(method, source, driving, (self.first, self.end))
        self._fitted = found.joints
        label = driving_poses.MESH_LABEL
        if label in self._driving_keys and (found.moved or not _has(driving, label)):
            size = self.source.shape[1:3]
            self._labels = driving_poses.MeshLabels(driving.name, found.joints, size)
        return found.preview

    def batch(self, start: int) -> dict[str, np.ndarray]:
        """Returns the wire batch (b = 1) of the window that starts at a driving frame."""
        read = self._window_at(start)
        return _batched(self._fixed | {key: read[key] for key in self._driving_keys})

    def behind(self, start: int) -> dict[str, np.ndarray]:
        """Returns that batch with frames of the background's footage for those of the source."""
        return self.batch(start) | _batched(self._behind)

    def driving(self, start: int) -> np.ndarray:
        """Returns the driving frames of that window, without what comes before it."""
        return self._window_at(start)["target"][self._history :]

    def posing(self, frames: np.ndarray) -> dict[str, np.ndarray]:
        """Returns a batch whose target frames are these."""
        return _batched(self._fixed | {"target": frames})

    def composed(self, made: Mapping[str, np.ndarray], start: int) -> np.ndarray:
        """Puts the synthesized frames upon the background, where the method does not read it."""
        background = self._inputs.background
        if background is None or self._reads_background or self.completes_background:
            return made["video"]
        if "mask" not in made:
            raise UserError("--background: this method neither reads one nor makes a mask")
        places = range(start - self.first, start - self.first + self.window)
        behind = background.background(places)
        share = made["mask"].astype(np.float32) / 255.0
        person = made.get("foreground", made["video"])  # else a soft edge shows the old background
        return np.round(share * person + (1.0 - share) * behind).astype(np.uint8)

    def _window_at(self, start: int) -> dict[str, np.ndarray]:
        if start != self._at:
            around = range(start - self._history, start + self.window)
            frames = [min(max(self.first, frame), self.end - 1) for frame in around]
            drawn = {driving_poses.MESH_LABEL} if self._labels is not None else set()
            keys = [k for k in dict.fromkeys((*self._driving_keys, "target")) if k not in drawn]
            self._read, self._at = dict(self._inputs.driving.read(keys, frames)), start
            places = [frame - self.first for frame in frames]
            if self._fitted is not None:
                self._read[driving_poses.DRIVING_JOINTS] = self._fitted[places]
            if self._labels is not None:
                self._read[driving_poses.MESH_LABEL] = self._labels[places]
        return self._read


def _window(trained: int, history: int) -> int:
    """Returns how many frames to synthesize at a time: the devices share them and their history."""
    count = len(synthesizer.devices())
    return -(-(max(_WINDOW, trained) + history) // count) * count - history


def _batched(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {key: value[None] for key, value in arrays.items()}


def _has(footage: Footage, key: str) -> bool:
    try:
        footage.require((key,))
    except UserError:
        return False
    return True


def _audio(driving: Footage, options: TransferOptions) -> str:
    if not options.audio:
        return ""
    if not driving.audio or options.frames[0]:
        raise UserError("--audio: the driving footage must be a video file, from its start")
    return driving.audio


def _anchored(
    method: Method, variables: Mapping, batches: _WindowBatches, options: TransferOptions
) -> tuple[Method, int]:
    """Returns the method, its motion scaled if so asked, and the driving frame to start from."""
    if not (options.find_best_frame or options.adapt_scale):
        return method, batches.first
    compiled = jax.jit(lambda v, batch: method.apply(v, spec.decode(batch), method="poses"))

    def poses(frames: np.ndarray) -> np.ndarray:
        return np.asarray(compiled(variables, batches.posing(frames))[0])

    anchor = frame_selection.anchor(
        poses(batches.source[:1])[0],
        lambda start: poses(batches.driving(start))[: batches.end - start],
        batches.starts,
        search=options.find_best_frame,
    )
    if options.find_best_frame and not getattr(method, "relative", False):
        raise UserError("--find_best_frame: only relative motion has one: give --method.relative")
    if options.adapt_scale:
        method = with_fields(method, {"relative_scale": anchor.scale})
    return method, anchor.frame
