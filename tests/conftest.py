"""Settings of every test: eight CPU devices, quick compilation, checked annotations, a cache."""

import os
import tempfile
from pathlib import Path

# Before the first import of JAX.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if os.environ["JAX_PLATFORMS"] == "cpu":
    flags = os.environ.get("XLA_FLAGS", "").split()
    if not any("device_count" in flag for flag in flags):
        flags.append("--xla_force_host_platform_device_count=8")
    if not any("optimization_level" in flag for flag in flags):
        # Most programs run once: compiling them takes half the suite's time.
        flags += ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
        flags += ["--xla_cpu_use_fusion_emitters=false"]
    os.environ["XLA_FLAGS"] = " ".join(flags)
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    cache = Path(tempfile.gettempdir()) / f"psrjax-tests-{os.getuid()}"
    cache.mkdir(mode=0o700, exist_ok=True)
    if cache.stat().st_uid == os.getuid():  # who writes there runs code in our name
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(cache)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")

from jaxtyping import install_import_hook  # noqa: E402

CHECKED = ("ops", "vision", "nn", "pretrained", "models", "losses", "metrics")
install_import_hook([f"psrjax.{room}" for room in CHECKED], "beartype.beartype")

import pytest  # noqa: E402
from absl import flags  # noqa: E402

if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # grain's workers and absl's logging read flags


from psrjax.ops import conv  # noqa: E402

pytest_plugins = ["stored_views"]


@pytest.fixture(autouse=True)
def native_convolutions():
    """Traces and compiles in half the time of what CPUs fold; tests/ops/test_conv.py has that."""
    conv.use("native")
    yield
    conv.use("auto")


@pytest.fixture
def toy(monkeypatch):
    """The module `toy`, with its method and its batches installed for the length of a test."""
    import toy as toy_module

    toy_module.install(monkeypatch.setattr)
    monkeypatch.setattr(toy_module, "GREY_STEPS", set())
    monkeypatch.setattr(toy_module, "BEFORE_BATCH", lambda step: None)
    return toy_module
