"""The interface between a paper's system and everything that trains, evaluates and runs it."""

import dataclasses
import importlib
import json
import pkgutil
from collections.abc import Collection, Mapping
from typing import Any, cast

import flax.linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array

from psrjax.errors import UserError

Batch = Mapping[str, Any]
Variables = Mapping[str, Any]  # nested
RUN = "run"  # stands for what is that of the run `config.init.run`: a method or a dataset
ORACLE = "oracle: "  # begins the labels of baselines that are given the truth
VGG19 = ("vgg19", "random", "off")  # choices of `perceptual`: its weights, random ones, no term


class Method(nn.Module):
    """One published system: its nets are the children, their names the top-level parameter keys.

    The defaults of the fields are those of `config.method`; they stand nowhere else.

    Attributes:
      stage: which stage of the paper's training this is; one of the names in `config.stages`.
      dtype: the compute type. Parameters, losses, statistics and coordinates stay float32.
      remat: "none", or "blocks" to recompute blocks in the backward pass.
    """

    stage: str = "joint"
    dtype: DTypeLike = "float32"
    remat: str = "none"

    @property
    def choices(self) -> dict[str, Collection[Any]]:
        """{field: its possible values}, for the fields that `build` checks."""
        return {}

    @property
    def transfer_fields(self) -> tuple[str, ...]:
        """The fields that a transfer may change: they have `choices`, or are true or false."""
        return ()

    @property
    def updates(self) -> dict[str, tuple[str, ...]]:
        """{update: names of the nets it trains}, in order.

        A training step makes every update once, on the same batch: each has a loss and an optimizer
        of its own. What an update hands on as `shared`, such as a generator's frames, the later
        ones read without a gradient. Nets of no update are frozen: they are called with
        `train=False`, and neither their parameters nor their statistics change.
        """
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
    def intermediate_reads(self) -> tuple[str, ...]:
        """Further keys that only intermediate results show; a clip need not have them."""
        return ()

    @property
    def pretrained(self) -> tuple[str, ...]:
        """Names of weights (see `pretrained.registry`) handed to `loss`; never checkpointed."""
        return ()

    def __call__(self, batch: Batch) -> None:
        """Runs every net of this stage once; used for initialisation only."""
        raise NotImplementedError

    def loss(self, update: str, batch: Batch, shared: Batch, pretrained: Batch) -> dict[str, Any]:
        """Computes one update's loss.

        Returns:
          "terms": {name: scalar}, raw; the step multiplies them by `config.weights[update][name]`;
          "shared": {name: array}, handed to the later updates through stop_gradient;
          "log": {name: scalar}, recorded and never weighted.
        """
        raise NotImplementedError

    def start(self, batch: Batch) -> Any:
        """Computes the carry, a pytree: what synthesis needs once for each pair of clips."""
        raise NotImplementedError

    def synthesize(
        self, batch: Batch, carry: Any, intermediates: bool = False
    ) -> tuple[dict[str, Any], Any]:
        """Synthesizes one window.

        Returns:
          ({"video": (b t h w 3) in [-1, 1], "mask": (b t h w 1) in [0, 1] where the system makes
          one, "foreground": (b t h w 3), the person alone where it is made apart, "steps": {label:
          video}, "intermediates": {name: array}}, carry). Intermediates are drawn by their shapes:
          see `psrjax.inference.intermediate_results`.
        """
        raise NotImplementedError

    def replace_background(self, carry: Any, behind: Any) -> Any:
        """Returns the carry, what stands behind the person taken from that of other footage.

        Args:
          carry: what `start` gave for the person's source frames.
          behind: what it gave for as many frames of the other footage.

        A method that completes no background of its source frames leaves this as it is.
        """
        raise NotImplementedError

    def poses(self, batch: Batch) -> Any:
        """Returns (b t j 2), the pose of each target frame as points, to choose frames by.

        Raises:
          UserError: by default, for a method without such points.
        """
        raise UserError(f"{type(self).__module__.split('.')[-1]}: this method compares no poses")

    def fit_joints(self, driving: Any, own: Any) -> Any:
        """Fits a driving clip's joints to the person's, on the host; by default they stay.

        Args:
          driving: (t 26 3) of the whole driving clip.
          own: (s 26 3) of the person's whole clip.
        """
        del own
        return driving

    def baselines(self, batch: Batch) -> dict[str, Any]:
        """Returns {label: (b t h w 3) video}: trivial answers that this method must beat.

        One whose label begins with `ORACLE` is given a part of the truth: it shows what the rest
        costs, and is no rival.
        """
        raise NotImplementedError

    def warnings(self, numbers: Mapping[str, float]) -> tuple[str, ...]:
        """Returns what is wrong by these numbers, one line each; by default nothing.

        Args:
          numbers: of `loss`'s "log", or intermediates that are one number for each frame (their
            means over the clip), by name.
        """
        del numbers
        return ()

    def warm_start(self, params: Variables, clips: Any) -> Variables:
        """Changes fresh parameters by the training clips, on the host; by default they stay.

        Args:
          params: {net: parameters} on the host.
          clips: the `psrjax.data.loader.TrainFrames` of the stage.
        """
        del clips
        return params

    def init_from_previous(self, variables: Variables) -> Variables:
        """Changes a stage's fresh variables, once the nets of the run it starts from are in.

        A net that is new in this stage may begin here as one that an earlier stage has trained; by
        default it begins fresh. Collections and shapes stay as they are.
        """
        return variables


