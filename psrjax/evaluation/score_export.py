"""Writes the scores of an evaluation: JSON, CSV of rows, clips and frames, Markdown, LaTeX."""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from typing import Any

from etils import epath

from psrjax import io
from psrjax.evaluation import score_statistics, score_table

RESULTS = "results.json"
CLIPS = "clips.json"


def write(folder: str | os.PathLike, rows: Sequence[Mapping], scored: Sequence[Any]) -> epath.Path:
    """Writes the results of an evaluation, each file whole or not at all.

    `results.json` (the rows), `results.csv` (the same, with the ends of the intervals),
    `results.md` and `results.tex` (the rows over all pairs), `clips.json` and `clips.csv` (one row
    for each name, pair and clip), `frames.csv` (one for each frame).

    Args:
      folder: made if need be.
      rows: as `method_evaluation.Evaluation` has them.
      scored: the scores of single frames (`score_statistics.Scored`).

    Returns:
      The path of `results.json`.

    Raises:
      UserError: if the folder cannot be written to.
    """
    root = epath.Path(folder)
    by_clip = score_statistics.clip_rows(scored)
    io.write_text(root / "results.csv", rows_csv(rows))
    io.write_text(root / "results.md", markdown(rows))
    io.write_text(root / "results.tex", latex(rows))
    io.write_json(root / CLIPS, by_clip)
    io.write_text(root / "clips.csv", as_csv(("name", "kind", "pair", "clip"), by_clip))
    frames = score_statistics.frame_rows(scored)
    io.write_text(root / "frames.csv", as_csv(("name", "kind", "pair", "clip", "frame"), frames))
    io.write_json(root / RESULTS, list(rows))  # last: with it an evaluation is whole
    return root / RESULTS


def rows_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Formats rows as CSV: name, kind, split, pair, each metric with its `_low` and `_high`."""
    wide = []
    for row in rows:
        metrics = {}
        for metric, value in row["metrics"].items():
            low, high = row.get("interval", {}).get(metric) or (None, None)
            metrics |= {metric: value, f"{metric}_low": low, f"{metric}_high": high}
        wide.append({**row, "metrics": metrics})
    return as_csv(("name", "kind", "split", "pair"), wide)


def as_csv(keys: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Formats rows {key: text, "metrics": {metric: number or None}} as CSV; None is empty."""
    rows = list(rows)
    metrics = list(dict.fromkeys(metric for row in rows for metric in row["metrics"]))
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*keys, *metrics])
    for row in rows:
        values = (row["metrics"].get(metric) for metric in metrics)
        cells = ("" if value is None else format(value, ".6g") for value in values)
        writer.writerow([*(row.get(key, "") for key in keys), *cells])
    return text.getvalue()


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Formats the rows over all pairs as Markdown: the best in bold, intervals in brackets.

    The last columns say how many clips and frames a row stands on. Under it the notes to its
    metrics.
    """
    content = score_table.table(rows)
    columns = [*map(score_table.with_arrow, content["metrics"]), "clips", "frames"]
    lines = [f"| | {' | '.join(columns)} |", f"|---|{'---:|' * len(columns)}"]
    for row in content["rows"]:
        name = f"*{row['name']}*" if row["baseline"] else row["name"]
        cells = (_bracketed(c["text"] and _bold(c, "**{}**"), c["interval"]) for c in row["cells"])
        lines.append(f"| {name} | {' | '.join([*cells, row['clips'], row['frames']])} |")
    notes = rows[0].get("about", {}).get("notes", ()) if rows else ()
    lines += ["", *(f"- {note}" for note in notes)] if notes else []
    return "\n".join(lines) + "\n"


def latex(rows: Sequence[Mapping[str, Any]]) -> str:
    """Formats the rows over all pairs for a LaTeX table, under a comment with the columns."""
    content = score_table.table(rows)
    lines = [f"% {' & '.join(['name', *content['metrics']])} \\\\"]
    for row in content["rows"]:
        cells = (_bold(cell, r"\textbf{{{}}}") for cell in row["cells"])
        lines.append(f"{escaped(row['name'])} & {' & '.join(cells)} \\\\")
    return "\n".join(lines) + "\n"


def escaped(name: str) -> str:
    """Escapes text for LaTeX."""
    return "".join(f"\\{letter}" if letter in "_%&#$" else letter for letter in name)


def _bold(cell: Mapping[str, Any], form: str) -> str:
    return form.format(cell["text"]) if cell["best"] else cell["text"]


def _bracketed(text: str, interval: str) -> str:
    return f"{text} [{interval}]" if interval else text
