"""Runs `psrjax COMMAND [flags]`: finds the command's file, parses its flags, reports errors.

A command is a file beside this one. Its first line says what it does, importing it defines its absl
flags, and `main(arguments)` runs it with the arguments that are not flags.
"""

import ast
import importlib
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

from absl import app, flags

import psrjax
from psrjax import config as config_lib
from psrjax import io
from psrjax.cli import _help
from psrjax.cli._config import ConfigFlag
from psrjax.errors import UserError
from psrjax.runtime import log, memory_pages

_EXTRAS = {
    "av": "video",
    "c2pa": "c2pa",
    "gradio": "app",
    "jinja2": "report",
    "matplotlib": "report",
}  # {module: its extra}
_ALONE = ("camera", "compile", "convert", "data", "doctor", "prepare", "report")
_typed: list[str] = []  # the command line of `run`, before its flags are parsed
_USAGE = (
    "usage: psrjax COMMAND [flags]; psrjax COMMAND --help lists a command's flags; psrjax --version"
)


def console() -> None:
    """Runs `main` as the program `psrjax`, with large memory pages.

    Ends silently with exit code 141 where the reader of its output leaves, as `head` does.
    """
    memory_pages.use()
    # jaxlib 0.10.1 warns of every program that it reads from the compilation cache, wrongly and in
    # two long lines; real errors of XLA arrive as exceptions.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        try:
            main()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's last flush
        sys.exit(141)


def main() -> None:
    """Runs the named command. Exit codes: 0 done, 2 the user's mistake, 130 interrupted."""
    commands = available()
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("--help", "-h", "help"):
        width = max(map(len, commands))
        lines = [f"  {command:<{width}}  {line}" for command, line in commands.items()]
        print("\n".join([_USAGE, "", *lines]))
    elif name in ("--version", "-V"):
        print(f"psrjax {psrjax.__version__}")
    elif name not in commands:
        _fail(f"no command {name!r}; there are {', '.join(commands)}")
    else:
        run(name, sys.argv[2:])


def available() -> dict[str, str]:
    """Lists {command: the first line of its file}, without importing any."""
    files = sorted(Path(__file__).parent.glob("[a-z]*.py"))
    lines = {
        file.stem: (ast.get_docstring(ast.parse(file.read_text())) or "").split("\n")[0]
        for file in files
    }
    return {name: line for name, line in lines.items() if name != "main"}


def define_config(default: str | None = None) -> ConfigFlag:
    """Defines --config=NAME[:VARIANT] and --config.KEY=VALUE; `.value` is the locked config."""
    names = ", ".join(config_lib.names())
    help_text = f"NAME[:VARIANT] or FILE.py[:VARIANT], variants are listed in the file: {names}"
    return ConfigFlag(_config_path(default) if default else None, help_text)


def given(name: str) -> str:
    """Reads --NAME=VALUE from the command line before its flags are parsed; "" without it."""
    found = [each.split("=", 1)[1] for each in sys.argv if re.match(rf"--?{name}=", each)]
    return found[-1] if found else ""


def typed() -> str:
    """Returns the command line, for a run's record, without the folder of this checkout."""
    checkout = f"{Path(psrjax.__file__).parents[1]}/"
    name, *arguments = _typed or sys.argv
    return " ".join([name, *(shlex.quote(each.replace(checkout, "")) for each in arguments)])


def run(name: str, arguments: Sequence[str]) -> None:
    """Runs one command in this process, and ends the process with its exit code."""
    program = f"psrjax {name}"
    try:
        arguments = [_with_underscores(each) for each in _joined(arguments)]
        arguments = [_with_config_path(each) for each in arguments]
        _typed[:] = sys.argv = [program, *arguments]  # config flags read it, and take keys from it
        command = importlib.import_module(f"psrjax.cli.{name}")
        if name not in _ALONE:
            _define_processes()
        if {"--help", "-h", "-help"} & set(arguments):
            _print_help(name, command)
            return
        app.run(_guarded(name, command.main), argv=sys.argv, flags_parser=_parse_flags)
    except UserError as error:
        _fail(str(error))
    except OSError as error:  # of a file that nobody has looked after
        told = io.explained(error)
        if told is None:
            raise
        _fail(str(told))
    except ModuleNotFoundError as error:
        if error.name not in _EXTRAS:
            raise
        _fail(f"{program} needs {error.name}: pip install 'psrjax[{_EXTRAS[error.name]}]'")
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        sys.exit(130)


def _define_processes() -> None:
    flags.DEFINE_string(
        "coordinator", "", "HOST:PORT of process 0 of a run of several processes; TPU slices, GKE, "
        "SLURM and Open MPI tell it by themselves"
    )  # fmt: skip
    flags.DEFINE_integer("processes", -1, "how many processes the run has; 1 is this one alone")
    flags.DEFINE_integer("process_id", -1, "the number of this one of them, from 0")
    flags.DEFINE_string(
        "device", "", "what computes: cpu, gpu, gpu:0 (one of several) or tpu; by default the best "
        "that JAX finds"
    )  # fmt: skip


def _print_help(name: str, command: ModuleType) -> None:
    print(_help.command(command, __name__))
    if flags.FLAGS.find_module_defining_flag("config") == ConfigFlag.__module__:
        print(f"\n{_help.configs(name)}")


def _guarded(name: str, command: Callable[[list[str]], None]) -> Callable[[list[str]], None]:
    """Wraps a command: sets up logging, other processes and the compilation cache before."""

    def guarded(argv: list[str]) -> None:
        # They import JAX: not before the flags are right.
        from psrjax.runtime import cluster, device_choice, jax_setup

        log.show_log()
        sys.unraisablehook = _report_unraisable
        if name not in _ALONE:
            values = flags.FLAGS
            device_choice.use(values.device)
            named = cluster.Named(values.coordinator, values.processes, values.process_id)
            cluster.join(named)
        with cluster.ending_together():
            jax_setup.use_compilation_cache()
            command(argv[1:])

    return guarded


def _report_unraisable(what: "sys.UnraisableHookArgs") -> None:
    """Reports as Python does, without what tensorstore prints when it gives up reading."""
    if str(what.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(what)


def _parse_flags(argv: Sequence[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except (flags.Error, KeyError, AttributeError, TypeError, ValueError, OSError) as error:
        message = error.args[0] if error.args else type(error).__name__
        raise UserError(str(message)) from error


def _joined(arguments: Sequence[str]) -> list[str]:
    """Turns `--config NAME`, and --method, into one argument, for those who read them early."""
    found: list[str] = []
    for argument in arguments:
        if found and found[-1] in ("--config", "--method") and not argument.startswith("-"):
            found[-1] += f"={argument}"
        else:
            found.append(argument)
    return found


def _with_underscores(argument: str) -> str:
    """Spells `--find-best-frame` as the flag `--find_best_frame`; values stay as they are."""
    name, equals, value = argument.partition("=")
    if not name.startswith("--") or name.startswith("--config"):
        return argument
    return f"--{name[2:].replace('-', '_')}{equals}{value}"


def _with_config_path(argument: str) -> str:
    """Replaces the name in `--config=NAME:VARIANT` by the path of its file; YAML stays as it is."""
    flag, equals, value = argument.partition("=")
    if equals and flag in ("--config", "-config") and not value.endswith((".yaml", ".yml")):
        return f"{flag}={_config_path(value)}"
    return argument


def _config_path(name: str) -> str:
    name, colon, variant = name.partition(":")
    return f"{config_lib.find(name)}{colon}{variant}"


def _fail(message: str) -> None:
    print(f"psrjax: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
