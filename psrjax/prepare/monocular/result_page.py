"""Writes the HTML page of a prepared dataset: its clips, previews and problems."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from psrjax import io
from psrjax.data import store
from psrjax.ops import pose
from psrjax.prepare.common import result_page
from psrjax.prepare.monocular import dataset_builder, joint_mistakes
from psrjax.prepare.monocular.preview import STRIPS


def write(directory: str | os.PathLike) -> Path:
    """Writes `prepare.html` of a prepared dataset, and returns its path.

    Raises:
      UserError: if the folder holds no dataset of `dataset_builder.prepare`.
    """
    directory = Path(directory)
    manifest = store.read_manifest(directory)
    summary = io.read_json(directory / dataset_builder.SUMMARY)
    prepared = manifest["meta"]["prepared"]
    return result_page.write(
        directory,
        "clips.html",
        mended=joint_mistakes.MENDED,
        options=manifest["meta"]["options"],
        streams=manifest["streams"],
        splits={split: len(views) for split, views in manifest["splits"].items()},
        failed=summary["failed"],
        clips=[_clip(directory, name, report, prepared[name])
               for name, report in summary["clips"].items()],
    )  # fmt: skip


def _clip(
    directory: Path, name: str, report: Mapping[str, Any], prepared: Mapping[str, Any]
) -> dict[str, Any]:
    pictures = directory / dataset_builder.PREVIEWS
    strip, mistaken = (result_page.embedded(pictures / f"{name}{suffix}") for suffix in STRIPS)
    missing = report["missing_joints"]
    return {
        **report,
        "name": name,
        "splits": sorted({split for split, _ in prepared["pieces"]}, reverse=True),
        "preview": f"{dataset_builder.PREVIEWS}/{name}.mp4",
        "strip": strip,
        "mistaken": mistaken,
        "unseen": [joint for joint in pose.NAMES if missing.get(joint) == 1.0],
        "seldom": {joint: f"{share:.0%}" for joint, share in missing.items() if share < 1.0},
    }


def line(name: str, report: Mapping[str, Any]) -> str:
    """Summarises one clip in a line: its size and the names of its problems."""
    height, width = report["video_size"]
    problems = ", ".join(problem["what"] for problem in report["problems"]) or "no problems"
    frames = "one frame" if report["frames"] == 1 else f"{report['frames']} frames"
    rate = "" if report["even_times"] else " on average (variable rate)"
    return (
        f"{name}: {frames} of {width}x{height}, {report['fps']:g} a second{rate}, "
        f"person in {report['frames_with_person']}: {problems}"
    )
