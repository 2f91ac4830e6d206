"""psrjax: five published systems that synthesize video of people, in JAX and Flax."""

import importlib
import os
import types
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from psrjax.api.evaluation import evaluate as evaluate
    from psrjax.api.model import Model as Model
    from psrjax.api.model import load as load
    from psrjax.api.preparation import prepare as prepare
    from psrjax.api.training import train as train
    from psrjax.errors import UserError as UserError
    from psrjax.evaluation.method_evaluation import Evaluation as Evaluation
    from psrjax.inference.synthesized_video import Video as Video
    from psrjax.inference.transfer import TransferOptions as TransferOptions
    from psrjax.prepare.monocular.pipeline import PreparationOptions as PreparationOptions
    from psrjax.prepare.multiview.recording import MultiviewOptions as MultiviewOptions
    from psrjax.runtime.log import show_log as show_log

# Where each public name comes from.
_HOMES = {
    "Evaluation": "psrjax.evaluation.method_evaluation",
    "Model": "psrjax.api.model",
    "MultiviewOptions": "psrjax.prepare.multiview.recording",
    "PreparationOptions": "psrjax.prepare.monocular.pipeline",
    "TransferOptions": "psrjax.inference.transfer",
    "UserError": "psrjax.errors",
    "Video": "psrjax.inference.synthesized_video",
    "evaluate": "psrjax.api.evaluation",
    "load": "psrjax.api.model",
    "prepare": "psrjax.prepare",
    "show_log": "psrjax.runtime.log",
    "train": "psrjax.api.training",
}


class CallableRoom(types.ModuleType):
    """The kind of the room `psrjax.prepare`: called, it makes a dataset."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Makes a dataset, see `psrjax.api.preparation.prepare`."""
        return importlib.import_module("psrjax.api.preparation").prepare(*arguments, **options)


def __getattr__(name: str) -> Any:
    """Imports what is public, and with it JAX, when it is first asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module 'psrjax' has no attribute {name!r}")
    # jaxlib warns of every program that it reads from the compilation cache, wrongly and at length.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    home = importlib.import_module(_HOMES[name])
    return home if name == "prepare" else getattr(home, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
