"""Fills a paper's table: our numbers beside the printed ones, and which of its orderings hold."""

import itertools
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from etils import epath

from psrjax import io
from psrjax.evaluation import score_export, score_statistics, score_table
from psrjax.reporting.paper_tables import Row, Table


@dataclass(frozen=True)
class Result:
    """The scores of a run: its directory, the rows of `results.json`, those of `clips.json`.

    `title` names the run in the table; by default the directory does.
    """

    folder: os.PathLike | str
    rows: Sequence[Mapping[str, Any]]
    clips: Sequence[Mapping[str, Any]]
    title: str = ""

    def row(self, step: str) -> Mapping[str, Any] | None:
        """Finds the row of a step over all pairs of views; "" is the last step."""
        found = [
            r for r in score_table.overall(self.rows, score_table.STEP) if step in ("", r["name"])
        ]
        return found[-1] if found else None


def make(
    table: Table, results: Mapping[str, Sequence[Result]], about: Mapping[str, Any]
) -> dict[str, Any]:
    """Puts results into a table; a row with several runs (seeds) has their means.

    Args:
      table: of the paper.
      results: {label: results of its runs}; rows without one have the printed numbers only.
      about: the scale, the command, and where the runs were made.

    Returns:
      {"name", "title", "paper", "data", "note", "about",
      "columns": [{"name", "metric", "lower", "missing": whether no row has the metric, "digits":
      places that the paper prints}],
      "rows": [{"label", "run", "name", and by column "paper", "ours", "interval": [low, high] of
      the mean over other clips, or of the means of several runs}],
      "others": labels of the rows of other systems, which have the printed numbers only,
      "orderings": [see `_ordering`], "shared": [[labels that are one step of one run], …]}.
    """
    found: dict[str, list[_Scored]] = {}
    for row in table.rows:
        for result in results.get(row.label, ()):
            if scored := result.row(row.step):
                found.setdefault(row.label, []).append(_Scored(result, scored))
    rows = [_filled(table, row, found.get(row.label, ())) for row in table.rows]
    columns = [
        {
            "name": name,
            "metric": metric,
            "lower": score_table.lower_is_better(metric),
            "missing": not any(name in row["ours"] for row in rows),
            "digits": max(_digits(row.paper.get(name, 0.0)) for row in table.rows),
        }
        for name, metric in table.columns.items()
    ]
    origin = {
        label: (os.fspath(runs[0].result.folder), runs[0].row["name"])
        for label, runs in found.items()
    }
    pairs = itertools.combinations([row for row in table.rows if row.label in found], 2)
    orderings = [
        _ordering(column, pair, found)
        for pair in pairs
        for column in columns
        if origin[pair[0].label] != origin[pair[1].label]
        and all(column["name"] in row.paper for row in pair)
        and all(_values(found[row.label], column["metric"]) for row in pair)
        and pair[0].paper[column["name"]] != pair[1].paper[column["name"]]
    ]
    sources: dict[tuple[str, str], list[str]] = {}
    for label, source in origin.items():
        sources.setdefault(source, []).append(label)
    return {
        "name": table.name,
        "title": table.title,
        "paper": table.paper,
        "data": table.data,
        "note": table.note,
        "about": {**_about(found), **about},
        "columns": columns,
        "rows": rows,
        "others": [row.label for row in table.rows if row.variant is None],
        "orderings": sorted(orderings, key=lambda o: list(table.columns).index(o["column"])),
        "shared": [labels for labels in sources.values() if len(labels) > 1],
    }


def _digits(value: float) -> int:
    """Counts the decimals of a printed number; others of its column tell a trailing 0."""
    return len(str(value).partition(".")[2]) if value % 1 else 0


@dataclass(frozen=True)
class _Scored:
    """A run of a row, and the row of `results.json` that stands for it."""

    result: Result
    row: Mapping[str, Any]

    @property
    def clips(self) -> list[Mapping[str, Any]]:
        """The scores of the same step by clip."""
        return [clip for clip in self.result.clips if clip["name"] == self.row["name"]]


def _values(runs: Sequence[_Scored], metric: str) -> list[float]:
    """Returns the metric of each run; none if one of them lacks it."""
    found = [run.row["metrics"][metric] for run in runs if metric in run.row["metrics"]]
    return found if len(found) == len(runs) else []


def _about(found: Mapping[str, Sequence[_Scored]]) -> dict[str, Any]:
    abouts = [runs[0].row["about"] for runs in found.values() if "about" in runs[0].row]
    keys = ("clips", "frames_scored", "windows", "windows_of", "window_frames")
    keys += ("height", "width", "psrjax")
    return {key: abouts[0][key] for key in keys if key in abouts[0]} if abouts else {}


