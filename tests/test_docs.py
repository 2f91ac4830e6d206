"""What the documents tell people to type exists: commands, flags, configs, words, files; the site
builds."""

import ast
import functools
import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from psrjax import config as config_lib
from psrjax.cli import main as cli
from psrjax.data import spec

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path
    for pattern in (
        *("*.md", "docs/**/*.md", "datasets/*/README.md"),
        *("launch/*.md", "launch/*.sh", "launch/*.sbatch", "launch/*.yaml"),
    )
    for path in ROOT.glob(pattern)
)
PAGES = [path for path in DOCUMENTS if path.suffix == ".md"]
COMMANDS = cli.available()
METHODS = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
SCRIPT = re.compile(r"^[\s#`$(]*(?:[A-Z_]+=\S+ )*bash launch/local\.sh +(\S[^`)#]*)")
INLINE = re.compile(r"`psrjax ([a-z]+[^`]*)`")
LINE = re.compile(r"^(?:    |#|\$)[\s#$]*psrjax ([a-z]+.*)")  # indented, or in a comment
FENCED = re.compile(r"^psrjax ([a-z]+.*)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def typed_lines():
    """(document, words after psrjax) of every command line in a document."""
    for path in DOCUMENTS:
        text = path.read_text().replace("\\\n", " ")
        fenced = False
        for number, line in enumerate(text.splitlines(), 1):
            fenced ^= line.startswith("```")
            patterns = (LINE, SCRIPT, FENCED) if fenced else (LINE, SCRIPT)
            found = [m[1] for m in (pattern.match(line) for pattern in patterns) if m]
            for command in found + INLINE.findall(line):
                words = shlex.split(command.split("  #")[0], comments=True)
                name = path.relative_to(ROOT).as_posix()
                yield pytest.param(words, id=f"{name}:{number}:{words[0]}")


def flags_of(command):
    """The names of the flags that a command's file defines, read without importing it."""
    tree = ast.parse((ROOT / f"psrjax/cli/{command}.py").read_text())
    names = set()
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = getattr(call.func, "attr", "")
        if name.startswith("DEFINE_"):
            names.add(call.args[0].value)
            names |= {f"no{call.args[0].value}"} if name == "DEFINE_bool" else set()
        elif name == "define_config":
            names.add("config")
        elif getattr(call.func, "id", "") == "MethodFlags":
            names |= {f"method.{field}" for field in (*method_fields(), "FIELD", "help")}
    return names


@functools.cache
def method_fields():
    """The fields of all methods."""
    methods = (importlib.import_module(f"psrjax.methods.{name}").Method for name in METHODS)
    return {field for method in methods for field in method.__dataclass_fields__}


@pytest.mark.parametrize("words", list(typed_lines()))
def test_a_command_in_the_documents_can_be_typed(words):
    command, *arguments = (word.strip(".,;:") for word in words)
    if command in ("demo", "show", "test", "COMMAND"):
        assert command != "demo" or "demo" in COMMANDS
    else:
        assert command in COMMANDS
    options = [word for word in arguments if word.startswith("--")]
    if command in ("test", "COMMAND") or not options:
        return
    known, overrides, name = flags_of(command), {}, "psrnet"
    for option in options:
        flag, _, value = option.removeprefix("--").partition("=")
        key = "config" if flag.startswith("config.") else flag
        assert key in known | {"help"}, f"psrjax {command} has no --{flag}"
        if flag == "config":
            name = value
        elif flag.startswith("config."):
            overrides[flag.removeprefix("config.")] = literal(value)
    if command != "convert" and not name.startswith("sixth"):  # CONTRIBUTING.md's new method
        config_lib.load(name, overrides)


def literal(value):
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


def test_the_documents_hold_commands():
    assert len(list(typed_lines())) > 60


def anchors(path):
    """The anchors of a page's headings, as GitHub and the site both make them."""
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path):
    for target in LINK.findall(path.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        other = path.parent / name if name else path
        assert other.exists(), f"{path.name} links to {target}"
        assert not anchor or anchor in anchors(other), f"{path.name}: no heading of {target}"


def test_every_page_and_picture_is_reached():
    linked = {
        (path.parent / target.partition("#")[0]).resolve()
        for path in PAGES
        for target in LINK.findall(path.read_text())
    }
    shown = {*(ROOT / "docs").glob("**/*.md"), *(ROOT / "docs/pictures").iterdir()}
    assert shown <= linked, sorted(path.name for path in shown - linked)


def test_the_readme_is_short_and_opens_with_what_psrjax_is():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    opening = re.match(r"# psrjax\n\n([^\n#](?:.+\n)+)\n!\[", text)
    assert opening and len(re.findall(r"[.:]\s", opening[1])) <= 4
    assert text.split("```")[1].startswith("bash\nbash launch/local.sh demo")
    assert "bash launch/local.sh test" in text.split("```")[1]
    assert "**no pretrained weights**" in text


def test_pictures_are_small():
    sizes = {path.name: path.stat().st_size for path in (ROOT / "docs/pictures").iterdir()}
    assert max(sizes.values()) < 2_000_000 and sum(sizes.values()) < 5_000_000


def test_examples_in_python_use_what_there_is():
    """Each example compiles, and every name that it takes from psrjax exists."""
    examples = [code for path in PAGES for code in PYTHON.findall(path.read_text())]
    assert examples
    for code in examples:
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("psrjax"):
                check = f"from {node.module} import {', '.join(a.name for a in node.names)}"
                exec(check, {})


def messages():
    """All texts of the package and the start script; "…" where a value is filled in."""
    yield (ROOT / "launch/local.sh").read_text()
    for path in (ROOT / "psrjax").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_messages_in_troubleshooting_are_those_of_the_code():
    known = "\n".join(messages())
    text = (ROOT / "docs/troubleshooting.md").read_text()
    cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
    quoted = [
        part
        for cell in cells
        for code in re.findall(r"`([^`]+)`", cell)
        for part in re.split("…|'", code)
    ]
    sentences = [part.strip(" ;:().,?") for part in quoted if " " in part.strip()]
    assert len(sentences) > 30
    assert [part for part in sentences if part not in known] == []


def test_the_architecture_page_shows_every_room():
    page = (ROOT / "docs/architecture.md").read_text()
    picture = (ROOT / "docs/pictures/diagram_rooms.svg").read_text()
    paths = [path for path in (ROOT / "psrjax").iterdir() if path.is_dir() or path.suffix == ".py"]
    rooms = {path.stem for path in paths if not path.name.startswith("__")}
    assert rooms == {*re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)} & rooms
    assert {room for room in rooms if f">{room}<" not in picture} == set()


def test_the_data_page_shows_the_contract():
    page = (ROOT / "docs/data.md").read_text()
    for name, key in spec.KEYS.items():
        assert re.search(
            rf"\| `{name}` \| {key.axes} \| {key.wire} \|.*\| {re.escape(key.meaning)} \|", page
        ), name


@pytest.mark.parametrize("method", METHODS)
def test_a_methods_page_explains_all_of_its_presets_and_ablations(method):
    page = (ROOT / f"docs/methods/{method}.md").read_text()
    module = config_lib.module(method)
    names = {*module.PRESETS, *module.ABLATIONS, *config_lib.load(method).stages} - {"paper"}
    assert {name for name in names if f"`{name}`" not in page} == set()


def test_the_site_builds_without_warnings(tmp_path):
    if importlib.util.find_spec("material") is None or importlib.util.find_spec("mkdocs") is None:
        pytest.skip("mkdocs-material is not installed: pip install '.[docs]'")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "index.html").exists() and (tmp_path / "launch/index.html").exists()


def test_the_continuous_check_runs_the_readmes_test_command():
    assert "bash launch/local.sh test" in (ROOT / ".ci/run").read_text()
