"""The tables of the five papers: printed numbers, and the config variant that stands for each row.

The numbers lie in `papers/*.toml`, a file for each method.
"""

import dataclasses
import functools
import json
import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import Any

from psrjax import config as config_lib
from psrjax.errors import UserError
from psrjax.methods import base
from psrjax.metrics import registry

MEASURED = (*registry.BASIC, *registry.FURTHER)  # by the evaluation of a run

Scores = dict[str, float]

_SCHEDULE = {"decay_start_step", "decay_end_step", "milestones"}  # steps, of an optimizer

# The keys of a config that tell rows apart: stages, fields of the method, weights.
_DISTINCTIVE = re.compile(r"(stages|method|weights)\b|overrides\..*\.weights\.").match


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
      label: as the paper prints it.
      paper: {column: printed number}; a column may be missing.
      variant: of the config, without a scale's; None for another's system, which cannot be run.
      step: the name of the row of `results.json`; "" is the method's last step.
      after: variant of a run whose last stage this row's run starts from; "" is none.
    """

    label: str
    paper: Scores
    variant: str | None = None
    step: str = ""
    after: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table (or figure) of a paper.

    Attributes:
      name: METHOD-table1 and the like, as `psrjax reproduce` takes it.
      method: psrjax's name of the paper's method.
      paper: the method's name in the paper.
      title: the table's number and what it shows.
      data: what the paper measured on.
      columns: {column as printed: psrjax's metric}; "" where nothing computes it.
      rows: in the paper's order.
      windows: of `evaluation.evaluate`.
      note: a remark for the reader; may be "".
      scales: {name: {"variant": of the config, "set": {dotted key: value}, "steps": {stage: number,
        by which the schedules of rates shrink too}, "note": what sets its runs apart from the
        paper's method, beside their size}}.
      set: {dotted key: value} for all rows at every scale.
    """

    name: str
    method: str
    paper: str
    title: str
    data: str
    columns: dict[str, str]
    rows: tuple[Row, ...]
    windows: str
    note: str
    scales: dict[str, Mapping[str, Any]]
    set: Mapping[str, Any]


@functools.cache
def tables() -> dict[str, Table]:
    """Reads every table of every paper, by name."""
    folder = resources.files("psrjax.reporting").joinpath("papers")
    found = {}
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".toml"):
            content = tomllib.loads(file.read_text(encoding="utf-8"))
            for name, table in content["tables"].items():
                found[name] = _table(name, table, content)
    return found


def _table(name: str, table: Mapping[str, Any], paper: Mapping[str, Any]) -> Table:
    columns = table["columns"]
    rows = tuple(Row(**{**row, "paper": dict(zip(columns, row["paper"]))}) for row in table["rows"])
    return Table(
        name=name,
        method=paper["method"],
        paper=paper["paper"],
        title=table["title"],
        data=paper["data"],
        columns=columns,
        rows=rows,
        windows=table.get("windows", "central"),
        note=table.get("note", ""),
        scales=paper["scales"],
        set=table.get("set", {}),
    )


def find(name: str) -> Table:
    """Finds a table by its name.

    Raises:
      UserError: for a name that none has, with the list.
    """
    if name not in tables():
        raise UserError(f"no table {name!r}; there are {', '.join(tables())}")
    return tables()[name]


def obstacle(table: Table) -> str:
    """Says why a table cannot be filled by runs; "" if it can."""
    if not any(table.columns.values()):
        return "people judged; nothing here computes it"
    if not set(table.columns.values()) & set(MEASURED):
        return f"no evaluation of a run measures {', '.join(table.columns.values())}"
    if table.method not in base.available():
        return f"the method {table.method!r} is not in this version of psrjax"
    try:
        for row in table.rows:
            if row.variant is not None:
                load(table, row.variant, "paper")
    except UserError as error:
        return str(error)
    return ""


def load(table: Table, variant: str, scale: str) -> Any:
    """Loads the locked config of a row's variant at a scale.

    Values of a scale for a stage that the row does without are left out.

    Raises:
      UserError: for a scale that the table does not have, or a variant that the config has not.
    """
    if scale not in table.scales:
        raise UserError(f"{table.name}: no scale {scale!r}; there are {', '.join(table.scales)}")
    size = table.scales[scale]
    both = ",".join(each for each in (size["variant"], variant) if each)
    name = f"{table.method}:{both}"
    stages = config_lib.load(name).stages
    values = {
        key: value
        for key, value in {**size.get("set", {}), **table.set}.items()
        if not key.startswith("overrides.") or key.split(".")[1] in stages
    }
    config = config_lib.load(name, values)
    for stage, steps in size.get("steps", {}).items():
        if stage in stages:
            config_lib.update(config, _shortened(config, stage, steps))
    return config


def _shortened(config: Any, stage: str, steps: int) -> dict[str, Any]:
    """Returns the overrides that shorten a stage, and the schedules of its rates with it."""
    own = config_lib.stage_config(config, stage)
    found: dict[str, Any] = {"steps": steps}
    for update, options in own.optimizer.items():
        for key in _SCHEDULE & set(options):
            at = options[key]
            many = isinstance(at, tuple)
            shorter = tuple(each * steps // own.steps for each in (at if many else (at,)))
            found[f"optimizer.{update}.{key}"] = shorter if many else shorter[0]
    return config_lib.in_stage(stage, found)


def matching_rows(table: Table, config: Mapping[str, Any]) -> dict[str, Row]:
    """Finds the rows that a run's config stands for: {label: row}.

    A run is a row's if it has every field of the method and every weight that the row's variant
    changes; of several such rows, those that change the most. So a run of any scale finds its row.

    Args:
      table: any; one of another method has no such row.
      config: as `config.json` holds it.
    """
    if table.method != config["method"]["name"] or obstacle(table):
        return {}
    own = config_lib.from_json(json.dumps(config))
    plain = load(table, "", "paper")
    fitting: dict[str, int] = {}
    for row in table.rows:
        if row.variant is not None:
            named = load(table, row.variant, "paper")
            changed = set(filter(_DISTINCTIVE, config_lib.differences(plain, named)))
            if not changed & set(config_lib.differences(own, named)):
                fitting[row.label] = len(changed)
    most = max(fitting.values(), default=0)
    return {row.label: row for row in table.rows if fitting.get(row.label) == most}
