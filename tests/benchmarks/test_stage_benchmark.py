"""The benchmark counts what is computed, measures in pairs, and runs on a bare machine."""

import importlib.metadata
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from psrjax import config as config_lib
from psrjax.benchmarks import compiled_stage, flops, text_table, timing
from psrjax.data import spec
from psrjax.nn import layers
from psrjax.pretrained import vgg

BARE = ("jax", "flax", "optax", "numpy", "ml_collections", "jaxtyping")


def multiplications(inputs, kernel_size, stride):
    """Of a convolution of one channel without padding, by walking through it."""
    outputs = [(size - tap) // stride + 1 for size, tap in zip(inputs, kernel_size)]
    steps = [range(n) for n in (*outputs, *kernel_size)]
    return sum(1 for _ in itertools.product(*steps)), outputs


@pytest.mark.parametrize("stride", [1, 2])
def test_flops_of_a_convolution_are_two_for_each_product_of_the_naive_loop(stride):
    products, outputs = multiplications((5, 7, 6), (3, 2, 3), stride)
    count = flops.convolution_flops(18, samples=1, inputs=(5, 7, 6), outputs=outputs)
    assert count == 2 * products


def test_flops_of_a_transposed_convolution_are_those_of_the_convolution_it_transposes():
    forward = flops.convolution_flops(54, samples=2, inputs=(8, 8), outputs=(4, 4))
    back = flops.convolution_flops(54, samples=2, inputs=(4, 4), outputs=(8, 8))
    assert forward == back == 2 * 54 * 2 * 16


class Maker(nn.Module):
    @nn.compact
    def __call__(self, x):
        for i in range(2):
            x = layers.Conv(4, (1, 1), name=f"layer{i}")(x)
        return x


def test_a_network_of_plain_functions_is_counted_too():
    weights = {
        name: {part: jnp.zeros(shape) for part, shape in parts.items()}
        for name, parts in vgg.shapes().items()
    }

    def step(weights, image):
        return jax.grad(lambda image: vgg.features(weights, image, ["relu1_2"])["relu1_2"].sum())(
            image
        )

    products = 16 * 16 * (9 * 3 * 64 + 9 * 64 * 64)
    # Forward and the gradient of each input, the image's included; its weights are constants.
    assert flops.count_step(step, weights, jnp.zeros((1, 16, 16, 3))) == 4 * products


class Game(nn.Module):
    """Two nets of pointwise convolutions: `maker` is trained, and `judge` only asked."""

    def setup(self):
        self.maker = Maker()
        self.judge = layers.Conv(1, (1, 1))

    def __call__(self, x):
        return self.judge(self.maker(x))

    def loss(self, update, x):
        del update
        return self(x).mean()


def test_a_step_counts_the_gradients_that_are_asked_for_and_no_others():
    game, x = Game(), jnp.ones((1, 6, 6, 3))
    params = game.init(jax.random.key(0), x)["params"]

    def step(params, x):
        rest, mine = {"judge": params["judge"]}, {"maker": params["maker"]}
        return jax.grad(
            lambda mine: game.apply({"params": {**rest, **mine}}, "only", x, method="loss")
        )(mine)

    # Each multiply-add of a 1x1 convolution is one element of its kernel, at 36 places.
    first, second, judge = 3 * 4, 4 * 4, 4 * 1
    forward = first + second + judge
    kernel_gradients = first + second  # the judge is not trained
    input_gradients = second + judge  # the first layer reads data
    count = flops.count_step(step, params, x)
    assert count == 2 * 36 * (forward + kernel_gradients + input_gradients)
    calls = flops.count_forward(lambda p, x: game.apply({"params": p}, x), params, x)
    assert sum(calls.values()) == 2 * 36 * forward


def test_pairs_alternate_and_let_each_side_settle_before_it_counts():
    calls = []
    found = timing.measure_pairs(
        lambda: calls.append("a"), lambda: calls.append("b"), pairs=3, warm=1, settle=1
    )
    assert "".join(calls) == "ab" + "aabb" * 3
    assert len(found.first.seconds) == len(found.second.seconds) == 3


def test_the_ratio_is_the_median_of_the_pairs_ratios():
    first = timing.Timing((1.0, 30.0, 3.0))
    second = timing.Timing((2.0, 10.0, 3.0))
    assert timing.Pairs(first, second).ratios.median == 1.0
    assert first.summary()["median_s"] == 3.0


def test_random_batches_keep_the_contract():
    sizes = {"b": 2, "k": 3, "t": 4, "h": 8, "w": 12}
    batch = compiled_stage.random_batch(tuple(spec.KEYS), sizes)
    assert spec.check(batch, spec.KEYS) == sizes
    assert set(np.unique(batch["target_visibility"])) == {0, 1, 2}


def closure(names):
    """The distributions that installing `names` brings."""
    found, queue = set(), list(names)
    while queue:
        name = re.sub(r"[-_.]+", "-", queue.pop()).lower()
        if name in found:
            continue
        found.add(name)
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        queue += [re.match(r"[\w.-]+", need)[0] for need in needs if "extra ==" not in need]
    return found


def foreign_modules():
    """Top-level modules that are installed here and would not be on a bare machine."""
    allowed = closure(BARE) | {"psrjax"}
    named = importlib.metadata.packages_distributions()
    normal = {name: {re.sub(r"[-_.]+", "-", d).lower() for d in named[name]} for name in named}
    return sorted(name for name, owners in normal.items() if not owners & allowed)


BLOCKER = """
import importlib.abc, sys

class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FOREIGN:
            raise ModuleNotFoundError(f"blocked: {name}", name=name)

FOREIGN = frozenset(sys.argv.pop(1).split(","))
sys.meta_path.insert(0, Blocker())
from psrjax.cli.main import main
main()
"""


@pytest.mark.slow
def test_bench_runs_where_only_jax_and_its_few_companions_are_installed(tmp_path):
    foreign = foreign_modules()
    assert {"grain", "cv2", "av"} & set(foreign)  # the blocker blocks something
    file = tmp_path / "bench.json"
    arguments = ["bench", "--config=psrnet:tiny", "--size=32x32", "--frames=4", "--runs=1"]
    done = subprocess.run(
        [sys.executable, "-c", BLOCKER, ",".join(foreign), *arguments, f"--json={file}"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""},
    )
    assert done.returncode == 0, done.stderr
    for word in ("matrix-product peak", "clips/s", "compile", "peak memory", "warp", "ssim"):
        assert word in done.stdout
    result = json.loads(file.read_text())
    for name in ("forward", "step"):
        row = result[name]
        assert row["flops_per_s"] == pytest.approx(row["flops"] / row["median_s"])
        assert row["compile_s"] > 0 and row["runs"] == 1
    assert result["step"]["flops"] > 2 * result["forward"]["flops"]
    assert result["versions"] and result["machine"]
    assert result["command"].startswith("psrjax bench --config=")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("--config=psrnet:tiny", "--size=64"),
            "psrjax: --size=64: give HEIGHTxWIDTH, as in 64x64",
        ),
        ((), "psrjax: --config: name a config, NAME or NAME:VARIANT; there are d2gnet, hpt,"),
        (
            ("--config", "internet", "--config.method.widdth=3"),
            "psrjax: config.method.widdth: no such key; did you mean config.method.width?",
        ),
    ],
)
def test_a_mistake_is_told_in_one_line(arguments, said):
    command = "import sys; from psrjax.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", command, "bench", *arguments], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith(said)


