"""Trained runs: loaded, and asked for videos."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psrjax.config import RunConfig
from psrjax.data import video
from psrjax.inference import driving_poses, intermediate_results, novel_view, transfer
from psrjax.inference.footage import open_footage
from psrjax.inference.marks import Mark
from psrjax.inference.novel_view import NovelViewInputs
from psrjax.inference.synthesized_video import Kept, Video, as_place
from psrjax.inference.transfer import TransferInputs, TransferOptions
from psrjax.methods import base
from psrjax.runtime import jax_setup
from psrjax.training import checkpoint, exported_run

_USUAL = TransferOptions()

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
      run: the run's directory, of which its videos tell the name.
    """

    method: base.Method
    variables: Mapping[str, Any]
    config: RunConfig
    stage: str
    run: str = ""

    @property
    def mark(self) -> Mark:
        """The mark that the model's videos carry."""
        return Mark.of_run(self.config.method.name, self.run, self.stage)

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
        shown: Any = {"times": made.times, "audio": made.audio, "mark": self.mark}
        return Video(frames, comparison=Video(rows, **shown), poses=made.preview, **shown)

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

    def export(self, path: str | os.PathLike) -> None:
        """Writes the model to one file, "NAME.safetensors", which `psrjax.load` reads.

        It holds what synthesis needs, at half precision.

        Raises:
          UserError: if the name ends otherwise, or the file cannot be written.
        """
        exported_run.write(path, self.method, self.variables, self.config)

    def _view(self, inputs: NovelViewInputs) -> Video:
        windows = Kept(novel_view.synthesize_windows(self.method, self.variables, inputs))
        frames = (frame for window in windows for frame in window.videos[window.steps[-1]])
        rows = (row for window in windows for row in video.beside(window.videos))
        shown: Any = {"times": inputs.times, "mark": self.mark}
        return Video(frames, comparison=Video(rows, **shown), **shown)


def load(
    run: str | os.PathLike,
    *,
    stage: str = "",
    best: bool = False,
    fields: Mapping[str, Any] = {},
) -> Model:
    """Loads a trained run.

    Args:
      run: its directory, local or gs://, or the file of `Model.export`.
      stage: by default the last finished one.
      best: whether it is the best checkpoint by `config.keep_best`, not the newest.
      fields: {field of the method: value}, such as {"relative": True}.

    Raises:
      UserError: if it is no run's directory or file, or the method has no such field.
    """
    jax_setup.use_compilation_cache()
    method, variables, config, name = checkpoint.restore_for_inference(
        run, stage or None, best=best
    )
    return Model(transfer.with_fields(method, fields), variables, config, name, os.fspath(run))
