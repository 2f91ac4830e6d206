"""MFCI in PyTorch. Pictures are (n, c, h, w) in [-1, 1]; joints are the contract's."""

import functools
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from psrjax.benchmarks.torch_reference import common, hpt
from psrjax.ops import limb, pose

_VIEW = list(pose.layout("mpii14").view)
_WIDTHS = (1, 2, 4, 8, 8, 8)


class Same(nn.Module):
    """A convolution with Keras' "same" padding."""

    def __init__(self, inputs: int, outputs: int, kernel_size: int = 3, stride: int = 1):
        super().__init__()
        self.strided = stride == 2
        padding = 0 if self.strided else kernel_size // 2
        self.conv = nn.Conv2d(inputs, outputs, kernel_size, stride, padding)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (n, inputs, h, w) to (n, outputs, …)."""
        return self.conv(F.pad(x, (0, 1, 0, 1)) if self.strided else x)


class PoseUNet(nn.Module):
    """The U-Net of every branch; joint maps enter at half the size."""

    def __init__(self, inputs: int, width: int, features: int, num_downsamples: int):
        super().__init__()
        wide = 2 * width
        self.num_downsamples = num_downsamples
        self.encode0, self.down0 = Same(inputs, width, 7), Same(width, width, stride=2)
        for i in range(1, num_downsamples):
            self.add_module(f"encode{i}", Same(width + limb.JOINTS if i == 1 else wide, wide))
            self.add_module(f"down{i}", Same(wide, wide, stride=2))
        self.add_module(f"encode{num_downsamples}", Same(wide, wide))
        for i in range(num_downsamples):
            outputs = wide if i else features
            self.add_module(f"decode{i}", Same(wide + (wide if i else width), outputs))

    def forward(self, x: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        """Maps (n, inputs, h, w), and maps at half the size, to (n, features, h, w)."""
        skips = []
        for i in range(self.num_downsamples + 1):
            x = self._layer(f"encode{i}", x)
            if i < self.num_downsamples:
                skips.append(x)
                x = self._layer(f"down{i}", x)
            x = torch.cat([x, maps], 1) if i == 0 else x
        for i in reversed(range(self.num_downsamples)):
            x = self._layer(f"decode{i}", torch.cat([_upsample(x), skips[i]], 1))
        return x

    def _layer(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu_(getattr(self, name)(x), common.LEAK)


class Heads(nn.Module):
    """The layers of foreground, mask and background, and their composition."""

    def __init__(self, width: int):
        super().__init__()
        self.foreground, self.mask, self.background = (Same(width, n) for n in (3, 1, 3))

    def forward(self, ahead: torch.Tensor, behind: torch.Tensor) -> torch.Tensor:
        """Composes the picture from the features of foreground and background."""
        mask = torch.sigmoid(self.mask(ahead))
        person = torch.tanh(self.foreground(ahead))
        return person * mask + torch.tanh(self.background(behind)) * (1 - mask)


class PoseWarp(nn.Module):
    """The single-frame model."""

    def __init__(self, method: Any):
        super().__init__()
        width, num_downsamples = method.width, method.num_downsamples
        self.segmentation = PoseUNet(3, width, max(width // 2, 1), num_downsamples)
        self.background = PoseUNet(4, width, width, num_downsamples)
        self.foreground = PoseUNet(3 * len(limb.LIMBS), width, width, num_downsamples)
        self.parts = Same(max(width // 2, 1), limb.PARTS)
        self.heads = Heads(width)

    def encode(self, source: torch.Tensor, joints: torch.Tensor) -> dict[str, torch.Tensor]:
        """Splits (n, 3, h, w) into limbs (n, 10, 3, h, w) and background features (n, c, h, w)."""
        h, w = source.shape[2:]
        maps = joint_maps(joints, h // 2, w // 2)
        logits = self.parts(self.segmentation(source, maps)) + limb_prior(joints, h, w)
        parts = logits.softmax(1)
        still = torch.cat([source * parts[:, :1], parts[:, :1]], 1)
        limbs = source[:, None] * parts[:, 1:, None]
        return {"limbs": limbs, "features": self.background(still, maps), "joints": joints}

    def ahead(self, encoded: Mapping, target: torch.Tensor) -> torch.Tensor:
        """Makes foreground features (b, t, k, c, h, w).

        `encoded` has (b k) rows; `target` is (b, t, 26, 3).
        """
        b, t = target.shape[:2]
        limbs, joints = encoded["limbs"], encoded["joints"].unflatten(0, (b, -1))
        h, w = limbs.shape[-2:]
        k = joints.shape[1]
        matrix, there = limb_transforms(joints[:, None], target[:, :, None], h, w)
        pixels = torch.stack(torch.meshgrid(torch.arange(w), torch.arange(h), indexing="xy"), -1)
        moved = torch.einsum("btkpij,hwj->btkphwi", matrix[..., :2], pixels.float())
        moved = moved + matrix[..., 2][..., None, None, :]
        grid = (2 * moved + 1) / torch.tensor([w, h]) - 1
        grid = grid.permute(0, 2, 3, 1, 4, 5, 6).reshape(-1, t * h, w, 2)
        warped = F.grid_sample(
            limbs.flatten(0, 1), grid, padding_mode="border", align_corners=False
        )
        warped = warped.reshape(b, k, -1, 3, t, h, w).permute(0, 4, 1, 2, 3, 5, 6)
        warped = warped * there[..., None, None]
        maps = joint_maps(target.flatten(0, 1), h // 2, w // 2).repeat_interleave(k, 0)
        features = self.foreground(warped.flatten(3, 4).flatten(0, 2), maps)
        return features.unflatten(0, (b, t, k))


class Fusion(nn.Module):
    """The fusion RB6, or RB6+SA2D."""

    def __init__(self, method: Any):
        super().__init__()
        c, k, j = method.width, method.sources, limb.JOINTS
        self.features = nn.Conv2d(k * c, c, 3, padding=1, bias=False)
        self.source_maps = nn.Conv2d(k * j, c, 3, padding=1, bias=False)
        self.target_maps = nn.Conv2d(j, c, 3, padding=1)
        self.blocks = method.blocks
        for i in range(method.blocks):
            norm = functools.partial(nn.InstanceNorm2d, affine=True)
            self.add_module(f"block{i}", common.NormFirstResidual(norm, c))
        self.scores = nn.Conv2d(c, k, 3, padding=1)
        self.num_downsamples = method.attention_stride.bit_length() - 1
        self.attends = method.fusion == "rb6_sa2d"
        if self.attends:
            for i in range(self.num_downsamples):
                self.add_module(f"down{i}", nn.Conv2d(c, c, 3, 2, 1))
            self.attention = hpt.SelfAttention(c)

    def forward(self, maps: torch.Tensor, source: torch.Tensor, target: torch.Tensor):
        """Fuses maps (b, t or 1, k, c, h, w) to (b t, c, h, w); the others are joint maps."""
        b, s = maps.shape[:2]
        t = target.shape[1]
        x = self.features(maps.flatten(2, 3).flatten(0, 1)).unflatten(0, (b, s))
        x = x + self.source_maps(source.flatten(1, 2))[:, None]
        x = (x + self.target_maps(target.flatten(0, 1)).unflatten(0, (b, t))).flatten(0, 1)
        for i in range(self.blocks):
            x = getattr(self, f"block{i}")(x)
        weights = self.scores(x).softmax(1).unflatten(0, (b, t))
        fused = (maps * weights[:, :, :, None]).sum(2).flatten(0, 1)
        if not self.attends:
            return fused
        y = fused
        for i in range(self.num_downsamples):
            y = F.leaky_relu_(getattr(self, f"down{i}")(y), common.LEAK)
        change = self.attention(y) - y
        return fused + F.interpolate(change, fused.shape[-2:], mode="bilinear")


class Integration(nn.Module):
    """Both fusions and the last layers."""

    def __init__(self, method: Any):
        super().__init__()
        self.foreground, self.background = Fusion(method), Fusion(method)
        self.heads = Heads(method.width)

    def forward(self, ahead: torch.Tensor, behind: torch.Tensor, *maps: torch.Tensor):
        """Fuses both, as `Fusion`, and makes the pictures."""
        return self.heads(self.foreground(ahead, *maps), self.background(behind, *maps))


class Discriminator(nn.Module):
    """The discriminator of six residual blocks."""

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.stem = nn.Conv2d(inputs, width, 3, padding=1)
        before = width
        for i, times in enumerate(_WIDTHS):
            self.add_module(f"block{i}_conv0", nn.Conv2d(before, times * width, 3, padding=1))
            self.add_module(
                f"block{i}_conv1", nn.Conv2d(times * width, times * width, 3, padding=1)
            )
            self.add_module(f"block{i}_skip", nn.Conv2d(before, times * width, 1))
            before = times * width
        self.logits = nn.Conv2d(before, 1, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (n, inputs, h, w) to the logits."""
        x = self.stem(x)
        for i in range(len(_WIDTHS)):
            y = getattr(self, f"block{i}_conv0")(F.leaky_relu(x, common.LEAK))
            y = getattr(self, f"block{i}_conv1")(F.leaky_relu_(y, common.LEAK))
            x = y + getattr(self, f"block{i}_skip")(x)
            x = F.avg_pool2d(x, 2) if i < 4 else x
        return self.logits(F.leaky_relu(x, common.LEAK))


