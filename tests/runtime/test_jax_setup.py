"""JAX is set up for the process by who starts it, never by an import."""

import subprocess
import sys
from pathlib import Path

import bucket
import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from psrjax.errors import UserError
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


@pytest.fixture(name="cache_at")
def cache_at_fixture():
    """A function that makes JAX keep every program in a folder; the test's end undoes it."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: jax.config.values[name] for name in names}

    def use(folder):
        for name, value in zip(names, (folder, 0.0), strict=True):
            jax.config.update(name, value)
        compilation_cache.reset_cache()

    yield use
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def test_compiled_programs_may_be_kept_in_a_bucket(cache_at):
    with bucket.instead_of_the_cloud():
        cache_at("gs://bucket/compiled")
        jax_setup.use_compilation_cache()
        kept = lambda: [name for name in bucket.Bucket.store if "/compiled/" in name]  # noqa: E731
        found = jax.jit(lambda x: jnp.sin(x) * 41.0)(jnp.ones(3))
        programs = [name for name in kept() if name.endswith("-cache")]
        again = jax.jit(lambda x: jnp.sin(x) * 41.0)(jnp.ones(3))
    assert programs and found.tolist() == again.tolist()
    assert [name for name in kept() if name.endswith("-cache")] == programs


def test_a_cache_at_an_address_that_cannot_be_opened_is_refused(cache_at):
    cache_at("s3://bucket/compiled")
    with pytest.raises(UserError, match="s3:// cannot be opened"):
        jax_setup.use_compilation_cache()


def test_where_no_cache_can_be_written_it_is_told_and_done_without(monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PSRJAX_CACHE", str(tmp_path / "file" / "cache"))
    before = jax.config.values["jax_compilation_cache_dir"]
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        jax_setup.use_compilation_cache()
        assert not jax.config.values["jax_compilation_cache_dir"]
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert "programs are compiled each time" in caplog.text
