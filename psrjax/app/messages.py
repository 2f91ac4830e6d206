"""Lines of the page, of progress and of mistakes: never a traceback."""

import functools
import html
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import gradio as gr
from absl import logging

from psrjax.errors import UserError

_UPLOADED = re.compile(r"\S*/[0-9a-f]{64}/")  # the folder into which Gradio puts an upload
Updates = Mapping[Any, Any]  # {component: its new value}


def line(text: str, kind: str = "said") -> str:
    """Returns a line of HTML; kind is "said", "done" or "wrong"."""
    role = ' role="alert"' if kind == "wrong" else ""
    shown = html.escape(" ".join(_UPLOADED.sub("", text).split()))
    return f'<div class="line {kind}"{role}>{shown}</div>'


def progress(done: int, total: int, text: str) -> str:
    """Returns a bar with a line of text."""
    bar = f'<progress value="{done}" max="{total}"></progress>'
    return f'<div class="line said">{bar} {html.escape(text)}</div>'


def duration(seconds: float) -> str:
    """Writes seconds as people say them: "8 s", "12 min", "3 h 20 min"."""
    if seconds < 90:
        return f"{max(0, round(seconds))} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def told(
    status: gr.HTML, handler: Callable[..., Iterator[Updates]]
) -> Callable[..., Iterator[Updates]]:
    """Wraps a handler of an event: what goes wrong in it is a line in `status`."""

    @functools.wraps(handler)
    def wrapped(*values: Any) -> Iterator[Updates]:
        try:
            yield from handler(*values)
        except UserError as error:
            yield {status: line(str(error), "wrong")}
        except Exception as error:  # a mistake of ours: the page goes on
            logging.exception("the page failed")
            said = f"{type(error).__name__}: {error}"[:300]
            yield {status: line(f"This failed, the terminal says more: {said}", "wrong")}

    return wrapped
