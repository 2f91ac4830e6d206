"""Requests to stop a run: SIGTERM, Ctrl-C, or a machine that is about to be taken away."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

import jax
from absl import logging

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest(contextlib.AbstractContextManager["StopRequest"]):
    """Makes the first signal a request to save and leave; a second one acts at once.

    With several processes JAX's runtime passes a preemption on, so that all stop at the same step;
    signals are then left to it.
    """

    def __init__(self, reached_preemption: Callable[[int], bool]):
        self._reached_preemption = reached_preemption
        self._signal = 0
        self._handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopRequest":
        alone = jax.process_count() == 1 and threading.current_thread() is threading.main_thread()
        if alone:
            self._handlers = {name: signal.signal(name, self._request) for name in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore_handlers()

    def reached(self, step: int) -> bool:
        """Returns True if the loop is to save and leave after this step."""
        if jax.process_count() > 1:
            return self._reached_preemption(step)
        return bool(self._signal)

    def leave(self, message: str) -> NoReturn:
        """Ends as the signal would have: KeyboardInterrupt, or SystemExit with 128 + its number."""
        logging.info("%s", message)
        if self._signal == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(128 + (self._signal or signal.SIGTERM))

    def _request(self, number: int, _: object) -> None:
        logging.info("%s: stopping after this step", signal.Signals(number).name)
        self._signal = number
        self._restore_handlers()

    def _restore_handlers(self) -> None:
        for name, handler in self._handlers.items():
            signal.signal(name, handler)
        self._handlers = {}
