"""The public interface: what `import psrjax` offers, and what the commands stand on.

`psrjax/__init__.py` gives these names without importing this file, which imports JAX.
"""

import copy
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import logging

from psrjax import config as config_lib
from psrjax.config import RunConfig
from psrjax.data import loader, sampling, video
from psrjax.errors import UserError
from psrjax.evaluation import evaluated_split, method_evaluation
from psrjax.evaluation.method_evaluation import Evaluation
from psrjax.inference import driving_poses, intermediate_results, novel_view, transfer
from psrjax.inference.footage import open_footage
from psrjax.inference.novel_view import NovelViewInputs
from psrjax.inference.synthesized_video import Kept, Video, as_place
from psrjax.inference.transfer import TransferInputs, TransferOptions
from psrjax.methods import base
from psrjax.prepare.monocular import dataset_builder, pipeline, planning, result_page
from psrjax.prepare.monocular.pipeline import PreparationOptions
from psrjax.prepare.multiview import recording
from psrjax.prepare.multiview.recording import MultiviewOptions
from psrjax.synthetic import dataset
from psrjax.training import checkpoint, stages, writer

__all__ = [
    "Evaluation",
    "Model",
    "MultiviewOptions",
    "PreparationOptions",
    "TransferOptions",
    "UserError",
    "Video",
    "evaluate",
    "load",
    "prepare",
    "train",
]
HOLDOUT = 0.25  # of a video, or of several, for the split "test"
_USUAL = TransferOptions()
_OF_THE_BODY = ("iuv", "mesh_label")  # streams that `PreparationOptions.body` makes

Footage = Any  # a place, a Video, pictures of PIL or arrays: see `synthesized_video.as_place`


@dataclass(frozen=True)
class Model:
    """A trained run, ready to synthesize.

    Footage is a path (a video, a picture, a folder of pictures, a prepared dataset "DIR",
    "DIR:CLIP" or "DIR:CLIP:VIEW"; "synthetic" is the run's own dataset), a `Video`, a picture of
    PIL, a uint8 array (h, w, 3) or (t, h, w, 3), or a list of pictures.

    Attributes:
      method: a Flax module.
      variables: its parameters and statistics.
      config: of the stage; may be changed by `psrjax.config.update`.
      stage: the stage's name.
    """

    method: base.Method
    variables: Mapping[str, Any]
    config: RunConfig
    stage: str

    def transfer(
        self,
        source: Footage | None,
        driving: Footage,
        *,
        background: Footage | None = None,
        fit: str = "crop",
        options: TransferOptions = _USUAL,
    ) -> Video:
        """Synthesizes one person in another's motion.

        Args:
          source: the person to be shown; None is the run's own clip, for methods of one person.
          driving: the motion.
          background: what to put behind; by default the source's.
          fit: of footage of another shape: "crop" takes its middle, "exact" refuses it.
          options: further ones.

        Returns:
          The video; its `comparison` shows source, driving frames and result side by side. Frames
          are made while it is iterated over, shown or saved.

        Raises:
          UserError: if the footage cannot give what the method reads, or shows no person.
        """
        inputs = self.transfer_inputs(
            source, driving, background=background, fit=fit, background_as=options.background_as
        )
        made = transfer.Transfer(self.method, self.variables, self.config, inputs, options)
        windows, sources = Kept(made), intermediate_results.sources(made.source)
        rows = (
            intermediate_results.beside({**sources, "driving": given, "result": frame})
            for window in windows
            for given, frame in zip(window.driving, window.frames)
        )
        frames = (frame for window in windows for frame in window.frames)
        shown = {"times": made.times, "audio": made.audio}
        return Video(frames, comparison=Video(rows, **shown), **shown)

    def transfer_inputs(
        self,
        source: Footage | None,
        driving: Footage,
        *,
        background: Footage | None = None,
        fit: str = "crop",
        background_as: str = TransferOptions.background_as,
    ) -> TransferInputs:
        """Opens the footage of `transfer`, for `psrjax.inference.transfer`."""
        behind = as_place(background) if background is not None else ""
        return transfer.open_inputs(
            self.config,
            source=as_place(source) if source is not None else "",
            driving=as_place(driving),
            background=behind,
            fit=fit,
            reads=driving_poses.reads(self.method),
            background_reads=transfer.background_reads(self.method, behind, background_as),
        )

    def novel_view(
        self,
        filmed: Footage | None = None,
        *,
        clip: str = "",
        split: str = "",
        source_view: str = "",
        target_view: str = "",
        camera: str = "",
        mesh: str = "",
        source_camera: str = "",
        frames: tuple[int, int] = (0, 0),
    ) -> Video:
        """Synthesizes a person as another camera sees them.

        Args:
          filmed: a video of a person whose `mesh` is known (npz of verts and faces), filmed by
            `source_camera`; by default a clip of the run's dataset.
          clip: of the dataset; by default the split's first.
          split: by default the config's evaluation split.
          source_view: the given view; by default the first.
          target_view: the view to make; by default the next.
          camera: instead of a view: a camera, "FILE.json" or "FILE.json:NAME".
          mesh: of `filmed`.
          source_camera: of `filmed`, as `camera`.
          frames: first and end; an end of 0 is the clip's.

        Returns:
          The video; its `comparison` shows the source, every step and the truth where it is known.

        Raises:
          UserError: if something is not there, or the method reads what it cannot give.
        """
        if filmed is not None:
            inputs = novel_view.from_video(
                self.method,
                self.config,
                path=as_place(filmed),
                mesh=mesh,
                source_camera=source_camera,
                target_camera=camera,
                frames=frames,
            )
            return self._view(inputs)
        chosen: Any = {"split": split, "clip": clip, "frames": frames}
        if camera:
            given = {"camera": camera, "source_view": source_view}
            return self._view(novel_view.from_camera(self.method, self.config, **given, **chosen))
        views = (source_view, target_view)
        return self._view(novel_view.from_data(self.method, self.config, views=views, **chosen))

    def refine(
        self,
        estimate: Footage,
        *,
        clip: str = "",
        split: str = "",
        source_view: str = "",
        target_view: str = "",
        frames: tuple[int, int] = (0, 0),
    ) -> Video:
        """Refines an estimate of a view, instead of the texture that `novel_view` starts from.

        Args:
          estimate: the view of the clip as another program made it, frame for frame.
          clip: as those of `novel_view`, like the other arguments.
          split: likewise.
          source_view: likewise.
          target_view: likewise.
          frames: likewise.

        Raises:
          UserError: if the method refines no estimate, or as `novel_view`.
        """
        inputs = novel_view.from_data(
            self.method,
            self.config,
            split=split,
            clip=clip,
            views=(source_view, target_view),
            frames=frames,
        )
        size = transfer.frame_size(self.config)
        given = open_footage(as_place(estimate), self.config.to_dict(), size=size)
        return self._view(novel_view.with_estimate(self.method, inputs, given))

    def _view(self, inputs: NovelViewInputs) -> Video:
        windows = Kept(novel_view.synthesize_windows(self.method, self.variables, inputs))
        frames = (frame for window in windows for frame in window.videos[window.steps[-1]])
        rows = (row for window in windows for row in video.beside(window.videos))
        return Video(frames, times=inputs.times, comparison=Video(rows, times=inputs.times))


