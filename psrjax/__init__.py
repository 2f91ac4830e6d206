"""psrjax: five published systems that synthesize video of people, in JAX and Flax."""

import importlib
import types
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from psrjax.api import Evaluation as Evaluation
    from psrjax.api import Model as Model
    from psrjax.api import MultiviewOptions as MultiviewOptions
    from psrjax.api import PreparationOptions as PreparationOptions
    from psrjax.api import TransferOptions as TransferOptions
    from psrjax.api import UserError as UserError
    from psrjax.api import Video as Video
    from psrjax.api import evaluate as evaluate
    from psrjax.api import load as load
    from psrjax.api import prepare as prepare
    from psrjax.api import train as train

__all__ = [
    "Evaluation",
    "Model",
    "MultiviewOptions",
    "PreparationOptions",
    "TransferOptions",
    "UserError",
    "Video",
    "evaluate",
    "load",
    "prepare",
    "train",
]


class CallableRoom(types.ModuleType):
    """The kind of the room `psrjax.prepare`: called, it is `psrjax.api.prepare`."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Makes a dataset, see `psrjax.api.prepare`."""
        return importlib.import_module("psrjax.api").prepare(*arguments, **options)


def __getattr__(name: str) -> Any:
    """Imports what is public, and with it JAX, when it is first asked for."""
    if name == "prepare":
        return importlib.import_module("psrjax.prepare")
    if name in __all__:
        return getattr(importlib.import_module("psrjax.api"), name)
    raise AttributeError(f"module 'psrjax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
