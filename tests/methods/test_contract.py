"""Every method and every config keep the contract: found by listing the folders, none by name."""

import functools
import re
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psrjax import config as configs
from psrjax.data import sampling, spec
from psrjax.data.source import Clip, View
from psrjax.errors import UserError
from psrjax.methods import base
from psrjax.pretrained import registry
from psrjax.training import optimizer, state, step

FOLDER = Path(__file__).parents[2] / "configs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))


def labels(name, group):
    return tuple(getattr(configs.module(str(FOLDER / f"{name}.py")), group))


# The contextual term's blocks do not fit tiny's frames; tests/losses/test_contextual.py has them.
TOO_LARGE_FOR_TINY = ("context_blocks",)
# Long to compile, and D_V and temporal=a set the same fields.
SLOW = (("hpt", "D_V^3"), ("hpt", "temporal=b"))
ABLATIONS = [
    pytest.param(name, label, marks=pytest.mark.slow if (name, label) in SLOW else ())
    for name in NAMES
    for label in labels(name, "ABLATIONS")
    if label not in TOO_LARGE_FOR_TINY
]
ON_ANOTHER_RUN = ("refine", "learned_texture")  # test_refinement.py gives them one
PRESETS = [
    (name, label)
    for name in NAMES
    for label in ("", *labels(name, "PRESETS"), "bf16")
    if label not in ON_ANOTHER_RUN
]
STAGES_OF = {name: configs.load(str(FOLDER / f"{name}.py")).stages for name in NAMES}
STAGES = [(name, stage) for name in NAMES for stage in STAGES_OF[name]]
STEPS = [  # real steps: of the first stage; of the others only when there is time
    pytest.param(name, stage, marks=() if stage == STAGES_OF[name][0] else pytest.mark.slow)
    for name, stage in STAGES
]


@functools.cache
def load(name, variant):
    return configs.load(f"{FOLDER / name}.py:{variant}")


class Stage:
    """One stage of a config: the method, its optimizers, and batches of its size."""

    def __init__(self, name, variant, stage):
        self.config = configs.stage_config(load(name, variant), stage)
        self.method = base.build(**configs.method_fields(self.config))
        self.optimizers = optimizer.make_optimizers(
            self.config.optimizer.to_dict(), self.method.updates
        )
        self.weights = self.config.weights.to_dict()
        side = max(self.config.data.crop)  # square: FoM's discriminator needs 53 pixels both ways
        sampling = self.config.data.sampling
        self.sizes = {"k": sampling.k, "t": sampling.t, "h": side, "w": side}
        self.sizes["b"] = self.config.batch
        self.reads = (*self.method.reads, *self.method.baseline_reads)

    def start(self):
        return state.init_state(self.method, self.optimizers, self.sizes, 0, ema=False)

    def zeros(self):
        return spec.zeros(self.reads, self.sizes)

    def noise(self, seed=0):
        """A wire batch of random values inside the contract's ranges."""
        rng = np.random.default_rng(seed)
        batch = self.zeros()
        for key, array in batch.items():
            high = {"target_visibility": 3}.get(key, 256)
            if array.dtype == np.uint8:
                batch[key] = rng.integers(0, high, array.shape).astype(np.uint8)
                if spec.KEYS[key].coding == spec.IUV:
                    batch[key][..., 0] %= 25
            elif array.dtype in (np.float16, np.float32):
                batch[key] = rng.uniform(0, 1, array.shape).astype(array.dtype)
        spec.check(batch, self.reads)
        return batch

    def pretrained_shapes(self):
        return jax.tree.map(
            lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32),
            {name: registry.shapes(name) for name in self.method.pretrained},
            is_leaf=lambda leaf: isinstance(leaf, tuple),
        )


@functools.cache
def start_of(name, variant, stage):
    """(the stage, the shapes of its state at the start)."""
    made = Stage(name, variant, stage)
    return made, jax.eval_shape(made.start)


def tree(name, variant, stage):
    """The shapes of the parameters as text."""
    return str(jax.tree.map(lambda leaf: leaf.shape, start_of(name, variant, stage)[1].params))


