"""A batch given for each device: the global batch, and the learning rates by the stated rule."""

import pytest

from psrjax import config as config_lib
from psrjax.errors import UserError
from psrjax.training import optimizer, sharding


def stage(**changes):
    config = config_lib.load("psrnet:tiny")
    config_lib.update(config, {key.replace("__", "."): value for key, value in changes.items()})
    return config_lib.stage_config(config, config.stages[0])


def rates(config):
    return {
        update: {
            "": fields.get("learning_rate", optimizer.DEFAULTS["learning_rate"]),
            **{net: own["learning_rate"] for net, own in fields.get("nets", {}).items()},
        }
        for update, fields in config.optimizer.to_dict().items()
    }


@pytest.mark.parametrize(("rule", "factor"), [("sqrt", 4.0), ("linear", 16.0), ("fixed", 1.0)])
def test_rates_follow_the_rule_from_the_batch_that_they_were_chosen_for(rule, factor):
    own = {"optimizer__generator__nets": {"layer1": {"learning_rate": 0.25}}}
    config = stage(batch=3, batch_per_device=6, batch_rates=rule, **own)
    found = sharding.for_devices(config, 8)
    assert found.batch == 48
    before = rates(config)
    assert before["generator"]["layer1"] == 0.25
    for update, nets in rates(found).items():
        for net, rate in nets.items():
            assert rate == pytest.approx(factor * before[update][net])
    assert rates(config) == before and config.batch == 3  # the config that was given is unchanged


def test_a_rate_that_the_config_leaves_to_the_default_grows_too():
    config = stage(batch=1, batch_per_device=4)
    config_lib.update(config, {"optimizer": {"generator": {"name": "adam"}}})
    found = sharding.for_devices(config, 1)
    assert found.optimizer["generator"]["learning_rate"] == 2 * optimizer.DEFAULTS["learning_rate"]


def test_the_batch_of_a_device_twice_asked_for_changes_nothing_more():
    once = sharding.for_devices(stage(batch_per_device=5), 4)
    assert sharding.for_devices(once, 4).to_dict() == once.to_dict()
    assert sharding.for_devices(stage(), 2).to_dict() == stage().to_dict()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_per_device": -1}, "config.batch_per_device=-1: must be at least 0"),
        ({"batch_per_device": 3, "accumulate": 2, "batch": 4}, "a multiple of accumulate 2"),
        ({"batch_rates": "cubic"}, "config.batch_rates=cubic: must be one of sqrt, linear, fixed"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, message):
    config = config_lib.load("psrnet:tiny")
    config_lib.update(config, changes)
    with pytest.raises(UserError, match=message):
        config_lib.validate(config)


def test_a_batch_that_devices_cannot_share_is_refused_with_what_they_can():
    with pytest.raises(UserError, match="batch=3 .*16 devices cannot share.*a multiple of 16, or"):
        sharding.for_devices(stage(batch=3), 16)
    assert sharding.for_devices(stage(batch=3, batch_per_device=3), 16).batch == 48
