"""The loop gives the devices a step while another one runs, and never more."""

import jax

from psrjax import config as config_lib
from psrjax.training import loop


def test_a_step_is_given_before_the_one_before_it_is_done_and_after_the_one_before_that(
    toy, tmp_path, monkeypatch
):
    logs, waited = [], []
    jit_step, block = loop.jit_step, jax.block_until_ready

    class Recorded:
        """A jitted step, whose logs are kept."""

        def __init__(self, *arguments):
            self._jitted = jit_step(*arguments)

        def lower(self, *arguments):
            self._program = self._jitted.lower(*arguments)
            return self

        def compile(self):
            self._program = self._program.compile()
            return self

        def __getattr__(self, name):
            return getattr(self._program, name)

        def __call__(self, *arguments):
            done.append(sorted(waited))
            state, log = self._program(*arguments)
            logs.append(log)
            return state, log

    def wait(tree):
        waited.extend(i for i, log in enumerate(logs, 1) if tree is log)
        return block(tree)

    done = []  # when step i + 1 is given: the steps that were waited for
    monkeypatch.setattr(loop, "jit_step", Recorded)
    monkeypatch.setattr(jax, "block_until_ready", wait)
    changes = {"steps": 6, "mesh.data": 1, "log_steps": 99, "checkpoint_steps": 99}
    config = config_lib.update(toy.get_config("adam"), changes)
    loop.train_stage(config_lib.stage_config(config, "first"), tmp_path)
    assert done == [[], [], [1], [1, 2], [1, 2, 3], [1, 2, 3, 4]]
