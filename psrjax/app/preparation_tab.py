"""The third tab: a dataset of the user's own clips."""

import base64
import html
import re
import shlex
import threading
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from psrjax import config as config_lib
from psrjax.api import preparation
from psrjax.app import messages
from psrjax.app.messages import Updates
from psrjax.app.transfer_tab import COMPUTES
from psrjax.errors import UserError
from psrjax.prepare.common.result_page import PAGE

_NO_SCRIPTS = 'sandbox="allow-same-origin"'


def presets() -> list[str]:
    """Lists "SYSTEM:PRESET" of all that is trained on videos of one camera each."""
    found = [f"{name}:{preset}" for name in config_lib.names()
             for preset in config_lib.module(name).PRESETS]  # fmt: skip
    return [preset for preset in found if not preparation.needs_of(preset).views]


class PreparationTab:
    """The components of the tab and what they do.

    Attributes:
      preset: the choice of the preset.
    """

    def __init__(self, run_folder: Path, data_folder: Path):
        """Builds the tab, inside `gr.Blocks`; datasets become folders of `data_folder`."""
        self._runs, self._data = run_folder, data_folder
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                self._clips = gr.Files(
                    label="Videos of one person", file_types=["video"], elem_id="clips", height=180
                )
                self.preset = gr.Dropdown(
                    label="What will be trained on them",
                    info="chooses the size, what is held back for scores, and what is detected",
                    elem_id="preset",
                )
                self._name = gr.Textbox(
                    "me", label="Name", info=f"the dataset becomes a folder of {data_folder}",
                    elem_id="name", max_length=60,
                )  # fmt: skip
                self._go = gr.Button("Prepare", variant="primary", elem_id="prepare")
                self._status = gr.HTML(messages.line(""), elem_id="prepare-status")
                self._next = gr.Textbox(
                    label="Then train, in a terminal", visible=False, interactive=False,
                    buttons=["copy"], lines=3,
                )  # fmt: skip
            with gr.Column(scale=2, min_width=400):
                self._page = gr.HTML(
                    messages.line("What was found in the clips will be shown here"), elem_id="found"
                )
        self._go.click(
            messages.told(self._status, self._prepare),
            [self._clips, self.preset, self._name],
            [self._status, self._page, self._next],
            show_progress="hidden",
            api_visibility="private",
            **COMPUTES,
        )

    def list_presets(self) -> Any:
        """Fills the choice of presets, which takes a second: when the page is opened."""
        found = presets()
        first = next((preset for preset in found if preset.endswith(":demo")), found[0])
        return gr.update(choices=found, value=first)

    def _prepare(self, clips: Sequence[str] | None, preset: str, name: str) -> Iterator[Updates]:
        if not clips:
            raise UserError("Give at least one video")
        if not re.fullmatch(r"[\w-][\w .-]*", name):
            raise UserError("Name: letters, digits, spaces, - and _ only")
        to = self._data / name.strip()
        begun, result = time.monotonic(), _Result()
        work = threading.Thread(target=result.fill, args=(clips, to, preset), daemon=True)
        work.start()
        while work.is_alive():
            seconds = messages.duration(time.monotonic() - begun)
            count = "1 video" if len(clips) == 1 else f"{len(clips)} videos"
            yield {self._status: messages.line(f"Looking for the person in {count}: {seconds}")}
            work.join(1.0)
        summary = result.get()
        shown = html.escape(_in_one_file(to / PAGE), quote=True)
        failed = "; ".join(summary["failed"].values())
        count = len(summary["clips"])
        clips_are = "1 clip is" if count == 1 else f"{count} clips are"
        said = f"{clips_are} in {to}; look at what was found before you train"
        yield {
            self._status: messages.line(f"{said}. Left out: {failed}", "wrong")
            if failed
            else messages.line(said, "done"),
            self._page: f'<iframe class="page" {_NO_SCRIPTS} srcdoc="{shown}"></iframe>',
            self._next: gr.update(
                value=f"psrjax train --config={preset} --config.data.path={shlex.quote(str(to))} "
                f"--workdir={shlex.quote(str(self._runs / name.strip()))}",
                visible=True,
            ),
        }


def _in_one_file(page: Path) -> str:
    """Reads a page with its videos put into it."""

    def embedded(found: re.Match[str]) -> str:
        content = (page.parent / urllib.parse.unquote(html.unescape(found[1]))).read_bytes()
        return f'src="data:video/mp4;base64,{base64.b64encode(content).decode()}"'

    return re.sub(r'src="([^":]+\.mp4)"', embedded, page.read_text())


class _Result:
    """Keeps the result of a thread, or its error."""

    def __init__(self) -> None:
        self._summary: dict[str, Any] = {}
        self._error: BaseException | None = None

    def fill(self, clips: Sequence[str], to: Path, preset: str) -> None:
        try:
            self._summary = preparation.prepare(list(clips), to, preset=preset)
        except BaseException as error:  # raised again by `get`
            self._error = error

    def get(self) -> dict[str, Any]:
        if self._error is not None:
            raise self._error
        return self._summary
