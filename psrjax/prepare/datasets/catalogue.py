"""The published datasets that can be read, by name."""

import importlib

from psrjax.errors import UserError
from psrjax.prepare.datasets.adapter import RawSet

MODULES = {  # {name: module that holds its `SET`}
    "ntu_rgbd": "psrjax.prepare.datasets.ntu",
    "iper": "psrjax.prepare.datasets.iper",
    "dance_fashion": "psrjax.prepare.datasets.dance_fashion",
    "video_folder": "psrjax.prepare.datasets.video_folder",
    "single_person": "psrjax.prepare.datasets.single_person",
}


def get(name: str) -> RawSet:
    """The data set of that name.

    Raises:
      UserError: if there is none.
    """
    if name not in MODULES:
        raise UserError(f"--dataset {name!r}: one of {', '.join(MODULES)}")
    return importlib.import_module(MODULES[name]).SET
