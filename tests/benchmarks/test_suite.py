"""The suite for the day an accelerator is there: limits, crashes, resuming, and its table."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from psrjax.benchmarks import suite, suite_table
from psrjax.errors import UserError

ROOT = Path(__file__).parents[2]


def part(name, code, limit=60.0, **options):
    """A part that is a line of Python."""
    return suite.Part(name, (sys.executable, "-c", code, "JSON"), limit, **options)


def writes(value, before=""):
    return f"{before}import sys, pathlib; pathlib.Path(sys.argv[1]).write_text('{value}')"


def run(folder, work, minutes=1.0, **options):
    names = lambda found: " ".join(found["parts"])  # noqa: E731
    return suite.run(folder, work, minutes=minutes, table=names, **options)


def test_a_part_that_crashes_or_overruns_is_recorded_and_the_rest_goes_on(tmp_path):
    work = [
        part("good", writes('{"a": 1}')),
        part("crash", "raise ValueError('no such luck')"),
        part("overrun", "print('still here', flush=True); import time; time.sleep(60)", limit=1.0),
        part("silent", "pass"),
        part("last", writes('{"b": 2}')),
    ]
    found = run(tmp_path, work)
    assert found == json.loads((tmp_path / suite.RESULT).read_text())
    assert found["parts"]["good"]["result"] == {"a": 1}
    assert found["parts"]["crash"]["error"] == "exit code 1; ValueError: no such luck"
    assert found["parts"]["overrun"]["error"] == "not done after 1 s; still here"
    assert found["parts"]["silent"]["error"] == "exit code 0; it said nothing"
    assert found["parts"]["last"]["status"] == "done" and found["left"] == []
    assert (tmp_path / suite.TABLE).read_text() == "good crash overrun silent last\n"


def test_a_second_call_goes_on_with_what_is_left_and_then_what_failed(tmp_path):
    counter = tmp_path / "counter"
    count = f"open('{counter}', 'a').write('{{}}'); "
    good = part("good", writes("{}", count.format("g")))
    late = part("late", writes("{}", count.format("l")))
    bad = part("bad", count.format("b") + "raise KeyError")
    now = [0.0]

    def clock():  # a second passes at each look
        now[0] += 1.0
        return now[0]

    first = run(tmp_path, [bad, good, late], minutes=22 / 60, clock=clock)
    assert list(first["parts"]) == ["bad"] and first["left"] == ["good", "late"]
    second = run(tmp_path, [bad, good, late])
    assert counter.read_text() == "bglb"
    assert [each["status"] for each in second["parts"].values()] == ["failed", "done", "done"]
    mended = part("bad", writes("{}", count.format("m")))
    third = run(tmp_path, [mended, good, late])
    assert counter.read_text() == "bglbm" and third["parts"]["bad"]["status"] == "done"


def test_a_part_that_had_too_little_time_is_left_not_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(suite, "_LEAST_SECONDS", 0.5)
    slow = part("slow", "import time; time.sleep(60)", limit=50.0)
    found = run(tmp_path, [slow], minutes=1 / 60)
    assert found["left"] == ["slow"] and not found["parts"]


def test_what_a_part_started_ends_with_it(tmp_path):
    file = tmp_path / "beats"
    child = f"import time\nwhile True: open('{file}', 'a').write('.'); time.sleep(0.02)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    run(tmp_path, [part("parent", code, limit=1.5)])
    beats = file.read_text()
    time.sleep(0.2)
    assert beats and file.read_text() == beats


def test_other_files_of_that_name_are_refused(tmp_path):
    (tmp_path / suite.RESULT).write_text("[]")
    with pytest.raises(UserError, match="not a suite's results; give another folder"):
        run(tmp_path, [])


OUTPUT = """\
tests/gpu/test_a.py::test_one[x y] PASSED                        [ 33%]
[gw1] [ 66%] FAILED tests/gpu/test_a.py::test_one[z w]
[gw0] [100%] SKIPPED tests/gpu/test_a.py::test_two
/some/test_a.py:31: AssertionError: video by 1.0e-01 of its size
"""


def test_the_tests_outcomes_are_read_with_and_without_workers_also_cut_off():
    found = suite.read_tests(OUTPUT)
    assert (found["passed"], found["failed"], found["skipped"], found["error"]) == (1, 1, 1, 0)
    assert found["failures"] == ["tests/gpu/test_a.py::test_one[z w]"]
    assert found["reasons"] == ["video by 1.0e-01 of its size"]


def test_the_parts_are_the_device_the_tests_and_each_benchmark():
    one, two = "a:bf16 --batch=2", "'b:bf16,w/o c' --against=torch"
    devices, tests, alone, beside = suite.parts([one, two])
    assert (devices.name, tests.name, alone.name, beside.name) == ("devices", "tests", one, two)
    assert "--config=a:bf16" in alone.command and "--batch=2" in alone.command
    assert "--config=b:bf16,w/o c" in beside.command
    # PyTorch needs the memory that JAX would take as its own.
    assert not alone.environment and beside.environment == tests.environment != {}


def bench_flags(line):
    """What `psrjax bench` makes of a line of accelerator_check.sh, as JSON."""
    code = """
