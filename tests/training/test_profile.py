"""psrjax train --profile: a trace of the asked steps lies in the run directory."""

import gzip
import json
import subprocess
import sys

import pytest
from etils import epath

from psrjax import config as config_lib
from psrjax.errors import UserError
from psrjax.training import loop, profile, stages


def traced_steps(directory):
    """{step: what else the trace holds}, from the file that TensorBoard and xprof read."""
    (file,) = directory.glob("plugins/profile/*/*.trace.json.gz")
    assert list(file.parent.glob("*.xplane.pb"))
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    steps = [e["args"]["step_num"] for e in events if "step_num" in e.get("args", {})]
    return sorted(set(map(int, steps))), {e.get("name") for e in events}


@pytest.mark.parametrize("asked", ["2:3", "3:4"])  # 4 is the last one
def test_the_trace_holds_the_asked_steps_and_no_others(toy, tmp_path, asked):
    config = config_lib.update(toy.get_config("adam"), {"steps": 4, "mesh.data": 1})
    config = config_lib.stage_config(config, "first")
    loop.train_stage(config, epath.Path(tmp_path), traced=profile.parse(asked))
    steps, _ = traced_steps(tmp_path)
    assert steps == list(profile.parse(asked))


def test_the_first_process_traces_and_the_others_do_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(profile.jax, "process_index", lambda: 1)
    monkeypatch.setattr(profile.jax.profiler, "start_trace", lambda folder: pytest.fail(folder))
    trace = profile.Trace(epath.Path(tmp_path), range(1, 3))
    for step in range(1, 4):
        trace.reach(step, {})
    trace.close()


@pytest.mark.parametrize("text", ["3", "a:b", "0:2", "5:4", "-1:2", "2:", "1:2:3"])
def test_steps_that_are_none_are_refused(text):
    with pytest.raises(UserError, match="the first and the last step to trace, as in 10:12"):
        profile.parse(text)


def test_steps_after_the_end_are_refused_before_anything_is_made(toy, tmp_path):
    config = config_lib.update(toy.get_config(), {"steps": 4, "mesh.data": 1})
    with pytest.raises(UserError, match="--profile=3:5: stage 'first' ends at step 4"):
        stages.train(config, tmp_path / "run", traced=profile.parse("3:5"))
    assert not (tmp_path / "run").exists()


def test_a_bad_value_is_told_in_one_line(tmp_path):
    code = "import sys; from psrjax.cli.main import main; main()"
    arguments = ("train", "--config=psrnet:tiny", f"--workdir={tmp_path}/run", "--profile=9")
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("psrjax:")]
    assert said.startswith("psrjax: --profile=9: give the first and the last step")
