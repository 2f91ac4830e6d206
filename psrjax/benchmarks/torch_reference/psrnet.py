"""PSR-Net's networks and losses in PyTorch: layer 1, and layer 2 on the frozen layer 1."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from psrjax.benchmarks.torch_reference import common


def _conv3(inputs: int, outputs: int, *, kernel: int, stride: int = 1, bias: bool) -> nn.Conv3d:
    return nn.Conv3d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=bias)


class Encoder(nn.Module):
    """7x7x7 stem, two strides of 2 over time and space, six residual blocks."""

    def __init__(self, channels: int, base: int, blocks: int = 6):
        super().__init__()
        widths = (base, 2 * base, 4 * base)
        self.stem = _conv3(channels, base, kernel=7, bias=False)
        self.stem_norm = nn.BatchNorm3d(base)
        for i in (0, 1):
            down = _conv3(widths[i], widths[i + 1], kernel=3, stride=2, bias=False)
            self.add_module(f"down{i}", down)
            self.add_module(f"down{i}_norm", nn.BatchNorm3d(widths[i + 1]))
        for i in range(blocks):
            self.add_module(f"block{i}", ResidualBlock(widths[2]))
        self.blocks = blocks

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (b, c, t, h, w) in [-1, 1] to (b, 4 base, t/4, h/4, w/4)."""
        x = F.relu_(self.stem_norm(self.stem(x)))
        x = F.relu_(self.down0_norm(self.down0(x)))
        x = F.relu_(self.down1_norm(self.down1(x)))
        for i in range(self.blocks):
            x = getattr(self, f"block{i}")(x)
        return x


class ResidualBlock(nn.Module):
    """Two 3x3x3 convolutions with batch norm, added to the input; no activation after the sum."""

    def __init__(self, width: int):
        super().__init__()
        self.conv0 = _conv3(width, width, kernel=3, bias=False)
        self.norm0 = nn.BatchNorm3d(width)
        self.conv1 = _conv3(width, width, kernel=3, bias=False)
        self.norm1 = nn.BatchNorm3d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Keeps the shape."""
        return x + self.norm1(self.conv1(F.relu_(self.norm0(self.conv0(x)))))


class Decoder(nn.Module):
    """Two transposed convolutions and a 7x7x7 head with tanh."""

    def __init__(self, base: int):
        super().__init__()
        widths = (4 * base, 2 * base, base)
        for i in (0, 1):
            up = nn.ConvTranspose3d(
                widths[i], widths[i + 1], 3, 2, padding=1, output_padding=1, bias=False
            )
            self.add_module(f"up{i}", up)
            self.add_module(f"up{i}_norm", nn.BatchNorm3d(widths[i + 1]))
        self.head = _conv3(base, 3, kernel=7, bias=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps (b, 4 base, t/4, h/4, w/4) to (b, 3, t, h, w) in [-1, 1]."""
        x = F.relu_(self.up0_norm(self.up0(x)))
        x = F.relu_(self.up1_norm(self.up1(x)))
        return torch.tanh(self.head(x))


