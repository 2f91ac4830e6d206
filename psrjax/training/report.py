"""The page that shows a run: what was run, its scores, its loss curves, its videos, in one file."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import matplotlib.colors
from etils import epath
from matplotlib.figure import Figure

from psrjax import files
from psrjax.errors import UserError
from psrjax.training import scores

HEADLINE = ("ssim", "psnr", "m_ssim_in", "m_psnr_in")  # the bars; the table shows every metric
_RUN = ("command", "commit", "machine", "finished", "versions", "parts", "peak_memory_gib")
_NOT_LOSSES = ("grad_norm", "finite", "learning_rate")


def write(workdir: str) -> epath.Path:
    """Writes `<workdir>/report.html`, self-contained: pictures, curves and videos stand in it.

    Reads `config.json`, and where they exist `results.json` (of `psrjax evaluate`), `run.json` and
    `videos/index.json` (of `psrjax demo`), and every stage's `metrics.jsonl`.

    Returns:
      The path of the page.

    Raises:
      UserError: if `workdir` is not the directory of a run, or a file of it cannot be read.
    """
    root = epath.Path(workdir)
    if not (root / "config.json").exists():
        raise UserError(f"{root}: not the directory of a run (it has no config.json)")
    config = files.read_json(root / "config.json")
    rows = _read_optional(root / "results.json", [])
    curves = _loss_curves(root, config)
    page = _template().render(
        method=config["method"]["name"],
        config=json.dumps(config, indent=2),
        run=dict.fromkeys(_RUN) | _read_optional(root / "run.json", {}),
        table=scores.table(rows),
        verdicts=scores.verdicts(rows),
        about=rows[0].get("about", {}) if rows else {},
        bars=_bars(rows),
        curves=[{"stage": stage, "svg": _curve_svg(values)} for stage, values in curves.items()],
        clips=_clips(root),
    )
    files.write_text(root / "report.html", page)
    return root / "report.html"


def _bars(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    pairs = list(dict.fromkeys(row["pair"] for row in rows if row["pair"] != "all"))
    names = list(dict.fromkeys(row["name"] for row in rows))
    if not pairs:
        return []
    values = {(row["name"], row["pair"]): row["metrics"] for row in rows}
    colors = _colors(names, {row["name"] for row in rows if row.get("kind") == "baseline"})
    return [{"metric": m, "svg": _bar_svg(m, colors, pairs, values)} for m in HEADLINE]


def _colors(names: Sequence[str], baselines: set[str]) -> dict[str, str]:
    """Greys for the baselines and ever deeper blues for the steps."""
    greys, blues = iter(_shades("Greys", 3, 7)), iter(_shades("Blues", 5, 10))
    return {name: next(greys if name in baselines else blues) for name in names}


def _shades(name: str, low: int, high: int) -> list[str]:
    palette = matplotlib.colormaps[name]
    return [matplotlib.colors.to_hex(palette(i / 10)) for i in range(low, high)] * 8


def _bar_svg(metric: str, colors: Mapping[str, str], pairs: list[str], values: Mapping) -> str:
    figure = Figure(figsize=(1.2 + 1.15 * len(pairs), 2.6), layout="constrained")
    axes = figure.add_subplot()
    width = 0.84 / len(colors)
    heights = [values[name, pair][metric] for name in colors for pair in pairs]
    for i, (name, color) in enumerate(colors.items()):
        offsets = [j + (i - (len(colors) - 1) / 2) * width for j in range(len(pairs))]
        heights_of_name = [values[name, pair][metric] for pair in pairs]
        axes.bar(offsets, heights_of_name, width, label=name, color=color)
    span = max(heights) - min(heights) or 1.0
    axes.set_ylim(max(0.0, min(heights) - 0.35 * span), max(heights) + 0.08 * span)
    axes.set_xticks(range(len(pairs)), [pair.replace("->", " → ") for pair in pairs])
    axes.set_ylabel(f"{metric} [dB]" if "psnr" in metric else metric)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)
    return _svg(figure, axes)


def _loss_curves(root: epath.Path, config: Mapping) -> dict[str, dict[str, list]]:
    """{stage: {term: [(step, value), ...]}} of the stages that have a log."""
    curves: dict[str, dict[str, list]] = {}
    for stage in config.get("stages", ()):
        path = root / stage / "metrics.jsonl"
        if not path.exists():
            continue
        terms = curves.setdefault(stage, {})
        for line in path.read_text().splitlines():
            record = _json_line(line)
            for name, value in record.items():
                is_loss = "/" in name and not name.endswith(_NOT_LOSSES)
                if is_loss and isinstance(value, int | float):
                    terms.setdefault(name, []).append((record["step"], value))
    return curves


def _json_line(line: str) -> dict[str, Any]:
    try:
        return json.loads(line)
    except json.JSONDecodeError:  # the last line of a run that was cut off
        return {}


def _curve_svg(terms: Mapping[str, list]) -> str:
    figure = Figure(figsize=(7.4, 2.6), layout="constrained")
    axes = figure.add_subplot()
    for i, (name, points) in enumerate(sorted(terms.items())):
        steps, values = zip(*points)
        axes.plot(steps, values, label=name, color=f"C{i % 10}", linewidth=1.2)
    if all(value > 0 for points in terms.values() for _, value in points):
        axes.set_yscale("log")
    axes.set_xlabel("step")
    if terms:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)
    return _svg(figure, axes)


def _svg(figure: Figure, axes: Any) -> str:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True)
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]


def _clips(root: epath.Path) -> list[dict[str, str]]:
    entries = _read_optional(root / "videos" / "index.json", [])
    return [
        {
            "title": entry["title"],
            "labels": " | ".join(entry["labels"]),
            "video": _data_uri(root / "videos" / entry["video"], "video/mp4"),
            "strip": _data_uri(root / "videos" / entry["strip"], "image/png"),
        }
        for entry in entries
    ]


def _data_uri(path: epath.Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def _read_optional(path: epath.Path, default: Any) -> Any:
    return files.read_json(path) if path.exists() else default


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("psrjax.training", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report.html")
