"""Optimizers equal the rules as published, with schedules, clipping and exceptions for nets."""

import jax
import numpy as np
import optax
import pytest

from psrjax.errors import UserError
from psrjax.training import optimizer

UPDATES = {"generator": ("a", "b"), "discriminator": ("c",)}
PARAMS = {"a": {"w": np.ones(3, np.float32)}, "b": {"w": np.ones(2, np.float32)}}


def run(fields, count, *, gradient=lambda i: float(i + 1)):
    """The parameters after each of `count` updates with the gradients given."""
    config = {"generator": fields, "discriminator": {}}
    rule = optimizer.make_optimizers(config, UPDATES)["generator"]
    params, state, history = PARAMS, rule.init(PARAMS), []
    for i in range(count):
        grads = jax.tree.map(lambda leaf, i=i: np.full_like(leaf, gradient(i)), params)
        updates, state = rule.update(grads, state, params)
        params = jax.device_get(optax.apply_updates(params, updates))
        history.append(params)
    return history


def first(history, net="a"):
    return np.array([params[net]["w"][0] for params in history])


def test_moments_that_begin_anew_bound_the_step_that_a_larger_gradient_makes():
    fields = {"learning_rate": 0.1, "b1": 0.5, "b2": 0.999, "warmup_steps": 1000}
    rule = optimizer.make_optimizers({"generator": fields, "discriminator": {}}, UPDATES)
    state = rule["generator"].init(PARAMS)
    small, large = (jax.tree.map(lambda leaf, by=by: by * leaf, PARAMS) for by in (1e-3, 1.0))
    for _ in range(499):
        _, state = rule["generator"].update(small, state, PARAMS)
    steps = {}
    for name, moments in {"old": state, "new": optimizer.restarted(state)}.items():
        changes, _ = rule["generator"].update(large, moments, PARAMS)
        steps[name] = -float(changes["a"]["w"][0])
    np.testing.assert_allclose(steps["new"], 0.1 * 500 / 1000, rtol=1e-5)  # the schedule goes on
    assert steps["old"] > 5 * steps["new"]


def test_adam_is_the_published_rule():
    history = run({"learning_rate": 0.1, "b1": 0.5, "b2": 0.9}, 5)
    value, mean, square, expected = 1.0, 0.0, 0.0, []
    for i in range(1, 6):
        mean, square = 0.5 * mean + 0.5 * i, 0.9 * square + 0.1 * i * i
        value -= 0.1 * (mean / (1 - 0.5**i)) / ((square / (1 - 0.9**i)) ** 0.5 + 1e-8)
        expected.append(value)
    np.testing.assert_allclose(first(history), expected, rtol=1e-5)


def test_radam_is_the_published_rule():
    history = run({"name": "radam", "learning_rate": 0.1, "b2": 0.9}, 8)
    value, mean, square, expected, top = 1.0, 0.0, 0.0, [], 2 / (1 - 0.9) - 1
    for i in range(1, 9):
        mean, square = 0.9 * mean + 0.1 * i, 0.9 * square + 0.1 * i * i
        rho = top - 2 * i * 0.9**i / (1 - 0.9**i)
        step = mean / (1 - 0.9**i)
        if rho >= 5:
            rectify = ((rho - 4) * (rho - 2) * top / ((top - 4) * (top - 2) * rho)) ** 0.5
            step *= rectify / ((square / (1 - 0.9**i)) ** 0.5 + 1e-8)
        value -= 0.1 * step
        expected.append(value)
    np.testing.assert_allclose(first(history), expected, rtol=1e-4)


def steps_of(fields, count):
    sgd = {"name": "sgd", "learning_rate": 1.0, **fields}
    values = np.concatenate([[1.0], first(run(sgd, count, gradient=lambda i: 1.0))])
    return -np.diff(values)


def test_milestones_scale_from_the_milestone_on():
    found = steps_of({"schedule": "milestones", "milestones": (2, 3), "factor": 0.5}, 5)
    np.testing.assert_allclose(found, [1, 1, 0.5, 0.25, 0.25], rtol=1e-5)


def test_linear_decay_is_constant_and_then_falls_to_nothing():
    found = steps_of({"schedule": "linear", "decay_start_step": 2, "decay_end_step": 4}, 6)
    np.testing.assert_allclose(found, [1, 1, 1, 0.5, 0, 0], atol=1e-6)


def test_warm_up_rises_to_the_full_rate():
    np.testing.assert_allclose(steps_of({"warmup_steps": 4}, 5), [0.25, 0.5, 0.75, 1, 1], rtol=1e-5)


def test_the_rate_of_a_step_is_logged():
    linear = {"schedule": "linear", "decay_start_step": 0, "decay_end_step": 4}
    rates = optimizer.learning_rates({"generator": {**linear, "learning_rate": 2.0}}, 3)
    assert rates == {"generator/learning_rate": pytest.approx(0.5)}


def test_clipping_bounds_the_norm_of_the_whole_updates_gradient():
    sgd = {"name": "sgd", "learning_rate": 1.0, "clip_norm": 0.5}
    end = run(sgd, 1, gradient=lambda i: 2.0)[0]
    moved = np.concatenate([1 - end["a"]["w"], 1 - end["b"]["w"]])
    np.testing.assert_allclose(np.linalg.norm(moved), 0.5, rtol=1e-5)


def test_a_net_may_differ_from_its_update():
    fields = {"name": "sgd", "learning_rate": 1.0, "nets": {"b": {"learning_rate": 0.25}}}
    end = run(fields, 1)[0]
    assert (end["a"]["w"][0], end["b"]["w"][0]) == (0.0, 0.75)
    momentum = {"name": "sgd", "learning_rate": 1.0, "nets": {"b": {"momentum": 0.5}}}
    values = first(run(momentum, 2, gradient=lambda i: 1.0), "b")
    np.testing.assert_allclose(values, [0.0, -1.5])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"rate": 1}, "config.optimizer.generator.rate: no such"),
        ({"name": "lamb"}, "config.optimizer.generator.name='lamb': use adam, radam or sgd"),
        ({"schedule": "cosine"}, "constant, milestones or linear"),
        ({"schedule": "linear"}, "linear needs decay_start_step <"),
        ({"nets": {"z": {}}}, "nets.z: update 'generator' trains a, b"),
        ({"nets": {"a": {"clip_norm": 1.0}}}, "belongs to the update"),
        ({"nets": {"a": {"rate": 1.0}}}, "generator.nets.a.rate"),
    ],
)
def test_mistakes_are_named(fields, said):
    with pytest.raises(UserError, match=said):
        optimizer.make_optimizers({"generator": fields, "discriminator": {}}, UPDATES)


@pytest.mark.parametrize(
    ("updates", "said"),
    [
        (("generator",), "no optimizer for update 'discriminator'"),
        (("generator", "discriminator", "judge"), "no update named 'judge'"),
    ],
)
def test_every_update_has_an_optimizer_and_no_other(updates, said):
    with pytest.raises(UserError, match=said):
        optimizer.make_optimizers({update: {} for update in updates}, UPDATES)