def _filled(table: Table, row: Row, runs: Sequence[_Scored]) -> dict[str, Any]:
    values = {c: _values(runs, m) for c, m in table.columns.items()} if runs else {}
    if len(runs) == 1:
        known = runs[0].row.get("interval", {})
        bounds = {c: known[m] for c, m in table.columns.items() if m in known}
    else:
        bounds = {column: [min(own), max(own)] for column, own in values.items() if own}
    first = runs[0].result if runs else None
    return {
        "label": row.label,
        "run": (first.title or os.path.basename(os.fspath(first.folder))) if first else "",
        "name": runs[0].row["name"] if runs else "",
        "paper": dict(row.paper),
        "ours": {column: statistics.fmean(own) for column, own in values.items() if own},
        "interval": bounds,
    }


def _ordering(
    column: Mapping[str, Any],
    pair: tuple[Row, Row],
    found: Mapping[str, Sequence[_Scored]],
) -> dict[str, Any]:
    """Compares the order of two rows in one column with the paper's.

    Returns:
      {"column", "better", "worse": the labels as the paper orders them, "paper", "ours": the two
      numbers in this order, "holds", "sure": with one run of each, whether the difference of ours,
      over the clips that both have, excludes 0 with a confidence of 95 % (None where that is not
      known); with several, whether it has the same sign for each pair of runs}.
    """
    name, metric = column["name"], column["metric"]
    better, worse = sorted(pair, key=lambda row: row.paper[name], reverse=not column["lower"])
    one, other = (found[row.label] for row in (better, worse))
    ours = [statistics.fmean(_values(runs, metric)) for runs in (one, other)]
    if len(one) == len(other) == 1:
        bounds = score_statistics.difference(one[0].clips, other[0].clips, metric)["interval"]
        sure = None if bounds is None else not bounds[0] <= 0 <= bounds[1]
    else:
        pairs = zip(_values(one, metric), _values(other, metric), strict=False)
        sure = {(a > b) - (a < b) for a, b in pairs} in ({1}, {-1})
    return {
        "column": name,
        "better": better.label,
        "worse": worse.label,
        "paper": [better.paper[name], worse.paper[name]],
        "ours": ours,
        "holds": ours[0] != ours[1] and score_table.best(metric, ours) == ours[0],
        "sure": sure,
    }


