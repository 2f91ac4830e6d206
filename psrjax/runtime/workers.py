"""A map over worker processes: results in order, few held at a time, no hanging."""

import contextlib
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import cv2

from psrjax.errors import UserError

Map = Callable[[Iterable[Any]], Iterator[Any]]


@contextlib.contextmanager
def mapping(function: Callable[[Any], Any], processes: int) -> Iterator[Map]:
    """Yields a map of `function` over items, in order, by so many processes; 1 is this one alone.

    `function` and the items must be picklable: the processes are started afresh.

    Raises:
      UserError: (by the map) if a process dies; what `function` raises is raised here, too.
    """
    if processes == 1:
        yield lambda items: map(function, items)
        return
    context = multiprocessing.get_context("spawn")
    before = set(multiprocessing.active_children())
    with _one_thread_each():
        pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_quiet_worker)
        try:
            yield lambda items: _in_order(pool, function, items, 2 * processes)
        except BrokenProcessPool as error:
            raise UserError(
                "a process at work died: it was killed, perhaps for want of memory, or the script "
                "that started it lacks `if __name__ == '__main__':` around its own work"
            ) from error
        except BaseException:  # Ctrl-C, a full disk: nobody wants what is under way
            for child in set(multiprocessing.active_children()) - before:
                child.terminate()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _in_order(pool: ProcessPoolExecutor, function, items: Iterable[Any], ahead: int) -> Iterator:
    waiting: deque = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Gives children started meanwhile one BLAS thread: a process per core is enough."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _quiet_worker() -> None:
    """Leaves Ctrl-C to the parent, and keeps OpenCV to one core."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
