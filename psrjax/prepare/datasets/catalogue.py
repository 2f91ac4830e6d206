"""The adapters of the published datasets, by name."""

import importlib

from psrjax.errors import UserError
from psrjax.prepare.datasets.adapter import DatasetAdapter

NAMES = ("ntu_rgbd", "iper", "dance_fashion", "video_folder", "single_person")


def get(name: str) -> DatasetAdapter:
    """Returns the adapter of a dataset, the `ADAPTER` of the module of that name.

    Raises:
      UserError: if there is none.
    """
    if name not in NAMES:
        raise UserError(f"--dataset {name!r}: one of {', '.join(NAMES)}")
    return importlib.import_module(f"psrjax.prepare.datasets.{name}").ADAPTER