def sentences(filled: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Describes a filled table in sentences: [{"text", "good": True, False or None}].

    The frames that the numbers stand on; what sets the runs apart; the table's remark; for each
    column how many of the paper's orderings hold; each that does not; rows that are one run at this
    scale; rows of other systems; columns that nothing fills; the command, commits and machines.
    """
    about = filled["about"]
    said = [{"text": measured_on(about), "good": None}] if "clips" in about else []
    remarks = (about.get("scale_note"), filled["note"])
    said += [{"text": remark, "good": None} for remark in remarks if remark]
    beyond = "with every seed" if about.get("seeds", 1) > 1 else "beyond chance"
    for column in filled["columns"]:
        own = [o for o in filled["orderings"] if o["column"] == column["name"]]
        if own:
            kept = sum(o["holds"] for o in own)
            sure = sum(o["holds"] and o["sure"] is True for o in own)
            text = f"{column['name']}: {kept} of {len(own)} orderings of the paper hold"
            said.append({"text": f"{text}, {sure} of them {beyond}", "good": kept == len(own)})
        for o in own:
            if not o["holds"]:
                said.append({"text": _broken(column, o), "good": False})
    for labels in filled["shared"]:
        said.append({"text": f"one run at this scale: {', '.join(labels)}", "good": None})
    if filled["others"]:
        others = ", ".join(filled["others"])
        said.append({"text": f"other systems, printed numbers only: {others}", "good": None})
    for why, names in _missing(filled).items():
        said.append({"text": f"{', '.join(names)}: not measured here ({why})", "good": None})
    if about.get("command"):
        said.append({"text": f"`{about['command']}`: {_made(about.get('made', ()))}", "good": None})
    return said


def _missing(filled: Mapping[str, Any]) -> dict[str, list[str]]:
    """Finds the columns that nothing fills: {why: names}."""
    reasons = filled["about"].get("obstacles", {})
    found: dict[str, list[str]] = {}
    for column in filled["columns"]:
        if column["missing"]:
            metric = column["metric"]
            why = reasons.get(metric) or metric or "people's judgement"
            found.setdefault(why.removeprefix(f"{metric}: "), []).append(column["name"])
    return found


def _made(runs: Sequence[Mapping[str, str]]) -> str:
    """Names the commits that runs were scored at, by machine."""
    commits: dict[str, list[str]] = {}
    for run in runs:
        commits.setdefault(run["machine"], []).append(run["commit"])
    return "; ".join(
        f"commit{'s' * (len(own) > 1)} {', '.join(own)}, {machine}"
        for machine, own in commits.items()
    )


def _broken(column: Mapping[str, Any], ordering: Mapping[str, Any]) -> str:
    ours = [score_table.format_metric(column["metric"], value) for value in ordering["ours"]]
    chance = "" if ordering["sure"] else ", which may be chance"
    return (
        f"{column['name']}: {ordering['better']} over {ordering['worse']} does not hold "
        f"({ours[0]} against {ours[1]}{chance})"
    )


def measured_on(about: Mapping[str, Any]) -> str:
    """Says on how many frames, clips and seeds the numbers of a table stand."""
    clips, seeds = about["clips"], about.get("seeds", 1)
    runs = f", means of {seeds} seeds" if seeds > 1 else ""
    return (
        f"scored on {about.get('frames_scored', 0)} frames of {clips} clip{'s' * (clips != 1)} at "
        f"{about.get('width', 0)}x{about.get('height', 0)}{runs}"
    )


def cells(filled: Mapping[str, Any]) -> list[list[str]]:
    """Formats the cells: a header, then for each row and column our number and the paper's.

    What no row has, ours or the paper's, takes no place.
    """
    lines = [["", *(row["label"] for row in filled["rows"])]]
    for column in filled["columns"]:
        name, metric = column["name"], column["metric"]
        ours = [row["ours"].get(name) for row in filled["rows"]]
        formatted = ["" if x is None else score_table.format_metric(metric, x) for x in ours]
        theirs = [printed(row, column) for row in filled["rows"]]
        if any(formatted):
            lines.append([name, *formatted])
        if any(theirs):
            title = "(paper)" if any(formatted) else f"{name} (paper)"
            lines.append([title, *(value and f"({value})" for value in theirs)])
    return [list(line) for line in zip(*lines)]


def printed(row: Mapping[str, Any], column: Mapping[str, Any]) -> str:
    """Formats a row's number in a column as the paper prints it; "" where it prints none."""
    value = row["paper"].get(column["name"])
    return "" if value is None else f"{value:.{column['digits']}f}"


def markdown(filled: Mapping[str, Any]) -> str:
    """Formats the table as Markdown, with the sentences under it."""
    header, *rows = cells(filled)
    lines = [
        f"**{filled['paper']}, {filled['title']}** (the paper's numbers in brackets: "
        f"{filled['data']}; ours: scale {filled['about'].get('scale', '')})",
        "",
        f"| {' | '.join(header)} |",
        f"|---|{'---:|' * (len(header) - 1)}",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
        *(f"- {sentence['text']}" for sentence in sentences(filled)),
    ]
    return "\n".join(lines) + "\n"


def text(filled: Mapping[str, Any]) -> str:
    """Formats the table for the terminal, with the sentences under it."""
    marks = {True: "yes", False: "NO ", None: "   "}
    said = [f"{marks[sentence['good']]}  {sentence['text']}" for sentence in sentences(filled)]
    return "\n".join([score_table.aligned(cells(filled)), *said])


def latex(filled: Mapping[str, Any]) -> str:
    """Formats the rows of a LaTeX table: our number, and the paper's in brackets."""
    header, *rows = cells(filled)
    lines = [f"% {' & '.join(header).strip()} \\\\"]
    for row in rows:
        lines.append(f"{' & '.join(map(score_export.escaped, row))} \\\\")
    return "\n".join(lines) + "\n"


def write(folder: str | os.PathLike, filled: Mapping[str, Any]) -> None:
    """Writes `table.json`, `table.md`, `table.tex` and `table.csv`.

    Raises:
      UserError: if the folder cannot be written to.
    """
    root = epath.Path(folder)
    io.write_json(root / "table.json", dict(filled))
    io.write_text(root / "table.md", markdown(filled))
    io.write_text(root / "table.tex", latex(filled))
    names = [column["name"] for column in filled["columns"]]
    rows = [
        {
            "label": row["label"],
            "metrics": {
                **{name: row["ours"].get(name) for name in names},
                **{f"{name} (paper)": row["paper"].get(name) for name in names},
            },
        }
        for row in filled["rows"]
    ]
    io.write_text(root / "table.csv", score_export.as_csv(("label",), rows))
