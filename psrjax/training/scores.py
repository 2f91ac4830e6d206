"""What the rows of `results.json` say: a table, and sentences that judge it."""

from collections.abc import Mapping, Sequence
from typing import Any

BASELINE, STEP = "baseline", "step"  # a row's kind: needs no training, or is made by the method
JUDGED_BY = ("ssim", "psnr")  # by these a step is compared with the baselines and the step before


def overall(rows: Sequence[Mapping[str, Any]], kind: str = "") -> list[Mapping[str, Any]]:
    """The rows over all pairs of views, of one kind if it is named."""
    return [row for row in rows if row["pair"] == "all" and kind in ("", row["kind"])]


def table(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The scores over all pairs, as cells of text.

    Returns:
      {"metrics": names, "rows": [{"name", "baseline", "cells": [{"text", "best"}]}]}.
    """
    chosen = overall(rows)
    metrics = list(chosen[0]["metrics"]) if chosen else []
    best = {metric: max(row["metrics"][metric] for row in chosen) for metric in metrics}
    return {
        "metrics": metrics,
        "rows": [
            {
                "name": row["name"],
                "baseline": row["kind"] == BASELINE,
                "cells": [
                    {
                        "text": format_metric(metric, row["metrics"][metric]),
                        "best": row["metrics"][metric] == best[metric],
                    }
                    for metric in metrics
                ],
            }
            for row in chosen
        ],
    }


def text_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """`table` as lines of text; the best of each column has a star."""
    content = table(rows)
    lines = [["", *(metric + " " for metric in content["metrics"])]]
    for row in content["rows"]:
        cells = [cell["text"] + ("*" if cell["best"] else " ") for cell in row["cells"]]
        lines.append([row["name"], *cells])
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def verdicts(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What the scores say: the first step against the best baseline, each step against the last.

    Returns:
      [{"text": a sentence, "good": whether the step is at least as good in every metric of
      JUDGED_BY}]. The best baseline is taken for each metric by itself.
    """
    steps, baselines = overall(rows, STEP), overall(rows, BASELINE)
    said = []
    if steps and baselines:
        best = {m: max(row["metrics"][m] for row in baselines) for m in JUDGED_BY}
        said.append(_compare(steps[0], best, "the best baseline"))
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
    """Decibels with two places, similarities with four."""
    return f"{value:.2f}" if "psnr" in name else f"{value:.4f}"