def as_text(program):
    return re.sub(r"0x[0-9a-f]+", "", str(program))


@functools.cache
def losses_program(name, variant, stage):
    """The programs of the losses and of the beginning as text."""
    made, start = start_of(name, variant, stage)

    def losses(variables, batch, weights):
        batch, shared, terms = spec.decode(batch), {}, {}
        rngs = {stream: jax.random.key(0) for stream in state.STREAMS}
        for update in made.method.updates:
            out, _ = made.method.apply(
                variables,
                update,
                batch,
                shared,
                weights,
                rngs=rngs,
                mutable=list(start.stats),
                method="loss",
            )
            shared |= out["shared"]
            wanted = made.weights[update]  # a term of weight 0 is left out
            terms[update] = {k: v for k, v in out["terms"].items() if wanted.get(k)}
        return terms

    jaxpr = jax.make_jaxpr(losses)(start.variables, made.zeros(), made.pretrained_shapes())
    begun = jax.make_jaxpr(made.method.init_from_previous)(start.variables)
    return hash(as_text(jaxpr)), hash(as_text(begun))


def synthesis_program(name, variant, stage):
    """The program of synthesis as text: what an ablation of synthesis alone must change."""
    made, start = start_of(name, variant, stage)

    def run(variables, batch):
        batch = spec.decode(batch)
        carry = made.method.apply(variables, batch, method="start")
        return made.method.apply(variables, batch, carry, method="synthesize")[0]

    return as_text(jax.make_jaxpr(run)(start.variables, made.zeros()))


def start_program(name, variant, stage):
    """The program that draws the first parameters: what an ablation of these alone must change."""
    return as_text(jax.make_jaxpr(Stage(name, variant, stage).start)())


@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_declarations_agree_with_what_is_there(name, stage):
    made, start = start_of(name, "tiny", stage)
    for nets in made.method.updates.values():
        assert nets and set(nets) <= set(start.params)
    assert set(made.reads) <= set(spec.KEYS)
    step.check_weights(made.method, made.weights, start, made.zeros(), made.pretrained_shapes())


@pytest.mark.parametrize(("name", "stage"), STAGES)
def test_synthesis_and_baselines_have_the_targets_shape(name, stage):
    made, start = start_of(name, "tiny", stage)

    def run(variables, batch):
        batch = spec.decode(batch)
        carry = made.method.apply(variables, batch, method="start")
        shown, carry = made.method.apply(variables, batch, carry, True, method="synthesize")
        return shown, made.method.apply(variables, batch, method="baselines"), carry

    shown, simple, _ = jax.eval_shape(run, start.variables, made.zeros())
    target = spec.shape("target", made.sizes)
    assert shown["video"].shape == target
    assert all(video.shape == target for video in {**shown.get("steps", {}), **simple}.values())
    assert simple and not set(simple) & set(shown.get("steps", {}))


@pytest.mark.parametrize(("name", "stage"), STEPS)
def test_a_step_changes_its_own_nets_and_no_others(name, stage):
    made = Stage(name, "tiny", stage)
    weights = {key: registry.load(key) for key in made.method.pretrained}
    cheap = {"xla_backend_optimization_level": 0}  # one step only: compile quickly
    start = jax.jit(made.start, compiler_options=cheap)()
    play = step.make_step(made.method, made.weights, made.optimizers)
    end, log = jax.jit(play, compiler_options=cheap)(start, made.noise(), weights)
    assert int(end.first_nonfinite) == 0
    assert all(np.isfinite(value) for value in log.values())
    owned = {net for nets in made.method.updates.values() for net in nets}
    for net in start.params:
        before, after = ({"params": s.params[net]} for s in (start, end))
        for kind, tree in start.stats.items():
            if net in tree:
                before[kind], after[kind] = tree[net], end.stats[kind][net]
        same = jax.tree.map(lambda a, b: bool((a == b).all()), before, after)
        if net in owned:
            still = [path for path, equal in jax.tree.leaves_with_path(same) if equal]
            assert not still, f"{net} did not change in {jax.tree_util.keystr(still[0])}"
        else:
            assert all(jax.tree.leaves(same)), f"{net} is frozen and changed"

    def run(variables, batch):
        batch = spec.decode(batch)
        carry = made.method.apply(variables, batch, method="start")
        return made.method.apply(variables, batch, carry, method="synthesize")[0]

    run = jax.jit(run, compiler_options=cheap)
    shown, again = (run(end.variables, made.noise()) for _ in range(2))
    assert float(jnp.abs(shown["video"]).max()) <= 1.0
    np.testing.assert_array_equal(shown["video"], again["video"])


