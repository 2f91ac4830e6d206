"""Writes a page that shows runs side by side: scores, papers' tables, curves, videos."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from etils import epath

from psrjax import io
from psrjax.data import codec
from psrjax.evaluation import score_statistics, score_table
from psrjax.reporting import ablation_strips, figures, filled_table, paper_tables, run_summary
from psrjax.reporting.run_summary import RunFolder

_PARAMETER = re.compile(r"(\w+) = (\d*\.?\d+)")  # how a row's label tells a parameter's value
HEADLINE = ("ssim", "psnr", "m_ssim_in", "m_psnr_in")  # shown as bars


def write(
    *folders: str | os.PathLike,
    output: str | os.PathLike = "",
    filled: Sequence[Mapping[str, Any]] = (),
    strips: int = 0,
    intermediates: bool = False,
) -> epath.Path:
    """Writes a page of runs in one file, pictures, curves and videos included.

    Reads `config.json` of each, and where they exist what `psrjax evaluate`, `psrjax demo` and
    `psrjax reproduce` wrote, and every stage's `metrics.jsonl`.

    Args:
      folders: of runs, or of evaluations of videos (`psrjax evaluate --real`).
      output: the page; by default `report.html`, in the directory of a single run.
      filled: tables of `filled_table.make` to show. Of other tables of the papers those rows are
        shown that the runs stand for by their configs.
      strips: the number of clips that several runs of the same data synthesize, to be shown side by
        side; each strip also becomes a picture beside the page, `<stem>.strip1.png`.
      intermediates: see `ablation_strips.draw`.

    Returns:
      The path of the page.

    Raises:
      UserError: if a folder is not the directory of a run, or a file of it cannot be read.
    """
    runs = run_summary.open_runs(folders)
    beside = runs[0].folder if len(runs) == 1 else epath.Path()
    path = epath.Path(output or beside / "report.html")
    tables = [*filled, *_matched(runs, {table["name"] for table in filled})]
    page = _template().render(
        title=", ".join(run.title for run in runs),
        methods=list(dict.fromkeys(run.method for run in runs if run.method)),
        runs=[run_summary.content(run) for run in runs],
        scores=_side_by_side(runs),
        tables=[_shown(table) for table in tables],
        strips=_strips(runs, path, strips, intermediates),
        bars=_bars(runs),
    )
    io.write_text(path, page)
    return path


def _strips(
    runs: Sequence[RunFolder], page: epath.Path, clips: int, intermediates: bool
) -> list[dict[str, str]]:
    """Draws the strips into files beside the page: [{"title", "picture"}]."""
    drawn = ablation_strips.draw(runs, clips=clips, intermediates=intermediates) if clips else []
    found = []
    for number, strip in enumerate(drawn, 1):
        path = page.parent / f"{page.stem}.strip{number}.png"
        with io.replacing(path) as temporary:
            temporary.write_bytes(codec.encode_png(strip.picture))
        found.append({"title": strip.title, "picture": run_summary.data_uri(path, "image/png")})
    return found


def _matched(runs: Sequence[RunFolder], known: set[str]) -> list[dict[str, Any]]:
    """Fills the papers' tables, less the known ones, in which a run is a row."""
    found = []
    for table in paper_tables.tables().values():
        results: dict[str, list[filled_table.Result]] = {}
        for run in runs if table.name not in known else ():
            labels = paper_tables.matching_rows(table, run.config) if run.config else ()
            for label in labels:
                result = filled_table.Result(run.folder, run.rows, run.clips, run.title)
                results.setdefault(label, []).append(result)
        made = filled_table.make(table, results, {})
        if any(row["ours"] for row in made["rows"]):
            found.append(made)
    return found


