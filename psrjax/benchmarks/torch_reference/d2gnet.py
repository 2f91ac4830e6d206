"""D2G-Net in PyTorch. Pictures are (n, c, h, w) in [-1, 1]; joints are the contract's."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from psrjax.benchmarks.torch_reference import common, hpt
from psrjax.benchmarks.torch_reference.internet_networks import MultiScaleDiscriminator
from psrjax.models.uv_generator import PARTS

PAIR = 2


class Residual(nn.Module):
    """Twice convolution - instance norm, a ReLU between them, added to the input."""

    def __init__(self, width: int):
        super().__init__()
        self.conv0, self.conv1 = (common.reflect_conv(width, width) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keeps the shape."""
        y = F.relu_(F.instance_norm(self.conv0(x)))
        return x + F.instance_norm(self.conv1(y))


class PoseEncoder(nn.Module):
    """A 7x7 convolution, then strided ones, each twice as wide."""

    def __init__(self, inputs: int, width: int, num_downsamples: int):
        super().__init__()
        self.num_downsamples = num_downsamples
        self.first = common.reflect_conv(inputs, width, 7)
        for i in range(num_downsamples):
            down = nn.Conv2d(width * 2**i, width * 2 ** (i + 1), 3, 2, 1)
            self.add_module(f"down{i}", down)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (n, inputs, h, w) to (n, c, y, x)."""
        x = F.relu_(F.instance_norm(self.first(x)))
        for i in range(self.num_downsamples):
            x = F.relu_(F.instance_norm(getattr(self, f"down{i}")(x)))
        return x


class Joining(nn.Module):
    """A layer over two concatenated maps, as wide as the first."""

    def __init__(self, width: int, other: int):
        super().__init__()
        self.conv = nn.Conv2d(width + other, width, 3, padding=1)

    def forward(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Returns (n, width, y, x)."""
        return F.relu_(F.instance_norm(self.conv(torch.cat([x, other], 1))))


