"""On a GPU every stage of every method computes what it does on the CPU, and needs no host.

    JAX_PLATFORMS= python -m pytest -m gpu --noconftest tests/gpu

Without a GPU these tests are skipped; `tests/benchmarks/test_two_devices.py` tries their machinery
on the CPU. Only what a bare machine has is imported in this folder.
"""

import jax
import pytest
import two_devices

pytestmark = pytest.mark.gpu


@pytest.fixture
def gpu():
    """The first accelerator."""
    found = two_devices.accelerator()
    if found is None:
        pytest.skip("no accelerator here (JAX_PLATFORMS= lets JAX look for one)")
    return found


@pytest.mark.parametrize("name", STAGES := two_devices.stages())
def test_a_stages_losses_gradients_and_video_are_those_of_the_cpu(gpu, name):
    stage = two_devices.Stage(STAGES[name])
    truth, _ = stage.on(jax.devices("cpu")[0], nudges=3)
    (ours,), host = stage.on(gpu)
    problems = two_devices.wrong(ours, *truth)
    (low,), host_of_low = stage.on(gpu, dtype="bfloat16")
    problems += [f"bfloat16: {each}" for each in two_devices.rough(low, ours)]
    problems += [f"the step needs the host: {line}" for line in host + host_of_low]
    assert not problems, "; ".join(problems)
