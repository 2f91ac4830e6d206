"""Scores a run and its baselines on unseen clips, or any videos against real ones.

psrjax evaluate --workdir RUN
psrjax evaluate --real DIR --fake DIR
psrjax evaluate --real DIR --fake DIR --unpaired --metrics fid

--method.FIELD=VALUE replaces a field of the run's method for these scores, such as
--method.mask_tex; psrjax evaluate --workdir RUN --method.help lists the fields.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from psrjax import io
from psrjax.api import evaluation
from psrjax.api import model as model_lib
from psrjax.api.model import Model
from psrjax.cli._method_fields import MethodFlags, describe
from psrjax.errors import UserError
from psrjax.evaluation import folder_evaluation, method_evaluation, score_export, score_table
from psrjax.metrics import registry
from psrjax.runtime import cluster
from psrjax.training import exported_run

_METHOD = MethodFlags()
_WORKDIR = flags.DEFINE_string("workdir", "", "the run's directory, or its exported file")
flags.DEFINE_alias("run", "workdir")
_STAGE = flags.DEFINE_string("stage", "", "a stage of the run; by default the last finished one")
_SNAPSHOT = flags.DEFINE_enum(
    "snapshot", "newest", ["newest", "best"], "of the stage: its newest checkpoint, or the best by "
    "config.keep_best"
)  # fmt: skip
_DATA = flags.DEFINE_string("data", "", "a stored dataset; by default the run's own")
_SPLIT = flags.DEFINE_string(
    "split", "", "a split of it; by default config.data.eval_split, or test of a prepared dataset"
)
_WINDOWS = flags.DEFINE_enum(
    "windows", "auto", ["auto", "central", "all", "clips"],
    "which windows of each clip and pair of views: the central one, all, or all joined to clips; "
    "auto: all where the central ones are too few frames",
)  # fmt: skip
_METRICS = flags.DEFINE_list("metrics", [], f"further ones: {', '.join(registry.FURTHER)}")
_K = flags.DEFINE_integer("k", 0, "source frames of each window; 0 is as the run has it", 0)
_LIMIT = flags.DEFINE_integer("limit", 0, "the number of windows to score; 0 is all", 0)
_REAL = flags.DEFINE_string("real", "", "instead of a run: a folder of real videos, or one video")
_FAKE = flags.DEFINE_multi_string("fake", [], "with --real: folders of synthesized ones, or one")
_RESIZE = flags.DEFINE_bool("resize", False, "with --real: bring frames to the real ones' size")
_SHORTER = flags.DEFINE_bool("shorter", False, "with --real: cut videos to the shorter of a pair")
_UNPAIRED = flags.DEFINE_bool(
    "unpaired", False, "with --real: compares sets, whose videos need not belong together"
)
_MASKS = flags.DEFINE_string("masks", "", "with --real: a folder of masks of the people")
_JOINTS = flags.DEFINE_multi_string(
    "joints", [], "with --real: joints by one detector, for --real and then for each --fake"
)
_OUTPUT = flags.DEFINE_string("output", "", "the folder to write; by default RUN, or ./evaluation")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "write over the scores that --output holds")


def main(arguments: Sequence[str]) -> None:
    """Prints the table over all pairs of views; writes it, and every clip and frame, to files."""
    del arguments
    if bool(_WORKDIR.value) == bool(_REAL.value) or bool(_REAL.value) != bool(_FAKE.value):
        raise UserError("evaluate: give --workdir RUN, or --real DIR --fake DIR")
    if _UNPAIRED.value and not _REAL.value:
        raise UserError("--unpaired: it compares folders of videos: give --real DIR --fake DIR")
    if _METHOD.wants_help and _WORKDIR.value:
        print(describe(_restored().method))
        return
    if _OUTPUT.value:
        scores = Path(_OUTPUT.value) / score_export.RESULTS
        io.require_new(scores, overwrite=_OVERWRITE.value)
    found, title = _videos() if _REAL.value else _run()
    own = _WORKDIR.value.removesuffix(exported_run.SUFFIX)
    path = method_evaluation.write(_OUTPUT.value or own or "evaluation", found)
    if cluster.share()[0] > 0:
        return
    print(score_table.text_table(found.rows))
    for verdict in score_table.verdicts(found.rows) if _WORKDIR.value else ():
        print(f"{'yes' if verdict['good'] else 'NO '}  {verdict['text']}")
    for note in found.rows[0]["about"].get("notes", ()):
        print(note)
    print(f"{title}; written to {path}, and beside it as CSV, Markdown and LaTeX")


def _run() -> tuple[method_evaluation.Evaluation, str]:
    model = _restored()
    found = evaluation.evaluate(
        model,
        data=_DATA.value,
        split=_SPLIT.value,
        windows=_WINDOWS.value,
        metrics=_METRICS.value,
        k=_K.value,
        limit=_LIMIT.value,
        show_progress=True,
    )
    for row in found.rows:
        row["about"]["notes"] = [*row["about"].get("notes", ()), *_METHOD.given]
    return found, f"stage {model.stage}"


def _restored() -> Model:
    """Restores the run, its method with the fields given as flags."""
    model = model_lib.load(_WORKDIR.value, stage=_STAGE.value, best=_SNAPSHOT.value == "best")
    return dataclasses.replace(model, method=_METHOD.apply(model.method))


def _videos() -> tuple[method_evaluation.Evaluation, str]:
    if _METHOD.given:
        raise UserError(f"--{_METHOD.given[0]}: videos have no method; give --workdir RUN")
    if not _UNPAIRED.value:
        found = folder_evaluation.evaluate(
            _REAL.value,
            _FAKE.value,
            masks=_MASKS.value,
            metrics=_METRICS.value,
            joints=_JOINTS.value,
            resize=_RESIZE.value,
            shorter=_SHORTER.value,
            show_progress=True,
        )
        return found, f"{found.rows[0]['about']['clips']} clips"
    for flag, value in (("masks", _MASKS.value), ("joints", _JOINTS.value)):
        if value:
            raise UserError(f"--{flag}: of no use to sets: leave it out, or --unpaired")
    found = folder_evaluation.evaluate_unpaired(
        _REAL.value, _FAKE.value, metrics=_METRICS.value, show_progress=True
    )
    return found, "sets of videos"
