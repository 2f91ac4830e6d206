"""Data for a training: what a preset needs, and datasets of videos and recordings."""

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psrjax import config as config_lib
from psrjax.data import sampling
from psrjax.errors import UserError
from psrjax.methods import base
from psrjax.prepare.monocular import dataset_builder, pipeline, planning, result_page
from psrjax.prepare.monocular.pipeline import PreparationOptions
from psrjax.prepare.multiview import recording
from psrjax.prepare.multiview.recording import MultiviewOptions

HOLDOUT = 0.25  # of a video, or of several, for the split "test"
_OF_THE_BODY = ("iuv", "mesh_label")  # streams that `PreparationOptions.body` makes


@dataclass(frozen=True)
class Needs:
    """Requirements of a preset on its data.

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