def load(
    run: str | os.PathLike,
    *,
    stage: str = "",
    best: bool = False,
    fields: Mapping[str, Any] = {},
) -> Model:
    """Loads a trained run.

    Args:
      run: its directory, local or gs://.
      stage: by default the last finished one.
      best: whether it is the best checkpoint by `config.keep_best`, not the newest.
      fields: {field of the method: value}, such as {"relative": True}.

    Raises:
      UserError: if the directory is not a run's, or the method has no such field.
    """
    method, variables, config, name = checkpoint.restore_for_inference(
        run, stage or None, best=best
    )
    return Model(transfer.with_fields(method, fields), variables, config, name)


def train(
    config: str | RunConfig,
    workdir: str | os.PathLike,
    overrides: Mapping[str, Any] = {},
    *,
    progress: Callable[[str, int, int], writer.Progress] | None = None,
    traced: range = range(0),
) -> None:
    """Trains all stages of a config in a run directory; goes on where it was cut off.

    Args:
      config: "METHOD", "METHOD:PRESET", a file, or what `psrjax.config.load` gives.
      workdir: the run's directory, local or gs://.
      overrides: {dotted key: value}, such as {"data.path": "data/me", "steps": 500}.
      progress: makes what shows the progress of a stage, from (stage, first step, last step).
      traced: the steps of each stage that are profiled.

    Raises:
      UserError: for a config, data or directory that does not fit.
    """
    if isinstance(config, str):
        config = config_lib.load(config, overrides)
    elif overrides:
        config = config_lib.override(copy.deepcopy(config), overrides)
    config = evaluated_split.with_prepared_split(config)
    _tell_crop(config)
    stages.train(config, workdir, progress=progress, traced=traced)


def _tell_crop(config: RunConfig) -> None:
    """Says what a crop that is smaller than the stored frames leaves out."""
    if config.data.path == dataset.SYNTHETIC or not any(config.data.crop):
        return
    source = loader.open_split(dataset.resolve_path(config.data), config.data.train_split)
    stored = next(iter(source.clips[0].views.values())).size
    crop = tuple(want or have for want, have in zip(config.data.crop, stored))
    if crop != stored:
        logging.warning(
            "config.data.crop=%dx%d cuts the stored %dx%d: training sees a random part of each "
            "frame, scores and videos its middle; --config.data.crop='(0,0)' takes all of it",
            *(*crop, *stored),
        )


