"""Reads from a run's directory what a report shows: scores, curves, videos, pictures."""

import base64
import csv
import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from psrjax import config as config_lib
from psrjax import io
from psrjax.config import RunConfig
from psrjax.errors import UserError
from psrjax.evaluation import failure_gallery, score_export, score_table
from psrjax.reporting import figures
from psrjax.runtime import run_record

_RUN = ("command", "commit", "machine", "finished", "versions", "parts", "peak_memory_gib")
_NOT_LOSSES = ("grad_norm", "finite", "learning_rate")


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """A directory of a run, or of an evaluation of videos.

    Attributes:
      folder: the directory.
      title: its name in the report.
      config: of `config.json`; {} of an evaluation of videos.
      rows: of `results.json`; [] before an evaluation.
    """

    folder: epath.Path
    title: str
    config: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]

    @property
    def method(self) -> str:
        """The name of the method; "" of an evaluation of videos."""
        return self.config["method"]["name"] if self.config else ""

    @functools.cached_property
    def clips(self) -> list[dict[str, Any]]:
        """The rows of `clips.json`; [] where there is none."""
        return read_optional(self.folder / score_export.CLIPS, [])


def open_runs(folders: Sequence[Any]) -> list[RunFolder]:
    """Opens the runs of some directories, with titles that tell them apart.

    Raises:
      UserError: if a directory is neither a run's nor an evaluation's, or a file cannot be read.
    """
    roots = [epath.Path(folder) for folder in folders]
    paths = [epath.Path(root).resolve() if "://" not in str(root) else root for root in roots]
    depth = 1
    while depth < 4 and len({path.parts[-depth:] for path in paths}) < len(set(paths)):
        depth += 1
    return [_open(root, "/".join(path.parts[-depth:])) for root, path in zip(roots, paths)]


def _open(root: epath.Path, title: str) -> RunFolder:
    config, results = root / "config.json", root / score_export.RESULTS
    if not config.exists() and not results.exists():
        raise UserError(f"{root}: not the directory of a run (it has no config.json)")
    return RunFolder(root, title, read_optional(config, {}), read_optional(results, []))


def steps(config: RunConfig) -> str:
    """Returns "STAGE COUNT, …" of the stages that a whole run's config trains."""
    stages = (config_lib.stage_config(config, name) for name in config.only or config.stages)
    return ", ".join(f"{stage.method.stage} {stage.steps}" for stage in stages)


def content(run: RunFolder) -> dict[str, Any]:
    """Collects what the template needs to show a run."""
    return {
        "title": run.title,
        "method": run.method,
        "from": run.config.get("init", {}).get("path", ""),
        "config": json.dumps(run.config, indent=2) if run.config else "",
        "run": dict.fromkeys(_RUN) | read_optional(run.folder / run_record.FILE, {}),
        "verdicts": score_table.verdicts(run.rows) if run.config else [],
        "about": run.rows[0].get("about", {}) if run.rows else {},
        "curves": curves(run),
        "clips": _clips(run.folder / "videos"),
        **_pictures(run.folder / failure_gallery.FOLDER),
    }


def curves(run: RunFolder) -> list[dict[str, str]]:
    """Draws the curves of every stage, [{"title", "svg"}]: losses, norms, rates, scores."""
    found = []
    for stage in run.config.get("stages", ()):
        lines = _json_lines(run.folder / stage / "metrics.jsonl")
        terms = _points(lines)
        losses = {k: v for k, v in terms.items() if "/" in k and not k.endswith(_NOT_LOSSES)}
        norms = {k: v for k, v in terms.items() if k.endswith(("grad_norm", "learning_rate"))}
        measured = _points(_json_lines(run.folder / stage / "samples" / "scores.jsonl"))
        for title, points, log in (
            (f"{stage}: losses", losses, True),
            (f"{stage}: norms of gradients and learning rates", norms, True),
            *_by_metric(stage, measured),
        ):
            if points:
                svg = figures.curves(points, x="step", log=log)
                found.append({"title": title, "svg": svg})
    frames = _psnr_by_frame(run.folder / "frames.csv")
    if frames:
        title = "PSNR [dB] by frame of the clip, mean over the clips"
        found.append({"title": title, "svg": figures.curves(frames, x="frame")})
    return found


def _by_metric(stage: str, points: figures.Points) -> list[tuple[str, dict, bool]]:
    """Groups the scores taken in training: a figure for each metric, a line for each name."""
    metrics = dict.fromkeys(key.split("/", 1)[0] for key in points)
    return [
        (
            f"{stage}: {metric} of the sample windows",
            {k.split("/", 1)[1]: v for k, v in points.items() if k.startswith(f"{metric}/")},
            False,
        )
        for metric in metrics
    ]


def _points(lines: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    terms: dict[str, dict[float, float]] = {}
    for record in lines:
        for name, value in record.items():
            if name != "step" and isinstance(value, int | float) and np.isfinite(value):
                terms.setdefault(name, {})[record["step"]] = value  # a repeated step counts once
    return {name: sorted(values.items()) for name, values in terms.items()}


def _json_lines(path: epath.Path) -> list[dict[str, Any]]:
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:  # the last line of a run that was cut off
            continue
    return found


def _psnr_by_frame(path: epath.Path) -> dict[str, list[tuple[float, float]]]:
    if not path.exists():
        return {}
    sums: dict[str, dict[float, list[float]]] = {}
    for row in csv.DictReader(path.read_text().splitlines()):
        if row["kind"] == score_table.STEP and row.get("psnr"):
            by_frame = sums.setdefault(row["name"], {})
            by_frame.setdefault(int(row["frame"]), []).append(float(row["psnr"]))
    found = {
        name: [(frame, float(np.mean(values))) for frame, values in sorted(by_frame.items())]
        for name, by_frame in sums.items()
    }
    return {name: line for name, line in found.items() if len(line) > 1}


def _clips(folder: epath.Path) -> list[dict[str, str]]:
    entries = read_optional(folder / "index.json", [])
    return [
        {
            "title": entry["title"],
            "labels": " | ".join(entry["labels"]),
            "video": data_uri(folder / entry["video"], "video/mp4"),
            "strip": data_uri(folder / entry["strip"], "image/png"),
        }
        for entry in entries
    ]


def _pictures(folder: epath.Path) -> dict[str, Any]:
    """Reads {"result", "worst", "flicker"} from the index, with the pictures embedded."""
    index = read_optional(folder / "index.json", {"result": "", "worst": [], "flicker": []})
    embedded = {
        kind: [e | {"picture": data_uri(folder / e["picture"], "image/png")} for e in index[kind]]
        for kind in ("worst", "flicker")
    }
    for entry in embedded["worst"]:
        named = {m: v for m, v in entry["scores"].items() if m in score_table.JUDGED_BY}
        said = (f"{m.upper()} {score_table.format_metric(m, v)}" for m, v in named.items())
        entry["said"] = ", ".join(said)
    return {"result": index["result"], **embedded}


def data_uri(path: epath.Path, kind: str) -> str:
    """Encodes a file as a data URI."""
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def read_optional(path: epath.Path, default: Any) -> Any:
    """Reads a JSON file; returns `default` where there is none."""
    return io.read_json(path) if path.exists() else default
