"""The first tab: one person's looks in another's motion."""

import dataclasses
import functools
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from jaxtyping import UInt8

from psrjax.api import model as model_lib
from psrjax.api.model import Model
from psrjax.app import messages, poses, runs
from psrjax.app.messages import Updates
from psrjax.errors import UserError
from psrjax.inference import frame_selection, transfer
from psrjax.inference.footage import FRAMES
from psrjax.inference.video_writers import VideoWriters
from psrjax.training import checkpoint, exported_run

# One thing at a time.
COMPUTES: dict[str, Any] = {"concurrency_id": "compute", "concurrency_limit": 1}
PICTURE, FILM, OWN = "a picture", "a video", "the person of the run"
_FRAMES = 250  # of the driving video, unless the user wants more
_SHOWN = 384  # pixels of small frames on the page, at least
_FIELDS = 2  # options of the method that the page has room for
_AUTO = "as usual"
_PAIRS = ("motion | result", "person | result")


@dataclass(frozen=True)
class MadeVideo:
    """A finished transfer: its frames, for the comparison, and its files."""

    person: UInt8[np.ndarray, "h w 3"]
    driving: UInt8[np.ndarray, "t h w 3"]
    frames: UInt8[np.ndarray, "t h w 3"]
    paths: Sequence[Path]


@dataclass(frozen=True)
class _Asked:
    """The values of the form, in the order of `TransferTab._inputs`."""

    run: str | None
    who: str
    picture: str | None
    film: str | None
    driving: str | None
    frames: float
    sound: bool
    rule: str
    background: str | None
    best_frame: bool
    adapt_scale: bool
    fields: Sequence[Any]

    def source(self) -> str | None:
        given = {PICTURE: self.picture, FILM: self.film}.get(self.who)
        if self.who != OWN and not given:
            raise UserError(f"Step 1: give {self.who} of the person, or choose another way there")
        return given

    def motion(self) -> str:
        if not self.driving:
            raise UserError("Step 2: give a video of the motion")
        return self.driving


@functools.lru_cache(maxsize=1)
def _loaded(run: Path, stage: str, version: int) -> Model:
    del version  # a training that goes on makes another model of it
    return model_lib.load(run, stage=stage)


def load(folder: Path, name: str | None) -> Model:
    """Loads a run, once. Raises UserError as `runs.place` and `psrjax.load`."""
    run = runs.place(folder, name)
    if exported_run.is_file(run):
        return _loaded(run, "", run.stat().st_mtime_ns)
    stage = checkpoint.find_stage(run)
    return _loaded(run, stage, checkpoint.saved_steps(run / stage)[0])


def make(folder: Path, files: Path, asked: _Asked) -> Iterator[tuple[int, int, Any]]:
    """Makes a transfer; yields (frames made, of so many, the newest), and last a `MadeVideo`.

    Before the first frame it yields (0, their number, the picture of fitted poses or None). The
    videos are written into a new folder of `files`.
    """
    model = load(folder, asked.run)
    source, driving = asked.source(), asked.motion()
    inputs = model.transfer_inputs(source, driving, background=asked.background)
    names = model.method.transfer_fields
    options = transfer.TransferOptions(
        source_frames="" if asked.rule == _AUTO else asked.rule,
        frames=(0, min(int(asked.frames) or inputs.driving.frames, inputs.driving.frames)),
        find_best_frame=asked.best_frame,
        adapt_scale=asked.adapt_scale,
        audio=asked.sound and bool(inputs.driving.audio),
        fields=dict(zip(names, asked.fields)),
        mark=model.mark,
    )
    made = transfer.Transfer(model.method, model.variables, model.config, inputs, options)
    total = len(made.times)
    yield 0, total, made.preview
    output = Path(tempfile.mkdtemp(dir=files)) / f"{Path(driving).stem}.mp4"
    windows = []
    shown: Any = {"audio": made.audio, "mark": made.mark}
    with VideoWriters(output, made.source, made.times, **shown) as writers:
        for window in made:
            writers.add(window.frames, window.driving, mask=window.mask, intermediates={})
            windows.append(window)
            yield sum(len(each.frames) for each in windows), total, window.frames[-1]
    driving_frames = np.concatenate([window.driving for window in windows])
    frames = np.concatenate([window.frames for window in windows])
    yield total, total, MadeVideo(made.source[0], driving_frames, frames, writers.finish())


