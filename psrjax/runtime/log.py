"""The log that people read: psrjax's own lines, and the warnings of other libraries."""

import importlib.util
import logging as standard_logging
import os
from functools import cache
from pathlib import Path

from absl import flags, logging

import psrjax


def show_log() -> None:
    """Shows the log on the standard error: what is compiled, trained, found; warnings of others."""
    if not flags.FLAGS.is_parsed():  # absl warns of every line else
        flags.FLAGS.mark_as_parsed()
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    handler = logging.get_absl_handler()
    if _is_worth_reading not in handler.filters:
        handler.addFilter(_is_worth_reading)


def _is_worth_reading(record: standard_logging.LogRecord) -> bool:
    """Keeps our own lines and the warnings of others; orbax also raises what it logs."""
    if _is_of("psrjax", record):
        return True
    raised_too = record.name == "asyncio" or _is_of("orbax", record)
    return record.levelno >= standard_logging.WARNING and not raised_too


def _is_of(package: str, record: standard_logging.LogRecord) -> bool:
    """Tells whether a package logged a record: by its logger, or, of absl's one, by its files.

    A checkout may lie in a folder of any name, and the environment with other packages inside it.
    """
    if record.name.split(".")[0] == package:
        return True
    return record.name == "absl" and record.pathname.startswith(_folders(package))


@cache
def _folders(package: str) -> tuple[str, ...]:
    if package == psrjax.__name__:
        found = [os.fspath(Path(psrjax.__file__).parent)]
    else:
        spec = importlib.util.find_spec(package)
        found = list(spec.submodule_search_locations or ()) if spec else []
    return tuple(os.path.join(folder, "") for folder in found)
