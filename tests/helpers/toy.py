"""A tiny method with everything that training must get right.

A generator and a discriminator (both with batch statistics, the generator with dropout-like noise)
and, in stage "second", a frozen net. `install` puts it and its data where training looks for them.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from psrjax import config as config_lib
from psrjax.data import loader
from psrjax.methods import base

GREY_STEPS: set[int] = set()  # steps whose batch makes the l1 term nan


def BEFORE_BATCH(step):  # noqa: N802
    """Called before the batch of a step is made; tests replace it to interfere."""


class Net(nn.Module):
    """A layer, batch statistics, a layer back to three channels."""

    width: int
    norm: bool

    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(self.width, name="inner")(x)
        if self.norm:
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x)
        return nn.Dense(3, name="outer")(nn.tanh(x))


class Method(base.Method):
    """Trains a generator and a discriminator, then refines the frozen generator's output."""

    stage: str = "first"
    width: int = 8
    norm: bool = True
    noise: float = 0.1

    def setup(self):
        """Builds the nets of this stage."""
        self.generator = Net(self.width, self.norm)
        if self.stage == "second":
            self.refine = Net(self.width, self.norm)
        self.discriminator = Net(self.width, self.norm)

    @property
    def updates(self):
        """The generator's update, then the discriminator's."""
        update = "refine" if self.stage == "second" else "generator"
        return {"generator": (update,), "discriminator": ("discriminator",)}

    @property
    def reads(self):
        """Frames only."""
        return ("source", "target")

    def fake(self, batch, train):
        """The stage's output."""
        image = self.generator(batch["source"], train and self.stage == "first")
        return self.refine(image, train) if self.stage == "second" else image

    def __call__(self, batch):
        """Touches every net."""
        self.discriminator(self.fake(batch, True), True)

    def loss(self, update, batch, shared, pretrained):
        """Least squares on either side, and L1."""
        del pretrained
        if update == "generator":
            fake = self.fake(batch, True)
            if self.noise:
                fake = fake + self.noise * jax.random.normal(self.make_rng("noise"), fake.shape)
            contrast = jnp.asarray(jnp.ptp(batch["source"]) > 0, jnp.float32)  # grey gives nan
            terms = {
                "l1": jnp.abs(fake - batch["target"]).mean() / contrast,
                "adversarial": ((self.discriminator(fake, True) - 1) ** 2).mean(),
            }
            return {"terms": terms, "shared": {"fake": fake}, "log": {"brightness": fake.mean()}}
        real, fake = (
            self.discriminator(batch["target"], True),
            self.discriminator(shared["fake"], True),
        )
        return {
            "terms": {"adversarial": ((real - 1) ** 2).mean() + (fake**2).mean()},
            "log": {"given": shared["fake"].mean(), "fresh": self.fake(batch, False).mean()},
        }


class Batches:
    """Batches that are a function of (seed, step), as `loader.train_batches` gives them."""

    def __init__(self, batch, seed, start_step, sharding):
        self.batch, self.seed, self.step, self.sharding = batch, seed, start_step, sharding

    def __next__(self):
        BEFORE_BATCH(self.step)
        rows = wire_batch(self.batch, self.seed, self.step)
        self.step += 1
        share = self.batch // jax.process_count()
        mine = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
        return {
            name: jax.make_array_from_process_local_data(self.sharding, array[mine], array.shape)
            for name, array in rows.items()
        }

    def names(self, batch):
        """The rows of the batch that was made last."""
        return [f"row {number} of batch {self.step - 1}" for number in range(self.batch)]

    def get_state(self):
        """The position."""
        return {"next_index": self.step}

    def close(self):
        """Nothing to stop."""


def wire_batch(batch, seed=0, step=0):
    """A batch of noise whose target is a function of its source, and which differs by row."""
    rng = np.random.default_rng((seed, step))
    source = rng.integers(0, 256, (batch, 2, 4, 4, 3), np.uint8)
    if step in GREY_STEPS:
        source[:] = 128
    return {"source": source, "target": source[..., ::-1].copy()}


def train_batches(data_config, reads, *, batch, seed, start_step, sharding=None):
    """Stands in for `loader.train_batches`."""
    del data_config, reads
    return Batches(batch, seed, start_step, sharding)


def install(patch=setattr):
    """Makes training find the toy and its batches; `patch` may be monkeypatch.setattr."""
    patch(base, "find", lambda name: Method)
    patch(loader, "train_batches", train_batches)


def get_config(variant=""):
    """The toy's config: batch 8, two stages, stochastic gradient descent."""
    config = config_lib.base("toy")
    config.stages = ("first", "second")
    config.batch, config.steps, config.checkpoint_steps, config.log_steps = 8, 4, 2, 1
    config.mesh.fsdp_min_bytes = 0
    config.weights = {
        "generator": {"l1": 1.0, "adversarial": 0.1},
        "discriminator": {"adversarial": 0.5},
    }
    sgd = {"name": "sgd", "learning_rate": 0.1}
    config.optimizer = {"generator": dict(sgd), "discriminator": dict(sgd)}
    presets = {
        "adam": {f"optimizer.{update}.name": "adam" for update in config.optimizer},
        "plain": {"method.norm": False, "method.noise": 0.0},
    }
    return config_lib.apply_variant(config, variant, presets=presets)
