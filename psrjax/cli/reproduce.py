"""Fills a paper's table by training and scoring its runs; without a name lists the tables."""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from psrjax.errors import UserError
from psrjax.reporting import filled_table, paper_tables, reproduce

_SCALE = flags.DEFINE_string(
    "scale", "tiny", "of the runs: tiny (minutes a row), demo, small (the paper's, smaller), paper"
)
_WORKDIR = flags.DEFINE_string("workdir", "", "the folder of the runs; by default runs/TABLE-SCALE")
_SEEDS = flags.DEFINE_integer(
    "seeds",
    1,
    "the number of runs of each row, which all begin after the same one where a row "
    "begins after another run; the table has the means",
)
_DATA = flags.DEFINE_string("data", "", "a stored dataset, instead of the config's own")


def main(arguments: Sequence[str]) -> None:
    """Fills the named table, or goes on with it, and prints it."""
    if not arguments:
        _list()
        return
    if len(arguments) > 1:
        raise UserError(f"reproduce takes one table, not {' '.join(arguments)}")
    table = paper_tables.find(arguments[0])
    folder = _WORKDIR.value or f"runs/{table.name}-{_SCALE.value}"
    command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
    filled = reproduce.fill(
        table,
        _SCALE.value,
        folder,
        data=_DATA.value,
        seeds=_SEEDS.value,
        command=command,
    )
    print(f"{filled['paper']}, {filled['title']}")
    print(filled_table.text(filled))
    print(f"written to {folder}: table.md, .csv, .tex, .json and report.html")


def _list() -> None:
    tables = paper_tables.tables()
    width = max(map(len, tables))
    for name, table in tables.items():
        others = [row.label for row in table.rows if row.variant is None]
        runs = len(table.rows) - len(others)
        state = paper_tables.obstacle(table) or f"{runs} of its {len(table.rows)} rows can be run"
        lacking = [c for c, metric in table.columns.items() if metric not in paper_tables.MEASURED]
        if lacking and not paper_tables.obstacle(table):
            state += f", without {', '.join(lacking)}"
        if others and not paper_tables.obstacle(table):
            state += f"; of other systems: {', '.join(others)}"
        print(f"{name:<{width}}  {table.paper}, {table.title}: {state}")
