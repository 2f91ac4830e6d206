"""Configs: variants, overrides, stages and JSON do what they say; mistakes are named."""

import pytest
from absl import flags
from ml_collections import config_flags

from psrjax import config as config_lib
from psrjax.cli import _config
from psrjax.errors import UserError

PRESETS = {"tiny": {"batch": 2, "data.crop": (16, 16)}, "few": {"steps": 3}}
ABLATIONS = {"w/o L_adv": {"weights.generator.adversarial": 0.0}, "one": {"stages": ("a",)}}


def get_config(variant=""):
    config = config_lib.base()
    config.stages = ("a", "b")
    config.weights = {"generator": {"l1": 1.0, "adversarial": 0.1}}
    config.overrides = {"b": {"steps": 7, "weights": {"generator": {"extra": 2.0}}}}
    return config_lib.apply_variant(config, variant, presets=PRESETS, ablations=ABLATIONS)


def leaves(config, prefix=""):
    for key, value in config.items():
        if hasattr(value, "items"):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def test_a_variant_is_presets_ablations_and_stages():
    config = get_config(" tiny, w/o L_adv,bf16 , b,few")
    assert (config.batch, config.data.crop, config.steps) == (2, (16, 16), 3)
    assert dict(config.weights.generator) == {"l1": 1.0, "adversarial": 0.0}
    assert config.method.dtype == "bfloat16"
    assert (config.only, config.stages) == (("b",), ("a", "b"))
    assert get_config().only == ()
    assert get_config("b,a").only == ("a", "b")
    assert get_config("one").stages == ("a",) and not get_config("one").overrides


def test_an_unknown_variant_is_answered_with_the_list():
    with pytest.raises(UserError) as caught:
        get_config("tiny,tinny")
    message = str(caught.value)
    for name in ("'tinny'", "tiny", "few", "bf16", "w/o L_adv", "a, b"):
        assert name in message
    assert "\n" not in message


def test_a_stage_sees_its_overrides_and_the_whole_config_does_not():
    config = get_config()
    a, b = (config_lib.stage_config(config, stage) for stage in "ab")
    assert (a.method.stage, a.steps, dict(a.weights.generator)) == (
        "a",
        1000,
        {"l1": 1.0, "adversarial": 0.1},
    )
    assert (b.method.stage, b.steps) == ("b", 7)
    assert dict(b.weights.generator) == {"l1": 1.0, "adversarial": 0.1, "extra": 2.0}
    assert "extra" not in config.weights.generator and config.method.stage == ""
    assert config_lib.stage_config(b, "b") == b


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("bacth", 2, "config.bacth: no such key; did you mean config.batch?"),
        ("data.sampling.kk", 2, "did you mean config.data.sampling.k?"),
        ("data.crop.height", 2, "config.data.crop.height: no such key"),
        ("batch", "two", "config.batch: 'two' is not of type int"),
        ("data.path", 3, "config.data.path: 3 is not of type str"),
    ],
)
def test_a_wrong_override_is_named(key, value, said):
    with pytest.raises(UserError, match=said):
        config_lib.update(get_config(), {key: value})


def test_open_parts_take_new_keys():
    new = {
        "weights.discriminator.hinge": 1.0,
        "optimizer.discriminator.nets.a.b1": 0.5,
        "data.synthetic.scenes": 2,
    }
    config = config_lib.update(get_config(), new)
    assert config.optimizer.discriminator.nets.a.b1 == 0.5
    assert (config.weights.discriminator.hinge, config.data.synthetic.scenes) == (1.0, 2)
    assert config.is_locked


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("batch", 0),
        ("accumulate", 3),
        ("steps", 0),
        ("log_steps", 0),
        ("evaluate_steps", -1),
        ("ema", 1.0),
        ("method.dtype", "float8"),
        ("mesh.fsdp", 0),
        ("mesh.data", 0),
        ("only", ("c",)),
        ("overrides.c.steps", 3),
        ("overrides.b.batch", 0),
        ("overrides.b.stepps", 3),
        ("stages", ()),
    ],
)
def test_impossible_values_are_refused_by_key(key, value):
    config = config_lib.update(get_config(), {key: value})
    name = key.replace("overrides.b.", "").replace("overrides.c.steps", "overrides")
    with pytest.raises(UserError, match=f"config.{name}"):
        config_lib.validate(config)


def test_none_is_not_a_value():
    config = get_config()
    with config.unlocked():
        config.data.synthetic.people = None
    with pytest.raises(UserError, match="config.data.synthetic.people=None"):
        config_lib.validate(config)


def test_json_gives_the_config_back():
    config = get_config("tiny,b")
    again = config_lib.from_json(config_lib.to_json(config))
    assert again == config and again.is_locked
    assert dict(leaves(again)) == dict(leaves(config))
    assert {k: type(v) for k, v in leaves(again)} == {k: type(v) for k, v in leaves(config)}
    assert again.data.crop == (16, 16) and isinstance(again.only, tuple)


def test_differences_are_told_by_key():
    new = config_lib.update(get_config(), {"batch": 3, "weights.generator.new": 1.0})
    found = config_lib.differences(get_config(), new)
    assert found == {"batch": (1, 3), "weights.generator.new": (None, 1.0)}


def test_every_leaf_can_be_overridden_from_a_string(tmp_path):
    assert_overridable(get_config(), write_config(tmp_path))


