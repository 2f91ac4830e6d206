"""One step and one synthesis of a method on a device, and how far two devices' results are apart.

A fresh network's gradient may be so steep that rounding moves it by percents; no two programs agree
on it. So the first device also computes with weights and inputs moved by about a rounding, and the
second may differ by a few such moves.
"""

import contextlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax

from psrjax import config as config_lib
from psrjax.benchmarks import compiled_stage
from psrjax.methods import base
from psrjax.ops import conv
from psrjax.pretrained import registry
from psrjax.runtime import target
from psrjax.training import state as states
from psrjax.training import step as steps

FLOAT32 = 2e-3  # relative, what two devices may differ by beside what rounding explains
# What products in bfloat16, 8 bits of mantissa, may change of a small fresh network; see `rough`.
# On CPUs the least cosine was .85 (internet), the length most off .92 of float32's (mfci).
BFLOAT16 = {"log": 0.1, "turned": 0.7, "grown": 0.25, "video": 0.03}
ROUNDING = 1.2e-7  # of a float32
MOVES = 4.0  # that a result may be away from the other device's
LEAST = 1e-3  # a gradient smaller than this part of its update's counts as this
_QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}  # CPU
_HOST = re.compile(r"\b(infeed|outfeed|send|recv)(-start|-done)?\(|_target=\"[^\"]*callback")


def stages():
    """{"NAME STAGE": config} of every method's small preset."""
    small = [config_lib.load(f"{name}:tiny") for name in config_lib.names()]
    return {
        f"{config.method.name} {stage}": config_lib.stage_config(config, stage)
        for config in small
        for stage in config.stages
    }


def accelerator():
    """The first device that is no CPU, or None."""
    return next((device for device in jax.devices() if device.platform != "cpu"), None)


def keep_gradients():
    """An optimizer that changes nothing; its state is the gradient."""
    zeros = lambda tree: jax.tree.map(jnp.zeros_like, tree)  # noqa: E731
    return optax.GradientTransformation(zeros, lambda grads, state, params: (zeros(grads), grads))


@contextlib.contextmanager
def tracing(platform, device, formulation):
    """Traces for a platform, onto a device, with products as exact as float32 allows."""
    foreign = platform != jax.default_backend()
    if foreign:
        jax.clear_caches()  # of functions that were traced for the own platform
    target.use(platform)
    conv.use(formulation)
    try:
        with jax.default_device(device), jax.default_matmul_precision("highest"):
            yield
    finally:
        target.use("")
        conv.use("auto")
        if foreign:
            jax.clear_caches()


class Stage:
    """A stage of a method, with a state and batches of random numbers on the host.

    Args:
      config: of the stage.
    """

    def __init__(self, config):
        self.config = config
        self.method = base.build(**config_lib.method_fields(self.config))
        options = compiled_stage.BenchmarkOptions(*self.config.data.crop, batch=self.config.batch)
        sizes = options.training_sizes(self.config)
        self.batch = compiled_stage.random_batch(self.method.reads, sizes)
        self.window = compiled_stage.random_batch(
            self.method.synthesis_reads, options.window_sizes(self.config), seed=1
        )
        self.pretrained = {name: registry.load(name) for name in self.method.pretrained}
        optimizers = {update: keep_gradients() for update in self.method.updates}
        cpu = jax.devices("cpu")[0]
        make = jax.jit(
            lambda seed: states.init_state(self.method, optimizers, sizes, seed, ema=False)
        )
        with tracing("cpu", cpu, "auto"):
            made = make.lower(0).compile(_QUICK)(0)
        self.state = jax.device_get(made.replace(rng=None))
        self._optimizers = optimizers

    def on(self, device, *, platform="", dtype="float32", nudges=0):
        """Computes on a device.

        Args:
          device: of this process.
          platform: whose formulations are used; by default the device's own.
          dtype: of products.
          nudges: how many more results, each with weights and floats moved by about a rounding.

        Returns:
          [{"log …" | "gradient …" | "video": array}], and the lines of the step's program that
          need the host.
        """
        method = self.method.clone(dtype=dtype)
        platform = platform or device.platform
        weights = {update: dict(terms) for update, terms in self.config.weights.items()}
        step = steps.make_step(method, weights, self._optimizers)

        def forward(variables, window):
            from psrjax.inference import synthesizer

            made, _ = synthesizer.synthesize(
                method, variables, window, synthesizer.start(method, variables, window)
            )
            return made["video"]

        place = lambda tree: jax.device_put(tree, device)  # noqa: E731
        with tracing(platform, device, "auto"):
            key = jax.random.key(7)
            state = place(self.state).replace(rng=key)
            inputs = state, place(self.batch), place(self.pretrained)
            options = _QUICK if device.platform == "cpu" else {}
            program = jax.jit(step).lower(*inputs).compile(options)
            variables = {"params": state.params, **state.stats}
            window = place(self.window)
            synthesis = jax.jit(forward).lower(variables, window).compile(options)
        found = []
        for nudge in range(1 + nudges):
            moved = state.replace(params=place(_nudged(self.state.params, nudge)))
            batch, view = place(_nudged(self.batch, nudge)), place(_nudged(self.window, nudge))
            with jax.transfer_guard("disallow"):
                after, log = program(moved, batch, inputs[2])
                # With the step's statistics: those of a fresh network make flat pictures.
                video = synthesis({"params": after.params, **after.stats}, view)
            found.append(_flat(log, after.opt, video))
        return found, host_lines(program.as_text())


