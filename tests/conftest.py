"""What every test stands on: eight CPU devices, checked annotations, a compilation cache, flags."""

import os
import tempfile
from pathlib import Path

# Before the first import of JAX.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if os.environ["JAX_PLATFORMS"] == "cpu":
    flags_given = os.environ.get("XLA_FLAGS", "")
    if "device_count" not in flags_given:
        os.environ["XLA_FLAGS"] = f"{flags_given} --xla_force_host_platform_device_count=8".strip()
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


pytest_plugins = ["stored_views"]


@pytest.fixture
def toy(monkeypatch):
    """The module `toy`, with its method and its batches installed for the length of a test."""
    import toy as toy_module

    toy_module.install(monkeypatch.setattr)
    monkeypatch.setattr(toy_module, "GREY_STEPS", set())
    monkeypatch.setattr(toy_module, "BEFORE_BATCH", lambda step: None)
    return toy_module
