"""The log keeps our lines and the warnings of others, whatever the checkout's folder is called."""

import logging

import pytest

import psrjax
from psrjax.runtime import log

PLACES = ("/home/me", "/home/me/psrjax", "/home/me/orbax", "/srv/psrjax-orbax/psrjax")


@pytest.fixture(params=PLACES)
def site(request, monkeypatch):
    """A checkout in a folder of some name, with its environment inside, as people have it."""
    packages = f"{request.param}/.venv/lib/python3.11/site-packages"
    folders = {"psrjax": (f"{request.param}/psrjax/",), "orbax": (f"{packages}/orbax/",)}
    monkeypatch.setattr(log, "_folders", folders.get)
    return packages, f"{request.param}/psrjax"


def kept(name, path, level):
    return log._is_worth_reading(logging.LogRecord(name, level, path, 1, "", (), None))


def test_lines_are_told_apart_by_who_logs_them_not_by_the_folder(site):
    packages, ours = site
    info, error = logging.INFO, logging.ERROR
    assert kept("absl", f"{ours}/training/loop.py", info)
    for level in (info, error):  # orbax raises what it logs
        assert not kept("absl", f"{packages}/orbax/checkpoint/manager.py", level)
        assert not kept("orbax.checkpoint", f"{packages}/orbax/checkpoint/manager.py", level)
        assert not kept("asyncio", "/usr/lib/python3.11/asyncio/base_events.py", level)
    for name in ("absl", "jax._src.compiler", "matplotlib"):
        assert not kept(name, f"{packages}/jax/_src/compiler.py", info)
        assert kept(name, f"{packages}/jax/_src/compiler.py", error)


def test_the_folders_are_those_of_the_packages_themselves():
    assert log._folders("psrjax") == (psrjax.__file__.removesuffix("__init__.py"),)
    assert all(folder.endswith("/orbax/") for folder in log._folders("orbax"))
    assert log._folders("no_such_package") == ()
