"""The rows of `results.json` as a table, and sentences that judge them."""

from collections.abc import Mapping, Sequence
from typing import Any

from psrjax.evaluation.score_statistics import ALL
from psrjax.methods.base import ORACLE
from psrjax.metrics import registry

BASELINE, STEP = "baseline", "step"  # a row's kind: needs no training, or is made by the method
JUDGED_BY = ("ssim", "psnr")  # by these a step is compared with the baselines and the step before


def overall(rows: Sequence[Mapping[str, Any]], kind: str = "") -> list[Mapping[str, Any]]:
    """Selects the rows over all pairs of views, of one kind if it is named."""
    return [row for row in rows if row["pair"] == ALL and kind in ("", row["kind"])]


def lower_is_better(metric: str) -> bool:
    """Tells whether a metric is a distance or an error; unknown ones are neither."""
    known = registry.available().get(metric.removeprefix(registry.RANDOM))
    return known is not None and known.lower_is_better


def with_arrow(metric: str) -> str:
    """Puts an arrow behind a metric's name: which way is better, as papers print it."""
    return f"{metric} {'↓' if lower_is_better(metric) else '↑'}"


def best(metric: str, values: Sequence[float]) -> float:
    """Returns the best of some values of a metric."""
    return min(values) if lower_is_better(metric) else max(values)


def table(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Formats the scores over all pairs as cells of text.

    Oracles are never the best: they are given a part of the truth.

    Returns:
      {"metrics": names, "rows": [{"name", "baseline", "clips", "frames", "cells": [{"text", "best",
      "interval"}]}]}; a metric that a row lacks is "", and so is an interval that it has not, or
      the clips and frames that it stands on where these are not known.
    """
    chosen = overall(rows)
    metrics = list(dict.fromkeys(metric for row in chosen for metric in row["metrics"]))
    rivals = [row for row in chosen if not _is_oracle(row)]
    winners = {
        m: best(m, [row["metrics"][m] for row in rivals if m in row["metrics"]])
        for m in {metric for row in rivals for metric in row["metrics"]}
    }
    return {
        "metrics": metrics,
        "rows": [
            {
                "name": row["name"],
                "baseline": row["kind"] == BASELINE,
                "clips": str(row.get("about", {}).get("clips", "")),
                "frames": str(row.get("about", {}).get("frames_scored", "")),
                "cells": [_cell(row, metric, winners.get(metric)) for metric in metrics],
            }
            for row in chosen
        ],
    }


def _is_oracle(row: Mapping[str, Any]) -> bool:
    return ORACLE in row["name"]  # of several runs, a name begins with the run's number


def _cell(row: Mapping[str, Any], metric: str, winner: float | None) -> dict[str, Any]:
    value = row["metrics"].get(metric)
    if value is None:
        return {"text": "", "best": False, "interval": ""}
    return {
        "text": format_metric(metric, value),
        "best": value == winner and not _is_oracle(row),
        "interval": format_interval(metric, row.get("interval", {}).get(metric)),
    }


def text_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Formats `table` as lines of text; the best of each column has a star.

    The last columns say how many clips and frames the numbers of a row stand on.
    """
    content = table(rows)
    lines = [["", *(metric + " " for metric in content["metrics"]), "clips", "frames"]]
    for row in content["rows"]:
        cells = [cell["text"] + ("*" if cell["best"] else " ") for cell in row["cells"]]
        lines.append([row["name"], *cells, row["clips"], row["frames"]])
    return aligned(lines)


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Aligns rows of cells: the first column to the left, the others to the right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def verdicts(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Compares the first step with the best baseline, and each step with the one before.

    Returns:
      [{"text": a sentence, "good": whether the step is at least as good in every metric of
      JUDGED_BY}]. The best baseline, no oracle, is taken for each metric by itself.
    """
    steps = overall(rows, STEP)
    baselines = [row for row in overall(rows, BASELINE) if not _is_oracle(row)]
    said = []
    if steps and baselines:
        strongest = {m: max(row["metrics"][m] for row in baselines) for m in JUDGED_BY}
        said.append(_compare(steps[0], strongest, "the best baseline"))
    for before, after in zip(steps, steps[1:]):
        said.append(_compare(after, before["metrics"], before["name"]))
    return said


def _compare(row: Mapping, against: Mapping[str, float], name: str) -> dict[str, Any]:
    mine = row["metrics"]
    better = {metric: mine[metric] >= against[metric] for metric in JUDGED_BY}
    said = ", ".join(
        f"{metric.upper()} {format_metric(metric, mine[metric])} "
        f"{'≥' if better[metric] else '<'} {format_metric(metric, against[metric])}"
        for metric in JUDGED_BY
    )
    return {"text": f"{row['name']} against {name}: {said}", "good": all(better.values())}


def format_metric(name: str, value: float) -> str:
    """Formats a score: decibels, percent and large values to two places, others to four."""
    if lower_is_better(name) and 0 < abs(value) < 0.01:
        return f"{value:.1e}"
    return f"{value:.2f}" if unit(name) in ("dB", "%") or abs(value) >= 10 else f"{value:.4f}"


def format_interval(name: str, bounds: Sequence[float] | None) -> str:
    """Formats an interval as "low, high"; "" where there is none."""
    return ", ".join(format_metric(name, bound) for bound in bounds) if bounds else ""


def unit(metric: str) -> str:
    """Returns a metric's unit: "dB", "%", "pixels", or "" where it has none or is not known."""
    known = registry.available().get(metric)
    return known.unit if known else ""