def available() -> tuple[str, ...]:
    """Lists the names of the methods: the modules beside this one."""
    package = importlib.import_module("psrjax.methods")
    names = (module.name for module in pkgutil.iter_modules(package.__path__))
    return tuple(sorted(name for name in names if name != "base"))


def find(name: str) -> type[Method]:
    """Returns the class `psrjax.methods.<name>.Method`; "" is the base class.

    Raises:
      UserError: if there is no such file.
    """
    if not name:
        return Method
    if name not in available():
        raise UserError(
            f"config.method.name: no method {name!r}; there are {', '.join(available())}"
        )
    return importlib.import_module(f"psrjax.methods.{name}").Method


def defaults(name: str) -> dict[str, Any]:
    """Returns {field: default} of a method, the fields of the base class first."""
    fields = dataclasses.fields(find(name))
    return {each.name: each.default for each in fields if each.name not in ("parent", "name")}


def build(name: str, **fields: Any) -> Method:
    """Builds the method `psrjax.methods.<name>.Method` with the given fields.

    Raises:
      UserError: for a name without a file, a field that the method does not have, or a value that
        is not among a field's choices.
    """
    method, known = find(name), defaults(name)
    for field in sorted(set(fields) - set(known)):
        raise UserError(
            f"config.method.{field}: {name} has no such field; it has {', '.join(sorted(known))}"
        )
    built = method(**fields)
    for field, choices in built.choices.items():
        if getattr(built, field) not in choices:
            raise UserError(
                f"config.method.{field}: no {getattr(built, field)!r}; there are "
                f"{', '.join(map(str, choices))}"
            )
    return built


def from_json(fields: str) -> Method:
    """Builds a method from `config.method` as JSON: one that another method calls as a net.

    Raises:
      UserError: for `RUN`, before the config is completed.
    """
    if fields == RUN:
        raise UserError(
            "config.method.estimator: is that of the run that config.init.run names; prepare data "
            "as that run needs them"
        )
    given: dict[str, Any] = json.loads(fields)
    for key, value in given.items():
        if isinstance(value, list):
            given[key] = tuple(cast(list[Any], value))
    return build(**given)


def frozen_weights(network: str, choice: str) -> tuple[str, ...]:
    """Returns the names in `pretrained.registry`: of the network, of "random" weights, or none."""
    return {network: (network,), "random": (f"{network}:random",), "off": ()}[choice]


def flatten_time(video: Array) -> Array:
    """Reshapes (b t …) to (b*t …)."""
    return video.reshape(-1, *video.shape[2:])


def split_time(frames: Array, batch: int) -> Array:
    """Reshapes (b*t …) to (b t …)."""
    return frames.reshape(batch, -1, *frames.shape[1:])
