"""Every config file, with every variant it has, gives a valid config that flags can change."""

import json
from pathlib import Path

import pytest

from psrjax import config as config_lib

# Variants of another run's frames or person, and their methods; all others have their file's.
BUILT_ON = {"refine": "refinement", "learned_texture": "learned_texture"}
FILES = sorted((Path(__file__).parents[1] / "configs").glob("*.py"))


common = config_lib.module(str(Path(__file__).parent / "test_config.py"))


def variants_of(path):
    module = config_lib.module(str(path))
    return ["", "bf16", *module.PRESETS, *module.ABLATIONS, *module.get_config().stages]


CASES = [(path, variant) for path in FILES for variant in variants_of(path)]


@pytest.mark.parametrize(("path", "variant"), CASES, ids=[f"{p.stem}:{v}" for p, v in CASES])
def test_every_variant_gives_a_valid_config(path, variant):
    config = config_lib.load(f"{path}:{variant}")
    plain = config_lib.load(str(path))
    assert config.is_locked and config.method.name == BUILT_ON.get(variant, path.stem)
    assert config_lib.from_json(config_lib.to_json(config)) == config
    for stage in config.stages:
        json.dumps(config_lib.method_fields(config_lib.stage_config(config, stage)))
    assert set(common.leaves(config)) == set(common.leaves(plain)) or config != plain


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_leaf_can_be_overridden_from_a_string(path):
    common.assert_overridable(config_lib.load(str(path)), path)


def test_spaces_between_the_words_of_a_variant_change_nothing():
    spaced = config_lib.load("psrnet:tiny, refine")
    assert spaced == config_lib.load("psrnet:tiny,refine") and spaced.method.name == "refinement"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_names_of_a_variant_go_together(path):
    config = config_lib.load(f"{path}:tiny,bf16,{config_lib.load(str(path)).stages[0]}")
    assert config.method.dtype == "bfloat16" and len(config.only) == 1
