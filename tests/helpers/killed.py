"""Runs work in forks of this process that are killed at seeded moments, until it is done.

A moment is an operation on a file below the work's folder: its opening, a rename, a removal; so
kills fall inside a save, between save and rename, and between two saves. Where asked, half of them
come after a random time instead, which also reaches what C++ writes.

python killed.py layer ROOT KILLS SEED            the checkpoints of a tiny state
python killed.py command ROOT KILLS SEED ARG…     `psrjax ARG…`, run in ROOT
"""

import json
import os
import signal
import sys
import threading
import time
import traceback
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import psrjax.reporting.demo  # noqa: F401  (imports of commands)
from psrjax import config as config_lib
from psrjax import io
from psrjax.cli import main as cli
from psrjax.training import checkpoint
from psrjax.training.state import TrainState

STEPS = 6
_OPERATIONS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.listdir", "os.scandir"}


def until_done(work, root, kills, seed, *, timed=False):
    """Does `work` in `root`/0, 1, …, each from the start, until so many forks were killed.

    Each is started again until it is done. `root`/undisturbed is done first, to count its moments.

    Returns:
      {"folders": that are done, "kills": where each fell, "moments": of the undisturbed work}.
    """
    rng = np.random.default_rng(seed)
    began = time.monotonic()
    _fork(work, root / "undisturbed", at=0, after=0.0)
    seconds, moments = time.monotonic() - began, int((root / "undisturbed.count").read_text())
    folders, places = [], []
    while len(places) < kills:
        folder = root / str(len(folders))
        while True:
            if len(places) >= kills:
                at, after = 0, 0.0
            elif timed and len(places) % 2:
                at, after = 0, float(rng.uniform(0.1, seconds / 2))
            else:
                at, after = int(rng.integers(1, max(2, moments // 3))), 0.0
            if _fork(work, folder, at=at, after=after):
                break
            told = root / f"{folder.name}.killed"
            fell = told.read_text() if told.exists() else f"after {after:.1f} s"
            places.append(f"{folder.name}: {fell}")
            told.unlink(missing_ok=True)
        folders.append(folder.name)
    return {"folders": folders, "kills": places, "moments": moments}


def _fork(work, root, *, at, after):
    """Runs the work in a fork; True if it ended well, False if it was killed."""
    root.parent.mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            moments = _watch(root, at, after)
            work(root)
            (root.parent / f"{root.name}.count").write_text(str(moments()))
            code = 0
        except SystemExit as end:
            (root.parent / f"{root.name}.count").write_text(str(moments()))
            code = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, -signal.SIGKILL):
        sys.exit(f"the work ended with {code}")
    return code == 0


def _watch(root, at, after):
    """Has this process killed at its `at`-th operation below `root`, or after some seconds."""
    seen, place = [0], os.fspath(root)

    def hook(event, arguments):
        if event not in _OPERATIONS or not arguments:
            return
        path = arguments[0]
        if not isinstance(path, str | bytes | os.PathLike):
            return
        path = os.path.abspath(os.fsdecode(path))
        if not path.startswith(place):
            return
        seen[0] += 1
        if seen[0] == at:
            what = f"{event} {os.path.relpath(path, place)}"
            handle = os.open(root.parent / f"{root.name}.killed", os.O_WRONLY | os.O_CREAT)
            os.write(handle, what.encode())
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    if after:
        timer = threading.Timer(after, os.kill, (os.getpid(), signal.SIGKILL))
        timer.daemon = True
        timer.start()
    return lambda: seen[0]


def layer(root):
    """Takes `STEPS` steps of a tiny state, and saves each; writes what it ends with."""
    config = config_lib.stage_config(config_lib.load("psrnet:tiny"), "layer1")
    make = lambda: TrainState(  # noqa: E731
        step=jnp.zeros((), jnp.int32), params={"net": {"kernel": jnp.ones((3, 5))}},
        stats={}, opt={"net": jnp.zeros(7)}, ema={}, rng=jax.random.key(0),
        first_nonfinite=jnp.zeros((), jnp.int32),
    )  # fmt: skip
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), make()
    )
    store = checkpoint.Checkpoints(root / "stage", config)
    state = store.restore(abstract) or make()
    for step in range(int(state.step) + 1, STEPS + 1):
        kernel = state.params["net"]["kernel"] * 1.5 + step
        state = state.replace(
            step=jnp.int32(step),
            params={"net": {"kernel": kernel}},
            opt={"net": kernel.ravel()[:7]},
        )
        io.write_json(root / "numbers.json", {"step": step, "sum": float(kernel.sum())})
        store.save(step, state, {"next_index": step}, loss=1 / step)
    store.close()
    names = [path.name for path in (root / "stage" / checkpoint.FOLDER).iterdir()]
    assert all(name.isdigit() for name in names), f"left behind: {names}"
    kernel = checkpoint.load_variables(root / "stage")["variables"]["params"]["net"]["kernel"]
    np.save(root / "end.npy", np.asarray(kernel))


def command(*arguments):
    """Returns what runs a command of psrjax in a folder."""

    def run(root):
        root.mkdir(parents=True, exist_ok=True)
        os.chdir(root)
        sys.argv = ["psrjax", *arguments]
        cli.main()

    return run


def main():
    """Prints the kills as JSON."""
    what, root, kills, seed, *arguments = sys.argv[1:]
    # A lock that a thread holds at the fork stays locked in the child for ever.
    assert len(os.listdir("/proc/self/task")) == 1, "a process with threads cannot be forked safely"
    work = layer if what == "layer" else command(*arguments)
    timed = what == "command"
    print(json.dumps(until_done(work, Path(root).absolute(), int(kills), int(seed), timed=timed)))


if __name__ == "__main__":
    main()