def test_other_methods_train_on_the_configs_clip_and_synthesize_windows_of_any_length():
    config = config_lib.load("internet:tiny")
    options = compiled_stage.BenchmarkOptions(64, 48, frames=5, batch=3)
    rest = {"b": 3, "k": 1, "h": 64, "w": 48}
    assert options.training_sizes(config) == {**rest, "t": 2}
    assert options.window_sizes(config) == {**rest, "t": 5}
    psrnet = config_lib.load("psrnet:tiny")
    same = {"b": 3, "k": 5, "t": 5, "h": 64, "w": 48}
    assert options.training_sizes(psrnet) == options.window_sizes(psrnet) == same


def test_the_table_shows_the_ratio_of_every_pair_and_that_both_sides_are_the_same():
    timed = timing.Timing((2.0, 2.0)).summary()
    program = {**timed, "per_s": 0.5, "clips_per_s": 1.5, "flops": 4e11, "flops_per_s": 2e11}
    program |= {"fraction_of_peak": 0.25, "compile_s": 7.0, "xla_flops": 5e11}
    pair = {"psrjax": timed, "torch": timed, "ratio": timing.Timing((0.875,)).summary()}
    result = {
        "machine": "a machine",
        "versions": "some versions",
        "commit": "",
        "load_average": 0.5,
        "method": {"name": "psrnet", "stage": "layer1", "dtype": "float32"},
        "parameters": {"n": 7},
        "sizes": {"b": 3, "k": 8, "t": 8, "h": 64, "w": 48},
        "training_sizes": {"b": 3, "k": 1, "t": 5, "h": 64, "w": 48},
        "matrix_peak_flops_per_s": 8e11,
        "forward": program,
        "step": program,
        "animate": {**program, "s_per_frame": 0.125},
        "operations": {"warp + grad": timed},
        "peak_memory_gib": 1.25,
        "peak_device_memory_gib": 0.0,
        "data": {
            **{"decoded": 300.0, "prepared": 4.0, "loaded": 1100.0, "clips": 90.5},
            **{"clips_per_core": 45.5, "cores": 2, "bytes": 2**20, "peak_memory_gib": 0.5},
        },
        "against": {
            "versions": "PyTorch 9",
            "threads": 2,
            "format": "channels first",
            "parameters": 1234567,
            "step_gflop": 34.5,
            "torch_step_gflop": 34.5,
            "output_difference": 1e-7,
            "log_difference": 5e-6,
            "ill_conditioned": {"generator/grad_norm": (0.04, 0.05)},
            "pairs": {"step": pair},
        },
    }
    text = text_table.table(result)
    for part in ("25.0%", "800 GFLOP/s", "90.5 clips/s", "1,234,567", "0.88", "2000.0 ms", "64x48"):
        assert part in text
    for part in ("125.0 ms a frame, 8.0 frames/s", "(trained on 1 + 5)", "300.0 frames/s", "45.5"):
        assert part in text
    assert "ill-conditioned: generator/grad_norm differs by 4.0e-02" in text
    assert max(map(len, text.splitlines())) <= 120


