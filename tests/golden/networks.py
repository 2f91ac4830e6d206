"""Writes networks.npz: what PyTorch makes of PSR-Net's networks with seeded weights.

Run it in an environment of its own that has torch 2.13 and numpy:

    python tests/golden/networks.py

The tests read only the file. The networks are written here once more, in PyTorch's own layers, from
the published layer tables. Weights and inputs are not stored: `seeded` makes them from their names.
"""

import zlib
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("networks.npz")


def seeded(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The weights (or input) of that name and shape, channels last, kernels (taps..., in, out)."""
    values = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape)
    kind = name.rsplit("/", 1)[-1]
    if kind == "kernel":
        values = values / np.sqrt(np.prod(shape[:-1]))
    elif kind == "scale":
        values = 1 + 0.2 * values
    elif kind == "var":
        values = 0.5 + np.abs(values)
    elif kind in ("bias", "mean"):
        values = 0.2 * values
    return values.astype(np.float32)


if __name__ == "__main__":
    import torch
    import torch.nn.functional as F

    def last(x):
        return torch.from_numpy(np.moveaxis(x, -1, 1).copy())

    def first(x):
        return np.moveaxis(x.detach().numpy(), 1, -1)

    class Net:
        """Runs layers by name; every layer makes its own weights."""

        def __init__(self, name, train, epsilon=1e-5):
            self.name, self.train, self.epsilon = name, train, epsilon

        def weight(self, layer, part, *shape):
            return torch.from_numpy(seeded(f"{self.name}/{layer}/{part}", shape))

        def conv(self, x, layer, width, taps, *, stride=1, padding=0, bias=False):
            dims = x.ndim - 2
            kernel = self.weight(layer, "kernel", *(taps,) * dims, x.shape[1], width)
            kernel = kernel.movedim((-1, -2), (0, 1))
            offset = self.weight(layer, "bias", width) if bias else None
            op = F.conv3d if dims == 3 else F.conv2d
            return op(x, kernel, offset, stride=stride, padding=padding)

        def up(self, x, layer, width):
            kernel = self.weight(layer, "kernel", 3, 3, 3, x.shape[1], width)
            kernel = kernel.movedim((-2, -1), (0, 1))
            return F.conv_transpose3d(x, kernel, stride=2, padding=1, output_padding=1)

        def norm(self, x, layer):
            scale, bias, mean, var = (
                self.weight(layer, part, x.shape[1]) for part in ("scale", "bias", "mean", "var")
            )
            return F.batch_norm(x, mean, var, scale, bias, self.train, 0.1, self.epsilon)

    def encoder(net, x, width, blocks):
        for layer, factor, taps, stride in (
            ("stem", 1, 7, 1),
            ("down0", 2, 3, 2),
            ("down1", 4, 3, 2),
        ):
            x = net.conv(x, layer, factor * width, taps, stride=stride, padding=taps // 2)
            x = F.relu(net.norm(x, f"{layer}_norm"))
        for i in range(blocks):
            y = net.conv(x, f"block{i}/conv0", 4 * width, 3, padding=1)
            y = F.relu(net.norm(y, f"block{i}/norm0"))
            y = net.conv(y, f"block{i}/conv1", 4 * width, 3, padding=1)
            x = x + net.norm(y, f"block{i}/norm1")
        return x

    def decoder(net, x, width):
        for i, factor in enumerate((2, 1)):
            x = F.relu(net.norm(net.up(x, f"up{i}", factor * width), f"up{i}_norm"))
        return torch.tanh(net.conv(x, "head", 3, 7, padding=3, bias=True))

    def patch_discriminator(net, x, width):
        for i, stride in enumerate((2, 2, 2, 1)):
            x = net.conv(x, f"conv{i}", width * 2**i, 4, stride=stride, padding=1, bias=i == 0)
            x = F.leaky_relu(net.norm(x, f"norm{i}") if i else x, 0.2)
        return net.conv(x, "conv4", 1, 4, padding=1, bias=True)

    def video_discriminator(net, x, width):
        for i in range(4):
            x = net.conv(x, f"conv{i}", width * 2**i, 4, stride=(1, 2, 2), padding=1)
            x = F.leaky_relu(net.norm(x, f"norm{i}") if i else x, 0.2)
        return net.conv(x, "conv4", 1, 4)

    def same(size, taps, stride):
        total = max((-(-size // stride) - 1) * stride + taps - size, 0)
        return total // 2, total - total // 2

    def padded(x, taps, stride, value=0.0):
        sides = [same(n, k, s) for n, k, s in zip(x.shape[2:], taps, stride)]
        return F.pad(x, [pad for side in reversed(sides) for pad in side], value=value)

    def unit(net, x, name, width, taps, stride=1):
        x = padded(x, (taps,) * 3, (stride,) * 3)
        kernel = net.weight(name, "kernel", taps, taps, taps, x.shape[1], width)
        x = F.conv3d(x, kernel.movedim((-1, -2), (0, 1)), stride=stride)
        return F.relu(net.norm(x, name))

    def pool(x, taps, stride):
        return F.max_pool3d(padded(x, taps, stride, float("-inf")), taps, stride)

    def mixed(net, x, name, one, narrow3, wide3, narrow5, wide5, pooled):
        return torch.cat(
            [
                unit(net, x, f"{name}.b0", one, 1),
                unit(net, unit(net, x, f"{name}.b1a", narrow3, 1), f"{name}.b1b", wide3, 3),
                unit(net, unit(net, x, f"{name}.b2a", narrow5, 1), f"{name}.b2b", wide5, 3),
                unit(net, pool(x, (3, 3, 3), (1, 1, 1)), f"{name}.b3b", pooled, 1),
            ],
            1,
        )

    def i3d(net, x):
        taps = {}
        x = taps["Conv3d_1a_7x7"] = unit(net, x, "Conv3d_1a_7x7", 64, 7, 2)
        x = pool(x, (1, 3, 3), (1, 2, 2))
        x = taps["Conv3d_2b_1x1"] = unit(net, x, "Conv3d_2b_1x1", 64, 1)
        x = pool(unit(net, x, "Conv3d_2c_3x3", 192, 3), (1, 3, 3), (1, 2, 2))
        x = mixed(net, x, "Mixed_3b", 64, 96, 128, 16, 32, 32)
        x = taps["Mixed_3c"] = mixed(net, x, "Mixed_3c", 128, 128, 192, 32, 96, 64)
        x = pool(x, (3, 3, 3), (2, 2, 2))
        taps["Mixed_4b"] = mixed(net, x, "Mixed_4b", 192, 96, 208, 16, 48, 64)
        return taps

    torch.manual_seed(0)
    out = {}
    clip = last(seeded("clip", (1, 8, 16, 16, 3)))
    for mode, train in (("train", True), ("eval", False)):
        latent = encoder(Net("encoder", train), clip, 4, 2)
        made = decoder(Net("decoder", train), latent, 4)
        out[f"latent_{mode}"], out[f"video_{mode}"] = first(latent), first(made)
    clip.requires_grad_(True)
    latent = encoder(Net("encoder", True), clip, 4, 2)
    decoder(Net("decoder", True), latent, 4).sin().sum().backward()
    out["clip_gradient"] = first(clip.grad)
    frames = last(seeded("frames", (2, 32, 32, 6)))
    out["patch_logits"] = first(patch_discriminator(Net("patch", True), frames, 4))
    movie = last(seeded("movie", (2, 9, 64, 64, 3)))
    out["video_logits"] = first(video_discriminator(Net("video", True), movie, 4))
    small = last(np.tanh(seeded("small", (1, 8, 32, 32, 3))))
    for name, tap in i3d(Net("i3d", False, 1e-3), small).items():
        out[f"i3d_{name}"] = first(tap)[..., ::7]  # every seventh channel: 1 MiB is the limit
    np.savez_compressed(FILE, **out)
    print(FILE.name, FILE.stat().st_size, {key: value.shape for key, value in out.items()})
