"""Runs psrjax commands for test_cli.py: one line of JSON each, each in a fork of this process.

The imports, most of the time of a short command, are paid once. Nothing here computes, so a fork is
as good as a process of its own.
"""

import faulthandler
import json
import os
import signal
import sys
import traceback

import jax

import psrjax.reporting.demo  # noqa: F401  (imports of commands; not their flags)
from psrjax.cli import main as cli


def run(request: dict) -> None:
    """Runs {"arguments", "cwd", "out", "err"}; ends this process with the command's exit code.

    With "cheap" it ends with 99 where XLA compiles anything.
    """
    if request.get("cheap"):
        jax.monitoring.register_event_duration_secs_listener(_forbid_compilation)
    signal.alarm(request["seconds"])
    faulthandler.dump_traceback_later(request["seconds"] - 10)  # says where it waits
    os.chdir(request["cwd"])
    for name, stream in (("out", sys.stdout), ("err", sys.stderr)):
        stream.flush()
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream.fileno())
    sys.argv = ["psrjax", *request["arguments"]]
    code = 0
    try:
        cli.main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _forbid_compilation(event: str, *_: object, **__: object) -> None:
    if "backend_compile" in event:
        os._exit(99)


if __name__ == "__main__":  # rendering starts processes that import this file again
    # A lock that a thread holds at the fork stays locked in the child for ever.
    assert len(os.listdir("/proc/self/task")) == 1, "a process with threads cannot be forked safely"
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