def evaluate(
    run: str | os.PathLike | Model,
    *,
    data: str = "",
    split: str = "",
    windows: str = "auto",
    metrics: Sequence[str] = (),
    k: int = 0,
    limit: int = 0,
    show_progress: bool = False,
) -> Evaluation:
    """Scores a run and its baselines on frames that it has not seen.

    Args:
      run: its directory, or a model.
      data: a stored dataset; by default the run's own.
      split: by default "test" where the dataset has it, else what the run held back.
      windows: see `method_evaluation.evaluate`.
      metrics: further ones.
      k: source frames of each window; 0 is as the run has it.
      limit: the number of windows at most; 0 is all.
      show_progress: whether to show a progress bar.

    Returns:
      The evaluation: its `rows` are the table, `psrjax.evaluation.method_evaluation.write` writes
      it to files.

    Raises:
      UserError: if there is nothing to score, or a metric lacks what it needs.
    """
    model = run if isinstance(run, Model) else load(run)
    given = {"data.path": data, "data.sampling.k_evaluation": k}
    config = config_lib.update(
        copy.deepcopy(model.config), {key: value for key, value in given.items() if value}
    )
    return method_evaluation.evaluate(
        model.method,
        model.variables,
        config,
        split=split,
        windows=windows,
        metrics=metrics,
        limit=limit,
        show_progress=show_progress,
    )


@dataclass(frozen=True)
class Needs:
    """What a preset asks of its data.

    Attributes:
      size: (height, width) of the frames.
      body: whether body parts and mesh features are read.
      views: whether two calibrated views of one scene are.
      one_person: whether a model belongs to one person.
    """

    size: tuple[int, int]
    body: bool
    views: bool
    one_person: bool


def needs_of(preset: str) -> Needs:
    """Returns what "METHOD:PRESET" asks of its data. Raises UserError as `psrjax.config.load`."""
    config = config_lib.load(preset)
    reads: set[str] = set()
    for stage in config.only or config.stages:
        of_stage = config_lib.stage_config(config, stage)
        reads |= set(base.build(**config_lib.method_fields(of_stage)).reads)
    data = config.data
    height, width = data.stored if any(data.stored) else data.crop
    return Needs(
        (height, width),
        body=any(sampling.stream(key) in _OF_THE_BODY for key in reads),
        views=data.sampling.source == "same_time",
        one_person=bool(data.sampling.held_back or data.sampling.k_evaluation),
    )


def prepare(
    inputs: str | os.PathLike | Sequence[str | os.PathLike],
    to: str | os.PathLike,
    *,
    preset: str = "",
    joints: str = "",
    holdout: float = HOLDOUT,
    holdout_by: str = "auto",
    options: PreparationOptions | MultiviewOptions | None = None,
    processes: int = 0,
) -> dict[str, Any]:
    """Makes a dataset of videos, or of a recording of calibrated cameras.

    Args:
      inputs: videos, folders of pictures, folders of videos; or the folder of one recording.
      to: the folder of the new dataset. Look at its prepare.html before training.
      preset: "METHOD:PRESET" of the training to come, which chooses what `options` do not say.
      joints: of videos: a file or folder of joints; by default MediaPipe finds them.
      holdout: of videos: the part that becomes the split "test".
      holdout_by: "time", "video" or "auto", see `psrjax.prepare.monocular.planning`.
      options: all further ones; by default those of the preset.
      processes: of videos: at once; 0 is one for every two cores.

    Returns:
      The summary, which is also stored as prepare.json.

    Raises:
      UserError: if nothing can be prepared, or the preset cannot be trained on such data.
    """
    given = [inputs] if isinstance(inputs, str | os.PathLike) else list(inputs)
    is_recording = len(given) == 1 and (Path(given[0]) / "videos").is_dir()
    needs = needs_of(preset) if preset else None
    if needs and needs.views and not is_recording:
        raise UserError(
            f"{preset} learns from calibrated views of one scene: give the folder of a recording"
        )
    if is_recording:
        if options is None:
            options = MultiviewOptions(size=needs.size) if needs else MultiviewOptions()
        if not isinstance(options, MultiviewOptions):
            raise UserError(f"{given[0]}: is a recording: give psrjax.MultiviewOptions")
        return recording.prepare(os.fspath(given[0]), os.fspath(to), options)
    if options is None:
        options = (
            PreparationOptions(size=needs.size, body=needs.body) if needs else PreparationOptions()
        )
    if not isinstance(options, PreparationOptions):
        raise UserError(f"{given[0]}: is a video: give psrjax.PreparationOptions")
    if needs and needs.one_person and holdout_by == "auto":
        holdout_by = "time"
    plan = planning.plan(
        [os.fspath(each) for each in given],
        to,
        joints=joints or pipeline.MEDIAPIPE,
        holdout=holdout,
        by=holdout_by,
    )
    options = dataclasses.replace(options, holdout=plan.holdout)
    summary = dataset_builder.prepare(plan.clips, to, options, processes=processes)
    result_page.write(to)
    return summary
