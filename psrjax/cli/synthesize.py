"""Synthesizes a video: a person from another view, or in another person's motion.

Another view of a clip, of a video with a mesh, or for a camera (novel view):

    psrjax synthesize --run R [--clip C --source_view A --target_view B] --output out.mp4

One person's appearance in another's motion (transfer), from pictures, videos or datasets:

    psrjax synthesize --run R --source WHO --driving MOTION --output out.mp4

Without --source the run's own clip is shown: methods of one person need no more.

Many transfers in one call, every source with every driving, or the rows of a CSV file with the
columns source and driving. Started again, it goes on where it was cut off:

    psrjax synthesize --run R --source 'people/*.jpg' --driving 'dances/*.mp4' --output DIR
    psrjax synthesize --run R --batch pairs.csv --output 'DIR/*.gif'

A test set of random pairs of a split, within a clip or from one to another:

    psrjax synthesize --run R --pairs same_video --output DIR

WHO and MOTION are a picture, a video, a folder of pictures, or a dataset's DIR, DIR:CLIP or
DIR:CLIP:VIEW ("synthetic" is the run's own). Beside out.mp4 comes a comparison, out.compare.mp4.
--output may end in .mp4, .mov, .mkv, .avi, .gif, .webp, or in / for a folder of pictures.
A flag that is of no use to what is synthesized is refused.

--method.FIELD=VALUE replaces a field of the run's method for this video, such as
--method.relative; psrjax synthesize --run R --method.help lists the fields.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from psrjax import config as config_lib
from psrjax import io
from psrjax.api import model as model_lib
from psrjax.api.model import Model
from psrjax.cli._method_fields import MethodFlags, describe
from psrjax.data import loader
from psrjax.errors import UserError
from psrjax.inference import (
    batch_transfer,
    content_credentials,
    footage,
    novel_view,
    output_files,
    skeletons,
    transfer,
    video_pairs,
)
from psrjax.inference.marks import Mark
from psrjax.methods.base import Method
from psrjax.runtime import cluster
from psrjax.synthetic import dataset

_METHOD = MethodFlags()
_RUN = flags.DEFINE_string("run", "", "the run's directory, or its exported file")
flags.DEFINE_alias("workdir", "run")
_STAGE = flags.DEFINE_string("stage", "", "a stage of the run; by default the last finished one")
_SNAPSHOT = flags.DEFINE_enum(
    "snapshot", "newest", ["newest", "best"], "of the stage: its newest checkpoint, or the best by "
    "config.keep_best"
)  # fmt: skip
_OUTPUT = flags.DEFINE_string("output", "out.mp4", "the video; the comparison is out.compare.mp4")
_FRAMES = flags.DEFINE_string("frames", "", "first:end, as in Python; by default the whole clip")
_INTERMEDIATES = flags.DEFINE_bool("intermediates", False, "draw the steps as out.intermediates.*")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "write over what lies at --output")
_WATERMARK = flags.DEFINE_bool("watermark", False, "show in every frame that it is synthesized")
_C2PA = flags.DEFINE_string(
    "c2pa", "", "CERTIFICATES.pem,KEY.pem: sign the videos as synthesized (C2PA, extra c2pa)"
)
# A clip of a dataset
_DATA = flags.DEFINE_string("data", "", "a stored dataset; by default the run's own")
_SPLIT = flags.DEFINE_string("split", "", "a split of it; by default config.data.eval_split")
_CLIP = flags.DEFINE_string("clip", "", "a clip's name; by default the split's first")
_SOURCE_VIEW = flags.DEFINE_string("source_view", "", "the given view; by default the first")
_TARGET_VIEW = flags.DEFINE_string("target_view", "", "the view to synthesize; by default the next")
_SKELETONS = flags.DEFINE_bool(
    "skeletons", False, "a clip: detect and draw out.skeletons.png, with the error of the joints"
)
_CAMERA = flags.DEFINE_string("camera", "", "instead of a view: a camera, FILE.json[:NAME]")
# A video, and the person's mesh; --camera is then the view to synthesize
_VIDEO = flags.DEFINE_string("video", "", "a source video, instead of a clip of a dataset")
_MESH = flags.DEFINE_string("mesh", "", "with --video: npz of verts (t, v, 3) and faces (f, 3)")
_SOURCE_CAMERA = flags.DEFINE_string("source_camera", "", "with --video: FILE.json[:NAME]")
# Transfer
_SOURCE = flags.DEFINE_string("source", "", "transfer: the person; by default the run's own clip")
_DRIVING = flags.DEFINE_string("driving", "", "transfer: the person whose motion is taken")
_BACKGROUND = flags.DEFINE_string("background", "", "transfer: footage of another background")
_BACKGROUND_AS = flags.DEFINE_enum(
    "background_as", "auto", transfer.BACKGROUNDS_AS, "transfer: completed by the method's own "
    "branch, without who stands in it, or as it is; auto: the first where the method can"
)  # fmt: skip
_FIT = flags.DEFINE_enum(
    "fit", "exact", footage.FITS, "transfer: files of another aspect ratio are refused, or cropped"
)
_SOURCE_FRAMES = flags.DEFINE_string(
    "source_frames", "", "transfer: the source's frames: first, random, even, spread, or 0,40,80"
)
_K = flags.DEFINE_integer("k", 0, "transfer: the number of source frames; by default as trained")
_SEED = flags.DEFINE_integer("seed", 0, "transfer: of random source frames")
_WINDOW = flags.DEFINE_integer("window", 0, "transfer: frames synthesized at a time; 0 chooses")
_AUDIO = flags.DEFINE_bool("audio", None, "transfer: copy the driving video's sound, if it has one")
_CHECK = flags.DEFINE_bool("check_person", True, "transfer: --driving must show a person")
_BEST = flags.DEFINE_bool(
    "find_best_frame", False, "transfer, --method.relative: motion since the frame whose pose is "
    "most like the source, not since the first"
)  # fmt: skip
_SCALE = flags.DEFINE_bool("adapt_scale", False, "likewise: motion is scaled by the source's size")
_BATCH = flags.DEFINE_string(
    "batch", "", "transfer: a CSV file of many, with columns source and driving; --output is then "
    "a folder, or 'DIR/*.gif'"
)  # fmt: skip
# Pairs
_PAIRS = flags.DEFINE_enum(
    "pairs", "", ["", *video_pairs.SUBSETS], "random pairs of the split: sequences of one clip "
    "that do not overlap, or of two clips; --output is then a folder"
)  # fmt: skip
_COUNT = flags.DEFINE_integer("pair_count", video_pairs.COUNT, "pairs: how many", 1)
_PLACES = ("source", "driving", "batch")
# What is synthesized, by the flag that asks for it, and the flags that it uses; those not named
# here belong to all.
_USED = {
    "--driving": (
        *(_SOURCE, _DRIVING, _BACKGROUND, _FIT, _SOURCE_FRAMES, _K, _SEED, _WINDOW, _AUDIO),
        *(_CHECK, _BEST, _SCALE, _BACKGROUND_AS, _BATCH, _WATERMARK, _C2PA),
    ),
    "--pairs": (_PAIRS, _COUNT, _SPLIT, _K, _SEED),
    "--video": (_VIDEO, _MESH, _SOURCE_CAMERA, _CAMERA, _WATERMARK, _C2PA),
    "--camera": (_CAMERA, _SPLIT, _CLIP, _SOURCE_VIEW, _WATERMARK, _C2PA),
    "a clip of a dataset": (
        *(_SPLIT, _CLIP, _SOURCE_VIEW, _TARGET_VIEW, _SKELETONS, _WATERMARK, _C2PA),
    ),
}


def main(arguments: Sequence[str]) -> None:
    """Writes the videos and prints their paths."""
    del arguments
    asked = _asked()
    pairs = batch_transfer.find(_SOURCE.value, _DRIVING.value, _BATCH.value)
    if not _RUN.value:
        raise UserError("--run: name the run's directory")
    if _C2PA.value:
        content_credentials.check(_OUTPUT.value, _C2PA.value)
    if asked == "--pairs":
        io.require_new(Path(_OUTPUT.value) / video_pairs.RECORD, overwrite=_OVERWRITE.value)
    elif not pairs:
        output_files.check(_OUTPUT.value)
        io.require_new(_OUTPUT.value, overwrite=_OVERWRITE.value)
    model = model_lib.load(_RUN.value, stage=_STAGE.value, best=_SNAPSHOT.value == "best")
    model = dataclasses.replace(model, method=_METHOD.apply(model.method))
    if _METHOD.wants_help:
        print(describe(model.method))
        return
    if _DATA.value:
        config_lib.update(model.config, {"data.path": _DATA.value})
    paths: list[Path] = []
    if asked == "--pairs":
        paths = _write_pairs(model)
    elif pairs:
        paths = _write_batch(model, pairs) if cluster.share()[0] == 0 else []
    elif cluster.share()[0] == 0:  # one video is made by the first process of a run
        paths = _write_one(asked, model)
    cluster.gather(None)  # the others wait
    for path in paths if cluster.share()[0] == 0 else ():
        print(path)


def _write_one(asked: str, model: Model) -> list[Path]:
    if asked == "--driving":
        inputs = _transfer_inputs(model, _SOURCE.value, _required(_DRIVING, "--source"))
        return transfer.write(
            model.method,
            model.variables,
            model.config,
            inputs,
            _OUTPUT.value,
            options=_options(model, inputs),
            show_progress=True,
        )
    made = novel_view.synthesize(
        model.method,
        model.variables,
        _inputs(asked, model.method, model.config),
        intermediates=_INTERMEDIATES.value,
        show_progress=True,
    )
    paths = novel_view.write(_OUTPUT.value, made, mark=_mark(model))
    if _SKELETONS.value:
        paths.append(skeletons.write(_OUTPUT.value, made.answers))
    return paths


def _transfer_inputs(model: Model, source: str, driving: str) -> transfer.TransferInputs:
    return model.transfer_inputs(
        source or None,
        driving,
        background=_BACKGROUND.value or None,
        fit=_FIT.value,
        background_as=_BACKGROUND_AS.value,
    )


def _write_batch(model: Model, pairs: Sequence[batch_transfer.BatchPair]) -> list[Path]:
    def ready(pair: batch_transfer.BatchPair) -> transfer.Transfer:
        inputs = _transfer_inputs(model, pair.source, pair.driving)
        return transfer.Transfer(
            model.method, model.variables, model.config, inputs, _options(model, inputs)
        )

    changing = (*_USED["--driving"], _FRAMES, _INTERMEDIATES, _SNAPSHOT)
    chosen = {flag.name: flag.value for flag in changing if flag.name not in _PLACES}
    made_by = {**chosen, "run": _RUN.value, "stage": model.stage, "method": _METHOD.given}
    output = _OUTPUT.value if _OUTPUT.present else "out"
    found = batch_transfer.write(pairs, ready, output, made_by=made_by, overwrite=_OVERWRITE.value)
    print(found.text)
    if found.failed:
        raise UserError(
            f"{len(found.failed)} of {len(pairs)} failed, the others are written: "
            + "; ".join(found.failed)
        )
    return found.paths


def _asked() -> str:
    """Tells what is to be synthesized, a key of `_USED`; refuses flags that it does not use."""
    transferred = _SOURCE.value or _DRIVING.value or _BATCH.value
    flag_of = {"--driving": transferred, "--video": _VIDEO.value}
    flag_of |= {"--pairs": _PAIRS.value, "--camera": _CAMERA.value}
    asked = next((flag for flag, value in flag_of.items() if value), "a clip of a dataset")
    used = {name: {flag.name for flag in own} for name, own in _USED.items()}
    for name in dict.fromkeys(flag.name for own in _USED.values() for flag in own):
        if flags.FLAGS[name].present and name not in used[asked]:
            users = " or ".join(path for path, own in used.items() if name in own)
            raise UserError(f"--{name} goes with {users}, not with {asked}")
    return asked


def _write_pairs(model: Model) -> list[Path]:
    data = dataset.resolve_path(model.config.data)
    split = loader.open_split(data, _SPLIT.value or model.config.data.eval_split)
    pairs = video_pairs.choose(split, _PAIRS.value, count=_COUNT.value, seed=_SEED.value)
    options: Any = {"k": _K.value, "seed": _SEED.value, "mark": model.mark, "show_progress": True}
    run = (model.method, model.variables, model.config)
    return video_pairs.write(*run, split, pairs, _OUTPUT.value, **options)


def _mark(model: Model) -> Mark:
    return dataclasses.replace(model.mark, visible=_WATERMARK.value, signer=_C2PA.value)


def _options(model: Model, inputs: transfer.TransferInputs) -> transfer.TransferOptions:
    frames = _range(_FRAMES.value)
    takes_sound = output_files.takes_sound(_OUTPUT.value)
    sounding = bool(inputs.driving.audio) and not frames[0] and takes_sound
    return transfer.TransferOptions(
        source_frames=_SOURCE_FRAMES.value,
        k=_K.value,
        seed=_SEED.value,
        window=_WINDOW.value,
        frames=frames,
        find_best_frame=_BEST.value,
        adapt_scale=_SCALE.value,
        check_person=_CHECK.value,
        audio=sounding if _AUDIO.value is None else _AUDIO.value,
        intermediates=_INTERMEDIATES.value,
        background_as=_BACKGROUND_AS.value,
        mark=_mark(model),
    )


def _inputs(asked: str, method: Method, config: Any) -> novel_view.NovelViewInputs:
    frames = _range(_FRAMES.value)
    if asked == "--video":
        return novel_view.from_video(
            method,
            config,
            path=_VIDEO.value,
            mesh=_required(_MESH, "--video"),
            source_camera=_required(_SOURCE_CAMERA, "--video"),
            target_camera=_required(_CAMERA, "--video"),
            frames=frames,
        )
    chosen = {"split": _SPLIT.value, "clip": _CLIP.value, "frames": frames}
    if asked == "--camera":
        view = _SOURCE_VIEW.value
        return novel_view.from_camera(
            method, config, camera=_CAMERA.value, source_view=view, **chosen
        )
    views = (_SOURCE_VIEW.value, _TARGET_VIEW.value)
    return novel_view.from_data(method, config, views=views, **chosen)


def _required(flag: flags.FlagHolder, other: str) -> str:
    if not flag.value:
        raise UserError(f"{other} needs --{flag.name} too")
    return flag.value


def _range(text: str) -> tuple[int, int]:
    """Reads "2:9" as (2, 9) and "" as (0, 0): an end of 0 is the clip's."""
    first, colon, end = text.partition(":")
    try:
        numbers = int(first or 0), int(end or 0)
    except ValueError as error:
        raise UserError(f"--frames={text}: write it as first:end, such as 0:50") from error
    if text and (not colon or numbers[0] < 0 or (end and numbers[1] <= numbers[0])):
        raise UserError(f"--frames={text}: write it as first:end, such as 0:50")
    return numbers
