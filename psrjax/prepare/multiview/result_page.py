"""Writes the HTML page of a prepared recording: its cameras, previews and problems."""

import os
from pathlib import Path
from typing import Any

from psrjax.data import store
from psrjax.prepare.common import result_page

PREVIEWS = "previews"


def write(directory: str | os.PathLike) -> Path:
    """Writes `prepare.html` of a dataset of `recording.prepare`, and returns its path."""
    directory = Path(directory)
    manifest = store.read_manifest(directory)
    summary = manifest["meta"]["summary"]
    return result_page.write(
        directory,
        "recording.html",
        summary=summary,
        streams=manifest["streams"],
        splits={split: len(views) for split, views in manifest["splits"].items()},
        cameras=[_camera(directory, name, summary) for name in summary["reprojection_error_px"]],
    )


def _camera(directory: Path, name: str, summary: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "joints": summary["joints"][name],
        "reprojection": summary["reprojection_error_px"][name],
        "fit": summary["fit_error_px"][name],
        "agreement": summary["mask_agreement_iou"][name],
        "box": summary["crops_top_left_height_width"][name],
        "strip": result_page.embedded(directory / PREVIEWS / f"{name}.jpg"),
        "preview": f"{PREVIEWS}/{name}.mp4",
    }
