"""Writes features.npz and features.json: what PyTorch makes of the frozen networks of the metrics.

Run it in an environment of its own that has torch 2.13, torchvision 0.28, lpips 0.1.4, pytorch-fid
0.3.0, pillow and numpy (torchvision and pytorch-fid without their dependencies):

    python tests/golden/features.py

Weights are `seeded` from their published names; features.json lists these with their shapes. I3D is
written here once more in PyTorch, from its published table: no package has it. natural.png is as in
scores.py.
"""

import json
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

FILE = Path(__file__).with_name("features.npz")
NAMES = Path(__file__).with_name("features.json")


def seeded(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The weights (or input) of a published name, in PyTorch's order (o i taps...)."""
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape, np.float32)
    if name.startswith("lin"):
        return np.abs(values)
    if len(shape) > 1:
        return values * np.float32(np.sqrt(2.0 / np.prod(shape[1:])))
    kind = name.rsplit(".", 1)[-1]
    if kind == "running_var":
        return 0.5 + np.abs(values)
    return 1 + 0.2 * values if ".bn.weight" in name else 0.2 * values


def picture(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Smooth and noisy pictures in [0, 1], channels last."""
    random = np.random.default_rng(zlib.crc32(name.encode()))
    *_, height, width, channels = shape
    y, x, c = np.mgrid[:height, :width, :channels]
    smooth = np.sin(x / 7 + c) * np.cos(y / 9 - c)
    values = 0.5 + 0.3 * smooth + 0.1 * random.standard_normal(shape)
    return np.clip(values, 0, 1).astype(np.float32)


INPUTS = {"frames": (2, 64, 72, 3), "other": (2, 64, 72, 3), "inception": (2, 107, 123, 3)}
TAP = (1, 3, 13, 13, 512)  # of I3D's Mixed_4b


def natural() -> np.ndarray:
    """(10 96 104 3) uint8: a window that moves over the natural picture."""
    picture = np.asarray(Image.open(FILE.with_name("natural.png")))
    return np.stack([picture[4 * t : 4 * t + 96, 6 * t : 6 * t + 104] for t in range(10)])


if __name__ == "__main__":
    import lpips
    import torch
    import torch.nn.functional as F
    import torchvision
    from pytorch_fid import inception as fid

    def last(x):
        return torch.from_numpy(np.moveaxis(x, -1, 1).copy())

    names, out = {}, {}

    def fill(net, kind, prefix=""):
        state = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
        names[kind] = {k: list(v.shape) for k, v in state.items()}
        made = {k: torch.from_numpy(seeded(k, tuple(v.shape))) for k, v in state.items()}
        net.load_state_dict(made, strict=False)
        return net.eval()

    mean, deviation = (
        torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    frames, other = (last(picture(name, INPUTS[name])) for name in ("frames", "other"))
    moving = last(natural().astype(np.float32) / 255)  # (10 3 96 104)
    taps = {
        "alexnet": (1, 4, 7, 9, 11),
        "vgg16": (3, 8, 15, 22, 29),
        "vgg19": (1, 6, 11, 20, 29),
    }
    backbones = {}
    for kind, places in taps.items():
        net = fill(getattr(torchvision.models, kind)(weights=None).features, kind)
        names[kind] = {f"features.{k}": v for k, v in names[kind].items()}
        state = {
            k: torch.from_numpy(seeded(f"features.{k}", tuple(v.shape)))
            for k, v in net.state_dict().items()
        }
        net.load_state_dict(state)
        backbones[kind] = net
        x = (frames - mean) / deviation
        for place, layer in enumerate(net):
            x = layer(x)
            if place in places:
                out[f"{kind}_{places.index(place) + 1}"] = (
                    x.detach()[:1, ::14].movedim(1, -1).numpy()
                )
    for name, backbone in (("alex", "alexnet"), ("vgg", "vgg16")):
        net = lpips.LPIPS(net=name, pretrained=False, pnet_rand=True, verbose=False)
        heads = {
            k: v for k, v in net.state_dict().items() if k.startswith("lin") and k[3].isdigit()
        }
        names[f"lpips_{name}"] = {k: list(v.shape) for k, v in heads.items()}
        state = {k: torch.from_numpy(seeded(k, tuple(v.shape))) for k, v in heads.items()}
        for key in net.state_dict():
            if key.startswith("net.slice"):
                layer, kind = key.split(".")[-2:]
                state[key] = backbones[backbone].state_dict()[f"{layer}.{kind}"]
        net.load_state_dict(state, strict=False)
        net.eval()
        out[f"lpips_{name}"] = net(2 * frames - 1, 2 * other - 1).detach().numpy().ravel()
        pair = 2 * moving[:2] - 1, 2 * moving[3:5] - 1
        out[f"lpips_{name}_natural"] = net(*pair).detach().numpy().ravel()

    net = torchvision.models.inception_v3(
        num_classes=1008, aux_logits=False, weights=None, init_weights=False
    )
    net.Mixed_5b = fid.FIDInceptionA(192, pool_features=32)
    net.Mixed_5c = fid.FIDInceptionA(256, pool_features=64)
    net.Mixed_5d = fid.FIDInceptionA(288, pool_features=64)
    net.Mixed_6b = fid.FIDInceptionC(768, channels_7x7=128)
    net.Mixed_6c = fid.FIDInceptionC(768, channels_7x7=160)
    net.Mixed_6d = fid.FIDInceptionC(768, channels_7x7=160)
    net.Mixed_6e = fid.FIDInceptionC(768, channels_7x7=192)
    net.Mixed_7b = fid.FIDInceptionE_1(1280)
    net.Mixed_7c = fid.FIDInceptionE_2(2048)
    net = fill(net, "inception")
    kept = {}
    net.avgpool.register_forward_hook(lambda module, given, result: kept.update(pool=result))
    net(2 * last(picture("inception", INPUTS["inception"])) - 1)
    out["inception_features"] = kept["pool"].detach().flatten(1).numpy()
    out["inception_logits"] = (kept["pool"].flatten(1) @ net.fc.weight.T).detach().numpy()
    net(2 * F.interpolate(moving[:1], size=(299, 299), mode="bilinear", align_corners=False) - 1)
    out["fid_natural"] = kept["pool"].detach().flatten(1).numpy()

    # FID's resize, which is also FVD's: bilinear, half-pixel centres, no antialiasing.
    small = F.interpolate(frames, size=(91, 87), mode="bilinear", align_corners=False)
    large = F.interpolate(frames, size=(29, 31), mode="bilinear", align_corners=False)
    out["resized_up"], out["resized_down"] = (x[:1].movedim(1, -1).numpy() for x in (small, large))

    i3d = names["i3d"] = {}

    def unit(x, name, width, taps, stride=1):
        sides = [max((-(-n // stride) - 1) * stride + taps - n, 0) for n in x.shape[2:]]
        x = F.pad(x, [p for s in reversed(sides) for p in (s // 2, s - s // 2)])
        i3d[f"{name}.conv3d.weight"] = [width, x.shape[1], taps, taps, taps]
        kernel = torch.from_numpy(
            seeded(f"{name}.conv3d.weight", tuple(i3d[f"{name}.conv3d.weight"]))
        )
        norm = {}
        for part in ("weight", "bias", "running_mean", "running_var"):
            i3d[f"{name}.bn.{part}"] = [width]
            norm[part] = torch.from_numpy(seeded(f"{name}.bn.{part}", (width,)))
        y = F.conv3d(x, kernel, stride=stride)
        y = F.batch_norm(
            y, norm["running_mean"], norm["running_var"], norm["weight"], norm["bias"], eps=1e-3
        )
        return F.relu(y)

    def same_pool(x, taps, stride):
        sides = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(x.shape[2:], taps, stride)]
        return F.max_pool3d(
            F.pad(x, [p for s in reversed(sides) for p in (s // 2, s - s // 2)]), taps, stride
        )

    def mixed(x, name, one, narrow3, wide3, narrow5, wide5, pooled):
        return torch.cat(
            [
                unit(x, f"{name}.b0", one, 1),
                unit(unit(x, f"{name}.b1a", narrow3, 1), f"{name}.b1b", wide3, 3),
                unit(unit(x, f"{name}.b2a", narrow5, 1), f"{name}.b2b", wide5, 3),
                unit(same_pool(x, (3, 3, 3), (1, 1, 1)), f"{name}.b3b", pooled, 1),
            ],
            1,
        )

    def top(x):
        x = mixed(x, "Mixed_4c", 160, 112, 224, 24, 64, 64)
        x = mixed(x, "Mixed_4d", 128, 128, 256, 24, 64, 64)
        x = mixed(x, "Mixed_4e", 112, 144, 288, 32, 64, 64)
        x = mixed(x, "Mixed_4f", 256, 160, 320, 32, 128, 128)
        x = same_pool(x, (2, 2, 2), (2, 2, 2))
        x = mixed(x, "Mixed_5b", 256, 160, 320, 32, 128, 128)
        return mixed(x, "Mixed_5c", 384, 192, 384, 48, 128, 128)

    def trunk(x):
        x = same_pool(unit(x, "Conv3d_1a_7x7", 64, 7, 2), (1, 3, 3), (1, 2, 2))
        x = unit(unit(x, "Conv3d_2b_1x1", 64, 1), "Conv3d_2c_3x3", 192, 3)
        x = mixed(same_pool(x, (1, 3, 3), (1, 2, 2)), "Mixed_3b", 64, 96, 128, 16, 32, 32)
        x = same_pool(mixed(x, "Mixed_3c", 128, 128, 192, 32, 96, 64), (3, 3, 3), (2, 2, 2))
        return mixed(x, "Mixed_4b", 192, 96, 208, 16, 48, 64)

    def classified(x):
        pooled = F.avg_pool3d(x, (2, 7, 7), 1)
        i3d["logits.conv3d.weight"], i3d["logits.conv3d.bias"] = [400, 1024, 1, 1, 1], [400]
        weight, bias = (
            torch.from_numpy(seeded(k, tuple(i3d[k])))
            for k in ("logits.conv3d.weight", "logits.conv3d.bias")
        )
        return pooled.mean((2, 3, 4)).numpy(), F.conv3d(pooled, weight, bias).mean(
            (2, 3, 4)
        ).numpy()

    tap = last(np.abs(seeded("Mixed_4b", (*TAP[:-1], TAP[-1]))) * 40)
    clip = 2 * F.interpolate(moving, size=(224, 224), mode="bilinear", align_corners=False) - 1
    whole = top(trunk(clip.movedim(0, 1)[None]))
    out["fvd_natural_features"], out["fvd_natural_logits"] = classified(whole)
    out["i3d_features"], out["i3d_logits"] = classified(top(tap))

    np.savez_compressed(FILE, **out)
    NAMES.write_text(json.dumps(names, indent=0) + "\n")
    print(
        FILE.stat().st_size,
        NAMES.stat().st_size,
        {k: (v.shape, float(np.abs(v).mean())) for k, v in out.items()},
    )
