"""Makes a data set of what a user has: a calibrated multi-view recording, laid out as a folder.

    psrjax prepare RECORDING --to DIR [--size 128] [--cameras cam01,cam02] ...

RECORDING holds videos/NAME.mp4, pose/NAME_json/*.json (OpenPose: BODY_25, BODY_25B or COCO-18) and
calibration/ (OpenCV-style .json or Qualisys .qca.txt). Look at DIR/previews before training.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from psrjax.data import annotations, recording, recording_files
from psrjax.errors import UserError

_TO = flags.DEFINE_string("to", None, "the folder of the new data set", required=True)
_SIZE = flags.DEFINE_list("size", ["128"], "height,width of the stored frames; one number: square")
_CAMERAS = flags.DEFINE_list("cameras", [], "the cameras to use, by name; all by default")
_CALIBRATION = flags.DEFINE_string(
    "calibration", "", "the calibration file, where the folder holds several"
)
_JOINTS = flags.DEFINE_enum(
    "joints", "auto", ["auto", *annotations.JOINT_KINDS], "the order of the JSON's joints"
)
_MAX_ERROR = flags.DEFINE_float(
    "max_error",
    0.0,
    "median reprojection error, pixels of the videos, above which a calibration is refused; 0 is "
    f"{recording.MAX_ERROR:.1%} of the longer side",
    lower_bound=0.0,
)
_HOLDOUT = flags.DEFINE_float(
    "holdout", 0.25, "fraction of the frames, the last, that become the split test", 0.0, 0.9
)
_MARGIN = flags.DEFINE_float("margin", 0.08, "what a crop leaves around the person", 0.0, 2.0)
_LAG = flags.DEFINE_integer(
    "lag", None, "frames that the joints run ahead of the videos; measured by default"
)


def main(arguments: Sequence[str]) -> None:
    """Prepares the one input named on the command line and prints the summary."""
    if len(arguments) != 1:
        raise UserError("name one input: psrjax prepare RECORDING --to DIR")
    source = Path(arguments[0])
    if not (source / "videos").is_dir():
        raise UserError(f"{source}: not a recording; one is a folder with {recording_files.LAYOUT}")
    options = recording.Options(
        size=_size(_SIZE.value),
        cameras=tuple(_CAMERAS.value),
        calibration=_CALIBRATION.value,
        joints=_JOINTS.value,
        max_error=_MAX_ERROR.value,
        holdout=_HOLDOUT.value,
        margin=_MARGIN.value,
        lag=_LAG.value,
    )
    summary = recording.prepare(source, _TO.value, options)
    shown = {name: value for name, value in summary.items() if name not in ("filled", "notes")}
    for name, value in shown.items():
        print(f"{name:30} {json.dumps(value)}")
    for note in summary["notes"]:
        print(f"note: {note}")
    print(f"written to {_TO.value}; look at {Path(_TO.value) / 'previews'} before training")


def _size(values: Sequence[str]) -> tuple[int, int]:
    try:
        sides = [int(value) for value in values]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2) or min(sides) < 16:
        raise UserError(
            f"--size {','.join(values)}: one or two whole numbers of at least 16, as 128 or 192,128"
        )
    return sides[0], sides[-1]