class VideoDiscriminator(nn.Module):
    """A discriminator for each range of frames."""

    def __init__(self, ranges: tuple[int, ...], width: int):
        super().__init__()
        self.ranges = ranges
        for n in ranges:
            self.add_module(f"range{n}", Discriminator(3 * n + 2 * (n - 1), width))

    def forward(self, video: torch.Tensor, flow: torch.Tensor) -> list[torch.Tensor]:
        """Returns the logits of every range; video (b, t, 3, h, w), flow in 20 of 256 pixels."""
        found = []
        for n in self.ranges:
            last = video.shape[1] - n + 1
            parts = [video[:, i : i + last] for i in range(n)]
            parts += [flow[:, i : i + last] for i in range(1, n)]
            found.append(getattr(self, f"range{n}")(torch.cat(parts, 2).flatten(0, 1)))
        return found


class TorchReference(common.TorchReference):
    """The stage `joint` with the final model's fusion, or without its attention over space."""

    supported = {
        "stage": ("joint",),
        "fusion": ("rb6", "rb6_sa2d"),
        "frame_discriminator": (True,),
        "discriminator_kind": ("res6",),
        "perceptual": ("off",),
    }

    def __init__(self, config: Any, method: Any, pretrained: Mapping, *, channels_last: bool):
        super().__init__(config, method, pretrained, channels_last=channels_last)
        self.single, self.integrate = PoseWarp(method), Integration(method)
        self.image_discriminator = Discriminator(3 + limb.JOINTS, method.discriminator_width)
        if method.ranges:
            self.video_discriminator = VideoDiscriminator(
                tuple(method.ranges), method.discriminator_width
            )

    def loss(
        self, update: str, batch: common.Batch, shared: common.Batch
    ) -> tuple[common.Terms, common.Decoded]:
        """Eq. 1 to 3 without VGG-19's term."""
        if update == "generator":
            video = self._made(batch, self.start(batch))
            terms = {"mse": (video - self._frames(batch["target"])).square().mean()}
            for name, judged in self._judge(video, batch).items():
                terms[f"adversarial_{name}"] = sum((x - 1).square().mean() for x in judged)
            return terms, {"video": video}
        real = self._judge(self._frames(batch["target"]), batch)
        fake = self._judge(shared["video"], batch)
        terms = {
            f"adversarial_{name}": common.least_squares(real[name], fake[name]) for name in real
        }
        return terms, {}

    def _frames(self, video: torch.Tensor) -> torch.Tensor:
        """Turns (b t h w c) into (b, t, c, h, w)."""
        return self.pictures(video).unflatten(0, video.shape[:2])

    def _judge(self, video: torch.Tensor, batch: common.Batch) -> dict[str, list[torch.Tensor]]:
        h, w = video.shape[-2:]
        maps = joint_maps(batch["target_joints"].flatten(0, 1), h, w)
        judged = {"image": [self.image_discriminator(torch.cat([video.flatten(0, 1), maps], 1))]}
        if self.method.ranges:
            flow = self._frames(batch["target_flow"]) * (256 / 20 / w)
            judged["video"] = self.video_discriminator(video, flow)
        return judged

    def start(self, batch: common.Batch) -> dict[str, torch.Tensor]:
        """Encodes the source frames."""
        with torch.no_grad():
            source = self.pictures(batch["source"])
            return self.single.encode(source, batch["source_joints"].flatten(0, 1))

    def _made(self, batch: common.Batch, encoded: Mapping) -> torch.Tensor:
        """Makes the frames, (b, t, 3, h, w)."""
        target, (b, k) = batch["target_joints"], batch["source_joints"].shape[:2]
        h, w = encoded["limbs"].shape[-2:]
        with torch.no_grad():
            ahead = self.single.ahead(encoded, target)
        behind = encoded["features"].unflatten(0, (b, 1, k))
        source = joint_maps(encoded["joints"], h, w).unflatten(0, (b, k))
        maps = joint_maps(target.flatten(0, 1), h, w).unflatten(0, target.shape[:2])
        return self.integrate(ahead, behind, source, maps).unflatten(0, target.shape[:2])

    def synthesize(self, batch: common.Batch, carry: Any) -> torch.Tensor:
        """Generates every frame at its pose."""
        return self._made(batch, carry).movedim(2, -1)


