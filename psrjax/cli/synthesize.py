"""Synthesizes a clip in another camera's view: a video, and a comparison video beside it."""

from collections.abc import Sequence
from typing import Any

from absl import flags

from psrjax.errors import UserError
from psrjax.methods.base import Method
from psrjax.training import checkpoint, clips, synthesis

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
_CAMERA = flags.DEFINE_string("camera", "", "instead of a view: a camera, FILE.json[:NAME]")
# A video, and the person's mesh; --camera is then what to make
_VIDEO = flags.DEFINE_string("video", "", "a source video, instead of a clip of a data set")
_MESH = flags.DEFINE_string("mesh", "", "with --video: npz of verts (t, v, 3) and faces (f, 3)")
_SOURCE_CAMERA = flags.DEFINE_string("source_camera", "", "with --video: FILE.json[:NAME]")


def main(arguments: Sequence[str]) -> None:
    """Writes the two videos and prints where they are."""
    del arguments
    method, variables, config, _ = checkpoint.restore_for_inference(
        _WORKDIR.value, _STAGE.value or None
    )
    with config.unlocked():
        config.data.path = _DATA.value or config.data.path
    made = synthesis.synthesize(method, variables, _inputs(method, config), show_progress=True)
    for path in synthesis.write(_OUTPUT.value, made):
        print(path)


def _inputs(method: Method, config: Any) -> clips.Inputs:
    frames = _range(_FRAMES.value)
    if _VIDEO.value:
        return clips.from_video(
            method,
            config,
            path=_VIDEO.value,
            mesh=_required(_MESH),
            source_camera=_required(_SOURCE_CAMERA),
            target_camera=_required(_CAMERA),
            frames=frames,
        )
    chosen = {"split": _SPLIT.value, "clip": _CLIP.value, "frames": frames}
    if _CAMERA.value:
        view = _SOURCE_VIEW.value
        return clips.from_camera(method, config, camera=_CAMERA.value, source_view=view, **chosen)
    views = (_SOURCE_VIEW.value, _TARGET_VIEW.value)
    return clips.from_data(method, config, views=views, **chosen)


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
