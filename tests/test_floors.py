"""The house has floors: imports go down only, in rooms too, there is no circle, and methods are
named in few places."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "psrjax"
# The top floor first. Rooms of one floor do not know one another.
FLOORS = (
    ("cli",),
    ("app",),
    ("__init__",),  # the door: it names what `api` offers, and imports it when it is asked for
    ("api",),
    ("importers", "benchmarks", "reporting"),
    ("training",),
    ("evaluation",),
    ("inference",),
    ("config",),
    ("methods",),
    ("models", "losses", "metrics"),
    ("prepare", "synthetic"),
    ("data",),
    ("pretrained",),
    ("nn",),
    ("vision",),
    ("ops",),
    ("runtime",),
    ("io",),
    ("errors",),
)
HEIGHT = {room: -floor for floor, rooms in enumerate(FLOORS) for room in rooms}
# The folders inside a room, the top one first; "" are the files of the room itself.
FOLDERS = {
    "prepare": ("datasets", "monocular", "multiview", "common", ""),
    "nn": ("discriminators", ""),
    "ops": ("", "conv"),
    "benchmarks": ("", "torch_reference"),
}
METHODS = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
MAY_NAME_METHODS = ("methods", "importers", "benchmarks/torch_reference")


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(source):
    """Yields the names of psrjax that a file imports, wherever in it, strings included."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide the room"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in FILES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.fullmatch(r"psrjax(\.\w+)*\.?", node.value):
                yield node.value.rstrip(".")


def imports_of(name):
    found = set(imported(FILES[name].read_text())) - {name}
    return {other for other in found if other.split(".")[0] == "psrjax" and other != "psrjax"}


def place(name):
    """(room, folder in it) of a module."""
    parts = name.split(".")[1:] or ["__init__"]
    is_package = FILES.get(name, PACKAGE / "x.py").name == "__init__.py"
    inner = parts[1:] if is_package else parts[1:-1]
    return parts[0], inner[0] if inner else ""


def may_import(name, other):
    (room, folder), (other_room, other_folder) = place(name), place(other)
    if room != other_room:
        return HEIGHT[other_room] < HEIGHT[room]
    folders = FOLDERS.get(room, ("",))
    return folders.index(folder) <= folders.index(other_folder)


@pytest.mark.parametrize("name", FILES)
def test_imports_go_down_only(name):
    wrong = sorted(other for other in imports_of(name) if not may_import(name, other))
    assert not wrong, f"{name} imports {wrong}"


def test_there_is_no_circle():
    graph = {name: imports_of(name) & set(FILES) for name in FILES}
    while leaves := [name for name, others in graph.items() if not others]:
        for name in leaves:
            del graph[name]
        graph = {name: others - set(leaves) for name, others in graph.items()}
    assert not graph, f"imports go round among {sorted(graph)}"


def test_every_room_and_folder_has_its_floor():
    assert {place(name)[0] for name in FILES} == set(HEIGHT)
    folders = {place(name) for name in FILES}
    assert all(folder in FOLDERS.get(room, ("",)) for room, folder in folders)


def test_the_rules_would_notice():
    assert not may_import("psrjax.ops.geometry", "psrjax.nn.layers")
    assert not may_import("psrjax.models.volumetric", "psrjax.losses.pixel")
    assert not may_import("psrjax.prepare.common.lifting", "psrjax.prepare.monocular.pipeline")
    assert may_import("psrjax.cli.train", "psrjax.training.stages")
    lazy = "def f():\n    importlib.import_module('psrjax.training.loop')"
    prefix = "importlib.import_module(f'psrjax.methods.{name}')"
    assert list(imported(lazy)) == ["psrjax.training.loop"]
    assert list(imported(prefix)) == ["psrjax.methods"]


def test_config_files_import_only_the_config():
    for path in (ROOT / "configs").glob("*.py"):
        assert set(imported(path.read_text())) & {"psrjax.config"}
        assert all(n == "psrjax.config" for n in imported(path.read_text()) if "psrjax" in n), path


@pytest.mark.parametrize("name", FILES)
def test_only_few_rooms_name_a_method(name):
    path = FILES[name].relative_to(PACKAGE).as_posix()
    if path.startswith(MAY_NAME_METHODS):
        return
    named = re.findall(rf"\b(?:{'|'.join(METHODS)})\b", FILES[name].read_text())
    assert not named, f"{path} names {sorted(set(named))}"
