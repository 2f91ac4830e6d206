"""What is compiled is what was written: the guard against jaxlib 0.10.2's wrong sums on CPUs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psrjax import _compiler

FLAG = "--xla_cpu_experimental_ynn_fusion_type"


@pytest.mark.parametrize("n", [8, 64, 128])
def test_compiled_sums_of_products_with_broadcast_factors_are_numpys(n):
    random = np.random.default_rng(n)
    x = random.normal(size=(1, 1, 4, n, n, 8)).astype(np.float32)
    y = random.uniform(size=(1, 2, 4, n, n)).astype(np.float32)
    found = jax.jit(lambda x, y: (jnp.broadcast_to(x, (1, 2, 4, n, n, 8)) * y[..., None]).sum(2))
    expected = np.einsum("bskhwc,btkhw->bthwc", x.astype(np.float64), y.astype(np.float64))
    np.testing.assert_allclose(found(x, y), expected, atol=1e-5)


def test_the_guard_adds_its_flag_to_what_the_user_has():
    environ = {"XLA_FLAGS": "--xla_dump_to=/tmp/x"}
    _compiler.guard(environ, "0.10.2")
    assert environ == {"XLA_FLAGS": f"--xla_dump_to=/tmp/x {FLAG}=-reduce"}
    _compiler.guard(environ, "0.10.2")  # once is enough
    assert environ["XLA_FLAGS"].count(FLAG) == 1


@pytest.mark.parametrize(
    ("given", "version"),
    [({}, "0.10.1"), ({}, "0.11.0"), ({"XLA_FLAGS": f"{FLAG}=+dot"}, "0.10.2")],
)
def test_other_versions_and_a_users_own_choice_are_left_alone(given, version):
    environ = dict(given)
    _compiler.guard(environ, version)
    assert environ == given
