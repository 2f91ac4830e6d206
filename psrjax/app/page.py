"""The page: its tabs, its look, and the server that shows it on this machine alone."""

import ipaddress
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from absl import logging
from gradio.themes import Default
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from psrjax import io
from psrjax.app import messages, runs
from psrjax.app.preparation_tab import PreparationTab
from psrjax.app.training_tab import TrainingTab
from psrjax.app.transfer_tab import TransferTab
from psrjax.errors import UserError

_AGE = 24 * 3600  # seconds after which files of the page are removed
_FONTS = ("system-ui", "sans-serif")  # those of the machine: none is fetched
_STYLE = """
.line { padding: .35em .6em; min-height: 1.4em; overflow-wrap: anywhere; }
.line.wrong { color: #b3261e; background: #fdecea; border-radius: 6px; }
.line.done { color: #14532d; background: #e7f6ec; border-radius: 6px; }
.line progress { width: 45%; height: 1em; vertical-align: middle; }
#about { align-content: center; }
#comparison { padding: .5em 1em 1em; }
iframe.page { width: 100%; height: 75vh; border: 1px solid #ccc; background: white; }
.curve svg { max-width: 100%; height: auto; background: white; }
footer { display: none !important; }
"""


@dataclass(frozen=True)
class Served:
    """A running page: its address, and how to end it."""

    url: str
    blocks: gr.Blocks

    def close(self) -> None:
        """Ends the server."""
        self.blocks.close(verbose=False)


def build(run_folder: Path, data_folder: Path, files: Path) -> gr.Blocks:
    """Builds the page for the runs in a folder; new datasets go into the other.

    Args:
      run_folder: the runs to choose from.
      data_folder: for new datasets.
      files: for videos to be looked at.
    """
    with gr.Blocks(title="psrjax", analytics_enabled=False, delete_cache=(3600, _AGE)) as blocks:
        gr.Markdown("# psrjax")
        with gr.Tabs():
            with gr.Tab("Make a video", id="transfer"):
                transfer_tab = TransferTab(run_folder, files)
            with gr.Tab("Trainings", id="training") as training:
                training_tab = TrainingTab(run_folder)
            with gr.Tab("Prepare clips", id="preparation"):
                preparation_tab = PreparationTab(run_folder, data_folder)

        def list_runs(chosen: str | None) -> tuple[Any, str]:
            names = runs.find(run_folder)
            if not names:
                return gr.update(choices=[], value=None), messages.line(
                    runs.none_in(run_folder), "wrong"
                )
            value = chosen if chosen in names else names[0]
            return gr.update(choices=names, value=value), messages.line("")

        for event, tab in ((blocks.load, transfer_tab), (training.select, training_tab)):
            event(
                list_runs,
                tab.run,
                [tab.run, tab.status],
                show_progress="hidden",
                api_visibility="private",
            )
        blocks.load(
            preparation_tab.list_presets,
            None,
            preparation_tab.preset,
            show_progress="hidden",
            api_visibility="private",
        )
        training.select(
            lambda: gr.Timer(active=True), None, training_tab.timer, api_visibility="private"
        )
    return blocks


def serve(
    run_folder: Path,
    data_folder: Path,
    *,
    host: str,
    port: int,
    max_upload: int,
    wait: bool = False,
) -> Served:
    """Shows the page.

    Uploaded and made files lie in the folder "app" of the cache for a day; the server gives out no
    others.

    Args:
      run_folder: the folder of the runs to choose from.
      data_folder: the folder for new datasets.
      host: the address that the server listens at.
      port: 0 is the first free one from 7860 on.
      max_upload: MiB of one file.
      wait: whether to return only when the server ends, by Ctrl-C.

    Raises:
      UserError: if the address cannot be used.
    """
    own = io.cache_folder() / "app"
    own.mkdir(parents=True, exist_ok=True)
    _remove_old(own)
    os.environ["GRADIO_TEMP_DIR"] = os.fspath(own)
    blocks = build(run_folder, data_folder, own)
    if not _is_own(host):
        logging.warning(
            "everybody who reaches %s can use the page, and this machine: it asks for no password",
            host,
        )
    try:
        _, url, _ = blocks.launch(
            server_name=host,
            server_port=port or None,
            share=False,
            inbrowser=False,
            quiet=True,
            prevent_thread_lock=True,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            run_history=False,
            enable_monitoring=False,
            footer_links=[],
            allowed_paths=[],
            app_kwargs={"middleware": _guards(host)},
            max_file_size=max_upload * 2**20,
            theme=Default(font=_FONTS, font_mono=("ui-monospace", "monospace")),
            css=_STYLE,
        )
    except OSError as error:
        where = f"--host={host}" + (f" --port={port}" if port else "")
        raise UserError(
            f"{where}: cannot be listened at; without --port a free one is taken"
        ) from error
    logging.info("the page is at %s; Ctrl-C ends it", url)
    if wait:
        blocks.block_thread()
    return Served(url, blocks)


def _guards(host: str) -> list[Middleware]:
    """Refuses what a page of this machine is never asked by its own user."""
    guards = [Middleware(_NoAddresses)]
    if _is_own(host):  # else a site whose name is made to lead here could read the page
        guards.append(Middleware(TrustedHostMiddleware, allowed_hosts=[host, "localhost"]))
    return guards


class _NoAddresses:
    """Refuses to fetch files of other servers, which Gradio would do for anybody who asks."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and "/file=http" in scope["path"]:
            await PlainTextResponse("only own files", 403)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _remove_old(folder: Path) -> None:
    """Removes what pages of other days have left."""
    for path in folder.iterdir():
        if time.time() - path.stat().st_mtime > _AGE:
            shutil.rmtree(path, ignore_errors=True)


def _is_own(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
