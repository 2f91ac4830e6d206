"""Parsers: whatever the bytes, they are read or refused in one line, in 5 s and within 1 GiB.

The corpus and the damages are in tests/helpers/mutations.py, which also runs alone, as long as one
likes: `python tests/helpers/mutations.py 1000000`.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import mutations
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

HELPER = Path(mutations.__file__)
PARSERS = mutations.parsers()
TEXTS = ["json", "camera", "calibration", "openpose", "joints.json", "ntu list", "run"]
KEYS = ["people", "pose_keypoints_2d", "keypoints", "keypoint_scores", "instances", "frame_id",
        "instance_info", "image_id", "K", "R", "t", "image_size", "cameras", "method", "name",
        "data", "train", "version"]  # fmt: skip
SETTINGS = settings(
    deadline=None, database=None, derandomize=True, max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip


def fuzz(tmp_path, count, seed=0):
    counts = mutations.fuzz(count, seed, tmp_path)
    text, good = mutations.table(counts)
    print(text)
    assert good, text
    return counts


@pytest.mark.parametrize("name", PARSERS)
def test_the_corpus_is_read_as_it_is(name, tmp_path):
    for data in PARSERS[name].corpus:
        assert mutations.answer(PARSERS[name], data, tmp_path) == "read"


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_damaged_files_are_read_or_refused_in_one_line(tmp_path, capfd):
    counts = fuzz(tmp_path, 20 * len(PARSERS))
    assert all(found["read"] + found["refused"] == 20 for found in counts.values())
    assert sum(found["refused"] for found in counts.values()) > 10 * len(PARSERS)


TEXT = st.text(st.characters(codec="ascii"), max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT
    | st.sampled_from([10**400, -1, 1e308, float("nan"), "0.jpg", [1.0, 2.0, 0.5] * 17]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(KEYS) | TEXT, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.parametrize("name", TEXTS)
@SETTINGS
@given(value=VALUES)
def test_json_of_any_shape_is_read_or_refused_in_one_line(name, value, tmp_path):
    try:
        data = json.dumps(value).encode()
    except ValueError:  # an integer of more digits than Python writes
        return
    assert mutations.answer(PARSERS[name], data, tmp_path) in ("read", "refused")


@pytest.mark.parametrize("name", ["yaml", "pickle", "skeleton", "pairs", "record", "picture"])
@SETTINGS
@given(data=st.binary(max_size=300))
def test_any_bytes_are_read_or_refused_in_one_line(name, data, tmp_path):
    assert mutations.answer(PARSERS[name], data, tmp_path) in ("read", "refused")


@pytest.mark.slow
def test_a_million_damaged_files_are_read_or_refused_in_one_line():
    done = subprocess.run(
        [sys.executable, HELPER, "1000000"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True,
    )  # fmt: skip
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-3000:]


_ATHERIS = """
import atheris, pathlib, sys, tempfile
with atheris.instrument_imports(include=["psrjax.io", "psrjax.prepare", "psrjax.pretrained"]):
    sys.path.insert(0, sys.argv.pop(1))
    import mutations
parser = mutations.parsers()[sys.argv.pop(1)]
folder = pathlib.Path(tempfile.mkdtemp())
def one(data):
    found = mutations.answer(parser, data, folder)
    assert found in ("read", "refused"), found
atheris.Setup(sys.argv, one)
atheris.Fuzz()
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pickle", "torch", "joints.json", "qualisys", "skeleton"])
def test_what_reaches_new_lines_is_read_or_refused_in_one_line(name, tmp_path):
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("needs atheris: pip install atheris")
    (tmp_path / "corpus").mkdir()
    for number, data in enumerate(PARSERS[name].corpus):
        (tmp_path / "corpus" / str(number)).write_bytes(data)
    command = [sys.executable, "-c", _ATHERIS, HELPER.parent, name, "corpus", "-runs=20000"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