def _flat(log, gradients, video):
    found = {f"log {name}": value for name, value in log.items()}
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        found["gradient " + "/".join(str(part.key) for part in path)] = leaf
    return {name: np.asarray(value, np.float64) for name, value in found.items()} | {
        "video": np.asarray(video, np.float64)
    }


def _nudged(tree, nudge):
    if not nudge:
        return tree
    draw = np.random.default_rng(nudge)
    return jax.tree.map(
        lambda x: (
            (x * (1 + ROUNDING * draw.standard_normal(np.shape(x)))).astype(x.dtype)
            if np.issubdtype(x.dtype, np.floating)
            else x
        ),
        tree,
    )


def host_lines(text):
    """The lines of a compiled program that move something to or from the host."""
    return [line.strip()[:200] for line in text.splitlines() if _HOST.search(line)]


def gaps(ours, truth):
    """{name: distance of ours from the truth, by the truth's length}."""
    found = {}
    for name, value in truth.items():
        size = np.linalg.norm(value)
        if name.startswith("gradient "):
            update = name.split("/")[0]
            whole = np.sqrt(
                sum(np.square(v).sum() for n, v in truth.items() if n.split("/")[0] == update)
            )
            size = max(size, LEAST * whole)
        found[name] = float(np.linalg.norm(ours[name] - value) / max(size, 1e-6))
    return found


def wrong(ours, truth, *moved, tolerance=FLOAT32):
    """The results that are further from the truth than the tolerance and rounding explain."""
    moves = [gaps(each, truth) for each in moved]
    found = []
    for name, gap in gaps(ours, truth).items():
        move = max((each[name] for each in moves), default=0.0)
        if not gap < tolerance + MOVES * move:  # nan too
            found.append(f"{name} by {gap:.1e} of its size, where rounding moves it by {move:.1e}")
    return found


def rough(low, exact):
    """What products in bfloat16 change more than `BFLOAT16` allows, against float32.

    "log": relative difference of a logged value; "turned": least cosine between the gradients of an
    update; "grown": relative difference of their lengths; "video": mean absolute difference of the
    video, in [-1, 1].
    """
    found = []
    for name, value in exact.items():
        if not name.startswith("log ") or name.endswith("grad_norm"):
            continue
        a, b = float(low[name]), float(value)
        if not abs(a - b) < BFLOAT16["log"] * max(abs(b), 0.05):
            found.append(f"{name}: {a:.4g}, {b:.4g} in float32")
    for update in sorted({name.split("/")[0] for name in exact if name.startswith("gradient ")}):
        names = [name for name in exact if name.split("/")[0] == update]
        a, b = (np.concatenate([each[n].ravel() for n in names]) for each in (low, exact))
        lengths = np.linalg.norm(a), np.linalg.norm(b)
        cosine, ratio = a @ b / max(lengths[0] * lengths[1], 1e-30), lengths[0] / lengths[1]
        if not (cosine > BFLOAT16["turned"] and abs(ratio - 1) < BFLOAT16["grown"]):
            found.append(f"{update}: cosine {cosine:.3f}, lengths {ratio:.3f} to 1")
    away = np.abs(low["video"] - exact["video"]).mean()
    return found if away < BFLOAT16["video"] else [*found, f"video by {away:.3f}"]
