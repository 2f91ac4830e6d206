"""INTERnet's losses and synthesis in PyTorch.

Pictures are (n, c, h, w) in [0, 1]; points and grids have -1 and 1 at the corner pixels.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from psrjax.benchmarks.torch_reference import common
from psrjax.benchmarks.torch_reference import internet_networks as networks
from psrjax.ops import thin_plate

_SIGMA_AFFINE, _SIGMA_SPLINE, _SIDE = 0.05, 0.005, 5
_FIRSTS = tuple(f"conv{block}_1" for block in range(1, 6))
_GRAM = ("conv2_2", "conv3_4", "conv4_4", "conv5_2")


class ThinPlate:
    """A random deformation and its Jacobian, as `psrjax.ops.thin_plate`.

    Args:
      affine: (n, 2, 3).
      coefficients: (n, controls).
    """

    def __init__(self, affine: torch.Tensor, coefficients: torch.Tensor):
        self.affine, self.coefficients = affine, coefficients
        side = round(coefficients.shape[1] ** 0.5)
        self.controls = networks.corner_grid(side, side).reshape(-1, 2)

    @staticmethod
    def sample(count: int) -> "ThinPlate":
        """Draws random deformations near the identity."""
        affine = torch.eye(2, 3) + _SIGMA_AFFINE * torch.randn(count, 2, 3)
        return ThinPlate(affine, _SIGMA_SPLINE * torch.randn(count, _SIDE**2))

    def apply(self, points: torch.Tensor) -> torch.Tensor:
        """Moves points (n, m, 2)."""
        moved = points @ self.affine[:, :, :2].transpose(1, 2) + self.affine[:, None, :, 2]
        distance = (points[:, :, None] - self.controls).abs().sum(-1)
        bend = distance.square() * torch.log(distance + 1e-6)
        return moved + (self.coefficients[:, None] * bend).sum(-1, keepdim=True)

    def jacobian(self, points: torch.Tensor) -> torch.Tensor:
        """Returns (n, m, 2, 2), by automatic differentiation, as the first-order model's code."""
        moved = self.apply(points)
        rows = [
            torch.autograd.grad(moved[..., i].sum(), points, create_graph=True)[0] for i in (0, 1)
        ]
        return torch.stack(rows, -2)

    def warp(self, image: torch.Tensor) -> torch.Tensor:
        """Samples the image at the deformed places, with reflect padding."""
        n, _, h, w = image.shape
        grid = self.apply(networks.corner_grid(h, w).reshape(1, -1, 2).expand(n, -1, -1))
        grid = grid.reshape(n, h, w, 2)
        return F.grid_sample(image, grid, padding_mode="reflection", align_corners=True)


