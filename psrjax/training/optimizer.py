"""Makes an update's optax optimizer from its config: rule, schedule, clipping, single nets."""

from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from psrjax.errors import UserError

DEFAULTS = {
    "name": "adam",  # adam, radam or sgd
    "learning_rate": 1e-4,
    "b1": 0.9,
    "b2": 0.999,
    "eps": 1e-8,
    "momentum": 0.0,  # of sgd
    "clip_norm": 0.0,  # of the update's whole gradient; 0 is off
    "schedule": "constant",  # constant, milestones or linear
    "warmup_steps": 0,  # rising linearly from 0
    "milestones": (),  # steps from which on the rate is multiplied by `factor` once more
    "factor": 0.1,
    "decay_start_step": 0,  # linear: constant until here, then down to 0 at `decay_end_step`
    "decay_end_step": 0,
    "nets": {},  # {net: the fields above that differ for it}
}


def make_optimizers(
    config: Mapping[str, Any], updates: Mapping[str, tuple[str, ...]]
) -> dict[str, optax.GradientTransformation]:
    """Makes {update: optimizer} for `config.optimizer` and a method's updates.

    Raises:
      UserError: for an update without an optimizer, the reverse, or a wrong field.
    """
    for update in {**config, **updates}:
        if update not in config or update not in updates:
            what = "no optimizer for update" if update in updates else "no update named"
            raise UserError(
                f"config.optimizer: {what} {update!r}; the updates are {', '.join(updates)}"
            )
    return {update: _make_optimizer(config[update], update, updates[update]) for update in updates}


def restarted(states: Any) -> Any:
    """Returns optimizer states whose moments begin anew; schedules go on where they are.

    For gradients of another size than before, as of larger frames: Adam divides by the moment of
    the old ones, so that a first step may be (1 - b1) / sqrt(1 - b2) times the rate, which is 16
    with the betas of GANs, and from which a network may not recover.
    """
    is_adam = lambda node: isinstance(node, optax.ScaleByAdamState)  # noqa: E731
    fresh = lambda node: jax.tree.map(jnp.zeros_like, node) if is_adam(node) else node  # noqa: E731
    return jax.tree.map(fresh, states, is_leaf=is_adam)


def learning_rates(config: Mapping[str, Any], step: int) -> dict[str, float]:
    """Returns {"update/learning_rate": rate} at a step, for the log."""
    schedules = {update: _schedule(_complete(config[update], update), update) for update in config}
    return {f"{update}/learning_rate": float(at(step)) for update, at in schedules.items()}


def _make_optimizer(
    config: Mapping[str, Any], update: str, nets: tuple[str, ...]
) -> optax.GradientTransformation:
    fields = _complete(config, update)
    rules: dict[Hashable, optax.GradientTransformation] = {"": _rule(fields, update)}
    for net, changes in fields["nets"].items():
        where = f"{update}.nets.{net}"
        if net not in nets:
            raise _mistake(where, f"update {update!r} trains {', '.join(nets)}")
        for field in {"clip_norm", "nets"} & set(changes):
            raise _mistake(f"{where}.{field}", "belongs to the update, not to a net")
        rules[net] = _rule(_complete({**fields, **changes}, where), where)
    rule = rules[""]
    if len(rules) > 1:
        # A callable, because the tree of labels has to have only the nets that have parameters.
        rule = optax.multi_transform(rules, lambda tree: {n: n if n in rules else "" for n in tree})
    if fields["clip_norm"] > 0:
        rule = optax.chain(optax.clip_by_global_norm(fields["clip_norm"]), rule)
    return rule


def _complete(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Fills in the defaults. Raises UserError for unknown fields."""
    for field in sorted(set(config) - set(DEFAULTS)):
        raise _mistake(f"{where}.{field}", f"no such field; there are {', '.join(DEFAULTS)}")
    return {**DEFAULTS, **config}


def _mistake(key: str, rule: str) -> UserError:
    return UserError(f"config.optimizer.{key}: {rule}")


def _rule(fields: dict[str, Any], where: str) -> optax.GradientTransformation:
    rate = _schedule(fields, where)
    betas = {"b1": fields["b1"], "b2": fields["b2"], "eps": fields["eps"]}
    if fields["name"] == "adam":
        return optax.adam(rate, **betas)
    if fields["name"] == "radam":
        return optax.radam(rate, **betas)
    if fields["name"] == "sgd":
        return optax.sgd(rate, momentum=fields["momentum"] or None)
    raise _mistake(f"{where}.name={fields['name']!r}", "use adam, radam or sgd")


def _schedule(fields: dict[str, Any], where: str) -> Callable[[Any], Any]:
    rate, kind, warmup = fields["learning_rate"], fields["schedule"], fields["warmup_steps"]
    schedule = optax.constant_schedule(rate)
    if kind == "milestones":
        # A count at the milestone is already scaled, as in the PyTorch schedulers of the papers.
        drops = {step: fields["factor"] for step in fields["milestones"]}
        schedule = optax.piecewise_constant_schedule(rate, drops)
    elif kind == "linear":
        start, end = fields["decay_start_step"], fields["decay_end_step"]
        if not 0 <= start < end:
            raise _mistake(where, "linear needs decay_start_step < decay_end_step")
        falling = optax.linear_schedule(rate, 0.0, end - start)
        schedule = optax.join_schedules([schedule, falling], [start])
    elif kind != "constant":
        raise _mistake(f"{where}.schedule={kind!r}", "use constant, milestones or linear")
    if not warmup:
        return schedule
    return lambda count: schedule(count) * optax.linear_schedule(0.0, 1.0, warmup)(count + 1)