class Generator(nn.Module):
    """pix2pixHD's generator; a pose may be concatenated at one level (D2G).

    With `skips` each map of the first half is added to the second half's of its size (UV).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        widths: list[int],
        blocks: int,
        *,
        kernel_size: int = 7,
        label: int = 0,
        pose_width: int = 0,
        pose_level: int = 0,
        skips: bool = False,
    ):
        super().__init__()
        self.num_downsamples, self.blocks, self.level = len(widths) - 1, blocks, pose_level
        self.skips = skips
        self.first = common.reflect_conv(inputs, widths[0], 7)
        for i in range(self.num_downsamples):
            self.add_module(f"down{i}", nn.Conv2d(widths[i], widths[i + 1], 3, 2, 1))
            if pose_level == 2 ** (i + 1):
                self.pose = PoseEncoder(label, pose_width, i + 1)
                self.joining = Joining(widths[i + 1], pose_width * pose_level)
        for i in range(blocks):
            self.add_module(f"block{i}", Residual(widths[-1]))
        for i, (before, after) in enumerate(zip(widths[::-1], widths[-2::-1])):
            self.add_module(f"up{i}", nn.ConvTranspose2d(before, after, 3, 2, 1, 1))
        self.last = common.reflect_conv(widths[0], outputs, kernel_size)

    def forward(self, x: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        """Maps (n, inputs, h, w) to (n, outputs, h, w), without a final activation."""
        x = F.relu_(F.instance_norm(self.first(x)))
        skips = []
        for i in range(self.num_downsamples):
            skips.append(x)
            x = F.relu_(F.instance_norm(getattr(self, f"down{i}")(x)))
            if self.level == 2 ** (i + 1):
                x = self.joining(x, self.pose(label))
        for i in range(self.blocks):
            x = getattr(self, f"block{i}")(x)
        for i in range(self.num_downsamples):
            x = F.relu_(F.instance_norm(getattr(self, f"up{i}")(x)))
            x = x + skips.pop() if self.skips else x
        return self.last(x)


class Texture(nn.Module):
    """The hybrid texture (p, c, s, s), sampled part by part."""

    def __init__(self, size: int, channels: int):
        super().__init__()
        self.atlas = nn.Parameter(torch.zeros(PARTS, channels, size, size))

    def forward(self, coordinates: torch.Tensor, parts: torch.Tensor) -> torch.Tensor:
        """As `common.sample_texture`."""
        return common.sample_texture(self.atlas, coordinates, parts)


class Background(nn.Module):
    """The background: one learned picture."""

    def __init__(self, height: int, width: int):
        super().__init__()
        self.picture = nn.Parameter(torch.zeros(1, 3, height, width))


class TorchReference(common.TorchReference):
    """The stage `joint` without VGG-19's terms."""

    supported = {
        "stage": ("joint",),
        "d2g": ("picture", "residual"),
        "gan": ("least_squares",),
        "mask_tex": (False,),
        "perceptual": ("off",),
    }

    def __init__(self, config: Any, method: Any, pretrained: Mapping, *, channels_last: bool):
        super().__init__(config, method, pretrained, channels_last=channels_last)
        label = method.history * (6 if method.label3d else 3)
        widths = [method.uv_width * 2**i for i in range(method.uv_num_downsamples + 1)]
        self.uv = Generator(
            label,
            1 + 3 * PARTS,
            widths,
            method.uv_blocks,
            kernel_size=method.uv_kernel_size,
            skips=method.uv_skips,
        )
        self.texture = Texture(method.tex_size, method.tex_channels)
        self.background = Background(1, 1)  # of the size of what is loaded
        self.details = Generator(
            method.tex_channels,
            3,
            [
                min(method.d2g_max_ch, method.d2g_width * 2**i)
                for i in range(method.d2g_num_downsamples + 1)
            ],
            method.d2g_blocks,
            label=label,
            pose_width=method.pose_width,
            pose_level=method.pose_level if method.pose_cond == "mid" else 0,
        )
        self.discriminator = MultiScaleDiscriminator(
            label + 3,
            method.discriminator_scales,
            method.discriminator_width,
            method.discriminator_layers,
        )

    def load(self, variables: Mapping[str, Mapping]) -> None:
        """As the base class; learned pictures have their channels first here."""
        first = {
            net: {name: np.moveaxis(np.asarray(array), -1, 1) for name, array in tree.items()}
            for net, tree in variables["params"].items()
            if net in ("texture", "background")
        }
        picture = self.background.picture
        picture.data = picture.new_zeros(first["background"]["picture"].shape)
        super().load({**variables, "params": {**variables["params"], **first}})

    def loss(
        self, update: str, batch: common.Batch, shared: common.Batch
    ) -> tuple[common.Terms, common.Decoded]:
        """Eq. 5 to 8 without VGG-19's terms."""
        if update == "discriminator":
            real, fake = (
                self.discriminator.logits(torch.cat([shared["label"], shared[name]], 1))
                for name in ("truth", "frame")
            )
            return {"adversarial": common.least_squares(real, fake)}, {}
        labels = self._labels(batch)
        last = PAIR + self.method.history - 1
        label = self._with_history(labels[:, -PAIR:], labels[:, -last:-PAIR])
        made = self._render(label)
        truth = self.pictures(batch["target"][:, -PAIR:])
        judged = self.discriminator.logits(torch.cat([label, made["frame"]], 1))
        terms = {
            **_uv_terms(made, batch["target_iuv"][:, -PAIR:].flatten(0, 1)),
            "regular": (made["raw"] - truth).square().mean(),
            "reconstruction": (made["frame"] - truth).square().mean(),
            "adversarial": sum((x - 1).square().mean() for x in judged),
            "temporal": _temporal(made["frame"], batch),
        }
        return terms, {"label": label, "frame": made["frame"], "truth": truth}

    def start(self, batch: common.Batch) -> torch.Tensor:
        """Repeats the first pose as the ones before it."""
        before = self.method.history - 1
        return self._labels(batch)[:, :1].expand(-1, before, -1, -1, -1)

    def synthesize(self, batch: common.Batch, carry: torch.Tensor) -> torch.Tensor:
        """Generates every frame at its pose."""
        labels = self._labels(batch)
        made = self._render(self._with_history(labels, carry))["frame"].clamp(-1, 1)
        return made.movedim(1, -1).unflatten(0, labels.shape[:2])

    def _labels(self, batch: common.Batch) -> torch.Tensor:
        """Draws the pose labels, (b, t, c, h, w)."""
        joints, size = batch["target_joints"], batch["source"].shape[2:4]
        sticks = hpt.draw(joints.flatten(0, 1), *size, self.method.skeleton)[:, -3:] * 2 - 1
        labels = [sticks.unflatten(0, joints.shape[:2])]
        if self.method.label3d:
            labels.append(batch["target_mesh_label"].movedim(-1, 2))
        return torch.cat(labels, 2)

    def _with_history(self, labels: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        """Concatenates earlier labels: (b t, c history, h, w), each frame's own first."""
        n, t = before.shape[1], labels.shape[1]
        whole = torch.cat([before, labels], 1)
        both = torch.cat([whole[:, n - back : n - back + t] for back in range(n + 1)], 2)
        return both.flatten(0, 1).contiguous(memory_format=self.memory_format)

    def _render(self, label: torch.Tensor) -> dict[str, torch.Tensor]:
        heads = self.uv(label)
        logits = heads[:, : 1 + PARTS]
        coordinates = heads[:, 1 + PARTS :].tanh().unflatten(1, (PARTS, 2))
        parts = logits.softmax(1)
        mapped = self.texture(coordinates.movedim(2, -1), parts[:, 1:])
        colors, behind = 2 * mapped[:, :3] - 1, self.background.picture * parts[:, :1]
        person = self.details(mapped, label).tanh()
        person = person + colors if self.method.d2g == "residual" else person
        raw, frame = (x * (1 - parts[:, :1]) + behind for x in (colors, person))
        return {"logits": logits, "coordinates": coordinates, "raw": raw, "frame": frame}


def _uv_terms(made: Mapping[str, torch.Tensor], iuv: torch.Tensor) -> common.Terms:
    """Eq. 5; iuv (n, h, w, 3)."""
    part = iuv[..., 0].long()
    place = (part - 1).clamp(min=0)[:, None, None].expand(-1, -1, 2, -1, -1)
    mine = made["coordinates"].gather(1, place)[:, 0]
    error = (mine - (2 * iuv[..., 1:].movedim(-1, 1) - 1)).abs() * (part > 0)[:, None]
    return {
        "parts": F.cross_entropy(made["logits"], part),
        "coordinates": error.sum() / made["coordinates"].numel(),
    }


def _temporal(frames: torch.Tensor, batch: common.Batch) -> torch.Tensor:
    before, now = frames.unflatten(0, (-1, PAIR)).unbind(1)
    there, back = (
        batch[key][:, -1].movedim(-1, 1) for key in ("target_flow", "target_flow_forward")
    )
    apart = there + common.warp(back, there, "border")
    trusted = (apart.square().sum(1, keepdim=True) < 1).float()
    return ((common.warp(before, there, "border") - now).abs() * trusted).mean()
