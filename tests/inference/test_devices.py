"""A window's frames may be shared by devices: they are those that one device makes."""

import jax
import numpy as np
import pytest

from psrjax import config as config_lib
from psrjax.benchmarks import compiled_stage
from psrjax.data import spec
from psrjax.inference import synthesizer
from psrjax.methods import base

pytestmark = pytest.mark.skipif(jax.device_count() != 8, reason="eight fake CPU devices are wanted")
FRAMES = 8


@pytest.mark.slow
@pytest.mark.parametrize("name", config_lib.names())
def test_eight_devices_synthesize_the_frames_of_one(name, monkeypatch):
    config = config_lib.load(f"{name}:tiny")
    config = config_lib.stage_config(config, config.stages[-1])
    method = base.build(**config_lib.method_fields(config))
    sources = FRAMES if config.data.sampling.source == "same_time" else config.data.sampling.k
    sizes = {"b": 1, "k": sources, "t": FRAMES, "h": 32, "w": 32}
    windows = [compiled_stage.random_batch(method.reads, sizes, seed=seed) for seed in (0, 1)]
    random = np.random.default_rng(0)  # nets that begin as nothing would hide their mistakes
    louder = lambda leaf: leaf + random.normal(0.0, 0.02, leaf.shape).astype(leaf.dtype)  # noqa: E731
    made = jax.jit(method.init)(jax.random.key(0), spec.decode(windows[0]))
    variables = {**made, "params": jax.tree.map(louder, jax.device_get(made["params"]))}

    def clip(count):
        local = jax.local_devices()[:count]
        monkeypatch.setattr(synthesizer, "devices", lambda work=0: local)
        assert len(synthesizer.frame_devices(FRAMES)) == count
        where = synthesizer.cut(synthesizer.frame_devices(FRAMES), axis=1)
        run, carry, frames = synthesizer.make_synthesizer(method), None, []
        for window in windows:
            given = {key: np.asarray(window[key]) for key in method.synthesis_reads}
            shared = synthesizer.by_frames(given, where, FRAMES)
            found, carry = run(synthesizer.whole(variables, where), shared, carry)
            frames.append(np.asarray(found["video"]).astype(int))
        return np.concatenate(frames, 1)

    alone, shared = clip(1), clip(8)
    assert alone.std() > 1.0
    assert np.abs(alone - shared).max() <= 1  # of 255: sums in another order round differently
    assert (alone != shared).mean() < 0.01