REFERENCES = {
    "psrnet layer1": ("psrnet:w/o L_p", "layer1", 64, {"method.width": 4}),
    "psrnet layer2": ("psrnet:w/o L_p", "layer2", 64, {"method.width": 4}),
    "internet": ("internet:tiny", "joint", 64, {}),
    "d2gnet": ("d2gnet:tiny", "joint", 32, {"method.d2g": "picture", "method.uv_skips": True}),
    "hpt transfer": ("hpt:tiny", "transfer", 32, {"method.attend": True}),
    "mfci joint": ("mfci:tiny", "joint", 32, {"method.fusion": "rb6_sa2d", "method.width": 8}),
}


def test_what_rounding_does_to_the_reference_excuses_as_much_and_no_more():
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'psrjax[torch]'")
    from psrjax.benchmarks import torch_comparison

    def reference(nudge):  # its gradient moves by up to 2 % when weights are rounded another way
        return {"loss": 2.0, "grad_norm": 100.0 + 0.5 * nudge}

    def compared(**ours):
        return torch_comparison._compare(ours, reference, floor=1e-6)

    close = compared(loss=2.0001, grad_norm=100.1)
    assert not close.wrong and not close.ill_conditioned
    assert close.difference == pytest.approx(1e-3)
    steep = compared(loss=2.0001, grad_norm=106.0)
    assert not steep.wrong and steep.difference == pytest.approx(5e-5)
    assert steep.ill_conditioned["grad_norm"] == pytest.approx((0.06, 0.02))
    assert "grad_norm by 1.0e-01" in compared(loss=2.0, grad_norm=110.0).wrong[0]
    assert "loss by 1.0e-02" in compared(loss=2.02, grad_norm=100.0).wrong[0]
    assert compared(loss=2.0, grad_norm=float("nan")).wrong


@pytest.mark.slow
@pytest.mark.parametrize("case", REFERENCES)
def test_a_torch_reference_is_the_same_network_and_step(case):
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'psrjax[torch]'")
    from psrjax.benchmarks import torch_comparison

    name, stage, size, changes = REFERENCES[case]
    config = config_lib.stage_config(config_lib.load(name, changes), stage)
    compiled = compiled_stage.prepare(config, compiled_stage.BenchmarkOptions(size, size))
    kind = torch_comparison.reference_class(compiled.method)
    reference = torch_comparison.build(kind, compiled, config, channels_last=False)
    found = torch_comparison.check_same(compiled, reference)  # raises where they differ
    # Ours by formula, theirs counted: INTERnet's blur (1 %) is a convolution there, sums here.
    assert found["step_gflop"] == pytest.approx(found["torch_step_gflop"], rel=0.015)


@pytest.mark.slow
def test_single_operations_compute_what_pytorchs_do():
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'psrjax[torch]'")
    from psrjax.benchmarks import torch_comparison

    for ours, theirs in torch_comparison.values().values():
        assert ours == pytest.approx(theirs, rel=1e-4)
