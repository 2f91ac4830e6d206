"""Writes first_order_model.{pth.tar,yaml,npz}: the official modules' answers with random weights.

    python tests/golden/first_order_model.py CHECKOUT

CHECKOUT is a clone of AliaksandrSiarohin/first-order-model; needs PyTorch, PyYAML. The modules are
narrow, their weights and batch statistics drawn at random; `grid_sample` is given the geometry that
it had when the model was published (align_corners=True).
"""

import sys
import types
from functools import partial
from pathlib import Path

import numpy as np
import torch
import yaml

HERE = Path(__file__).parent
COMMON = {"num_kp": 4, "num_channels": 3, "estimate_jacobian": True}
HOURGLASS = {"block_expansion": 4, "max_features": 16, "num_blocks": 3, "scale_factor": 0.25}
CONFIG = {
    "dataset_params": {"frame_shape": [64, 64, 3]},
    "model_params": {
        "common_params": COMMON,
        "kp_detector_params": {"temperature": 0.1, **HOURGLASS},
        "generator_params": {
            "block_expansion": 6,
            "max_features": 20,
            "num_down_blocks": 2,
            "num_bottleneck_blocks": 2,
            "estimate_occlusion_map": True,
            "dense_motion_params": HOURGLASS,
        },
        "discriminator_params": {
            "scales": [1],
            "block_expansion": 4,
            "max_features": 16,
            "num_blocks": 3,
            "sn": True,
            "use_kp": True,
        },
    },
}


def main():
    sys.path.insert(0, sys.argv[1])
    stub = types.ModuleType("sync_batchnorm")
    stub.SynchronizedBatchNorm2d = torch.nn.BatchNorm2d
    sys.modules["sync_batchnorm"] = stub
    torch.nn.functional.grid_sample = partial(torch.nn.functional.grid_sample, align_corners=True)
    from modules.discriminator import MultiScaleDiscriminator
    from modules.generator import OcclusionAwareGenerator
    from modules.keypoint_detector import KPDetector

    torch.manual_seed(0)
    model = CONFIG["model_params"]
    detector = KPDetector(**model["kp_detector_params"], **COMMON)
    generator = OcclusionAwareGenerator(**model["generator_params"], **COMMON)
    discriminator = MultiScaleDiscriminator(**model["discriminator_params"], **COMMON)
    for module in (detector, generator, discriminator):
        randomize(module)
        module.eval()

    rng = np.random.default_rng(0)
    coarse = torch.tensor(rng.uniform(0, 1, (4, 3, 9, 9)), dtype=torch.float32)
    frames = torch.nn.functional.interpolate(coarse, size=(64, 64), mode="bicubic").clamp(0, 1)
    source, driving = frames[:2], frames[2:]
    with torch.no_grad():
        points = {"source": detector(source), "driving": detector(driving)}
        sides = {"kp_source": points["source"], "kp_driving": points["driving"]}
        motion = generator.dense_motion_network(source, **sides)
        picture = generator(source, **sides)["prediction"]
        judged = discriminator({"prediction_1": picture}, kp=points["driving"])
        normalized = relative(points)
    golden = {
        "source": last(source),
        "driving": last(driving),
        "deformation": motion["deformation"],
        "weights": last(motion["mask"]),
        "confidence": last(motion["occlusion_map"]),
        "picture": last(picture),
        "logits": last(judged["prediction_map_1"]),
        "relative_value": normalized["value"],
        "relative_jacobian": normalized["jacobian"],
    }
    for side, found in points.items():
        golden |= {f"{side}_{name}": value for name, value in found.items()}
    np.savez_compressed(HERE / "first_order_model.npz", **{k: v.numpy() for k, v in golden.items()})
    state = {
        "generator": generator.state_dict(),
        "kp_detector": detector.state_dict(),
        "discriminator": discriminator.state_dict(),
        "epoch": 3,
    }
    checkpoint = HERE / "first_order_model.pth.tar"
    torch.save(state, checkpoint, _use_new_zipfile_serialization=False)
    torch.save(state["kp_detector"], HERE / "first_order_model.zip.pth")
    (HERE / "first_order_model.yaml").write_text(yaml.safe_dump(CONFIG, sort_keys=False))


def randomize(module):
    """Weights that matter in every layer, statistics that are no identity, key points apart."""
    for name, value in module.named_parameters():
        spread = 0.15 if name.endswith("bias") else (1.5 / value[0].numel()) ** 0.5
        value.data.normal_(0.0, spread)
        if "norm" in name and name.endswith("weight"):
            value.data.add_(1.0)
    for name, value in module.named_buffers():
        if name.endswith("running_mean"):
            value.normal_(0.0, 0.2)
        elif name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
    if hasattr(module, "jacobian"):
        module.kp.weight.data.mul_(0.1)
        module.jacobian.weight.data.mul_(0.05)
        module.jacobian.bias.data.add_(torch.tensor([1.0, 0.0, 0.0, 1.0] * 4))


def relative(points):
    """The official animation's formula, the second driving frame starting from the first."""
    source, now = ({k: v[:1] for k, v in points[side].items()} for side in ("source", "driving"))
    first = {k: v[1:] for k, v in points["driving"].items()}
    turned = now["jacobian"] @ torch.inverse(first["jacobian"])
    return {
        "value": now["value"] - first["value"] + source["value"],
        "jacobian": turned @ source["jacobian"],
    }


def last(x):
    return x.movedim(1, -1)


if __name__ == "__main__":
    main()
