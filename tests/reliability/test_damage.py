"""Every file of a run, truncated, emptied or deleted: the run survives it or names it."""

import shutil

import jax
import numpy as np
import pytest

from psrjax import config as config_lib
from psrjax.errors import UserError
from psrjax.training import checkpoint, stages


def config_for(toy, steps):
    changes = {"mesh.data": 1, "steps": steps, "only": ("first",)}
    return config_lib.update(toy.get_config("adam"), changes)


def damage(path, how):
    if how == "gone":
        path.unlink()
    else:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if how == "truncated" else b"")


def outcome(toy, run, straight, path, caplog):
    """What a run that goes on makes of it: "survived", "refused" by name, or "silent"."""
    caplog.clear()
    try:
        end = stages.train(config_for(toy, 6), run)
    except UserError as error:
        named = "config.json" in str(error) or "checkpoint" in str(error) or path.name in str(error)
        return "refused" if named and "\n" not in str(error) else f"unnamed: {error}"
    same = all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(end.params), jax.tree.leaves(straight.params), strict=True)
    )
    if not same:
        return "silent"
    return "survived, and named by psrjax data check" if checkpoint.check(run) else "survived"


@pytest.mark.slow
def test_no_file_of_a_run_is_damaged_in_silence(toy, tmp_path, caplog):
    straight = stages.train(config_for(toy, 6), tmp_path / "straight")
    stages.train(config_for(toy, 4), tmp_path / "run")
    files = sorted(p.relative_to(tmp_path / "run") for p in (tmp_path / "run").rglob("*")
                   if p.is_file() and p.name != "lock")  # fmt: skip
    counts, wrong = {}, []
    for file in files:
        for how in ("truncated", "empty", "gone"):
            copy = shutil.copytree(tmp_path / "run", tmp_path / "copy")
            damage(copy / file, how)
            found = outcome(toy, copy, straight, file, caplog)
            counts[found] = counts.get(found, 0) + 1
            if not found.startswith(("survived", "refused")):
                wrong.append(f"{file} {how}: {found}")
            shutil.rmtree(copy)
    print(f"{len(files)} files, 3 damages each: {counts}")
    assert not wrong, "\n".join(wrong)
