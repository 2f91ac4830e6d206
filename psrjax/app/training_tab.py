"""The second tab: how far a training has come, its curves and its newest samples."""

import html
from collections.abc import Iterator, Sequence
from pathlib import Path

import gradio as gr
import numpy as np
from PIL import Image

from psrjax.app import messages, runs
from psrjax.app.messages import Updates
from psrjax.reporting import run_summary

_SECONDS = 10.0  # between two looks at the run


class TrainingTab:
    """The components of the tab and what they do.

    Attributes:
      run: the choice of the run.
      status: the line that says what is done, or went wrong.
      timer: looks at the run again and again, while it is active.
    """

    def __init__(self, folder: Path):
        """Builds the tab, inside `gr.Blocks`, for the runs in a folder."""
        self._folder = folder
        self.run = gr.Dropdown([], label="Run", elem_id="training-run")
        self.timer = gr.Timer(_SECONDS, active=False)
        self.status = gr.HTML(elem_id="training-status")
        self._stages = gr.HTML(elem_id="stages")
        with gr.Row():
            self._curves = gr.HTML(elem_id="curves")
            self._sample = gr.Image(
                label="The newest samples", interactive=False, format="png", visible=False,
                elem_id="samples", buttons=["download", "fullscreen"],
            )  # fmt: skip
        outputs = [self.status, self._stages, self._curves, self._sample]
        for event in (self.run.change, self.timer.tick):
            event(
                messages.told(self.status, self._show),
                self.run,
                outputs,
                show_progress="hidden",
                api_visibility="private",
                concurrency_id="training",
                concurrency_limit=1,
                trigger_mode="once",
            )

    def _show(self, name: str | None) -> Iterator[Updates]:
        run = runs.place(self._folder, name)
        stages = runs.stages(run)
        (content,) = run_summary.open_runs([run])
        drawn = [
            f'<div class="curve"><b>{html.escape(curve["title"])}</b>{curve["svg"]}</div>'
            for curve in run_summary.curves(content)
        ]
        sample = runs.newest_sample(run)
        yield {
            self.status: messages.line(summary(stages)),
            self._stages: "".join(map(_stage_line, stages)),
            self._curves: "".join(drawn) or messages.line("No curves yet"),
            self._sample: gr.update(visible=False)
            if sample is None
            else gr.update(
                value=np.asarray(Image.open(sample).convert("RGB")),
                label=f"The newest samples: step {sample.stem} of {sample.parents[1].name}",
                visible=True,
            ),
        }


def summary(stages: Sequence[runs.StageState]) -> str:
    """Says in a line whether a run is trained, and how long it will take."""
    if all(stage.step >= stage.steps for stage in stages):
        return "The training is finished"
    working = next((stage for stage in stages if stage.works), None)
    if working is None:
        return "Nobody trains this run now; psrjax train with the same --workdir goes on with it"
    left = runs.seconds_left(stages)
    if not left:
        return f"In training: {working.name}; the time left is not known yet"
    return f"In training: {working.name}; about {messages.duration(left)} left in all"


def _stage_line(stage: runs.StageState) -> str:
    pace = f", {stage.pace:.3g} steps a second" if stage.pace else ""
    text = f"{stage.name}: step {stage.step} of {stage.steps}{pace}"
    return messages.progress(stage.step, stage.steps, text)
