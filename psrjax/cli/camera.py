"""Writes a camera between two views of a dataset, for `psrjax synthesize --camera`.

psrjax camera --data DIR --between cam01,cam02 [--fraction 0.5] --output between.json
"""

from collections.abc import Sequence

from absl import flags

from psrjax import io
from psrjax.data.source import Source
from psrjax.errors import UserError
from psrjax.prepare.multiview import virtual_camera

_DATA = flags.DEFINE_string("data", None, "a stored dataset", required=True)
_SPLIT = flags.DEFINE_string("split", "test", "a split of it")
_CLIP = flags.DEFINE_string("clip", "", "a clip's name; by default the split's first")
_BETWEEN = flags.DEFINE_list("between", None, "two views, by name", required=True)
_FRACTION = flags.DEFINE_float("fraction", 0.5, "0 is the first view's camera, 1 the second's")
_OUTPUT = flags.DEFINE_string("output", "camera.json", "the file to write")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "write over the file where there is one")


def main(arguments: Sequence[str]) -> None:
    """Writes the camera and prints the path of the file."""
    del arguments
    if len(_BETWEEN.value) != 2:
        raise UserError("--between names two views, as cam01,cam02")
    if not 0.0 <= _FRACTION.value <= 1.0:
        raise UserError(f"--fraction={_FRACTION.value:g}: it lies in [0, 1]")
    io.require_new(_OUTPUT.value, overwrite=_OVERWRITE.value)
    data = Source(_DATA.value, _SPLIT.value)
    clip = _CLIP.value or data.clips[0].name
    one, other = (virtual_camera.stored_camera(data, clip, view) for view in _BETWEEN.value)
    focus = virtual_camera.stored_joints(data, clip).mean((0, 1))
    camera = virtual_camera.between(one, other, _FRACTION.value, focus)
    virtual_camera.write_camera(_OUTPUT.value, "between", camera)
    print(_OUTPUT.value)