class TorchReference(common.TorchReference):
    """INTERnet with its own discriminators, all temporal schemes but the extrinsic one."""

    supported = {
        "temporal": ("none", "a", "c"),
        "mask_grid": ("literal",),
        "relative": (False,),
        "jacobians": ("each", "none"),
        "discriminator_kind": ("multiscale",),
        "discriminator_sees_points": (False,),
        "style": ("l1gram",),
        "norm": ("batch",),
    }

    def __init__(self, config: Any, method: Any, pretrained: Mapping, *, channels_last: bool):
        super().__init__(config, method, pretrained, channels_last=channels_last)
        self.keypoints = networks.KeypointDetector(method)
        self.motion = networks.DenseMotion(method)
        self.generator = networks.MotionGenerator(method)
        self.discriminator = networks.MultiScaleDiscriminator(
            3, method.discriminator_scales, method.discriminator_width, method.discriminator_layers
        )
        self.vgg = {
            unit: (self._kernel(arrays["kernel"]), arrays["bias"])
            for weights in pretrained.values()
            for unit, arrays in weights.items()
        }
        self.transform: ThinPlate | None = None

    def _kernel(self, kernel: torch.Tensor) -> torch.Tensor:
        return kernel.movedim((-1, -2), (0, 1)).contiguous(memory_format=self.memory_format)

    def draw(self, method: Any, variables: Mapping, rngs: Mapping, batch: Mapping) -> None:
        """Keeps the deformation of the equivariance terms."""
        count = len(batch["target"])

        def sample(method: Any) -> thin_plate.ThinPlate:
            return thin_plate.sample(method.make_rng("noise"), count)

        drawn = method.apply(variables, rngs=rngs, method=sample)
        self.transform = ThinPlate(*(torch.as_tensor(np.array(leaf)) for leaf in drawn))

    def decode(self, wire: Mapping) -> common.Decoded:
        """Decodes frames to [0, 1], (b, frames, 3, h, w)."""
        batch = super().decode(wire)
        for name in ("source", "target"):
            b, n = batch[name].shape[:2]
            frames = self.pictures((batch[name] + 1) / 2)
            batch[name] = frames.unflatten(0, (b, n))
        return batch

    def start(self, batch: common.Batch) -> dict[str, Any]:
        """Encodes the source, and detects key points in it and in the first driving frame."""
        source = batch["source"][:, 0]
        return {
            "source": source,
            "features": self.generator.encode(source),
            "points": self.keypoints(source),
            "first": self.keypoints(batch["target"][:, 0]),
        }

    def synthesize(self, batch: common.Batch, carry: Any) -> torch.Tensor:
        """Generates every target frame from the source."""
        b, t = batch["target"].shape[:2]
        points = self.keypoints(batch["target"].flatten(0, 1))
        rows = {name: value.repeat_interleave(t, 0) for name, value in carry["points"].items()}
        source = carry["source"].repeat_interleave(t, 0)
        features = [feature.repeat_interleave(t, 0) for feature in carry["features"]]
        picture, _ = self._generate(source, features, self.motion(source, rows, points))
        return (picture * 2 - 1).movedim(1, -1).unflatten(0, (b, t))

    def _generate(
        self, source: torch.Tensor, features: list, moved: Mapping
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the picture, and the generated one before the source is blended in."""
        generated = self.generator.decode(features, moved)
        if not self.method.keeps_source:
            return generated, generated
        levels = self.method.levels
        gate = networks.pyramid(moved["confidence"], levels)[-1]
        field = networks.pyramid(moved["deformation"].movedim(-1, 1), levels)[-1].movedim(1, -1)
        kept = F.grid_sample(source, field, align_corners=True)
        return gate * kept + (1 - gate) * generated, generated

    def loss(
        self, update: str, batch: common.Batch, shared: common.Batch
    ) -> tuple[common.Terms, common.Decoded]:
        """Eq. 1, 7 and the equivariance of key points, and the discriminators' loss."""
        driving = batch["target"][:, -1]
        if update == "discriminator":
            real = self.discriminator.logits(driving)
            fake = self.discriminator.logits(shared["picture"])
            return {"adversarial": common.least_squares(real, fake)}, {}
        source = batch["source"][:, 0]
        points = self.keypoints(driving)
        moved = self.motion(source, self.keypoints(source), points)
        picture, generated = self._generate(source, self.generator.encode(source), moved)
        fake = self.discriminator(picture)
        terms = {"adversarial": sum((f["logits"] - 1).square().mean() for f in fake)}
        weights = self.config.weights.generator
        if weights.feature_matching:
            with torch.no_grad():
                real = self.discriminator(driving)
            terms["feature_matching"] = sum(
                (a - b).abs().mean()
                for f, r in zip(fake, real, strict=True)
                for a, b in zip(f["features"], r["features"], strict=True)
            )
        if weights.reconstruction:
            terms["reconstruction"] = self._difference(picture, driving)
        if weights.generated:
            terms["generated"] = self._difference(generated, driving)
        if weights.confidence_prior:
            terms["confidence_prior"] = -(moved["confidence"] + 1e-8).log().mean()
        if self.method.points_on_motion:
            flow = batch["target_flow_forward"][:, -1]
            terms |= {"points_moving": _moving(points["heat"], flow)}
            terms |= {"points_apart": _apart(points["value"])}
        if self.vgg:
            terms |= self._feature_terms(picture, driving)
        terms |= self._equivariance(driving, points)
        if self.method.temporal != "none":
            terms["temporal"] = self._temporal(batch, picture, moved["confidence"])
        return terms, {"picture": picture}

    def _difference(self, picture: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        sizes = self.method.perceptual_factors
        gaps = (networks.downsample(picture - truth, factor) for factor in sizes)
        return sum(gap.abs().mean() for gap in gaps)

    def _equivariance(self, driving: torch.Tensor, points: Mapping) -> common.Terms:
        transform, self.transform = self.transform or ThinPlate.sample(len(driving)), None
        moved = self.keypoints(transform.warp(driving))
        value = (points["value"] - transform.apply(moved["value"])).abs().mean()
        chain = networks.inverse(points["jacobian"]) @ transform.jacobian(moved["value"])
        chain = chain @ moved["jacobian"]
        return {
            "equivariance_value": value,
            "equivariance_jacobian": (torch.eye(2) - chain).abs().mean(),
        }

    def _temporal(
        self, batch: common.Batch, picture: torch.Tensor, confidence: torch.Tensor
    ) -> torch.Tensor:
        flow = batch["target_flow_forward"][:, -1].movedim(-1, 1)
        moved = common.warp(picture, flow, "border")
        error = (moved - batch["target"][:, -2]).abs()
        if self.method.temporal == "c":
            error = error * networks.pyramid(confidence, self.method.levels)[-1]
        return error.mean()

    def _feature_terms(self, picture: torch.Tensor, driving: torch.Tensor) -> common.Terms:
        terms = {"perceptual": torch.zeros(()), "style": torch.zeros(())}
        for factor in self.method.perceptual_factors:
            ours = self._features(networks.downsample(picture, factor), whole=factor == 1)
            with torch.no_grad():
                theirs = self._features(networks.downsample(driving, factor), whole=factor == 1)
            terms["perceptual"] += sum((ours[unit] - theirs[unit]).abs().mean() for unit in _FIRSTS)
            if factor == 1:
                terms["style"] += sum(
                    (_gram(ours[unit]) - _gram(theirs[unit])).abs().mean() for unit in _GRAM
                )
        return terms

    def _features(self, image: torch.Tensor, *, whole: bool) -> dict[str, torch.Tensor]:
        mean = torch.tensor((0.485, 0.456, 0.406)).reshape(3, 1, 1)
        std = torch.tensor((0.229, 0.224, 0.225)).reshape(3, 1, 1)
        x, found = (image - mean) / std, {}
        for unit, (kernel, bias) in self.vgg.items():
            if unit.endswith("_1") and unit != "conv1_1":
                x = F.max_pool2d(x, 2)
            x = F.relu_(F.conv2d(x, kernel, bias, padding=1))
            found[unit] = x
            if unit == (_GRAM if whole else _FIRSTS)[-1]:
                break
        return found


def _moving(heat: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    moves = (flow.square().sum(-1) > 0.15**2).float()
    moves = F.adaptive_max_pool2d(moves[:, None], heat.shape[-2:])
    return -((heat * moves).sum((2, 3)) + 1e-3).log().mean()


def _apart(points: torch.Tensor) -> torch.Tensor:
    near = torch.exp(-torch.cdist(points, points).square() / (2 * 0.15**2))
    return near.sum((1, 2)).mean() / points.shape[1] - 1


def _gram(features: torch.Tensor) -> torch.Tensor:
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / features[0].numel()
