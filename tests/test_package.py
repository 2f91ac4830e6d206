"""What is installed: the package with its configs and nothing else, and no TensorFlow."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from psrjax.prepare.common import detector

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "psrjax").rglob("*.py")
    if path.stem != "__init__"
    and "cli" not in path.parts
    and "import torch\n" not in path.read_text()
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The names in a wheel built from a copy of the sources, offline."""
    folder = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__", "*.tmp")
    for name in ("psrjax", "configs", "datasets"):
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "out", "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (found,) = (folder / "out").glob("*.whl")
    return found


def test_the_wheel_holds_every_source_file_and_config_and_nothing_else(wheel):
    names = {n for n in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in n}
    sources = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "psrjax").rglob("*")
        if path.suffix in (".py", ".html", ".toml") or path.name == "py.typed"
    }
    configs = {f"psrjax/configs/{path.name}" for path in (ROOT / "configs").glob("*.py")}
    assert names == sources | configs


def test_a_config_is_found_in_an_installed_wheel(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from psrjax import config; "
        "print(config.__file__, config.find('psrnet'), config.load('psrnet:tiny').method.name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    module, found, name = done.stdout.split()
    assert Path(module).is_relative_to(tmp_path) and Path(found).is_relative_to(tmp_path)
    assert name == "psrnet"


def test_data_set_builders_are_no_package():
    assert not (ROOT / "datasets" / "__init__.py").exists()  # it would hide, or be, HuggingFace's


def test_nothing_imports_tensorflow():
    code = (
        f"import importlib, sys\nfor name in {MODULES!r}: importlib.import_module(name)\n"
        "print('tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "False"


def test_importing_the_package_and_the_configs_starts_no_jax():
    code = "import sys, psrjax.config, psrjax.cli.main; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_plain_install_trains():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    names = {
        re.split(r"[>=\[!]", need)[0] for group in ("video", "report") for need in extras[group]
    }
    code = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, *rest):\n"
        f"        if name.split('.')[0] in {names!r}: raise ImportError(name)\n"
        "sys.meta_path.insert(0, Missing())\n"
        "import psrjax.cli.train\n"
        "from psrjax.methods import base\n"
        "for name in base.available(): base.build(name)\n"
    )
    assert names == {"av", "jinja2", "matplotlib"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_pre_commit_runs_the_ruff_of_the_tests():
    pinned = re.search(r"^ruff==(\S+)", (ROOT / "constraints.txt").read_text(), re.M)[1]
    assert f"rev: v{pinned}\n" in (ROOT / ".pre-commit-config.yaml").read_text()


def audited(what):
    command = [sys.executable, ROOT / ".github/audited.py", what]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(line.split("==") for line in text.splitlines())


def test_what_is_audited_is_every_lower_bound_and_all_of_mediapipes_environment():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [Requirement(each) for each in project["dependencies"]]
    lowest = audited("lowest")
    assert {each.name for each in required} <= set(lowest)
    for each in required:
        assert Version(lowest[each.name]) in each.specifier
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if not line.startswith("#")
    )
    tested = {canonicalize_name(name): Version(version) for name, version in pins.items()}
    for each in required:
        assert tested[canonicalize_name(each.name)] in each.specifier, each
    assert audited("mediapipe")["mediapipe"] == detector.VERSION
    assert len(audited("mediapipe")) == len(detector._PACKAGES)
