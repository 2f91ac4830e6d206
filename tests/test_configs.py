"""Every config file, with every word it has, gives a valid config that flags can change."""

import importlib.util
import json
from pathlib import Path

import pytest

from psrjax import config as config_lib

FILES = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))


def load_module(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


common = load_module(Path(__file__).parent / "test_config.py", "common_config")


def words_of(path):
    module = load_module(path, f"config_{path.stem}")
    return ["", "bf16", *module.PRESETS, *module.ABLATIONS, *module.get_config().stages]


CASES = [(path, word) for path in FILES for word in words_of(path)]


@pytest.mark.parametrize(("path", "word"), CASES, ids=[f"{p.stem}:{w}" for p, w in CASES])
def test_every_word_gives_a_valid_config(path, word):
    config = config_lib.load(f"{path}:{word}")
    plain = config_lib.load(str(path))
    assert config.is_locked and config.method.name == path.stem
    assert config_lib.from_json(config_lib.to_json(config)) == config
    for stage in config.stages:
        json.dumps(config_lib.method_fields(config_lib.stage_config(config, stage)))
    assert set(common.leaves(config)) == set(common.leaves(plain)) or config != plain


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_leaf_can_be_overridden_from_a_string(path):
    common.assert_overridable(config_lib.load(str(path)), path)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_words_go_together(path):
    config = config_lib.load(f"{path}:tiny,bf16,{config_lib.load(str(path)).stages[0]}")
    assert config.method.dtype == "bfloat16" and len(config.only) == 1