def _shown(table: Mapping[str, Any]) -> dict[str, Any]:
    """Formats a filled table for the template: our number, its interval, the paper's."""
    rows = []
    for row in table["rows"]:
        cells = []
        for column in table["columns"]:
            name, metric = column["name"], column["metric"]
            ours = row["ours"].get(name)
            cells.append(
                {
                    "ours": "" if ours is None else score_table.format_metric(metric, ours),
                    "interval": score_table.format_interval(metric, row["interval"].get(name)),
                    "paper": filled_table.printed(row, column),
                }
            )
        rows.append({"label": row["label"], "run": row["run"], "name": row["name"], "cells": cells})
    about = dict.fromkeys(("scale", "clips", "height", "width")) | table["about"]
    said = filled_table.sentences(table)
    return {**table, "rows": rows, "about": about, "sentences": said, "plots": _plots(table)}


def _plots(table: Mapping[str, Any]) -> list[str]:
    """Draws our numbers over the parameter whose values the rows are, a figure for each column."""
    named = [(_PARAMETER.match(row["label"]), row) for row in table["rows"]]
    if len({match and match[1] for match, _ in named}) != 1 or not named[0][0]:
        return []
    found = []
    for column in table["columns"]:
        name = column["name"]
        values = {float(m[2]): row["ours"][name] for m, row in named if m and name in row["ours"]}
        bounds = {
            float(m[2]): row["interval"][name] for m, row in named if m and name in row["interval"]
        }
        if len(values) > 1:
            x = named[0][0][1]
            found.append(figures.sensitivity(column["metric"], values, bounds, x=x))
    return found


def _side_by_side(runs: Sequence[RunFolder]) -> dict[str, Any]:
    """Joins every run's scores, the best marked: {"metrics", "groups": [{"title", "rows"}]}."""
    together = [
        {**row, "name": f"{number}/{row['name']}"}
        for number, run in enumerate(runs)
        for row in run.rows
    ]
    table = score_table.table(together)
    groups = [{"title": run.title, "rows": []} for run in runs]
    for row in table["rows"]:
        number, name = row["name"].split("/", 1)
        groups[int(number)]["rows"].append({**row, "name": name})
    metrics = [score_table.with_arrow(metric) for metric in table["metrics"]]
    return {"metrics": metrics, "groups": [group for group in groups if group["rows"]]}


def _bars(runs: Sequence[RunFolder]) -> list[dict[str, str]]:
    """Draws bars by pair of views: the last steps of all runs, then each run's own steps."""
    found = []
    last = {run.title: steps[-1]["name"] for run in runs if (steps := _steps(run))}
    if len(last) > 1:
        chosen = {run.title: {last[run.title]: run.title} for run in runs if run.title in last}
        palette = figures.distinct_colors(list(last))
        found += [{"title": "all runs", "svg": svg} for svg in _drawn(runs, chosen, palette)]
    for run in runs:
        names = list(dict.fromkeys(row["name"] for row in run.rows))
        baselines = {row["name"] for row in run.rows if row["kind"] == score_table.BASELINE}
        chosen = {run.title: {name: name for name in names}}
        palette = figures.colors(names, baselines)
        metrics = HEADLINE if len(runs) == 1 else HEADLINE[:1]
        drawn = _drawn([run], chosen, palette, metrics)
        found += [{"title": run.title, "svg": svg} for svg in drawn]
    return found


def _steps(run: RunFolder) -> list[Mapping[str, Any]]:
    return score_table.overall(run.rows, score_table.STEP)


def _drawn(
    runs: Sequence[RunFolder],
    chosen: Mapping[str, Mapping[str, str]],
    palette: Mapping[str, str],
    metrics: Sequence[str] = HEADLINE[:2],
) -> list[str]:
    """Draws a figure for each metric, of {run: {name: label}}; none without pairs."""
    found = []
    for metric in metrics:
        values: dict[str, dict[str, float]] = {label: {} for label in palette}
        for run in runs:
            for row in run.rows:
                label = chosen.get(run.title, {}).get(row["name"])
                if label and row["pair"] != score_statistics.ALL and metric in row["metrics"]:
                    values[label][row["pair"]] = row["metrics"][metric]
        if any(values.values()):
            found.append(figures.bars(metric, values, palette))
    return found


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("psrjax.reporting", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("report.html")
