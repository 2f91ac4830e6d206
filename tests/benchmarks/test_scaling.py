"""The model of scaling, held against sums done by hand."""

import dataclasses

import pytest

from psrjax.benchmarks import scaling
from psrjax.benchmarks.chips import CHIPS
from psrjax.benchmarks.compiled_program import Collective

COSTS = {"compute_s": 0.010, "memory_s": 0.030, "model_flops": 197e12 * 0.012}
FREE = {name: dataclasses.replace(chip, latency=0.0) for name, chip in CHIPS.items()}


def reduced(size, times=1):
    return Collective("all-reduce", size, times, 0, "", "", "")


def test_one_device_exchanges_nothing():
    (row,) = scaling.predict(COSTS, [reduced(10**9)], CHIPS["v5e"], pixels=0, devices=(1,))
    assert row["step_s"] == 0.030 and row["limit"] == "memory" and row["efficiency"] == 1.0
    assert row["mfu"] == pytest.approx(0.012 / 0.030)


def test_sums_go_twice_over_both_axes_of_a_ring():
    seconds = scaling.collective_seconds("all-reduce", 10**9, 256, FREE["v5e"])
    assert seconds == pytest.approx(2 * 1e9 * 255 / 256 / (2 * 90e9))
    gathered = scaling.collective_seconds("all-gather", 10**9, 256, FREE["v5e"])
    assert gathered == pytest.approx(seconds / 2)


def test_a_slice_that_does_not_go_round_has_half_the_bandwidth():
    seconds = scaling.collective_seconds("all-gather", 10**9, 64, FREE["v5e"])
    assert seconds == pytest.approx(1e9 * 63 / 64 / 90e9)


def test_many_small_collectives_cost_hops():
    seconds = scaling.collective_seconds("all-reduce", 0, 256, CHIPS["v5e"])
    assert seconds == pytest.approx(2 * (8 + 8) * 1e-6)  # half way round both axes, and back


def test_hosts_of_gpus_exchange_over_the_network():
    inside = scaling.collective_seconds("all-reduce", 10**9, 8, FREE["h100"])
    assert inside == pytest.approx(2 * 1e9 * 7 / 8 / 450e9)
    across = scaling.collective_seconds("all-reduce", 10**9, 64, FREE["h100"])
    assert across == pytest.approx(inside + 2 * 1e9 / 8 * 7 / 8 / 50e9)


def test_efficiency_and_what_limits():
    chip = FREE["v5e"]
    rows = scaling.predict(COSTS, [reduced(9 * 10**8, times=4)], chip, pixels=0, devices=(1, 256))
    exchanged = 4 * 2 * 9e8 * 255 / 256 / 180e9
    assert rows[1]["step_s"] == pytest.approx(0.030 + exchanged)
    assert rows[1]["efficiency"] == pytest.approx(0.030 / (0.030 + exchanged))
    assert rows[1]["limit"] == "collectives"


def test_loading_overlaps_and_is_shared_by_the_devices_of_a_host():
    pixels = 26 * 12 * 256 * 256  # what a core reads in a second
    rows = scaling.predict(COSTS, [], CHIPS["v5e"], pixels=pixels, devices=(1, 4, 8))
    assert [row["input_s"] for row in rows] == pytest.approx([1 / 56, 4 / 56, 4 / 56])
    assert rows[0]["step_s"] == 0.030 and rows[1]["step_s"] == pytest.approx(4 / 56)
    assert rows[2]["limit"] == "input"