import json, sys
from absl import flags
from psrjax.cli import main as cli
from psrjax import config as config_lib
given = [cli._with_config_path(each) for each in json.loads(sys.argv.pop(1))]
sys.argv = ["psrjax bench", *given]
from psrjax.cli import bench
cli._parse_flags(sys.argv)
config = config_lib.stage_config(bench._CONFIG.require(), flags.FLAGS.stage)
config_lib.validate(config)
print(json.dumps([config.method.name, config.method.stage, config.method.dtype, config.batch]))
"""
    words = list(suite.parts([line])[-1].command)
    given = json.dumps(words[words.index("bench") + 1 :])
    done = subprocess.run([sys.executable, "-c", code, given], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """The benchmarks of accelerator_check.sh, by a Python that only says how it is called."""
    python = tmp_path_factory.mktemp("bin") / "python"
    python.write_text('#!/bin/sh\nfor word in "$@"; do printf "%s\\0" "$word"; done\n')
    python.chmod(0o755)
    script = ROOT / "launch/accelerator_check.sh"
    done = subprocess.run(
        ["bash", str(script), "some folder", "3"],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "PYTHON": str(python)},
        cwd=python.parent,
    )
    assert done.returncode == 0, done.stderr
    words = done.stdout.split("\0")[:-1]
    start = words.index("bench")
    assert words[start + 1] == f"--suite={python.parent}/some folder"
    assert words[start + 2] == "--minutes=3"
    return words[start + 3 :]


def test_the_check_measures_every_method_alone_and_then_beside_pytorch(lines):
    from psrjax import config as config_lib

    alone = [line for line in lines if "--against" not in line]
    assert lines[: len(alone)] == alone and len(lines) == 2 * len(alone)
    assert sorted(line.partition(":")[0] for line in alone) == sorted(config_lib.names())
    assert [line.split(":")[0].strip("'") for line in lines[len(alone) :]] == [
        line.split(":")[0] for line in alone
    ]


@pytest.mark.slow
def test_every_line_of_the_check_is_a_benchmark_in_bfloat16(lines):
    for line in lines:
        name, stage, dtype, _ = bench_flags(line)
        assert name in line and f"--stage={stage}" in line and dtype == "bfloat16"


def test_the_table_shows_every_part():
    timed = {"median_s": 0.05, "quartile_low_s": 0.04, "quartile_high_s": 0.06, "runs": 7}
    roofline = {"chip": "h100", "mfu": 0.33, "at_least_s": 0.02, "limit": "memory"}
    roofline |= {"fraction_of_roofline": 0.41, "memory_gib": 7.5, "bytes": 1}
    program = {**timed, "clips_per_s": 60.0, "compile_s": 41.0, "roofline": roofline}
    stage = {
        "method": {"name": "psrnet", "stage": "layer1", "dtype": "bfloat16", "perceptual": "i3d"},
        "training_sizes": {"b": 3, "k": 8, "t": 8, "h": 112, "w": 112},
        "forward": program,
        "step": program,
    }
    pair = {"psrjax": timed, "torch": timed, "ratio": {**timed, "median_s": 0.75}}
    against = {"versions": "PyTorch 2", "format": "step compiled", "log_difference": 0.01}
    against |= {"output_difference": 0.02, "pairs": {"step": pair}}
    facts = {"machine": "M", "devices": ["gpu H100"], "driver": "D", "versions": "V"}
    facts |= {"packages": {"torch": "2"}, "commit": "c0ffee"}
    facts |= {"matrix_peak_flops_per_s": 790e12, "copy_bytes_per_s": 3.0e12}
    done = lambda result: {"status": "done", "seconds": 1.0, "result": result}  # noqa: E731
    text = suite_table.table(
        {
            "parts": {
                "devices": done(facts),
                "tests": done(suite.read_tests(OUTPUT)),
                "one": done(stage),
                "two": done({**stage, "against": against}),
                "three": {"status": "failed", "seconds": 2.0, "error": "out of memory"},
            },
            "left": ["four"],
        }
    )
    for said in ("790 TFLOP/s", "3000 GB/s", "1 passed, 1 failed", "41% memory", "33.0%", "7.50"):
        assert said in text
    for said in ("0.75", "0.04..0.06", "FAILED  three: out of memory", "LEFT    four: "):
        assert said in text
    assert max(len(line) for line in text.splitlines()) <= 120


@pytest.mark.slow
def test_the_suite_runs_on_a_cpu_at_tiny_size_and_goes_on_after_a_mistake(tmp_path):
    code = "from psrjax.cli.main import console; console()"
    lines = ("psrnet:tiny,bf16 --stage=layer1 --runs=2", "psrnet:tiny --size=64")
    command = [sys.executable, "-c", code, "bench", f"--suite={tmp_path}/out", *lines]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    found = json.loads((tmp_path / "out" / suite.RESULT).read_text())
    assert done.returncode == 1 and not found["left"], done.stderr
    parts = found["parts"]
    assert [parts[name]["status"] for name in ("devices", "tests", lines[0])] == ["done"] * 3
    assert "--size=64: give HEIGHTxWIDTH" in parts[lines[1]]["error"]
    counts = parts["tests"]["result"]
    assert counts["skipped"] > 10 and counts["failed"] == counts["error"] == 0
    for program in ("forward", "step"):
        row = parts[lines[0]]["result"][program]
        bound = row["roofline"]
        assert 0 < bound["mfu"] <= bound["fraction_of_roofline"] < 2
        assert bound["at_least_s"] == pytest.approx(bound["fraction_of_roofline"] * row["median_s"])
        assert bound["memory_gib"] > 0
    assert (tmp_path / "out" / suite.TABLE).read_text() in done.stdout
