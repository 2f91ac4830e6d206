"""The toy method and its data, in the engine's place of a paper's."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `import toy`

import toy as toy_module  # noqa: E402


@pytest.fixture
def toy(monkeypatch):
    """The module `toy`, with its method and its batches installed for the length of a test."""
    toy_module.install(monkeypatch.setattr)
    monkeypatch.setattr(toy_module, "GREY_STEPS", set())
    monkeypatch.setattr(toy_module, "BEFORE_BATCH", lambda step: None)
    return toy_module
