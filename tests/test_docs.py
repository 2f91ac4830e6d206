"""What the documents tell people to type exists: commands, flags, configs, words, files."""

import ast
import re
import shlex
from pathlib import Path

import pytest

from psrjax import config as config_lib
from psrjax.cli import main as cli

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "launch/*.md", "launch/*.sh", "launch/*.sbatch", "launch/*.yaml")
    for path in ROOT.glob(pattern)
)
COMMANDS = cli.available()
SCRIPT = re.compile(r"^[\s#`$(]*(?:[A-Z_]+=\S+ )*bash launch/local\.sh +(\S[^`)#]*)")
INLINE = re.compile(r"`psrjax ([a-z]+[^`]*)`")
LINE = re.compile(r"^(?:    |#|\$)[\s#$]*psrjax ([a-z]+.*)")  # indented, or in a comment
FENCED = re.compile(r"^psrjax ([a-z]+.*)")


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
                yield pytest.param(words, id=f"{path.name}:{number}:{words[0]}")


def flags_of(command):
    """The names of the flags that a command's file defines, read without importing it."""
    tree = ast.parse((ROOT / f"psrjax/cli/{command}.py").read_text())
    names = set()
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        name = getattr(call.func, "attr", "")
        if name.startswith("DEFINE_"):
            names.add(call.args[0].value)
        elif name == "define_config":
            names.add("config")
    return names


@pytest.mark.parametrize("words", list(typed_lines()))
def test_a_command_in_the_documents_can_be_typed(words):
    command, *arguments = (word.strip(".,;:") for word in words)
    if command in ("demo", "test", "COMMAND"):
        assert command != "demo" or "demo" in COMMANDS
    else:
        assert command in COMMANDS
    options = [word for word in arguments if word.startswith("--")]
    if command in ("test", "COMMAND") or not options:
        return
    known, overrides, name = flags_of(command), {}, "psrnet"
    for option in options:
        flag, _, value = option.removeprefix("--").partition("=")
        assert flag.split(".")[0] in known, f"psrjax {command} has no --{flag}"
        if flag == "config":
            name = value
        elif flag.startswith("config."):
            overrides[flag.removeprefix("config.")] = literal(value)
    if not name.startswith("sixth"):  # the method that CONTRIBUTING.md tells how to add
        config_lib.load(name, overrides)


def literal(value):
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


def test_the_documents_hold_commands():
    assert len(list(typed_lines())) > 10


def test_links_between_documents_lead_somewhere():
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_the_readme_opens_with_the_two_commands():
    text = (ROOT / "README.md").read_text()
    assert re.search(r"\A# psrjax\n\n[^\n#](?:.+\n)+\n```bash\nbash launch/local.sh demo", text)
    assert "bash launch/local.sh test" in text.split("```")[1]
    assert "**no\npretrained weights**" in text or "**no pretrained weights**" in text


def test_the_continuous_check_runs_the_readmes_test_command():
    assert "bash launch/local.sh test" in (ROOT / ".ci/run").read_text()
