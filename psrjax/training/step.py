"""One training step: alternating updates of the nets, in one jitted function."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.experimental.layout import Layout, with_layout_constraint

from psrjax.data import spec
from psrjax.errors import UserError
from psrjax.methods.base import Method
from psrjax.runtime import target
from psrjax.training import sharding
from psrjax.training.state import (
    INIT_STREAMS,
    STREAMS,
    TrainState,
    average,
    drop,
    merge_stats,
    pick,
)

Tree = Mapping[str, Any]  # of arrays
Weights = Mapping[str, Mapping[str, float]]
Step = Callable[[TrainState, Tree, Tree], tuple[TrainState, dict[str, jax.Array]]]
_COLUMNS = 16  # of the products that sums of squares are taken from


def make_step(
    method: Method,
    weights: Weights,
    optimizers: Mapping[str, optax.GradientTransformation],
    *,
    accumulate: int = 1,
    ema: float = 0.0,
    placement: sharding.Placement | None = None,
) -> Step:
    """Makes the step, a pure function (state, wire batch, pretrained) -> (state, log).

    The updates are made in order: each has a loss, the gradients of its own nets and an optimizer;
    the next one sees the changed nets, and the `shared` arrays of those before it. Every update
    goes through its micro-batches before the next begins. The log holds
    "update/term" (raw), "update/loss" (the weighted sum), "update/grad_norm" and the method's log.

    Args:
      method: at the stage to be trained.
      weights: {update: {term: weight}}, as `check_weights` accepts them; a term of weight 0 is left
        out of the sum and of the log, and the compiler then removes what computes it.
      optimizers: {update: optimizer}.
      accumulate: number of micro-batches whose mean gradient an update takes.
      ema: highest decay of the averaged parameters; used if the state holds some.
      placement: where arrays lie; None leaves it to XLA.
    """

    def step(
        state: TrainState, batch: Tree, pretrained: Tree
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        with placement.of_layers() if placement else contextlib.nullcontext():
            return update_all(state, batch, pretrained)

    def update_all(
        state: TrainState, batch: Tree, pretrained: Tree
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        key = _step_key(state)
        decoded = spec.decode(batch)
        micro = _split(placement.cut_height(decoded) if placement else decoded, accumulate)
        params, stats, opt = dict(state.params), state.stats, dict(state.opt)
        log: dict[str, jax.Array] = {}
        shared: dict[str, Any] = {}
        checks: list[jax.Array] = []
        for i, (update, nets) in enumerate(method.updates.items()):
            whole = placement.gather(params) if placement else params
            loss = _update_loss(method, update, weights[update], drop(whole, nets), pretrained)
            inputs, random = (micro, shared), jax.random.fold_in(key, i)
            grads, stats, out = _mean_gradient(
                loss, pick(whole, nets), stats, inputs, random, accumulate
            )
            grads = placement.cut(grads) if placement else grads
            grads = _as_stored(grads)
            mine = pick(params, nets)
            changes, opt[update] = optimizers[update].update(grads, opt[update], mine)
            changed: Any = optax.apply_updates(mine, changes)
            params |= changed
            shared |= jax.lax.stop_gradient(out["shared"])
            norm = gradient_norm(grads)
            numbers = {**out["terms"], **out["log"], "loss": out["loss"], "grad_norm": norm}
            log |= {f"{update}/{name}": value for name, value in numbers.items()}
            checks += [*(out["terms"][name] for name in sorted(out["terms"])), norm]
        return state.replace(
            step=state.step + 1,
            params=params,
            stats=stats,
            opt=opt,
            ema=average(state.ema, params, ema, state.step),
            first_nonfinite=jnp.where(
                state.first_nonfinite > 0, state.first_nonfinite, _first_nonfinite(checks)
            ),
        ), log

    return step


def _as_stored(grads: Any) -> Any:
    """Lays out gradients as parameters are stored, on GPUs.

    There a convolution gives its kernel's gradient in an order of its own. XLA would compute the
    whole update in that order and then copy parameters and moments back.
    """
    if target.platform() != "gpu":
        return grads
    stored = lambda x: with_layout_constraint(x, Layout(tuple(range(x.ndim))))  # noqa: E731
    return jax.tree.map(stored, grads)


def gradient_norm(gradients: Any) -> jax.Array:
    """Returns the Euclidean norm of all numbers of a tree together, float32.

    On CPUs the squares' sums are the diagonal of a small matrix product (jaxlib 0.10.1: 8.5 M
    squares in 9 instead of 30 ms). Elsewhere sums are fast, and the reshaping would gather what is
    sharded.
    """
    if target.platform() != "cpu":
        return optax.tree.norm(gradients)
    return jnp.sqrt(sum(map(_sum_of_squares, jax.tree.leaves(gradients))))


def _sum_of_squares(x: jax.Array) -> jax.Array:
    x = x.astype(jnp.float32)
    if x.size % _COLUMNS:
        return jnp.square(x).sum()
    rows = x.reshape(-1, _COLUMNS)
    over_rows = (((0,), (0,)), ((), ()))
    return jnp.trace(jax.lax.dot_general(rows, rows, over_rows, precision="highest"))


def first_streams(state: TrainState) -> dict[str, jax.Array]:
    """Returns the random streams of the next step's first update and micro-batch."""
    return _streams(jax.random.fold_in(jax.random.fold_in(_step_key(state), 0), 0))


