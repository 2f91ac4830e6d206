"""The command `psrjax COMMAND [flags]`: finds the command's file, parses its flags, reports errors.

A command is a file beside this one. Its first line says what it does, importing it defines its absl
flags, and `main(arguments)` runs it with what is left on the command line.
"""

import ast
import importlib
import logging as standard_logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags, logging

from psrjax import config as config_lib
from psrjax.cli._config import ConfigFlag
from psrjax.errors import UserError
from psrjax.runtime import memory_pages

_USAGE = "usage: psrjax COMMAND [flags]; psrjax COMMAND --help lists a command's flags"


def console() -> None:
    """The program `psrjax`: `main` in a process of its own, with large memory pages.

    Where the reader of its output leaves, as `head` does, it ends silently with exit code 141.
    """
    memory_pages.use()
    try:
        try:
            main()
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for Python's last flush
        sys.exit(141)


def main() -> None:
    """The entry point. Exit codes: 0 done, 2 the user's mistake in one line, 130 interrupted."""
    commands = available()
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("--help", "-h", "help"):
        width = max(map(len, commands))
        lines = [f"  {command:<{width}}  {line}" for command, line in commands.items()]
        print("\n".join([_USAGE, "", *lines]))
    elif name not in commands:
        _fail(f"no command {name!r}; there are {', '.join(commands)}")
    else:
        run(name, sys.argv[2:])


def available() -> dict[str, str]:
    """{command: the first line of its file}, without importing any."""
    files = sorted(Path(__file__).parent.glob("[a-z]*.py"))
    lines = {
        file.stem: (ast.get_docstring(ast.parse(file.read_text())) or "").split("\n")[0]
        for file in files
    }
    return {name: line for name, line in lines.items() if name != "main"}


def define_config(default: str | None = None) -> ConfigFlag:
    """Defines --config=NAME[:WORDS] and --config.KEY=VALUE; `.value` is the locked config."""
    help_text = "a config and its words: psrnet:tiny, or FILE.py:words"
    return ConfigFlag(_config_path(default) if default else None, help_text)


def run(name: str, arguments: Sequence[str]) -> None:
    """Runs one command in this process, and ends the process with its exit code."""
    program = f"psrjax {name}"
    try:
        arguments = [_with_config_path(_with_underscores(each)) for each in arguments]
        sys.argv = [program, *arguments]  # config flags read it
        command = importlib.import_module(f"psrjax.cli.{name}")
        if {"--help", "-h", "-help"} & set(arguments):
            print(f"{command.__doc__.strip()}\n{flags.FLAGS.module_help(command)}")
            return
        app.run(_guarded(command.main), argv=sys.argv, flags_parser=_parse_flags)
    except UserError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        sys.exit(130)


def _guarded(command: Callable[[list[str]], None]) -> Callable[[list[str]], None]:
    """The command with logging set up, the other processes found, and mistakes told in one line."""

    def guarded(argv: list[str]) -> None:
        from psrjax.training import sharding  # imports JAX: not before the flags are right

        logging.use_absl_handler()
        logging.set_verbosity(logging.INFO)
        logging.get_absl_handler().addFilter(_is_worth_reading)
        sys.unraisablehook = _report_unraisable
        try:
            sharding.start_distributed()
            command(argv[1:])
        except UserError as error:
            _fail(str(error))

    return guarded


def _is_worth_reading(record: standard_logging.LogRecord) -> bool:
    """Our own lines, and the warnings of others; orbax also raises what it logs, and we tell it."""
    orbax = "orbax" in record.pathname or record.name == "asyncio"
    return "psrjax" in record.pathname or (record.levelno >= standard_logging.WARNING and not orbax)


def _report_unraisable(what: "sys.UnraisableHookArgs") -> None:
    """As Python's own, but for what tensorstore prints when a write or a read was given up."""
    if str(what.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(what)


def _parse_flags(argv: Sequence[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except (flags.Error, KeyError, AttributeError, TypeError, ValueError, OSError) as error:
        message = error.args[0] if error.args else type(error).__name__
        raise UserError(str(message)) from error


def _with_underscores(argument: str) -> str:
    """`--find-best-frame` as `--find_best_frame`, as flags are spelled here; values as they are."""
    name, equals, value = argument.partition("=")
    if not name.startswith("--") or name.startswith("--config"):
        return argument
    return f"--{name[2:].replace('-', '_')}{equals}{value}"


def _with_config_path(argument: str) -> str:
    """`--config=psrnet:words` with the path of the file for its name; YAML and others as is."""
    flag, equals, value = argument.partition("=")
    if equals and flag in ("--config", "-config") and not value.endswith((".yaml", ".yml")):
        return f"{flag}={_config_path(value)}"
    return argument


def _config_path(name: str) -> str:
    name, colon, words = name.partition(":")
    return f"{config_lib.find(name)}{colon}{words}"


def _fail(message: str) -> None:
    print(f"psrjax: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
