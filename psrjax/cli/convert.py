"""Makes a run, or a file of weights, of what other projects published; PyTorch is not needed.

    psrjax convert first-order-model vox-cpk.pth.tar --config vox-256.yaml --to DIR

reads a checkpoint of AliaksandrSiarohin/first-order-model with its YAML config; DIR is then a run.
"""

from collections.abc import Sequence

from absl import flags

from psrjax.errors import UserError
from psrjax.training import convert_first_order

_CONFIG = flags.DEFINE_string("config", "", "the checkpoint's YAML config")
_TO = flags.DEFINE_string("to", None, "the new run's directory", required=True)


def main(arguments: Sequence[str]) -> None:
    """Writes the run and prints where it is."""
    if len(arguments) != 2 or arguments[0] != "first-order-model":
        raise UserError("write: psrjax convert first-order-model CHECKPOINT --config FILE --to DIR")
    if not _CONFIG.value:
        raise UserError("--config: give the checkpoint's config, such as vox-256.yaml")
    print(convert_first_order.convert(arguments[1], _CONFIG.value, _TO.value))