def enlarged(frame: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "y x 3"]:
    """Repeats the pixels of a small frame, so that it can be seen."""
    times = -(-_SHOWN // max(frame.shape[:2]))
    return frame.repeat(times, 0).repeat(times, 1)


class TransferTab:
    """The components of the tab and what they do.

    Attributes:
      run: the choice of the run.
      status: the line that says what is done, or went wrong.
    """

    def __init__(self, folder: Path, files: Path):
        """Builds the tab, inside `gr.Blocks`, for the runs in a folder; results go to `files`."""
        self._folder, self._files = folder, files
        with gr.Row(equal_height=True):
            self.run = gr.Dropdown([], label="Run", elem_id="run", scale=2)
            self._about = gr.HTML(elem_id="about")
        with gr.Row():
            with gr.Column(min_width=260):
                self._build_person()
            with gr.Column(min_width=260):
                self._build_motion()
            with gr.Column(min_width=260):
                self._build_result()
        self._build_comparison()
        self._inputs = [
            *(self.run, self._who, self._picture, self._film, self._driving),
            *(self._count, self._sound, self._rule, self._background),
            *(self._best_frame, self._adapt_scale, *self._fields),
        ]
        self._connect()

    def _build_person(self) -> None:
        gr.Markdown("### 1. Who is shown")
        self._who = gr.Radio([PICTURE, FILM, OWN], value=PICTURE, show_label=False, elem_id="who")
        self._picture = gr.Image(
            label="A picture of the person, whole and large",
            type="filepath",
            format="png",
            sources=["upload", "webcam"],
            height=260,
            elem_id="picture",
        )
        self._film = gr.Video(
            label="A video of the person", sources=["upload", "webcam"], visible=False, height=260,
            elem_id="film",
        )  # fmt: skip
        self._person_pose = gr.Image(
            show_label=False, interactive=False, format="png", visible=False,
            elem_id="person-pose", buttons=[],
        )  # fmt: skip
        self._person_said = gr.HTML()

    def _build_motion(self) -> None:
        gr.Markdown("### 2. Whose motion")
        self._driving = gr.Video(
            label="A video of the motion: one person, whole",
            sources=["upload", "webcam"],
            height=310,
            elem_id="driving",
        )
        self._driving_pose = gr.Image(
            show_label=False, interactive=False, format="png", visible=False,
            elem_id="driving-pose", buttons=[],
        )  # fmt: skip
        self._driving_said = gr.HTML()
        with gr.Accordion("Options", open=False, elem_id="options"):
            self._count = gr.Number(
                _FRAMES, label="Frames at most", info="0 is the whole video", precision=0, minimum=0
            )
            self._sound = gr.Checkbox(True, label="Keep the sound of the motion's video")
            self._fields = [gr.Dropdown([], visible=False) for _ in range(_FIELDS)]
            self._rule = gr.Dropdown(
                [_AUTO, *frame_selection.RULES],
                value=_AUTO,
                label="Frames taken of the person's video",
            )
            self._best_frame = gr.Checkbox(
                label="Start from the frame whose pose is most like the person's", visible=False
            )
            self._adapt_scale = gr.Checkbox(
                label="Scale the motion by the person's size", visible=False
            )
            self._background = gr.Image(
                label="Another background", type="filepath", format="png", sources=["upload"],
                height=160,
            )  # fmt: skip

    def _build_result(self) -> None:
        gr.Markdown("### 3. The video")
        with gr.Row():
            self._go = gr.Button("Make the video", variant="primary", elem_id="go", scale=2)
            self._stop = gr.Button("Stop", elem_id="stop", min_width=60)
        self.status = gr.HTML(messages.line(""), elem_id="status")
        self._live = gr.Image(
            label="The newest frame", interactive=False, format="png", visible=False, buttons=[],
            elem_id="live",
        )  # fmt: skip
        self._video = gr.Video(
            label="The result", visible=False, autoplay=True, loop=True, elem_id="result",
            interactive=False,
        )  # fmt: skip
        with gr.Row():
            self._download = gr.DownloadButton(
                "Download the video", visible=False, elem_id="download"
            )
            self._download_pair = gr.DownloadButton("Download the comparison", visible=False)
        self._fitted = gr.Image(
            show_label=False, interactive=False, format="png", visible=False, buttons=[],
        )  # fmt: skip

    def _build_comparison(self) -> None:
        self._made = gr.State(None, time_to_live=3600)
        with gr.Column(visible=False, elem_id="comparison") as self._comparison:
            gr.Markdown("### Compare")
            with gr.Row():
                with gr.Column(scale=1, min_width=200):
                    self._pair = gr.Radio(list(_PAIRS), value=_PAIRS[0], show_label=False)
                    self._number = gr.Slider(1, 2, 1, step=1, label="Frame", elem_id="number")
                    gr.Markdown("Drag the line in the picture.")
                with gr.Column(scale=2):
                    self._slider = gr.ImageSlider(
                        show_label=False, format="png", interactive=False, max_height=420,
                        elem_id="slider",
                    )  # fmt: skip
            gr.Markdown("Side by side: what was taken of the person, the motion, the result")
            self._beside = gr.Video(
                show_label=False, loop=True, autoplay=True, interactive=False, elem_id="beside"
            )

    def _connect(self) -> None:
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        shown = (self._about, self._who, *self._fields, self._best_frame, self._adapt_scale)
        self.run.change(
            messages.told(self.status, self._choose),
            self.run,
            [*shown, self.status],
            **quiet,
            **COMPUTES,
        )
        self._who.change(
            lambda who: [
                gr.update(visible=who == PICTURE),
                gr.update(visible=who == FILM),
                gr.update(visible=False),
                "",
            ],
            self._who,
            [self._picture, self._film, self._person_pose, self._person_said],
            **quiet,
        )
        looked_at = (
            (self._picture, self._person_pose, self._person_said),
            (self._film, self._person_pose, self._person_said),
            (self._driving, self._driving_pose, self._driving_said),
        )
        for footage, picture, said in looked_at:
            look = functools.partial(_look, picture, said)
            footage.change(messages.told(said, look), footage, [picture, said], **quiet, **COMPUTES)
        outputs = [
            *(self.status, self._live, self._fitted, self._video, self._download),
            *(self._download_pair, self._comparison, self._number, self._slider),
            *(self._beside, self._made),
        ]
        working = self._go.click(
            messages.told(self.status, self._make), self._inputs, outputs, **quiet, **COMPUTES
        )
        self._stop.click(
            lambda: messages.line("Stopped"), None, self.status, cancels=[working], **quiet
        )
        compared = [self._made, self._number, self._pair]
        for change in (self._number.release, self._number.input, self._pair.change):
            change(_compare, compared, self._slider, trigger_mode="always_last", **quiet)

    def _choose(self, name: str | None) -> Iterator[Updates]:
        """Shows what a run is, and the options of its method."""
        yield {self.status: messages.line("Loading the run")}
        model = load(self._folder, name)
        method, sampling = model.method, model.config.data.sampling
        one_person = bool(sampling.held_back or sampling.k_evaluation)
        # What else is read of the person is found in a video, not in one picture.
        moves = any(not key.startswith("target") for key in {*method.synthesis_reads} - {*FRAMES})
        height, width = transfer.frame_size(model.config)
        said = (
            f"{model.config.method.name}, stage {model.stage}: makes frames of {width}x{height} "
            "pixels; the middle of other shapes is taken"
        )
        updates: dict[Any, Any] = {
            self.status: messages.line(""),
            self._about: messages.line(said),
            self._who: OWN if one_person else FILM if moves else PICTURE,
        }
        for checkbox in (self._best_frame, self._adapt_scale):
            updates[checkbox] = gr.update(visible=hasattr(method, "relative"), value=False)
        names = [*method.transfer_fields, *[""] * _FIELDS][:_FIELDS]
        for dropdown, field in zip(self._fields, names):
            value = getattr(method, field, None)
            choices = list(method.choices.get(field, (False, True)))
            label = field.replace("_", " ").capitalize()
            updates[dropdown] = (
                gr.update(choices=choices, value=value, label=label, visible=True)
                if field
                else gr.update(choices=[], value=None, visible=False)
            )
        yield updates

    def _make(self, *values: Any) -> Iterator[Updates]:
        known = len(dataclasses.fields(_Asked)) - 1
        asked = _Asked(*values[:known], fields=values[known:])
        hidden = (self._live, self._fitted, self._video, self._download, self._download_pair)
        said = "Reading the footage; the first time, the run is compiled, which may take minutes"
        yield {
            self.status: messages.line(said),
            self._comparison: gr.update(visible=False),
            **{component: gr.update(visible=False) for component in hidden},
        }
        begun, first = 0.0, 0
        for done, total, what in make(self._folder, self._files, asked):
            if isinstance(what, MadeVideo):
                yield self._finished(what)
            elif not done:
                yield {
                    self.status: messages.progress(0, total, "poses fitted; frames come"),
                    self._fitted: gr.update(value=what, visible=what is not None),
                }
            else:
                left = ""
                if begun:  # the first window is compiled
                    seconds = (time.monotonic() - begun) / (done - first) * (total - done)
                    left = f", about {messages.duration(seconds)} left"
                else:
                    begun, first = time.monotonic(), done
                yield {
                    self.status: messages.progress(done, total, f"{done} of {total} frames{left}"),
                    self._live: gr.update(value=enlarged(what), visible=True),
                }

    def _finished(self, made: MadeVideo) -> dict[Any, Any]:
        video, beside = made.paths[:2]
        count = len(made.frames)
        return {
            self.status: messages.line(f"Done: {count} frames", "done"),
            self._live: gr.update(visible=False),
            self._video: gr.update(value=video, visible=True),
            self._download: gr.update(value=video, visible=True),
            self._download_pair: gr.update(value=beside, visible=True),
            self._comparison: gr.update(visible=True),
            self._number: gr.update(maximum=max(count, 2), value=1),
            self._slider: _compare(made, 1, _PAIRS[0]),
            self._beside: beside,
            self._made: made,
        }


def _compare(made: MadeVideo | None, number: float, pair: str) -> Any:
    if made is None:
        return None
    place = min(int(number), len(made.frames)) - 1
    other = made.driving[place] if pair == _PAIRS[0] else made.person
    return enlarged(other), enlarged(made.frames[place])


def _look(picture: gr.Image, said: gr.HTML, path: str | None) -> Iterator[Updates]:
    """Shows the poses in footage that was given."""
    yield {
        picture: gr.update(visible=False),
        said: messages.line("Looking for the person") if path else "",
    }
    if path:
        found = poses.picture(Path(path))
        yield {picture: gr.update(value=found, visible=True), said: ""}
