"""Synthesizes a clip in another camera's view: a video, and a comparison video beside it."""

from collections.abc import Sequence

from absl import flags

from psrjax.errors import UserError
from psrjax.training import checkpoint, synthesis

_WORKDIR = flags.DEFINE_string("workdir", None, "the run's directory", required=True)
_STAGE = flags.DEFINE_string("stage", "", "a stage of the run; by default the last finished one")
_OUTPUT = flags.DEFINE_string("output", "out.mp4", "the video; the comparison is out.compare.mp4")
# A clip of a data set
_DATA = flags.DEFINE_string("data", "", "a stored data set; by default the run's own")
_SPLIT = flags.DEFINE_string("split", "", "a split of it; by default the run's eval_split")
_CLIP = flags.DEFINE_string("clip", "", "a clip's name; by default the split's first")
_SOURCE_VIEW = flags.DEFINE_string("source_view", "", "the view to start from (default: first)")
_TARGET_VIEW = flags.DEFINE_string("target_view", "", "the view to make (default: the next)")
_FRAMES = flags.DEFINE_string("frames", "", "first:end, as in Python; by default the whole clip")
# A video, and the person's mesh
_VIDEO = flags.DEFINE_string("video", "", "a source video, instead of a clip of a data set")
_MESH = flags.DEFINE_string("mesh", "", "with --video: npz of verts (t, v, 3) and faces (f, 3)")
_SOURCE_CAMERA = flags.DEFINE_string("source_camera", "", "with --video: FILE.json[:NAME]")
_CAMERA = flags.DEFINE_string("camera", "", "with --video: the camera to make, FILE.json[:NAME]")


def main(arguments: Sequence[str]) -> None:
    """Writes the two videos and prints where they are."""
    del arguments
    first, end = _range(_FRAMES.value)
    method, variables, config, _ = checkpoint.restore_for_inference(
        _WORKDIR.value, _STAGE.value or None
    )
    with config.unlocked():
        config.data.path = _DATA.value or config.data.path
    if _VIDEO.value:
        inputs = synthesis.from_video(
            method,
            config,
            path=_VIDEO.value,
            mesh=_required(_MESH),
            source_camera=_required(_SOURCE_CAMERA),
            target_camera=_required(_CAMERA),
            frames=(first, end),
        )
    else:
        inputs = synthesis.from_data(
            method,
            config,
            split=_SPLIT.value,
            clip=_CLIP.value,
            views=(_SOURCE_VIEW.value, _TARGET_VIEW.value),
            frames=(first, end),
        )
    made = synthesis.synthesize(method, variables, inputs, show_progress=True)
    for path in synthesis.write(_OUTPUT.value, made):
        print(path)


def _required(flag: flags.FlagHolder) -> str:
    if not flag.value:
        raise UserError(f"--video needs --{flag.name} too")
    return flag.value


def _range(text: str) -> tuple[int, int]:
    """ "2:9" -> (2, 9), "" -> (0, 0): an end of 0 is the clip's."""
    first, colon, end = text.partition(":")
    try:
        numbers = int(first or 0), int(end or 0)
    except ValueError as error:
        raise UserError(f"--frames={text}: write it as first:end, such as 0:50") from error
    if text and (not colon or numbers[0] < 0 or (end and numbers[1] <= numbers[0])):
        raise UserError(f"--frames={text}: write it as first:end, such as 0:50")
    return numbers
