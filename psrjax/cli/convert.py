"""Converts checkpoints and weights that other projects published; PyTorch is not needed.

    psrjax convert first-order-model vox-cpk.pth.tar --config vox-256.yaml --to DIR

reads a checkpoint of AliaksandrSiarohin/first-order-model with its YAML config; DIR is then a run.
It answers as the official code did under the PyTorch of its time (before 1.3), in which warps took
-1 and 1 as the centres of the corner pixels. A newer PyTorch takes them as the outer edges unless
it is told, and the same checkpoint gives other pictures there; --align_corners=false gives those.

    psrjax convert torchvision|fid-inception|i3d|lpips|super-slomo FILE [--to FOLDER]

reads published weights of a frozen network: VGG-19, VGG-16 or AlexNet, the Inception of FID, I3D,
the heads of LPIPS, or Super SloMo; by default FOLDER is where `psrjax.pretrained.registry` looks
last.
"""

from collections.abc import Sequence

from absl import flags

from psrjax.errors import UserError
from psrjax.importers import first_order_model
from psrjax.pretrained import convert

_CONFIG = flags.DEFINE_string("config", "", "the checkpoint's YAML config")
_ALIGN_CORNERS = flags.DEFINE_bool(
    "align_corners", True, "first-order-model: warps as in PyTorch before 1.3, by which the "
    "published checkpoints were trained; false is today's default of PyTorch"
)  # fmt: skip
_TO = flags.DEFINE_string("to", "", "the new run's directory, or the folder of weights")


def main(arguments: Sequence[str]) -> None:
    """Writes the run or the weights and prints their path."""
    kinds = ("first-order-model", *convert.KINDS)
    if len(arguments) != 2 or arguments[0] not in kinds:
        raise UserError(f"write: psrjax convert {'|'.join(kinds)} FILE")
    kind, path = arguments
    if kind in convert.KINDS:
        made, digest = convert.convert(kind, path, _TO.value)
        print(f"{made} sha256 {digest}")
        return
    if not _CONFIG.value:
        raise UserError("--config: give the checkpoint's config, such as vox-256.yaml")
    if not _TO.value:
        raise UserError("--to: give the new run's directory")
    made = first_order_model.convert(
        path, _CONFIG.value, _TO.value, align_corners=_ALIGN_CORNERS.value
    )
    print(made)
