"""`psrjax compile`: every stage compiles for TPUs, what does not fit is told, mistakes too."""

import importlib.util
import json
import subprocess
import sys

import jax
import pytest

from psrjax import config as config_lib
from psrjax.benchmarks import ahead_of_time, compile_report, compiled_program
from psrjax.benchmarks.chips import CHIPS
from psrjax.errors import UserError

TINY = {name: config_lib.load(f"{name}:tiny") for name in config_lib.names()}
STAGES = [(name, stage) for name, config in TINY.items() for stage in config.stages]
FEW = {"batch_per_device": 1, "method.dtype": "bfloat16"}

needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None,
    reason="libtpu is not installed: pip install 'psrjax[compile]'",
)


def tiny(name, stage, **changes):
    return config_lib.stage_config(config_lib.load(f"{name}:tiny", {**FEW, **changes}), stage)


@needs_libtpu
def test_a_step_compiles_for_tpus_and_its_devices_share_gradients_only():
    config = tiny("psrnet", "layer1")
    found = compile_report.report(config, "v5e:2x2", "train")
    assert (found["devices"], found["batch"], found["fits"]) == (4, 4, True)
    assert set(found["collectives"]) == {"all-reduce"}
    assert 0.9 < sum(found["compiled_flops"].values()) / found["model_flops"] < 1.3
    assert 0.05 < found["highest_mfu"] < 1  # arrays this small fill few of their tiles
    assert found["memory"]["donated"] > 3 * 4 * 1e5  # parameters and Adam's two moments
    assert len(found["costliest"]) == 10
    for each in found["costliest"]:
        assert each["place"].startswith("psrjax/") or each["path"].startswith(("state", "batch"))


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize("program", ahead_of_time.PROGRAMS)
@pytest.mark.parametrize("name, stage", STAGES)
def test_every_stage_of_every_method_compiles_for_tpus(name, stage, program):
    found = compile_report.report(tiny(name, stage), "v5e:2x2", program)
    assert found["fits"]
    if program == "synthesize":
        assert not found["collectives"]


@needs_libtpu
def test_mistakes_that_the_compiling_process_finds(monkeypatch):
    with pytest.raises(UserError, match=r"3, which 4 devices cannot share.*batch_per_device"):
        compile(tiny("psrnet", "layer1", batch=3, batch_per_device=0))
    with pytest.raises(UserError, match=r"fsdp=3 times space=1 does not make the 4 devices"):
        compile(tiny("psrnet", "layer1", **{"mesh.fsdp": 3}))
    with pytest.raises(UserError, match=r"data\.crop: give the height"):
        compile(tiny("psrnet", "layer1", **{"data.crop": (0, 0)}))
    with pytest.raises(UserError, match=r"--topology=v5p:3x5x7: .*not divisible"):
        compile(tiny("psrnet", "layer1"), "v5p:3x5x7")


def compile(config, topology="v5e:2x2"):
    return ahead_of_time.compile_stage(config, topology, "train")


@pytest.mark.parametrize(
    "topology, message",
    [
        ("", "give a chip"),
        ("v7:2x2", "there are v5e, v5p, v6e, h100"),
        ("v5e", "v5e comes as 2x2, "),
        ("v5e:3x3", "v5e comes as 2x2, "),
        ("v5p:8", "as v5p:2x2x1"),
        ("v5p:axb", "as v5p:2x2x1"),
        ("h100:0", "hosts x GPUs"),
        ("h100:2x2x2", "hosts x GPUs"),
    ],
)
def test_a_topology_that_does_not_exist(topology, message):
    with pytest.raises(UserError, match=message):
        ahead_of_time.find_chip(topology)


def test_a_compiler_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for topology, extra in (("v5e:2x2", "compile"), ("h100", "cuda")):
        with pytest.raises(UserError, match=rf"pip install 'psrjax\[{extra}\]'"):
            compile(tiny("psrnet", "layer1"), topology)


def test_the_command_says_mistakes_in_one_line():
    done = run_command("--config=psrnet:tiny", "--topology=v5e:3x3")
    assert done.returncode == 2
    assert done.stderr.startswith("psrjax: --topology=v5e:3x3: ") and done.stderr.count("\n") == 1


@needs_libtpu
@pytest.mark.slow
def test_the_command_ends_with_1_where_a_stage_does_not_fit(tmp_path):
    file = tmp_path / "found.json"
    words = "--config=psrnet:tiny --stage=layer1 --topology=v5e:2x2 --config.batch=32"
    done = run_command(*words.split(), "--config.data.crop=(512,512)", f"--json={file}")
    assert done.returncode == 1, done.stderr
    assert "DOES NOT FIT" in done.stdout
    (found,) = json.loads(file.read_text())["stages"]
    assert "--config.accumulate=4" in " ".join(found["advice"])
    assert sum(found["memory"].values()) > 2 * found["memory_available"]


def run_command(*words):
    code = "from psrjax.cli import main; main.console()"
    command = [sys.executable, "-c", code, "compile", *words]
    return subprocess.run(command, capture_output=True, text=True)


def compiled(batch, state):
    return ahead_of_time.Compiled(
        text="",
        buffers="",
        devices=4,
        batch=batch,
        sizes={},
        state_bytes=state,
        model_flops=0.0,
        lower_s=0.0,
        compile_s=0.0,
    )


def test_advice_says_how_much_helps():
    gib = 2**30
    memory = {"donated": 4 * gib, "temporaries": 32 * gib}  # 8 GiB for each of 4 clips
    chip = CHIPS["v5e"]
    config = tiny("psrnet", "layer1", **{"method.dtype": "float32"})
    lines = compile_report.advice(memory, compiled(16, {"cut": 4 * gib}), config, chip)
    assert lines[0] == "temporaries have to fall from 32 to 11.8 GiB"
    assert lines[1] == "--config.batch_per_device=1: about 12 GiB, enough"
    assert lines[2] == "--config.accumulate=4, the batch stays: about 12 GiB, enough"
    assert lines[3] == "--config.method.dtype=bfloat16: about 20 GiB, too much"
    assert lines[4].startswith("--config.method.remat=blocks: ")
    assert lines[5] == "--config.mesh.fsdp=4: the state takes 3 GiB less, about 33 GiB, too much"


def test_advice_where_not_even_one_clip_fits():
    gib = 2**30
    memory = {"donated": 20 * gib, "temporaries": 8 * gib}
    config = tiny("psrnet", "layer1", **{"method.remat": "blocks", "mesh.fsdp": 4})
    lines = compile_report.advice(memory, compiled(4, {"cut": 80 * gib}), config, CHIPS["v5e"])
    assert lines == [
        "the state alone takes 4.25 GiB more than there is",
        "one clip at once on a device: about 28 GiB, too much",
    ]


def test_costs_of_a_program_known_by_hand():
    a = jax.ShapeDtypeStruct((64, 2048), "bfloat16")
    b = jax.ShapeDtypeStruct((2048, 512), "bfloat16")
    module = jax.jit(lambda a, b: a @ b).lower(a, b).compiler_ir("hlo").as_hlo_module()
    product = 2 * 64 * 2048 * 512
    chip = CHIPS["v5e"]
    found = compile_report.costs(compiled_program.read(module.to_string()), product, chip)
    moved = 2 * (64 * 2048 + 2048 * 512 + 64 * 512)
    assert found["compiled_flops"] == {"bf16": product} and found["bytes"] == moved
    assert found["compute_s"] == pytest.approx(product / 197e12)
    assert found["memory_s"] == pytest.approx(moved / 819e9)
    assert found["highest_mfu"] == pytest.approx((product / 197e12) / (moved / 819e9))
