"""The comparison of devices works: it passes what is the same and fails what is not."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
import toy
import two_devices

from psrjax import config as config_lib
from psrjax.nn import layers

CPU = jax.devices("cpu")[0]


class Method(toy.Method):
    """The toy with a convolution as its generator, and with synthesis."""

    def setup(self):
        """Builds the nets."""
        self.discriminator = toy.Net(self.width, self.norm)
        self.generator = layers.Conv(3, (3, 3), padding=1, dtype=self.dtype)

    def fake(self, batch, train):
        """The source through a convolution."""
        b, k = batch["source"].shape[:2]
        made = self.generator(batch["source"].reshape(b * k, 4, 4, 3))
        return nn.tanh(made).astype(jnp.float32).reshape(b, k, 4, 4, 3)

    def start(self, batch):
        """Nothing is kept."""

    def synthesize(self, batch, carry, intermediates=False):
        """The same, without statistics."""
        return {"video": self.fake(batch, False)}, carry


@pytest.fixture(scope="module")
def results():
    """On the CPU: in float32 with two nudges, by the GPU's formulations, and in bfloat16."""
    with pytest.MonkeyPatch.context() as patch:
        toy.install(patch.setattr)
        patch.setattr(two_devices.base, "find", lambda name: Method)
        changes = {"data.crop": (4, 4), "data.sampling.k": 2, "data.sampling.t": 2}
        config = config_lib.update(toy.get_config(), changes)
        stage = two_devices.Stage(config_lib.stage_config(config, "first"))
        truth, host = stage.on(CPU, nudges=2)
        (others,), _ = stage.on(CPU, platform="gpu")
        (low,), _ = stage.on(CPU, dtype="bfloat16")
    assert not host
    return truth, others, low


def test_what_is_the_same_passes_and_one_wrong_number_fails(results):
    truth, ours, _ = results
    assert not two_devices.wrong(ours, *truth)
    assert max(two_devices.gaps(ours, truth[0]).values()) > 0  # another program computed it
    kernel = "gradient generator/generator/kernel"
    logged = [name for name in ours if name.startswith("log ")]
    assert len(logged) == 10
    for name in (*logged, kernel, "video"):
        changed = {**ours, name: ours[name] * 1.01}
        assert [each.split(" by ")[0] for each in two_devices.wrong(changed, *truth)] == [name]
    broken = {**ours, "video": ours["video"] * float("nan")}
    assert two_devices.wrong(broken, *truth)[0].startswith("video by nan")


def test_what_rounding_moves_may_differ_by_a_few_moves(results):
    (truth, *_), name = results[0], "log generator/loss"
    steep = {**truth, name: truth[name] * 1.01}
    assert two_devices.wrong({**truth, name: truth[name] * 1.03}, truth)
    assert not two_devices.wrong({**truth, name: truth[name] * 1.03}, truth, steep)
    assert two_devices.wrong({**truth, name: truth[name] * 1.05}, truth, steep)


def test_bfloat16_passes_and_a_wrong_gradient_or_picture_does_not(results):
    (exact, *_), _, low = results
    assert two_devices.gaps(low, exact)["video"] > 1e-4  # it was bfloat16
    assert not two_devices.rough(low, exact)
    name = "gradient generator/generator/kernel"
    (said,) = two_devices.rough({**low, name: -low[name]}, exact)
    assert said.startswith("gradient generator: cosine -")
    (said,) = two_devices.rough({**low, "video": low["video"] + 0.1}, exact)
    assert said.startswith("video by 0.1")
    (said,) = two_devices.rough({**low, "log generator/l1": exact["log generator/l1"] * 2}, exact)
    assert said.startswith("log generator/l1: ")


def test_a_step_that_asks_the_host_is_found():
    def asks(x):
        return jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct(x.shape, x.dtype), x) + 1

    def compiled(function):
        return jax.jit(function).lower(jnp.zeros(3)).compile().as_text()

    assert two_devices.host_lines(compiled(asks))
    assert not two_devices.host_lines(compiled(lambda x: x + 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES := two_devices.stages())
def test_the_formulations_for_gpus_are_those_of_cpus(name):
    stage = two_devices.Stage(STAGES[name])
    truth, _ = stage.on(CPU, nudges=3)
    (ours,), host = stage.on(CPU, platform="gpu")
    (low,), _ = stage.on(CPU, platform="gpu", dtype="bfloat16")
    assert not two_devices.wrong(ours, *truth) + two_devices.rough(low, ours) + host
