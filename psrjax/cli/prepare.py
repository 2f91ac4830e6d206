"""Makes a dataset from videos, a calibrated multi-view recording, or a published dataset.

    psrjax prepare VIDEO... --to DIR --for PRESET
    psrjax prepare VIDEO... --to DIR [--size 128] [--joints SOURCE] [--crop fixed] ...
    psrjax prepare RECORDING --to DIR [--size 128] [--cameras cam01,cam02] ...
    psrjax prepare --dataset NAME RAW_DIR --to DIR [--beam_runner=DirectRunner] ...

VIDEO is a video file, a folder of pictures, or a folder of videos. The person's joints are detected
by MediaPipe (in an environment of its own, made on first use), or read from --joints: a folder of
OpenPose JSON, a .json of MMPose, AlphaPose or MediaPipe, an NTU .skeleton, a .npz, or a folder of
these, named like the videos. A second run resumes an interrupted one, and adds videos.

RECORDING holds videos/NAME.mp4, pose/NAME_json/*.json (OpenPose: BODY_25, BODY_25B or COCO-18) and
calibration/ (OpenCV-style .json or Qualisys .qca.txt). A camera that the others disagree with is
left out, or its constant offset taken off, and the numbers are told; --cameras=cam01,cam02 takes
these as they are.

RAW_DIR holds the files of a published dataset as its authors hand them out (the documents have a
page on each: ntu_rgbd, iper, dance_fashion, video_folder, single_person), or what `tfds build` has
made of them. A second run resumes an interrupted one.

Look at DIR/prepare.html before training.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from psrjax.api import preparation
from psrjax.errors import UserError
from psrjax.prepare.common import joint_files, openpose
from psrjax.prepare.common.result_page import PAGE
from psrjax.prepare.datasets import adapter, build, catalogue
from psrjax.prepare.monocular import pipeline, planning, result_page
from psrjax.prepare.multiview import recording

_FOR = flags.DEFINE_string(
    "for", "", "what will be trained on it, SYSTEM:PRESET of train --config: chooses the size, how "
    "frames are held out, and --body"
)  # fmt: skip
_TO = flags.DEFINE_string("to", None, "the folder of the new dataset", required=True)
_SIZE = flags.DEFINE_list("size", ["128"], "height,width of the stored frames; one number: square")
_JOINTS = flags.DEFINE_string(
    "joints", "", "videos: mediapipe (default), or the file or folder of joints; recordings: the "
    f"order of the JSON's joints, auto (default) or {', '.join(openpose.JOINT_KINDS)}",
)  # fmt: skip
_HOLDOUT = flags.DEFINE_float(
    "holdout", preparation.HOLDOUT, "the fraction held out as the split test: the last frames, or "
    "whole videos", 0.0, 0.9
)  # fmt: skip
_MARGIN = flags.DEFINE_float(
    "margin", 0.08, "the margin that a crop leaves around the person", 0.0, 2.0
)

_CROP = flags.DEFINE_enum(
    "crop", "fixed", [*pipeline.CROPS, "squeeze"],
    "videos: one window for the whole clip, one that follows the person at one scale (then there "
    "is no background), or the whole picture; datasets: also squeeze, all of it in another shape",
)  # fmt: skip
_HOLDOUT_BY = flags.DEFINE_enum(
    "holdout_by", "auto", planning.HOLDOUT_BY,
    "videos: hold out the end of each, or whole videos; auto: the end of a single one",
)  # fmt: skip
_FPS = flags.DEFINE_float(
    "fps", 0.0, "videos: frames per second to keep; 0: all, at their times", 0
)
_SECONDS = flags.DEFINE_float("seconds", 0.0, "videos: the length of the clips; 0: do not cut", 0)
_ORDER = flags.DEFINE_enum(
    "joint_order", "auto", ["auto", *joint_files.ORDERS],
    "videos: the order of the joints in --joints; auto tells it by their number and bone lengths",
)  # fmt: skip
_JOINTS_SIZE = flags.DEFINE_list(
    "joints_size", [], "videos: height,width of the picture that --joints were found in, where it "
    "is not the video's"
)  # fmt: skip
_BODY = flags.DEFINE_bool(
    "body", False, "videos: also body parts (iuv) and the mesh label, of the built-in body on "
    "the joints; methods with a texture read them"
)  # fmt: skip
_PROCESSES = flags.DEFINE_integer("processes", 0, "videos: at once; 0: one for two cores", 0)

_CAMERAS = flags.DEFINE_list(
    "cameras", [], "recordings: the cameras, by name, taken as they are; by default all that agree"
)  # fmt: skip
_CALIBRATION = flags.DEFINE_string(
    "calibration", "", "recordings: the file, where there are several"
)
_MAX_ERROR = flags.DEFINE_float(
    "max_error", 0.0, "recordings: median reprojection error, pixels of the videos, above which a "
    f"calibration is refused; 0 is {recording.MAX_ERROR:.1%} of the longer side", 0.0,
)  # fmt: skip
_LAG = flags.DEFINE_integer(
    "lag", None, "recordings: frames by which the joints lead the videos; measured by default"
)

_DATASET = flags.DEFINE_enum("dataset", "", ["", *catalogue.NAMES], "the published dataset")
_SMPL = flags.DEFINE_string("smpl", "", "datasets: an SMPL model file, to use instead of our body")
_SMPL_PARAMETERS = flags.DEFINE_string(
    "smpl_parameters", "", "datasets: the folder of SMPL parameters, named like the clips"
)
_BEAM_RUNNER = flags.DEFINE_string(
    "beam_runner", "", "datasets: Apache Beam's runner, such as DirectRunner; none: processes here"
)
_BEAM_OPTION = flags.DEFINE_multi_string(
    "beam_option", [], "datasets: NAME=VALUE of Beam's options, such as region=europe-west4"
)

_OF_DATASETS = (_SMPL, _SMPL_PARAMETERS, _BEAM_RUNNER, _BEAM_OPTION)
_OF_VIDEOS = (_CROP, _HOLDOUT_BY, _FPS, _SECONDS, _ORDER, _JOINTS_SIZE, _BODY, _PROCESSES)
_OF_RECORDINGS = (_CAMERAS, _CALIBRATION, _MAX_ERROR, _LAG)


def main(arguments: Sequence[str]) -> None:
    """Prepares the named input and prints what it found."""
    if not arguments:
        raise UserError("name the input: psrjax prepare VIDEO... --to DIR")
    if not _TO.value:
        raise UserError("--to: name the folder of the new dataset")
    if _DATASET.value:
        not_ours = (_HOLDOUT, _HOLDOUT_BY, _ORDER, _JOINTS_SIZE, _BODY, *_OF_RECORDINGS)
        _only("a published dataset", not_ours)
        if len(arguments) != 1:
            raise UserError(f"--dataset {_DATASET.value} takes one folder, not {len(arguments)}")
        _prepare_dataset(Path(arguments[0]))
    elif len(arguments) == 1 and (Path(arguments[0]) / "videos").is_dir():
        _only("a recording", (*_OF_VIDEOS, *_OF_DATASETS))
        _prepare_recording(Path(arguments[0]))
    else:
        _only("videos", (*_OF_RECORDINGS, *_OF_DATASETS))
        _prepare_videos(arguments)


def _only(what: str, others: Sequence[flags.FlagHolder]) -> None:
    """Raises UserError if a flag of the other kind of input was given."""
    given = next((flag.name for flag in others if flag.present), None)
    if given:
        raise UserError(f"--{given} is not a flag for {what}; leave it out")


def _prepare_videos(arguments: Sequence[str]) -> None:
    needs = _needs()
    options = pipeline.PreparationOptions(
        size=_wanted_size(needs),
        crop=_CROP.value,
        margin=_MARGIN.value,
        fps=_FPS.value,
        seconds=_SECONDS.value,
        order=_ORDER.value,
        joints_size=_size(_JOINTS_SIZE) if _JOINTS_SIZE.value else (),
        body=_BODY.value or bool(needs and needs.body),
    )
    summary = preparation.prepare(
        arguments,
        _TO.value,
        preset=_FOR.value,
        joints=_JOINTS.value,
        holdout=_HOLDOUT.value,
        holdout_by=_HOLDOUT_BY.value,
        options=options,
        processes=_PROCESSES.value,
    )
    for name, report in summary["clips"].items():
        print(result_page.line(name, report))
    count, new = len(summary["clips"]), summary["new"]
    print(f"{count} clips in {_TO.value}, {new} of them new; look at {Path(_TO.value) / PAGE}")
    _tell_next()
    if summary["failed"]:
        reasons = "; ".join(summary["failed"].values())
        given = len(summary["failed"]) + count
        raise UserError(f"{len(summary['failed'])} of {given} left out: {reasons}")


def _needs() -> preparation.Needs | None:
    return preparation.needs_of(_FOR.value) if _FOR.value else None


def _wanted_size(needs: preparation.Needs | None) -> tuple[int, int]:
    return needs.size if needs and not _SIZE.present else _size(_SIZE)


def _tell_next() -> None:
    if _FOR.value:
        data = f"--config.data.path={_TO.value}"
        print(f"then: psrjax train --config={_FOR.value} {data} --workdir=RUN")


def _prepare_dataset(source: Path) -> None:
    needs = _needs()
    options = adapter.DatasetOptions(
        size=_wanted_size(needs) if needs or _SIZE.present else (0, 0),
        crop=_CROP.value if _CROP.present else "",
        joints=_JOINTS.value,
        margin=_MARGIN.value,
        fps=_FPS.value,
        seconds=_SECONDS.value,
        smpl=_SMPL.value,
        smpl_parameters=_SMPL_PARAMETERS.value,
    )
    name, directory = _DATASET.value, _TO.value
    if _BEAM_RUNNER.value or (source / "dataset_info.json").is_file():
        from psrjax.prepare.datasets import tfds_builder  # TFDS: seconds to import

        if _BEAM_RUNNER.value:
            given = [f"--{option}" for option in _BEAM_OPTION.value]
            summary = tfds_builder.build_on_beam(
                name, source, directory, options, runner=_BEAM_RUNNER.value, pipeline_options=given
            )
        else:
            summary = tfds_builder.adopt(name, source, directory, options)
    else:
        summary = build.build(name, source, directory, options, processes=_PROCESSES.value)
    for note in summary["notes"]:
        print(f"note: {note}")
    print(f"{summary['clips']} clips of {name} in {directory}")
    if summary["failed"]:
        reasons = "; ".join(summary["failed"].values())
        raise UserError(f"{len(summary['failed'])} clips left out: {reasons}")


def _prepare_recording(source: Path) -> None:
    order = _JOINTS.value or "auto"
    if order not in ("auto", *openpose.JOINT_KINDS):
        raise UserError(
            f"--joints={order}: the joints of a recording lie in its folder; here it is their "
            f"order: auto, {', '.join(openpose.JOINT_KINDS)}"
        )
    options = recording.MultiviewOptions(
        size=_wanted_size(_needs()),
        cameras=tuple(_CAMERAS.value),
        calibration=_CALIBRATION.value,
        joints=order,
        max_error=_MAX_ERROR.value,
        holdout=_HOLDOUT.value,
        margin=_MARGIN.value,
        lag=_LAG.value,
    )
    summary = preparation.prepare(source, _TO.value, preset=_FOR.value, options=options)
    shown = {
        name: value
        for name, value in summary.items()
        if name not in ("filled", "notes", "problems")
    }
    for name, value in shown.items():
        print(f"{name:30} {json.dumps(value)}")
    for note in summary["notes"]:
        print(f"note: {note}")
    for problem in summary["problems"]:
        print(f"WARNING: {problem['what']}: {problem['detail']}: {problem['advice']}")
    print(f"written to {_TO.value}; look at {Path(_TO.value) / PAGE} before training")
    _tell_next()


def _size(flag: flags.FlagHolder) -> tuple[int, int]:
    try:
        sides = [int(value) for value in flag.value]
    except ValueError:
        sides = []
    if len(sides) not in (1, 2) or min(sides) < 16:
        raise UserError(
            f"--{flag.name} {','.join(flag.value)}: one or two whole numbers of at least 16, as "
            "128 or 192,128"
        )
    return sides[0], sides[-1]
