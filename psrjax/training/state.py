"""The state of training between two steps: its parts, its beginning, the share of each update."""

from collections.abc import Iterable, Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from psrjax.data import spec
from psrjax.methods.base import Method

INIT_STREAMS = ("params", "dropout", "noise")  # the random streams that a method may draw from
STREAMS = INIT_STREAMS[1:]


class TrainState(flax.struct.PyTreeNode):
    """Everything that a step changes, and nothing else.

    Attributes:
      step: number of steps taken, int32.
      params: {net: parameters}, frozen nets included, so that a checkpoint is self-contained.
      stats: {collection: {net: arrays}}: batch statistics, spectral vectors, and the like.
      opt: {update: optimizer state}.
      ema: {net: averaged parameters} of the nets that are trained; {} where `config.ema` is 0.
      rng: a typed key that never changes: step s draws from fold_in(rng, s).
      first_nonfinite: 0 while all was finite; then 1 + the place, in the step's list, of what first
        was not.
    """

    step: jax.Array
    params: dict[str, Any]
    stats: dict[str, Any]
    opt: dict[str, Any]
    ema: dict[str, Any]
    rng: jax.Array
    first_nonfinite: jax.Array

    @property
    def finite(self) -> jax.Array:
        """True while every term and gradient was finite: only then may the state be saved."""
        return self.first_nonfinite == 0

    @property
    def variables(self) -> dict[str, Any]:
        """The variables for inference: the averaged parameters where they are kept."""
        return {"params": self.params | self.ema, **self.stats}


def init_state(
    method: Method,
    optimizers: Mapping[str, optax.GradientTransformation],
    sizes: Mapping[str, int],
    seed: jax.Array | int,
    *,
    ema: bool,
) -> TrainState:
    """Makes a fresh state. Pure: it can be `jax.eval_shape`d, and jitted with shardings.

    Args:
      method: at the stage to be trained.
      optimizers: one for each update.
      sizes: of the contract's axes; the batch axis need not be the run's own.
      seed: of the parameters and of everything random in training.
      ema: whether averaged parameters are kept.
    """
    root = jax.random.key(seed)
    keys: dict[str, jax.Array] = dict(
        zip(INIT_STREAMS, jax.random.split(jax.random.fold_in(root, 0), 3))
    )
    batch = spec.decode(spec.zeros(method.reads, sizes))
    variables = dict(method.init(keys, batch))
    params = dict(variables.pop("params"))
    trained = {net for nets in method.updates.values() for net in nets}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        stats=variables,
        opt={
            update: optimizers[update].init(pick(params, nets))
            for update, nets in method.updates.items()
        },
        ema=jax.tree.map(jnp.copy, pick(params, trained)) if ema else {},
        rng=jax.random.fold_in(root, 1),
        first_nonfinite=jnp.zeros((), jnp.int32),
    )


def pick(tree: Mapping[str, Any], nets: Iterable[str]) -> dict[str, Any]:
    """Returns the parts of `tree` that belong to `nets`; a net without any is left out."""
    return {net: tree[net] for net in sorted(nets) if net in tree}


def drop(tree: Mapping[str, Any], nets: Iterable[str]) -> dict[str, Any]:
    """Returns the parts of `tree` that belong to all other nets."""
    return {net: value for net, value in tree.items() if net not in set(nets)}


def merge_stats(
    old: Mapping[str, Any], new: Mapping[str, Any], nets: Iterable[str]
) -> dict[str, Any]:
    """Returns the old collections with those of `nets` replaced by the new ones."""
    return {name: {**tree, **pick(new.get(name, {}), nets)} for name, tree in old.items()}


def average(
    ema: Mapping[str, Any], params: Mapping[str, Any], decay: float, step: jax.Array
) -> dict[str, Any]:
    """Returns decay * ema + (1 - decay) * params, leaf by leaf, for the nets that `ema` has.

    The decay is at most (1 + step) / (10 + step), as TensorFlow's ExponentialMovingAverage has it:
    of the initial parameters a constant .998 would still keep a fifth after 800 steps.

    Args:
      ema: the averages so far.
      params: after this step.
      decay: in [0, 1).
      step: how many were taken before, 0 at first.
    """
    kept = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(
        lambda mean, value: kept * mean + (1.0 - kept) * value, dict(ema), pick(params, ema)
    )


def with_params(state: TrainState, params: Mapping[str, Any]) -> TrainState:
    """Replaces a fresh state's parameters, averages included, and places them as they were."""
    ema = {net: jax.tree.map(jnp.copy, params[net]) for net in state.ema}
    old = {"params": state.params, "ema": state.ema}
    new = {"params": dict(params), "ema": ema}
    return state.replace(**jax.device_put(new, jax.tree.map(lambda leaf: leaf.sharding, old)))


def copy_nets(state: TrainState, variables: Mapping[str, Any], nets: Iterable[str]) -> TrainState:
    """Replaces every collection of `nets` in a fresh state by those of other `variables`."""
    nets = tuple(nets)
    params = {**state.params, **pick(variables["params"], nets)}
    return with_variables(state, {"params": params, **merge_stats(state.stats, variables, nets)})


def with_variables(state: TrainState, variables: Mapping[str, Any]) -> TrainState:
    """Replaces a fresh state's parameters and statistics, and places them as they were.

    All are copies: two nets that begin alike share no buffer, which a step could not donate twice.
    """
    variables = jax.tree.map(jnp.copy, dict(variables))
    stats = {name: variables[name] for name in state.stats}
    stats = jax.device_put(stats, jax.tree.map(lambda leaf: leaf.sharding, state.stats))
    return with_params(state.replace(stats=stats), variables["params"])
