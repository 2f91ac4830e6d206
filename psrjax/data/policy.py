"""The choice of source and target frames; imports nothing that a config cannot."""

from dataclasses import dataclass

from psrjax.errors import UserError


@dataclass(frozen=True)
class Policy:
    """Choice of source and target frames (`config.data.sampling`).

    Attributes:
      source: choice of the source frames. "same_time": the target's times in another view (`k` is
        then `t`); "first": the clip's first k frames; "random": any k frames, at training half of
        them of the target window itself; "disjoint": k frames outside the window.
      k: number of source frames.
      t: number of consecutive target frames.
      gap_seconds: in training. "first": the window starts no earlier; "disjoint": smallest
        distance of source frames from the window.
      history: number of frames before the window that come with it (the window holds history + t);
        at a clip's start its first frame is repeated.
      held_back: fraction of each clip, at its end, that is not trained on. Evaluation windows lie
        in it and their source frames before it, so that a method of a single clip is scored on
        frames it has not seen.
      together: whether each clip of a training batch comes with all of its views, each as the
        source once, all at the same times. A batch is then a multiple of a clip's views.
      k_evaluation: number of source frames of an evaluation (`sampling.evaluation_sources`); 0 is
        k.
      source_split: the split whose first clip gives the source frames of an evaluation, for a
        method of one person; by default each clip gives its own.
    """

    source: str = "same_time"
    k: int = 1
    t: int = 1
    gap_seconds: float = 0.0
    history: int = 0
    held_back: float = 0.0
    together: bool = False
    k_evaluation: int = 0
    source_split: str = ""

    def __post_init__(self):
        if self.source not in ("same_time", "first", "random", "disjoint"):
            raise UserError(
                f"config.data.sampling.source: {self.source!r} is none of same_time, first, "
                "random, disjoint"
            )
        if self.t < 1 or self.k < 1 or self.history < 0 or self.gap_seconds < 0:
            raise UserError("config.data.sampling: t and k start at 1, gap and history at 0")
        if not 0.0 <= self.held_back < 1.0 or self.k_evaluation < 0:
            raise UserError(
                "config.data.sampling: held_back is a fraction below 1, k_evaluation at least 0"
            )