@pytest.mark.parametrize(("name", "label"), ABLATIONS)
def test_every_ablation_changes_the_program_the_tree_or_the_terms(name, label):
    plain, changed = load(name, "tiny"), load(name, f"tiny,{label}")
    default = not configs.differences(plain, changed)
    if default or plain.stages != changed.stages:
        return  # the label of the default itself; or a table's row that has fewer stages
    first, *others = changed.stages
    for stage in (first, *others[::-1]):  # the first is small, the last holds most of the others
        for of_stage in (tree, losses_program):
            if of_stage(name, "tiny", stage) != of_stage(name, f"tiny,{label}", stage):
                return
    last = changed.stages[-1]
    for of_stage in (synthesis_program, start_program):
        if of_stage(name, "tiny", last) != of_stage(name, f"tiny,{label}", last):
            return
    pytest.fail(f"{label!r} changes nothing in any stage")


@pytest.mark.parametrize(("name", "label"), PRESETS)
def test_an_evaluation_scores_no_frame_that_the_method_or_a_baseline_is_given(name, label):
    config = load(name, label)
    views = {view: View(view, 300, 25.0, (64, 64), {}, ()) for view in ("cam1", "cam2")}
    source = SimpleNamespace(clips=[Clip("walk", views)])
    for stage in config.stages:
        policy = sampling.policy(configs.stage_config(config, stage).data.sampling)
        windows = sampling.evaluation_windows(source, policy, "all")
        for view in views:
            own = [window for window in windows if window.source_view == view]
            scored = {(w.target_view, frame) for w in own for frame in w.target_frames}
            assert len(scored) >= 16
            assert not scored & {(view, frame) for w in own for frame in w.source_frames}
            if policy.source != "same_time":  # else the source moves along with the target
                assert len({window.source_frames for window in own}) == 1


@pytest.mark.parametrize(("name", "label"), PRESETS)
def test_every_preset_builds(name, label):
    last = load(name, label).stages[-1]  # has the nets of all stages before
    made, start = start_of(name, label, last)
    assert {net for nets in made.method.updates.values() for net in nets} <= set(start.params)


@pytest.mark.parametrize("name", NAMES)
def test_every_leaf_can_be_given_as_text(name):
    config = load(name, "tiny")
    assert configs.differences(configs.from_json(configs.to_json(config)), config) == {}


@pytest.mark.parametrize("name", NAMES)
def test_unknown_variants_are_told_with_the_list(name):
    with pytest.raises(UserError, match="no variant 'no such'; presets: .*tiny.*stages: "):
        load(name, "tiny,no such")


def test_unknown_methods_and_fields_are_told():
    with pytest.raises(UserError, match="no method 'nothing'; there are"):
        base.build("nothing")
    with pytest.raises(UserError, match="has no such field; it has"):
        base.build(base.available()[0], colour="red")


@pytest.mark.parametrize("name", NAMES)
def test_the_dataclass_is_the_source_of_defaults(name):
    assert configs.base(name).method.to_dict() == {
        **base.defaults(name),
        "name": name,
        "stage": "",
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_value_that_is_no_choice_is_told_with_the_config(name):
    for field in base.build(name).choices:
        value = "nothing" if isinstance(base.defaults(name)[field], str) else 7
        with pytest.raises(UserError, match=f"config.method.{field}: no {value!r}; there are"):
            base.build(name, **{field: value})
    with pytest.raises(UserError, match="config.method.perceptual: no 'x'; there are .*random"):
        configs.load(f"{FOLDER / name}.py:tiny", {"method.perceptual": "x"})
