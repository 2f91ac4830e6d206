"""The house has floors: imports go down only, and rooms of one floor do not know one another."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = [("ops",), ("nn",), ("models", "losses", "metrics", "data"), ("methods",), ("training",)]
FLOORS += [("cli",)]
ANYWHERE = {"errors": set(), "files": {"errors"}, "config": {"errors"}}
ANYWHERE |= {"__init__": {"_compiler"}, "_compiler": set()}
ANYWHERE["pretrained"] = {"errors", "files", "models"}  # the networks that the weights are of
HEIGHT = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted((ROOT / "psrjax").rglob("*.py"))


def imported_rooms(path):
    """The rooms of psrjax that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            names = ["psrjax."] if isinstance(node, ast.ImportFrom) and node.level else []
        for name in names:
            parts = name.split(".")
            if parts[0] == "psrjax" and len(parts) > 1:
                yield parts[1]


def may_import(path, room):
    parts = path.relative_to(ROOT / "psrjax").with_suffix("").parts
    own = parts[0]
    if own in ANYWHERE:
        return room in ANYWHERE[own]
    if room in ANYWHERE or room == own:
        return True
    return room in HEIGHT and own in HEIGHT and HEIGHT[room] < HEIGHT[own]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_only(path):
    wrong = sorted({room for room in imported_rooms(path) if not may_import(path, room)})
    assert not wrong, f"{path} imports {wrong}"


def test_the_rule_would_notice():
    ops = ROOT / "psrjax" / "ops" / "geometry.py"
    assert not may_import(ops, "nn") and not may_import(ops, "training")
    assert not may_import(ROOT / "psrjax" / "models" / "volumetric.py", "losses")
    assert may_import(ROOT / "psrjax" / "cli" / "train.py", "training")


def test_config_files_import_only_the_config():
    for path in (ROOT / "configs").glob("*.py"):
        assert set(imported_rooms(path)) <= {"config"}, path


def test_files_are_short():
    long = [path for path in FILES if len(path.read_text().splitlines()) >= 500]
    assert not long