def write_config(folder):
    path = folder / "file.py"
    path.write_text(
        "from psrjax.config import apply_variant, base\n\n\n"
        "def get_config(variant=''):\n"
        "    config = base()\n"
        "    config.stages = ('a', 'b')\n"
        "    config.weights = {'generator': {'l1': 1.0, 'adversarial': 0.1}}\n"
        "    config.overrides = {'b': {'steps': 7, 'weights': {'generator': {'extra': 2.0}}}}\n"
        f"    return apply_variant(config, variant, presets={PRESETS!r})\n"
    )
    return path


def assert_overridable(config, path):
    """Gives every leaf another value on a command line and finds it in the parsed config."""
    changed = {key: another(value) for key, value in leaves(config)}
    arguments = [f"--config={path}"]
    for key, value in changed.items():
        arguments.append(f"--config.{key}={value}")
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_file(
        "config", None, "", flag_values=values, sys_argv=arguments
    )
    values(["program", *arguments])
    found = dict(leaves(holder.value))
    assert {key: found[key] for key in changed} == changed


def another(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return f"{value}x"
    return tuple(map(another, value)) if value else ("x",)


def test_a_config_is_found_by_path_and_by_name(tmp_path, monkeypatch):
    path = write_config(tmp_path)
    assert config_lib.load(f"{path}:tiny", {"steps": 5}).steps == 5
    with pytest.raises(UserError, match="no config 'nothing'; there are .*psrnet"):
        config_lib.load("nothing:tiny")
    monkeypatch.chdir(tmp_path)  # from anywhere
    for name in ("psrnet:tiny", "psrnet.py:tiny", "configs/psrnet.py:tiny"):
        assert config_lib.load(name).method.name == "psrnet"
    assert config_lib.load("file.py:tiny").batch == 2


def parse(path, *arguments):
    """The config of a command line."""
    values, argv = flags.FlagValues(), ["program", f"--config={path}", *arguments]
    flag = _config.ConfigFlag(None, "", argv=argv, flag_values=values)
    assert values(argv) == ["program"]
    return flag.value


def test_what_is_given_for_all_stages_outranks_a_presets_value_for_one(tmp_path):
    path = write_config(tmp_path)
    preset = config_lib.stage_config(config_lib.load(str(path)), "b")
    assert (preset.steps, preset.weights.generator.extra) == (7, 2.0)
    for config in (parse(path, "--config.steps=3"), config_lib.load(str(path), {"steps": 3})):
        both = [config_lib.stage_config(config, stage) for stage in "ab"]
        assert [each.steps for each in both] == [3, 3]
        assert both[1].weights.generator.extra == 2.0  # nobody spoke of it
    assert config.is_locked


def test_a_stage_with_data_of_its_own_keeps_them(tmp_path):
    given = {"data.path": str(tmp_path)}
    config = config_lib.load("d2gnet:show", given)
    paths = [config_lib.stage_config(config, stage).data.path for stage in config.stages]
    assert paths == ["synthetic", str(tmp_path), str(tmp_path)]
    config = config_lib.load("d2gnet:show", {**given, "overrides.uv.data.path": "others"})
    assert config_lib.stage_config(config, "uv").data.path == "others"


def test_what_is_given_for_one_stage_holds_there(tmp_path):
    path = write_config(tmp_path)
    config = parse(path, "--config.overrides.b.steps=5", "--config.steps=3")
    assert [config_lib.stage_config(config, stage).steps for stage in "ab"] == [3, 5]


def test_a_stage_takes_keys_on_the_command_line_that_its_preset_left_alone(tmp_path):
    path = write_config(tmp_path)
    new = ("--config.overrides.a.steps=4", "--config.overrides.a.data.crop", "(8, 8)")
    config = parse(path, *new, "--config.data.synthetic.kind=many", "--config.batch=6")
    a, b = (config_lib.stage_config(config, stage) for stage in "ab")
    assert (a.steps, b.steps, a.data.crop, b.data.crop) == (4, 7, (8, 8), (0, 0))
    assert (a.batch, a.data.synthetic.kind) == (6, "many")


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--config.stepps=3", "config.stepps: no such key; did you mean config.steps?"),
        ("--config.overrides.a.steps", "--config.overrides.a.steps: give a value"),
    ],
)
def test_a_key_that_no_config_has_is_named(tmp_path, argument, said):
    with pytest.raises(UserError, match=said):
        parse(write_config(tmp_path), argument)


def test_data_of_ones_own_come_in_their_own_size():
    def crop(name, **values):
        return config_lib.load(
            name, {f"data.{key}": value for key, value in values.items()}
        ).data.crop

    assert crop("hpt:demo") == (48, 48)
    assert crop("hpt:demo", path="DIR") == (0, 0)
    assert crop("hpt:demo", path="DIR", crop=(32, 32)) == (32, 32)
    assert crop("hpt:demo", path="synthetic") == (48, 48)
    assert crop("psrnet", path="DIR") == (112, 112)  # cut at random from frames of 128


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("data.crop", (32,)),
        ("data.crop", (-1, 32)),
        ("data.workers", -2),
        ("optimizer.generator.learning_rate", -1e-3),
        ("optimizer.generator.learning_rate", float("nan")),
        ("optimizer.generator.clip_norm", float("inf")),
        ("method.width", 0),
        ("method.width", -4),
        ("ema", float("nan")),
    ],
)
def test_a_number_that_cannot_be_is_refused_by_its_key(key, value):
    config = config_lib.override(config_lib.load("psrnet:tiny"), {key: value})
    with pytest.raises(UserError, match=f"config.{key}=.*: must"):
        config_lib.validate(config)
