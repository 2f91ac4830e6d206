"""The log that people read: psrjax's own lines, and the warnings of other libraries."""

import logging as standard_logging

from absl import flags, logging


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
    orbax = "orbax" in record.pathname or record.name == "asyncio"
    return "psrjax" in record.pathname or (record.levelno >= standard_logging.WARNING and not orbax)
