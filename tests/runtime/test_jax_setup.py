"""JAX is set up for the process by who starts it, never by an import."""

import subprocess
import sys
from pathlib import Path

import jax
import pytest

from psrjax.runtime import jax_setup

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "psrjax").rglob("*.py")
    if path.stem != "__init__" and not {"cli", "benchmarks"} & set(path.parts)
)


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_importing_the_package_changes_nothing_of_the_process():
    run("import os, sys; before = dict(os.environ); import psrjax; assert os.environ == before")


def test_no_module_sets_a_flag_of_jax_xla_or_the_allocator():
    run(
        "import importlib, jax, os\nours = ('JAX_', 'XLA_', 'LIBTPU_', 'GLIBC_', 'OMP_', 'CUDA_')\n"
        "flags = lambda: {k: v for k, v in os.environ.items() if k.startswith(ours)}\n"
        "before, settings = flags(), dict(jax.config.values)\n"
        f"for name in {MODULES!r}: importlib.import_module(name)\n"
        "assert settings and flags() == before\n"
        "assert {name: jax.config.values[name] for name in settings} == settings"
    )


@pytest.mark.parametrize("given", ["", "elsewhere"])
def test_compiled_programs_are_kept_in_the_users_cache_unless_jax_has_another(
    given, tmp_path, monkeypatch
):
    monkeypatch.setenv("PSRJAX_CACHE", str(tmp_path))
    before = jax.config.values["jax_compilation_cache_dir"]
    try:
        jax.config.update("jax_compilation_cache_dir", given)
        jax_setup.use_compilation_cache()
        found = jax.config.values["jax_compilation_cache_dir"]
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert found == (given or str(tmp_path / "compiled"))
    if not given:
        assert (tmp_path / "compiled").stat().st_mode & 0o777 == 0o700
