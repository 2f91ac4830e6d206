"""The interface between a paper's system and everything that trains, evaluates and runs it."""

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from psrjax.errors import UserError

Batch = Mapping[str, Any]


class Method(nn.Module):
    """One published system: its nets are the children, their names the top-level parameter keys.

    A training step is a short game. Each entry of `updates` is one update: an update (the nets that
    it trains), one loss, one optimizer. The updates are made in order on the same batch; what the
    first makes (`shared`), the later ones may judge. Nets that no update of this stage owns are
    frozen: they are called with `train=False`, and neither their parameters nor their statistics
    change.

    Attributes:
      stage: which stage of the paper's training this is; one of the names in `config.stages`.
      dtype: the compute type. Parameters, losses, statistics and coordinates stay float32.
      remat: "none", or "blocks" to recompute blocks in the backward pass.
      conv: "auto", "native" or "fold": the formulation of convolutions (see `psrjax.ops.conv`).
    """

    stage: str = "joint"
    dtype: DTypeLike = jnp.float32
    remat: str = "none"
    conv: str = "auto"

    @property
    def updates(self) -> dict[str, tuple[str, ...]]:
        """{update: names of the nets it trains}, in order of play."""
        raise NotImplementedError

    @property
    def reads(self) -> tuple[str, ...]:
        """The keys of `psrjax.data.spec` that `loss` and `synthesize` read."""
        raise NotImplementedError

    @property
    def synthesis_reads(self) -> tuple[str, ...]:
        """The keys that `start` and `synthesize` read; by default all of `reads`.

        In motion transfer (`psrjax.inference.transfer`) the `source…` keys come from one person's
        footage and the `target…` keys from another's, so a method that makes its frames
        from joints alone names no "target" here.
        """
        return self.reads

    @property
    def baseline_reads(self) -> tuple[str, ...]:
        """Further keys that only `baselines` reads."""
        return ()

    @property
    def pretrained(self) -> tuple[str, ...]:
        """Names of weights (see `pretrained.registry`) handed to `loss`; never checkpointed."""
        return ()

    def __call__(self, batch: Batch) -> None:
        """Touches every net of this stage once; used for initialisation only."""
        raise NotImplementedError

    def loss(self, update: str, batch: Batch, shared: Batch, pretrained: Batch) -> dict[str, Any]:
        """One update's loss.

        Returns:
          "terms": {name: scalar}, raw; the step multiplies them by `config.weights[update][name]`;
          "shared": {name: array}, handed to the later updates through stop_gradient;
          "log": {name: scalar}, recorded and never weighted.
        """
        raise NotImplementedError

    def start(self, batch: Batch) -> Any:
        """What synthesis computes once for each source and driving pair: a pytree, the carry."""
        raise NotImplementedError

    def synthesize(self, batch: Batch, carry: Any, explain: bool = False) -> tuple[dict, Any]:
        """Synthesizes one window.

        Returns:
          ({"video": (b t h w 3) in [-1, 1], "mask": (b t h w 1) in [0, 1] where the system makes
          one, "foreground": (b t h w 3), the person alone where it is made apart, "steps": {label:
          video}, "explain": {name: array}}, carry). What "explain" holds is drawn by its shape: see
          `psrjax.inference.explanations`.
        """
        raise NotImplementedError

    def poses(self, batch: Batch) -> Any:
        """(b t j 2), the pose of each target frame as points, for those who choose frames by pose.

        By default nobody may: a method without such points raises `UserError`.
        """
        raise UserError(f"{type(self).__module__.split('.')[-1]}: this method compares no poses")

    def fit_joints(self, driving: Any, own: Any) -> Any:
        """Host side: a driving clip's joints, fitted to the person's; by default as they are.

        Args:
          driving: (t 26 3) of the whole driving clip.
          own: (s 26 3) of the person's whole clip.
        """
        del own
        return driving

    def baselines(self, batch: Batch) -> dict[str, Any]:
        """{label: (b t h w 3) video}: the honest trivial answers that this method must beat."""
        raise NotImplementedError

    def warm_start(self, params: Mapping, clips: Any) -> Mapping:
        """Host-side change of fresh parameters from the training clips; by default none.

        Args:
          params: {net: parameters} on the host.
          clips: the `psrjax.data.loader.Footage` of the stage.
        """
        del clips
        return params

    def init_from_previous(self, variables: Mapping) -> Mapping:
        """Change of a stage's fresh variables, once the nets of the run it starts from are in.

        Here a net that is new in this stage may begin as one that an earlier stage has trained; by
        default it begins fresh. Collections and shapes stay as they are.
        """
        return variables


def available() -> tuple[str, ...]:
    """The names of the methods: the modules beside this one."""
    package = importlib.import_module("psrjax.methods")
    names = (module.name for module in pkgutil.iter_modules(package.__path__))
    return tuple(sorted(name for name in names if name != "base"))


def build(name: str, **fields: Any) -> Method:
    """The method `psrjax.methods.<name>.Method`, with the given dataclass fields.

    Raises:
      UserError: for a name without a file, or a field that the method does not have.
    """
    if name not in available():
        raise UserError(
            f"config.method.name: no method {name!r}; there are {', '.join(available())}"
        )
    method = importlib.import_module(f"psrjax.methods.{name}").Method
    known = {field for field in method.__dataclass_fields__ if field not in ("parent", "name")}
    unknown = sorted(set(fields) - known)
    if unknown:
        raise UserError(
            f"config.method.{unknown[0]}: {name} has no such field; it has "
            f"{', '.join(sorted(known))}"
        )
    return method(**fields)
