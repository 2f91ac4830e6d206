"""Renders the HTML page that shows what was prepared, and the strips of frames on it."""

import base64
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np
from jaxtyping import UInt8

from psrjax import io

PAGE = "prepare.html"
STRIP = 6  # frames of a strip


def write(directory: Path, template: str, **values: Any) -> Path:
    """Writes `prepare.html` by one of the templates beside this file, and returns its path."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("psrjax.prepare.common", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["sentence"] = lambda text: text[:1].upper() + text[1:]
    page = environment.get_template(template).render(name=directory.resolve().name, **values)
    io.write_text(directory / PAGE, page)
    return directory / PAGE


def embedded(path: Path) -> str:
    """Returns a picture as base64, for a page that can be sent alone; "" if there is none."""
    return base64.b64encode(path.read_bytes()).decode() if path.is_file() else ""


def write_strip(path: str | os.PathLike, pictures: Iterable[UInt8[np.ndarray, "h w 3"]]) -> None:
    """Writes pictures of one height side by side as a JPEG."""
    joined = np.concatenate(list(pictures), 1)[..., ::-1]
    done = cv2.imencode(".jpg", joined)[1].tobytes()
    with io.replacing(path) as temporary:
        temporary.write_bytes(done)
