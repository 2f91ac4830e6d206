"""Scores a run on clips it has not seen, beside the baselines: a table, and results.json."""

from collections.abc import Sequence

from absl import flags

from psrjax.training import checkpoint, evaluation, scores

_WORKDIR = flags.DEFINE_string("workdir", None, "the run's directory", required=True)
_STAGE = flags.DEFINE_string("stage", "", "a stage of the run; by default the last finished one")
_DATA = flags.DEFINE_string("data", "", "a stored data set; by default the run's own")
_SPLIT = flags.DEFINE_string("split", "", "a split of it; by default the run's eval_split")
_WINDOWS = flags.DEFINE_enum(
    "windows",
    "central",
    ["central", "all", "clips"],
    "which windows of each clip and pair of views",
)
_LIMIT = flags.DEFINE_integer("limit", 0, "windows to score; 0 is all", lower_bound=0)


def main(arguments: Sequence[str]) -> None:
    """Writes `<workdir>/results.json` and prints the table over all pairs of views."""
    del arguments
    method, variables, config, stage = checkpoint.restore_for_inference(
        _WORKDIR.value, _STAGE.value or None
    )
    with config.unlocked():
        config.data.path = _DATA.value or config.data.path
    found = evaluation.evaluate(
        method,
        variables,
        config,
        split=_SPLIT.value,
        windows=_WINDOWS.value,
        limit=_LIMIT.value,
        show_progress=True,
    )
    path = evaluation.write(_WORKDIR.value, found)
    print(scores.text_table(found.rows))
    for verdict in scores.verdicts(found.rows):
        print(f"{'yes' if verdict['good'] else 'NO '}  {verdict['text']}")
    print(f"stage {stage}; written to {path}")