class Reconstruction(nn.Module):
    """G¹ with separate heads: three encoders, fusion, three decoders, composition, flow term."""

    def __init__(self, base: int, zeta: float = 0.1):
        super().__init__()
        for name in ("source", "prior", "depth"):
            self.add_module(f"encode_{name}", Encoder(3, base))
        self.fuse = _conv3(12 * base, 4 * base, kernel=3, bias=True)
        for name in ("background", "visible", "occluded"):
            self.add_module(f"decode_{name}", Decoder(base))
        self.zeta = zeta

    def forward(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Makes the estimate x̂₁, (b, 3, t, h, w)."""
        latent = torch.cat(
            [
                self.encode_source(batch["source"]),
                self.encode_prior(batch["target_prior"]),
                self.encode_depth(batch["target_depth"]),
            ],
            dim=1,
        )
        latent = self.fuse(latent)
        region = batch["target_visibility"]
        raw = torch.where(
            region == 0,
            self.decode_background(latent),
            torch.where(region == 1, self.decode_visible(latent), self.decode_occluded(latent)),
        )
        return raw + self.zeta * _carried(raw.detach(), batch["target_mesh_flow"], region > 0)


def _carried(raw: torch.Tensor, flow: torch.Tensor, on_mesh: torch.Tensor) -> torch.Tensor:
    """Warps the previous frame onto each frame where the mesh is; zeros at the first frame."""
    b, c, t, h, w = raw.shape
    before = raw[:, :, :-1].transpose(1, 2).reshape(b * (t - 1), c, h, w)
    moved = common.warp(before, flow[:, :, 1:].transpose(1, 2).reshape(b * (t - 1), 2, h, w))
    moved = moved.reshape(b, t - 1, c, h, w).transpose(1, 2) * on_mesh[:, :, 1:]
    return F.pad(moved, (0, 0, 0, 0, 1, 0))


class Refinement(nn.Module):
    """G^k, k >= 2, encoder variant concat_videos: x̂_k = α G^k + (1 - α) x̂_{k-1}."""

    def __init__(self, base: int, alpha: float = 0.5):
        super().__init__()
        self.encode_videos = Encoder(6, base)
        self.encode_depth = Encoder(3, base)
        self.fuse = _conv3(8 * base, 4 * base, kernel=3, bias=True)
        self.decode = Decoder(base)
        self.alpha = alpha

    def forward(self, batch: Mapping[str, torch.Tensor], estimate: torch.Tensor) -> torch.Tensor:
        """Makes the estimate x̂_k, (b, 3, t, h, w)."""
        videos = self.encode_videos(torch.cat([batch["source"], estimate], dim=1))
        latent = self.fuse(torch.cat([videos, self.encode_depth(batch["target_depth"])], dim=1))
        return self.alpha * self.decode(latent) + (1 - self.alpha) * estimate


class FrameDiscriminator(nn.Module):
    """The 70x70 PatchGAN over single frames, conditional on the source frame."""

    def __init__(self, base: int = 64):
        super().__init__()
        widths = (6, base, 2 * base, 4 * base, 8 * base, 1)
        for i in range(5):
            plain = i in (0, 4)  # the first and last have a bias and no norm
            stride = 2 if i < 3 else 1
            conv = nn.Conv2d(widths[i], widths[i + 1], 4, stride, padding=1, bias=plain)
            self.add_module(f"conv{i}", conv)
            if not plain:
                self.add_module(f"norm{i}", nn.BatchNorm2d(widths[i + 1]))

    def forward(self, source: torch.Tensor, video: torch.Tensor) -> torch.Tensor:
        """Returns the logits of every patch of every frame, (b t, 1, h', w')."""
        x = torch.cat([source, video], dim=1).transpose(1, 2).flatten(0, 1)
        x = F.leaky_relu_(self.conv0(x), common.LEAK)
        for i in (1, 2, 3):
            x = F.leaky_relu_(getattr(self, f"norm{i}")(getattr(self, f"conv{i}")(x)), common.LEAK)
        return self.conv4(x)


class VideoDiscriminator(nn.Module):
    """MoCoGAN's video discriminator with temporal padding 1: 8 frames give one logit."""

    def __init__(self, base: int = 64):
        super().__init__()
        widths = (3, base, 2 * base, 4 * base, 8 * base)
        for i in range(4):
            conv = nn.Conv3d(widths[i], widths[i + 1], 4, (1, 2, 2), padding=1, bias=False)
            self.add_module(f"conv{i}", conv)
            if i:
                self.add_module(f"norm{i}", nn.BatchNorm3d(widths[i + 1]))
        self.conv4 = nn.Conv3d(widths[4], 1, 4, bias=False)

    def forward(self, video: torch.Tensor) -> torch.Tensor:
        """Returns the logits, (b, 1, t', h', w')."""
        x = F.leaky_relu_(self.conv0(video), common.LEAK)
        for i in (1, 2, 3):
            x = F.leaky_relu_(getattr(self, f"norm{i}")(getattr(self, f"conv{i}")(x)), common.LEAK)
        return self.conv4(x)


def region_huber(
    prediction: torch.Tensor, target: torch.Tensor, region: torch.Tensor
) -> torch.Tensor:
    """Σ_r Σ_{p in r} huber / |r|, summed over channels; each |r| is at least 1 % of the pixels."""
    huber = F.smooth_l1_loss(prediction, target, reduction="none").sum(dim=1, keepdim=True)
    total = 0.0
    for label in (0, 1, 2):
        inside = (region == label).float()
        total = total + (huber * inside).sum() / inside.sum().clamp(min=0.01 * inside.numel())
    return total


def _judged(logits: torch.Tensor, real: bool) -> torch.Tensor:
    target = torch.full_like(logits, float(real))
    return F.binary_cross_entropy_with_logits(logits, target)


class Discriminators(nn.Module):
    """The discriminators of one layer: of frames with their source, and of the clip alone."""

    def __init__(self, *, video: bool):
        super().__init__()
        self.frame = FrameDiscriminator()
        if video:
            self.video = VideoDiscriminator()

    def forward(self, source: torch.Tensor, video: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns {discriminator: logits}."""
        logits = {"frame": self.frame(source, video)}
        if hasattr(self, "video"):
            logits["video"] = self.video(video)
        return logits


class TorchReference(common.TorchReference):
    """A stage of PSR-Net: layer 1, or layer 2 on the frozen layer 1."""

    supported = {
        "stage": ("layer1", "layer2"),
        "decoder": ("separate_heads",),
        "encoder": ("concat_videos",),
        "recon_regions": ("bvo",),
        "later_regions": ("none",),
        "warp_scope": ("mesh",),
        "perceptual": ("off",),
        "prior": ("texture",),
        "norm": ("batch",),
        "video_discriminator": (True,),
        "alpha": (0.5,),
        "zeta": (0.1,),
        "blocks": (6,),
        "discriminator_width": (64,),
        "discriminator_layers": (3,),
        "video_width": (64,),
        "video_depth": (4,),
        "video_time_padding": (1,),
    }

    def __init__(self, config: Any, method: Any, pretrained: Mapping, *, channels_last: bool):
        super().__init__(config, method, pretrained, channels_last=channels_last)
        width = method.width
        self.layer = int(method.stage.removeprefix("layer"))
        self.layer1 = Reconstruction(width)
        if self.layer > 1:
            self.layer2 = Refinement(width)
        self.add_module(f"discriminator{self.layer}", Discriminators(video=self.layer > 1))

    def decode(self, wire: Mapping) -> common.Decoded:
        """Decodes with channels first, depth in three channels."""
        batch = super().decode(wire)
        depth = batch["target_depth"] * 2 - 1
        batch["target_depth"] = depth.expand(*depth.shape[:-1], 3)
        return {name: self.volume(value) for name, value in batch.items()}

    def synthesize(self, batch: common.Batch, carry: Any) -> torch.Tensor:
        """Makes the estimate of the last layer."""
        return self._video(batch).clamp(-1.0, 1.0).movedim(1, -1)

    def _video(self, batch: common.Batch) -> torch.Tensor:
        estimate = self.layer1(batch)
        return estimate if self.layer == 1 else self.layer2(batch, estimate)

    def loss(
        self, update: str, batch: common.Batch, shared: common.Batch
    ) -> tuple[common.Terms, common.Decoded]:
        """Eq. 4 or 5 without the perceptual term, and the discriminators' loss."""
        source, target = batch["source"], batch["target"]
        discriminator = getattr(self, f"discriminator{self.layer}")
        if update == "discriminator":
            real, fake = discriminator(source, target), discriminator(source, shared["video"])
            return {
                f"adversarial_{name}": 0.5 * (_judged(real[name], True) + _judged(logits, False))
                for name, logits in fake.items()
            }, {}
        video = self._video(batch)
        if self.layer == 1:
            pixel = region_huber(video, target, batch["target_visibility"])
        else:
            pixel = 3 * F.smooth_l1_loss(video, target)
        fooled = discriminator(source, video)
        terms = {f"adversarial_{name}": _judged(logits, True) for name, logits in fooled.items()}
        return {"reconstruction": pixel, **terms}, {"video": video}
