"""Alternating updates: their order, inputs and nets; and that sharding changes nothing."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy as toy_module

from psrjax.config import MeshSection
from psrjax.data import spec
from psrjax.errors import UserError
from psrjax.runtime import target
from psrjax.training import optimizer, sharding, state, step

SIZES = {"b": 1, "k": 2, "t": 2, "h": 4, "w": 4}
WEIGHTS = {"generator": {"l1": 1.0, "adversarial": 0.5}, "discriminator": {"adversarial": 0.7}}
RATE = 0.05


def make_step(method, *, weights=WEIGHTS, accumulate=1, ema=0.0, rule="sgd"):
    config = {update: {"name": rule, "learning_rate": RATE} for update in method.updates}
    optimizers = optimizer.make_optimizers(config, method.updates)
    start = state.init_state(method, optimizers, SIZES, 0, ema=ema > 0)
    return start, step.make_step(method, weights, optimizers, accumulate=accumulate, ema=ema)


def plain(**fields):
    return toy_module.Method(norm=False, noise=0.0, **fields)


def net(params, x):
    hidden = jnp.tanh(x @ params["inner"]["kernel"] + params["inner"]["bias"])
    return hidden @ params["outer"]["kernel"] + params["outer"]["bias"]


def frames(batch):
    return {name: array.astype(np.float32) / 127.5 - 1 for name, array in batch.items()}


def assert_close(a, b, tolerance=2e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=tolerance, rtol=1e-4), a, b)


def assert_equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(a), jax.device_get(b))


@pytest.fixture
def traced_for(request):
    """Traces for another platform; what is compiled still runs on this one."""
    target.use(request.param)
    yield
    target.use("")


@pytest.mark.parametrize("traced_for", ["", "gpu"], indirect=True)
def test_the_step_is_the_alternating_updates_written_out_by_hand(traced_for):
    start, train_step = make_step(plain())
    batch = toy_module.wire_batch(4)
    end, log = jax.jit(train_step)(start, batch, {})
    x = frames(batch)
    generator, discriminator = start.params["generator"], start.params["discriminator"]

    def generator_loss(generator):
        fake = net(generator, x["source"])
        l1 = jnp.abs(fake - x["target"]).mean()
        return 1.0 * l1 + 0.5 * ((net(discriminator, fake) - 1) ** 2).mean()

    grads = jax.grad(generator_loss)(generator)
    new_generator = jax.tree.map(lambda p, g: p - RATE * g, generator, grads)
    old_fake = net(generator, x["source"])

    def discriminator_loss(discriminator):
        real, fake = net(discriminator, x["target"]), net(discriminator, old_fake)
        return 0.7 * (((real - 1) ** 2).mean() + (fake**2).mean())

    new_discriminator = jax.tree.map(
        lambda p, g: p - RATE * g, discriminator, jax.grad(discriminator_loss)(discriminator)
    )
    assert_close(end.params, {"generator": new_generator, "discriminator": new_discriminator})
    assert int(end.step) == 1 and bool(end.finite)
    # The discriminator judges the fakes of the old generator, beside the generator already updated.
    np.testing.assert_allclose(log["discriminator/given"], old_fake.mean(), rtol=1e-4)
    fresh = net(new_generator, x["source"]).mean()
    np.testing.assert_allclose(log["discriminator/fresh"], fresh, rtol=1e-4)
    assert abs(fresh - old_fake.mean()) > 1e-4
    squares = sum(float((g**2).sum()) for g in jax.tree.leaves(grads))
    np.testing.assert_allclose(log["generator/grad_norm"], squares**0.5, rtol=1e-4)
    np.testing.assert_allclose(log["generator/loss"], generator_loss(generator), rtol=1e-5)


def test_a_growing_step_sees_half_of_every_side_at_first():
    at, batch = step.growing(lambda _, given, __: given, 2), toy_module.wire_batch(4)
    half = spec.halve(batch)
    for number, seen in ((1, half), (2, half), (3, batch)):
        assert_equal(at(number)(None, batch, {}), seen)


class Canvas(nn.Module):
    """A picture that is learned."""

    @nn.compact
    def __call__(self, frames):
        return self.param("canvas", nn.initializers.zeros, frames.shape[2:])


class Painted(toy_module.Method):
    """The toy with such a picture."""

    def setup(self):
        super().setup()
        self.painted = Canvas()

    def __call__(self, batch):
        super().__call__(batch)
        self.painted(batch["source"])


def test_what_depends_on_the_frames_size_fits_one_size_alone():
    half = spec.halve(toy_module.wire_batch(4))
    step.check_fits(plain(), make_step(plain())[0], half, "config.grow")
    message = (
        r"config.grow: .*canvas is \(4, 4, 3\), and \(2, 2, 3\) .*leave it out of stage 'first'"
    )
    with pytest.raises(UserError, match=message):
        step.check_fits(Painted(), make_step(Painted())[0], half, "config.grow")


@pytest.mark.parametrize("parts", [2, 4])
def test_accumulated_micro_batches_equal_the_big_batch(parts):
    batch = toy_module.wire_batch(8)
    start, single = make_step(plain())
    _, split = make_step(plain(), accumulate=parts)
    one, log_one = jax.jit(single)(start, batch, {})
    many, log_many = jax.jit(split)(start, batch, {})
    assert_close(one.params, many.params)
    for name in ("generator/l1", "generator/loss", "discriminator/adversarial"):
        np.testing.assert_allclose(log_one[name], log_many[name], rtol=1e-5)


def test_accumulation_draws_other_noise_for_every_micro_batch():
    start, train_step = make_step(toy_module.Method(norm=False, noise=1.0), accumulate=2)
    row = toy_module.wire_batch(1)
    twice = {name: np.concatenate([array, array]) for name, array in row.items()}
    _, once = make_step(toy_module.Method(norm=False, noise=1.0))
    _, log = jax.jit(train_step)(start, twice, {})
    _, single = jax.jit(once)(start, row, {})
    assert abs(float(log["generator/brightness"] - single["generator/brightness"])) > 1e-3


@pytest.mark.parametrize("traced_for", ["", "gpu"], indirect=True)
def test_eight_devices_compute_what_one_computes(traced_for):
    def run(data, fsdp, count):
        mesh = sharding.make_mesh(MeshSection(data=data, fsdp=fsdp))
        current, train_step = make_step(toy_module.Method(width=16, noise=0.1), accumulate=2)
        abstract = jax.eval_shape(lambda: current)
        placed = sharding.state_sharding(abstract, mesh, min_bytes=0)
        batch_sharding, replicated = sharding.batch_sharding(mesh), sharding.replicated(mesh)
        train_step = step.jit_step(train_step, placed, batch_sharding, replicated)
        current = jax.device_put(current, placed)
        for i in range(count):
            batch = jax.device_put(toy_module.wire_batch(16, step=i), batch_sharding)
            current, log = train_step(current, batch, {})
        return current, log

    one, log_one = run(1, 1, 3)
    many, log_many = run(2, 4, 3)
    kernel = many.params["generator"]["inner"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape) == (3, 4)
    assert len(kernel.sharding.device_set) == 8
    assert_close(one.params, many.params)
    assert_close(one.stats, many.stats)  # batch statistics are those of the global batch
    assert_close(log_one, log_many)


def test_the_state_is_donated():
    current, train_step = make_step(plain())
    mesh = sharding.make_mesh(MeshSection(data=1))
    placed = sharding.state_sharding(jax.eval_shape(lambda: current), mesh)
    batch_sharding, replicated = sharding.batch_sharding(mesh), sharding.replicated(mesh)
    train_step = step.jit_step(train_step, placed, batch_sharding, replicated)
    current = jax.device_put(current, placed)
    train_step(current, toy_module.wire_batch(4), {})
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(current.params))


def test_the_average_is_the_recursion_over_the_parameters():
    current, train_step = make_step(plain(), ema=0.2)
    train_step = jax.jit(train_step)
    mean = {net: np.asarray(current.params[net]["inner"]["kernel"]) for net in current.params}
    # The decay is .2 from the third step on: before, little of the initial parameters is kept.
    for i, decay in enumerate((1 / 10, 2 / 11, 0.2, 0.2)):
        current, _ = train_step(current, toy_module.wire_batch(4, step=i), {})
        for name in mean:
            kernel = current.params[name]["inner"]["kernel"]
            mean[name] = decay * mean[name] + (1 - decay) * kernel
    for name, expected in mean.items():
        np.testing.assert_allclose(current.ema[name]["inner"]["kernel"], expected, rtol=1e-5)
    assert_equal(current.variables["params"], current.ema)


class WithBadTerm(toy_module.Method):
    """The toy with one more term, which is not a number, and costs work."""

    def loss(self, update, batch, shared, pretrained):
        out = super().loss(update, batch, shared, pretrained)
        if update == "generator":
            costly = jnp.tensordot(batch["source"], batch["target"], 5)
            out["terms"]["bad"] = costly * jnp.nan
        return out


def test_a_term_of_weight_zero_is_as_if_it_were_not_there():
    batch = toy_module.wire_batch(4)
    start, train_step = make_step(toy_module.Method(norm=False))
    zero = {**WEIGHTS, "generator": {**WEIGHTS["generator"], "bad": 0.0}}
    _, without = make_step(WithBadTerm(norm=False), weights=zero)
    lowered = [jax.jit(each).lower(start, batch, {}).compile() for each in (train_step, without)]
    (one, log_one), (other, log_other) = (each(start, batch, {}) for each in lowered)
    assert_equal(one.params, other.params)
    assert set(log_one) == set(log_other) and bool(other.finite)
    flops = [each.cost_analysis()["flops"] for each in lowered]
    assert flops[0] == flops[1]


def test_owned_nets_change_and_frozen_ones_do_not_with_their_statistics():
    start, train_step = make_step(toy_module.Method(stage="second"))
    end, _ = jax.jit(train_step)(start, toy_module.wire_batch(4), {})
    for name in ("refine", "discriminator"):
        for tree in ("params", "stats"):
            old, new = getattr(start, tree), getattr(end, tree)
            old, new = (x if tree == "params" else x["batch_stats"] for x in (old, new))
            pairs = zip(jax.tree.leaves(old[name]), jax.tree.leaves(new[name]))
            assert all((a != b).any() for a, b in pairs), (tree, name)
    assert_equal(start.params["generator"], end.params["generator"])
    assert_equal(start.stats["batch_stats"]["generator"], end.stats["batch_stats"]["generator"])


def test_statistics_move_in_the_own_update_only():
    start, train_step = make_step(toy_module.Method(noise=0.0))
    batch = toy_module.wire_batch(4)
    end, _ = jax.jit(train_step)(start, batch, {})
    discriminator = start.params["discriminator"]["inner"]
    x = frames(batch)
    fake = start_output(start, batch)
    means = [
        (np.asarray(image) @ discriminator["kernel"] + discriminator["bias"]).mean((0, 1, 2, 3))
        for image in (x["target"], fake)
    ]
    expected = 0.9 * (0.1 * means[0]) + 0.1 * means[1]  # momentum 0.9, from 0: real, then fake
    found = end.stats["batch_stats"]["discriminator"]["norm"]["mean"]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def start_output(start, batch):
    method = toy_module.Method(noise=0.0)
    variables = {"params": start.params, **start.stats}
    decoded = spec.decode(batch)
    return method.apply(variables, decoded, True, method="fake", mutable=["batch_stats"])[0]


def test_noise_is_a_function_of_seed_and_step():
    start, train_step = make_step(toy_module.Method())
    train_step = jax.jit(train_step)
    batch = toy_module.wire_batch(4)
    first, again = train_step(start, batch, {})[1], train_step(start, batch, {})[1]
    later = train_step(start.replace(step=jnp.int32(1)), batch, {})[1]
    assert_equal(first, again)
    assert first["generator/l1"] != later["generator/l1"]


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ({**WEIGHTS, "generator": {"l1": 1.0}}, "config.weights.generator.adversarial: missing"),
        ({"generator": WEIGHTS["generator"]}, "config.weights.discriminator.adversarial: missing"),
        ({**WEIGHTS, "generator": {**WEIGHTS["generator"], "l2": 1.0}}, "generator.l2"),
        ({**WEIGHTS, "judge": {"l1": 1.0}}, "config.weights.judge: no such update"),
    ],
)
def test_weights_and_terms_have_to_match(weights, said):
    start, _ = make_step(plain())
    with pytest.raises(UserError, match=said):
        step.check_weights(plain(), weights, start, toy_module.wire_batch(2), {})
    step.check_weights(plain(), WEIGHTS, start, toy_module.wire_batch(2), {})


def test_the_first_thing_that_was_not_finite_is_named(toy):
    toy.GREY_STEPS.add(1)
    start, train_step = make_step(toy_module.Method())
    train_step = jax.jit(train_step)
    current, _ = train_step(start, toy.wire_batch(4, step=0), {})
    step.check_finite(current, plain(), WEIGHTS, 0)
    for i in (1, 2):
        current, log = train_step(current, toy.wire_batch(4, step=i), {})
    assert np.isnan(log["discriminator/adversarial"])  # by now everything is
    with pytest.raises(UserError, match="generator/l1 is not finite.*step 7 is kept"):
        step.check_finite(current, plain(), WEIGHTS, 7)


def test_a_gradient_that_is_not_finite_is_named():
    class Steep(toy_module.Method):
        def loss(self, update, batch, shared, pretrained):
            out = super().loss(update, batch, shared, pretrained)
            if update == "discriminator":
                value = out["terms"]["adversarial"]
                out["terms"]["adversarial"] = value + jnp.sqrt(value * 0.0)
            return out

    start, train_step = make_step(Steep())
    current, log = jax.jit(train_step)(start, toy_module.wire_batch(4), {})
    assert np.isfinite(log["discriminator/adversarial"])
    with pytest.raises(UserError, match="the gradient of update discriminator"):
        step.check_finite(current, plain(), WEIGHTS, 0)


def test_initial_parameters_do_not_depend_on_the_mesh():
    method = toy_module.Method()
    rules = {update: {"name": "adam", "learning_rate": 0.1} for update in method.updates}
    optimizers = optimizer.make_optimizers(rules, method.updates)

    def make(seed):
        return state.init_state(method, optimizers, SIZES, seed, ema=True)

    mesh = sharding.make_mesh(MeshSection(fsdp=4))
    placed = sharding.state_sharding(jax.eval_shape(make, 3), mesh, min_bytes=0)
    sharded = jax.jit(make, out_shardings=placed)(3)
    assert_equal(sharded.params, jax.jit(make)(3).params)
    assert isinstance(method, nn.Module)


@pytest.mark.parametrize("bad", [None, np.nan, np.inf])
def test_the_gradient_norm_is_numpys_and_shows_what_is_not_finite(bad):
    rng = np.random.default_rng(3)
    tree = {"kernel": rng.normal(size=(3, 3, 40, 24)), "bias": rng.normal(size=7)}
    tree = jax.tree.map(np.float32, tree)
    expected = np.sqrt(sum((x.astype(np.float64) ** 2).sum() for x in jax.tree.leaves(tree)))
    if bad is None:
        np.testing.assert_allclose(jax.jit(step.gradient_norm)(tree), expected, rtol=1e-6)
        return
    tree["kernel"][1, 2, 3, 4] = bad
    assert not np.isfinite(jax.jit(step.gradient_norm)(tree))
