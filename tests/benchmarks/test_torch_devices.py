"""PyTorch's references run on GPUs and in bfloat16; no GPU is needed to see where tensors lie."""

import jax
import numpy as np
import pytest

from psrjax import config as config_lib
from psrjax.benchmarks import compiled_stage
from psrjax.methods import base
from psrjax.pretrained import registry

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'psrjax[torch]'")

REFERENCES = {
    "psrnet layer1": ("psrnet:w/o L_p", "layer1", {"method.width": 4}),
    "internet joint": ("internet:tiny", "joint", {}),
    "d2gnet joint": ("d2gnet:tiny", "joint", {}),
    "hpt transfer": ("hpt:tiny", "transfer", {"method.attend": True}),
    "mfci joint": ("mfci:tiny", "joint", {"method.width": 8}),
}


def described(shape):
    """A tensor of the fake mode; nothing is computed or stored."""
    return torch.empty(shape.shape, dtype=torch.from_numpy(np.zeros((), shape.dtype)).dtype)


@pytest.mark.slow
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("case", REFERENCES)
def test_losses_and_video_are_made_on_the_gpu_alone(case, channels_last, monkeypatch):
    from torch._subclasses.fake_tensor import FakeTensorMode  # refuses to mix devices

    from psrjax.benchmarks import torch_comparison
    from psrjax.benchmarks.torch_reference import internet

    # What CUDA itself would be asked for.
    monkeypatch.setattr("torch.cuda.amp.common.amp_definitely_not_available", lambda: False)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda *_, **__: True)
    monkeypatch.setattr("torch.backends.cudnn.enabled", False)
    monkeypatch.setattr(
        internet.ThinPlate, "jacobian", lambda self, points: torch.zeros(*points.shape, 2)
    )
    name, stage, changes = REFERENCES[case]
    config = config_lib.load(name, {**changes, "method.dtype": "bfloat16"})
    config = config_lib.stage_config(config, stage)
    method = base.build(**config_lib.method_fields(config))
    kind = torch_comparison.reference_class(method)
    options = compiled_stage.BenchmarkOptions(32, 32, batch=2)
    batch = compiled_stage.random_batch(method.reads, options.training_sizes(config))
    window = compiled_stage.random_batch(method.synthesis_reads, options.window_sizes(config))
    with FakeTensorMode():
        with torch.device("cuda"):
            pretrained = {
                net: jax.tree.map(described, dict(registry.load(net))) for net in method.pretrained
            }
            reference = kind(config, method, pretrained, channels_last=channels_last)
            batch, window = (
                {key: described(array) for key, array in wire.items()} for wire in (batch, window)
            )
        reference.updates = dict(method.updates)
        reference.freeze()
        terms, shared = {}, {}
        with reference.running():
            for update in reference.updates:
                found, made = reference.loss(update, reference.decode(batch), shared)
                shared |= made
                terms |= {f"{update}/{name}": value for name, value in found.items()}
        reference.set_training(False)
        video = reference(window)
    assert {name.partition("/")[0] for name in terms} == set(method.updates)
    assert {value.device.type for value in (video, *terms.values())} == {"cuda"}
    assert video.shape[:2] == (2, options.window_sizes(config)["t"])


@pytest.mark.slow
def test_a_reference_in_bfloat16_and_compiled_is_timed_beside_psrjax():
    from psrjax.benchmarks import torch_comparison

    config = config_lib.load("mfci:tiny", {"method.dtype": "bfloat16", "method.width": 8})
    config = config_lib.stage_config(config, "joint")
    options = compiled_stage.BenchmarkOptions(32, 32, runs=1, pairs=1, operations=False)
    stage = compiled_stage.prepare(config, options)
    found = torch_comparison.compare(stage, config, options)
    # Both sides' products have 8 bits of mantissa.
    assert 1e-6 < found["log_difference"] < 0.5 and 1e-6 < found["output_difference"] < 0.1
    assert set(found["pairs"]) == {"start", "animate", "step"}
    kind = torch_comparison.reference_class(stage.method)
    eager, compiled = (
        torch_comparison.build(kind, stage, config, channels_last=True) for _ in range(2)
    )
    batch = {name: np.array(array) for name, array in stage.batch.items()}
    for each in (eager, compiled.compile()):
        each.set_training(True)
    expected = eager.step(batch)
    for name, value in compiled.step(batch).items():
        assert value == pytest.approx(expected[name], rel=0.1, abs=0.02)
