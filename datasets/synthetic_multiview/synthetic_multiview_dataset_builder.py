"""The synthetic dataset as a TFDS dataset; see README.md beside this file.

The same generator and the same files as `--config.data.path=synthetic`, at a place of one's choice.
"""

import os
from typing import Any

import tensorflow_datasets as tfds

from psrjax.data import codec, store
from psrjax.synthetic import dataset


class SyntheticBuilderConfig(tfds.core.BuilderConfig):
    """One kind of dataset: `settings` are fields of `psrjax.synthetic.dataset.SyntheticConfig`."""

    def __init__(self, *, settings: dict[str, Any], **arguments: Any):
        super().__init__(**arguments)
        self.settings = settings


class SyntheticMultiview(tfds.core.GeneratorBasedBuilder):
    """People acting in scenes before calibrated cameras; rendered, not downloaded."""

    builder_config: Any
    VERSION = tfds.core.Version(f"{dataset.VERSION}.0.0")
    BUILDER_CONFIGS = [
        SyntheticBuilderConfig(
            name="multiview",
            description="Short clips of one action each, three cameras at -45, 0 and 45 degrees.",
            settings={"kind": "multiview"},
        ),
        SyntheticBuilderConfig(
            name="multiview_128",
            description="As multiview, at 128x128, every stream.",
            settings={"kind": "multiview", "size": (128, 128), "streams": dataset.STREAMS},
        ),
        SyntheticBuilderConfig(
            name="long",
            description="One person for 22 seconds, with turns; one camera.",
            settings={"kind": "long", "size": (128, 128)},
        ),
        SyntheticBuilderConfig(
            name="many",
            description="Clips of 6.4 seconds of many people; one camera.",
            settings={"kind": "many", "size": (128, 128)},
        ),
    ]

    def __init__(self, *, file_format: str = "array_record", **arguments: Any):
        super().__init__(file_format=file_format, **arguments)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{self.__doc__} {self.builder_config.description}",
            features=codec.features(self._synthetic().streams),
            disable_shuffling=True,
        )

    def _synthetic(self) -> dataset.SyntheticConfig:
        return dataset.make_config(self.builder_config.settings)

    def download_and_prepare(self, **arguments: Any) -> None:
        """Renders the dataset into `data_dir`, with the manifest that psrjax's loader reads.

        Departs from: TFDS's own writing, which holds a gigabyte of examples in memory.
        """
        directory = os.fspath(self.data_dir)
        if not os.path.exists(os.path.join(directory, store.MANIFEST)):
            dataset.write(self._synthetic(), directory)
        self.info.read_from_directory(directory)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        specs = dataset.clip_specs(self._synthetic())
        return {split: self._generate_examples(tasks) for split, tasks in specs.items()}

    def _generate_examples(self, tasks: list[dataset.ClipSpec]):
        for task in tasks:
            for view in dataset.render_clip(self._synthetic(), task):
                for number, example in enumerate(codec.encode(view).examples):
                    yield f"{view.clip}/{view.view}/{view.start}/{number}", example
