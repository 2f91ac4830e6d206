"""Makes an update's optax optimizer from its config: rule, schedule, clipping, single nets."""

from collections.abc import Mapping
from typing import Any

import numpy as np
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
    missing = [update for update in updates if update not in config]
    unused = [update for update in config if update not in updates]
    if missing or unused:
        what = "no optimizer for update" if missing else "no update named"
        raise UserError(
            f"config.optimizer: {what} {(missing or unused)[0]!r}; "
            f"the updates are {', '.join(updates)}"
        )
    return {
        update: _make_optimizer(fields_of(config[update], update), nets, update)
        for update, nets in updates.items()
    }


def learning_rates(config: Mapping[str, Any], step: int) -> dict[str, float]:
    """Returns {"update/learning_rate": rate} at a step, for the log."""
    return {
        f"{update}/learning_rate": float(
            np.asarray(_schedule(fields_of(fields, update), update)(step))
        )
        for update, fields in config.items()
    }


def fields_of(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns an update's fields, defaults filled in. Raises UserError for unknown ones."""
    unknown = sorted(set(config) - set(DEFAULTS))
    if unknown:
        raise UserError(
            f"config.optimizer.{where}.{unknown[0]}: no such field; there are {', '.join(DEFAULTS)}"
        )
    return {**DEFAULTS, **config}


def _make_optimizer(
    fields: dict[str, Any], nets: tuple[str, ...], update: str
) -> optax.GradientTransformation:
    special = dict(fields["nets"])
    stranger = sorted(set(special) - set(nets))
    if stranger:
        raise UserError(
            f"config.optimizer.{update}.nets.{stranger[0]}: "
            f"update {update!r} trains {', '.join(nets)}"
        )
    rule = _rule(fields, update)
    if special:
        where = {net: f"{update}.nets.{net}" for net in special}
        rules = {
            net: _rule({**fields, **fields_of_net(special[net], where[net])}, where[net])
            for net in special
        }
        labels = {net: net if net in special else "" for net in nets}
        # A callable, because the tree of labels has to have only the nets that have parameters.
        rule = optax.multi_transform({"": rule, **rules}, lambda tree: {n: labels[n] for n in tree})
    if fields["clip_norm"] > 0:
        rule = optax.chain(optax.clip_by_global_norm(fields["clip_norm"]), rule)
    return rule


def fields_of_net(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns the fields that differ for one net. Raises UserError for unknown ones."""
    fields_of(config, where)
    for field in ("clip_norm", "nets"):
        if field in config:
            raise UserError(
                f"config.optimizer.{where}.{field}: belongs to the update, not to a net"
            )
    return dict(config)


def _rule(fields: dict[str, Any], where: str) -> optax.GradientTransformation:
    rate = _schedule(fields, where)
    betas = {"b1": fields["b1"], "b2": fields["b2"], "eps": fields["eps"]}
    if fields["name"] == "adam":
        return optax.adam(rate, **betas)
    if fields["name"] == "radam":
        return optax.radam(rate, **betas)
    if fields["name"] == "sgd":
        return optax.sgd(rate, momentum=fields["momentum"] or None)
    raise UserError(f"config.optimizer.{where}.name={fields['name']!r}: use adam, radam or sgd")


def _schedule(fields: dict[str, Any], where: str) -> optax.Schedule:
    rate, kind = fields["learning_rate"], fields["schedule"]
    start, end = fields["decay_start_step"], fields["decay_end_step"]
    if kind == "constant":
        schedule = optax.constant_schedule(rate)
    elif kind == "milestones":
        # A count at the milestone is already scaled, as in the PyTorch schedulers of the papers.
        drops = {step: fields["factor"] for step in fields["milestones"]}
        schedule = optax.piecewise_constant_schedule(rate, drops)
    elif kind == "linear":
        if not 0 <= start < end:
            raise UserError(
                f"config.optimizer.{where}: linear needs decay_start_step < decay_end_step"
            )
        falling = optax.linear_schedule(rate, 0.0, end - start)
        schedule = optax.join_schedules([optax.constant_schedule(rate), falling], [start])
    else:
        raise UserError(
            f"config.optimizer.{where}.schedule={kind!r}: use constant, milestones or linear"
        )
    warmup = fields["warmup_steps"]
    if not warmup:
        return schedule
    return lambda count: schedule(count) * optax.linear_schedule(0.0, 1.0, warmup)(count + 1)