def _step_key(state: TrainState) -> jax.Array:
    return jax.random.fold_in(state.rng, state.step)


def _streams(key: jax.Array) -> dict[str, jax.Array]:
    return dict(zip(STREAMS, jax.random.split(key, len(STREAMS))))


def growing(step: Step, steps: int) -> Callable[[int], Step]:
    """Returns {number of a step: the step}: the first ones see their batch at half the size."""

    def small(
        state: TrainState, batch: Tree, pretrained: Tree
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        return step(state, spec.halve(batch), pretrained)

    return lambda number: small if number <= steps else step


def check_fits(method: Method, state: TrainState, batch: Tree, option: str) -> None:
    """Checks that a method's variables are the same for frames of another size.

    Args:
      method: at the stage to be trained.
      state: for frames of one size, or its shapes.
      batch: the shapes of a wire batch of another size.
      option: the key of the config that asks for both sizes.

    Raises:
      UserError: naming what depends on the frames' size, such as a background that is learned.
    """
    keys = {name: jax.random.key(0) for name in INIT_STREAMS}
    there: Any = jax.eval_shape(method.init, keys, jax.eval_shape(spec.decode, batch))
    shapes = {path: leaf.shape for path, leaf in jax.tree.leaves_with_path(there)}
    for path, leaf in jax.tree.leaves_with_path({"params": state.params, **state.stats}):
        if leaf.shape != shapes[path]:
            name = jax.tree_util.keystr(path[1:], simple=True, separator="/")
            raise UserError(
                f"{option}: {name} is {leaf.shape}, and {shapes[path]} for frames of another "
                f"size: leave it out of stage {method.stage!r}"
            )


def jit_step(step: Step, state: Any, batch: Any, replicated: Any) -> jax.stages.Wrapped:
    """Jits the step for shardings of the state and of the batch; the state is donated."""
    return jax.jit(
        step,
        in_shardings=(state, batch, replicated),
        out_shardings=(state, replicated),
        donate_argnums=0,
    )


def check_weights(
    method: Method, weights: Weights, state: Any, batch: Tree, pretrained: Any
) -> None:
    """Checks that the weights name exactly the terms of the method, by shape inference only.

    Raises:
      UserError: for a term without a weight, or a weight (but 0) without a term or an update.
    """
    terms = _terms(method, state, batch, pretrained)
    for update in weights:
        if update not in terms:
            raise UserError(
                f"config.weights.{update}: no such update; there are {', '.join(terms)}"
            )
    for update, names in terms.items():
        given = dict(weights.get(update, {}))
        for name in sorted(name for name, weight in given.items() if weight and name not in names):
            raise UserError(
                f"config.weights.{update}.{name}: the method {method.stage!r} has no such term; "
                f"it has {', '.join(sorted(names))}"
            )
        for name in sorted(names - set(given)):
            raise UserError(
                f"config.weights.{update}.{name}: missing; a term of weight 0 is left out"
            )


def check_finite(state: TrainState, method: Method, weights: Weights, saved_step: int) -> None:
    """Raises UserError if anything was not finite, with the update and the term it began with."""
    found = nonfinite(state, method, weights)
    if not found:
        return
    kept = f"the checkpoint of step {saved_step} is kept" if saved_step else "none was saved yet"
    raise UserError(
        f"stage {method.stage}: {found} is not finite, by step {int(state.step)}; {kept}; lower "
        "the learning rate, set config.optimizer.UPDATE.clip_norm, or look at the data: the same "
        "command with --replay tells the step and its clips"
    )


def nonfinite(state: TrainState, method: Method, weights: Weights) -> str:
    """Names the update and the term with which it began that something was not finite, or ""."""
    names = [""]
    for update in method.updates:
        names += [
            f"term {update}/{name}" for name in sorted(weights[update]) if weights[update][name]
        ]
        names.append(f"the gradient of update {update}")
    return names[int(state.first_nonfinite)]


def _terms(method: Method, state: TrainState, batch: Tree, pretrained: Any) -> dict[str, set[str]]:
    def terms_of(state: TrainState, batch: Tree, pretrained: Any) -> dict[str, Tree]:
        batch = spec.decode(batch)
        shared: dict[str, Any] = {}
        terms: dict[str, Tree] = {}
        for update in method.updates:
            out, _ = _call(
                method, update, state.params, state.stats, (batch, shared), pretrained, state.rng
            )
            shared |= out.get("shared", {})
            terms[update] = out["terms"]
        return terms

    return {
        update: set(terms)
        for update, terms in jax.eval_shape(terms_of, state, batch, pretrained).items()
    }


def _call(
    method: Method,
    update: str,
    params: Tree,
    stats: Tree,
    inputs: Any,
    pretrained: Tree,
    key: jax.Array,
) -> tuple[Any, Any]:
    """Returns (the output of the update's loss, the collections after it)."""
    rngs = _streams(key)
    variables, mutable = {"params": params, **stats}, list(stats)
    batch, shared = inputs
    return method.apply(
        variables, update, batch, shared, pretrained, rngs=rngs, mutable=mutable, method="loss"
    )


def _update_loss(
    method: Method, update: str, weights: Tree, rest: Tree, pretrained: Any
) -> Callable[..., Any]:
    """Makes the update's weighted loss, a function of its own parameters only."""
    nets = method.updates[update]

    def loss(mine: Tree, stats: Tree, inputs: Any, key: jax.Array) -> Any:
        out, new = _call(method, update, {**rest, **mine}, stats, inputs, pretrained, key)
        terms = {
            name: value.astype(jnp.float32) for name, value in out["terms"].items() if weights[name]
        }
        total = sum((weights[name] * value for name, value in terms.items()), jnp.zeros(()))
        scalars = {"terms": terms, "log": dict(out.get("log", {})), "loss": total}
        # Departs from: the PyTorch trainers, where an update also moves other nets' statistics.
        return total, (scalars, dict(out.get("shared", {})), merge_stats(stats, new, nets))

    return loss


def _mean_gradient(
    loss: Callable[..., Any], mine: Tree, stats: Tree, inputs: Any, key: jax.Array, accumulate: int
) -> tuple[Any, Any, dict[str, Any]]:
    """Returns (mean gradient, last statistics, mean scalars with the stacked `shared` arrays)."""
    gradient = jax.grad(loss, has_aux=True)

    def body(stats: Tree, each: Any) -> Any:
        index, inputs = each
        grads, (scalars, shared, stats) = gradient(
            mine, stats, inputs, jax.random.fold_in(key, index)
        )
        return stats, (grads, scalars, shared)

    first = (0, jax.tree.map(lambda x: x[0], inputs))
    if accumulate == 1:  # a loop, even of one pass, keeps XLA from using all cores on a CPU
        stats, (grads, scalars, shared) = body(stats, first)
        return grads, stats, scalars | {"shared": jax.tree.map(lambda x: x[None], shared)}
    shapes = jax.eval_shape(lambda: body(stats, first)[1][:2])
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def add(carry: Any, each: Any) -> Any:
        stats, sums = carry
        stats, (*new, shared) = body(stats, each)
        return (stats, jax.tree.map(jnp.add, sums, tuple(new))), shared

    (stats, sums), shared = jax.lax.scan(add, (stats, zeros), (jnp.arange(accumulate), inputs))
    grads, scalars = jax.tree.map(lambda total: total / accumulate, sums)
    return grads, stats, scalars | {"shared": shared}


def _split(batch: Tree, parts: int) -> dict[str, jax.Array]:
    """Splits (b, …) to (parts, b / parts, …); each micro-batch takes rows from every device."""
    return {
        name: array.reshape(-1, parts, *array.shape[1:]).swapaxes(0, 1)
        for name, array in batch.items()
    }


def _first_nonfinite(checks: list[jax.Array]) -> jax.Array:
    """Returns 0 if all are finite, else 1 + the place of the first that is not."""
    bad = ~jnp.isfinite(jnp.stack([check.astype(jnp.float32) for check in checks]))
    return jnp.where(bad.any(), 1 + jnp.argmax(bad), 0).astype(jnp.int32)