def joint_maps(joints: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Draws joints (n, 26, 3) as Gaussians (n, 14, h, w)."""
    points, there = _points(joints, height, width)
    inside = (points > 0) & (points < torch.tensor([width - 1.0, height - 1.0]))
    there = (there & inside.all(-1)).float()
    std = max(3.5 * height / 256, 0.7)
    across = torch.exp(-0.5 * ((torch.arange(width) - points[..., :1]) / std).square())
    down = torch.exp(-0.5 * ((torch.arange(height) - points[..., 1:]) / std).square())
    return (there[..., None] * down)[..., None] * across[..., None, :]


def limb_prior(joints: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Log-probability of each part at each pixel, (n, 11, h, w), from joints (n, 26, 3)."""
    points, there = _points(joints, height, width)
    pixels = torch.stack(torch.meshgrid(torch.arange(width), torch.arange(height), indexing="xy"))
    masks = []
    for members in limb.LIMBS:
        half = len(members) // 2
        start, end = (points[:, list(side)].mean(1) for side in (members[:half], members[half:]))
        along = end - start
        length = (along.square().sum(-1, keepdim=True) + 1e-6).sqrt()
        along = along / length
        variance = (13.0 if half > 1 else 11.0) ** 2 * (height / 256) ** 2
        ahead = (length.square() / 1.5).clamp(min=5 * (height / 256) ** 2)[..., None]
        x, y = (pixels[:, None] - ((start + end) / 2).T[..., None, None]).unbind(0)
        cosine, sine = along.T[..., None, None].unbind(0)
        power = (x * cosine + y * sine).square() / ahead + (
            x * sine - y * cosine
        ).square() / variance
        whole = there[:, list(members)].all(1).float()
        masks.append(torch.exp(-0.5 * power) * whole[:, None, None])
    masks = torch.stack(masks, 1)
    return torch.log(torch.cat([1 - masks.amax(1, keepdim=True), masks], 1) + 1e-10)


def limb_transforms(
    source: torch.Tensor, target: torch.Tensor, height: int, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fits matrices (…, 10, 2, 3) from target to source; (…, 10, 1) tells limbs in both."""
    (there, have), (here, want) = (_points(x, height, width) for x in (source, target))
    both = have & want
    there, here = there.expand(*both.shape, 2), here.expand(*both.shape, 2)
    matrices, present = [], []
    for members in (list(members) for members in limb.LIMBS):
        weights = both[..., members, None].float()
        count = weights.sum(-2).clamp(min=1)
        to, of = there[..., members, :], here[..., members, :]
        mean_to, mean_of = ((weights * x).sum(-2) / count for x in (to, of))
        to, of = to - mean_to[..., None, :], of - mean_of[..., None, :]
        spread = (weights * of.square()).sum((-2, -1))
        cosine = (weights * of * to).sum((-2, -1)) / spread.clamp(min=1e-6)
        cross = of[..., 0] * to[..., 1] - of[..., 1] * to[..., 0]
        sine = (weights[..., 0] * cross).sum(-1) / spread.clamp(min=1e-6)
        rotates = spread > 1e-6
        cosine, sine = torch.where(rotates, cosine, 1.0), torch.where(rotates, sine, 0.0)
        x, y = mean_of.unbind(-1)
        first = torch.stack([cosine, -sine, mean_to[..., 0] - cosine * x + sine * y], -1)
        second = torch.stack([sine, cosine, mean_to[..., 1] - sine * x - cosine * y], -1)
        matrices.append(torch.stack([first, second], -2))
        present.append(weights.sum((-2, -1)) > 0)
    return torch.stack(matrices, -3), torch.stack(present, -1)[..., None].float()


def _points(joints: torch.Tensor, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    joints = joints[..., _VIEW, :]
    size = torch.tensor([width, height], dtype=torch.float32)
    return ((joints[..., :2] + 1) * size - 1) / 2, joints[..., 2] > 0


def _upsample(x: torch.Tensor) -> torch.Tensor:
    """Doubles both sides: pixels kept, means between them, reflect padding at the end."""
    for axis in (-1, -2):
        after = torch.cat([x.narrow(axis, 1, x.shape[axis] - 1), x.narrow(axis, -2, 1)], axis)
        x = torch.stack([x, (x + after) / 2], axis if axis == -1 else -2)
        x = x.flatten(-2) if axis == -1 else x.flatten(-3, -2)
    return x
