"""TFDS builders of published datasets: by processes here, or on Apache Beam by TFDS itself."""

import functools
import os
import shutil
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from absl import logging

from psrjax import io
from psrjax.data import codec, store
from psrjax.errors import UserError
from psrjax.prepare.datasets import adapter, build, catalogue


class AdapterBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Base of the builders in `datasets/`: a subclass sets `ADAPTER`, a name of `catalogue.NAMES`.

    `tfds build --manual_dir=FOLDER` (or `download_and_prepare` with such a download config) reads
    the folder that the user has obtained. Without Beam options the result is a stored dataset with
    its manifest; with them, `psrjax prepare --dataset NAME BUILT --to DIR` makes it one.
    """

    ADAPTER = ""
    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "See README.md beside the builder: its files are yours to get."

    def __init__(
        self,
        *,
        options: adapter.DatasetOptions = adapter.UNSET,
        file_format: str = "array_record",
        **arguments: Any,
    ):
        self._options = adapter.complete_options(catalogue.get(self.ADAPTER), options)
        super().__init__(file_format=file_format, **arguments)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=codec.features(catalogue.get(self.ADAPTER).streams(self._options)),
        )

    def download_and_prepare(
        self, *, download_config: tfds.download.DownloadConfig | None = None, **arguments: Any
    ) -> None:
        """Builds the dataset, on Beam if the config has its options or runner.

        Departs from: TFDS's own writing without Beam, which holds a gigabyte of examples in memory.
        """
        config = download_config or tfds.download.DownloadConfig()
        if config.beam_options is not None or config.beam_runner is not None:
            super().download_and_prepare(download_config=config, **arguments)
            return
        if config.manual_dir is None:
            raise UserError(f"{self.name}: give the folder of its files (--manual_dir)")
        directory = os.fspath(self.data_dir)
        build.build(self.ADAPTER, config.manual_dir, directory, self._options)
        self.info.read_from_directory(directory)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        found = adapter.find_tasks(
            catalogue.get(self.ADAPTER), dl_manager.manual_dir, self._options
        )
        splits = sorted({split for task in found.tasks for split in _splits_of(task)})
        return {split: self._generate_examples(found.tasks, split) for split in splits}

    def _generate_examples(self, tasks: Sequence[adapter.Task], split: str) -> Any:
        import apache_beam as beam  # pyright: ignore[reportMissingImports] (an extra)

        of_split = [task for task in tasks if split in _splits_of(task)]
        work = functools.partial(prepare_examples, self.ADAPTER, self._options, split)
        return beam.Create(of_split) | "Prepare" >> beam.FlatMap(work)


def _splits_of(task: adapter.Task) -> tuple[str, ...]:
    """Splits that a task may give clips to: its own, and "test" where its end is held out."""
    return (task.split, "test") if task.facts.get("holdout") else (task.split,)


def prepare_examples(
    name: str, options: adapter.DatasetOptions, split: str, task: adapter.Task
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yields (key, example) of one clip, for a TFDS builder.

    A clip that cannot be used yields nothing; the worker's log says why, and Beam counts it.
    """
    import apache_beam as beam  # pyright: ignore[reportMissingImports] (an extra)

    try:
        views = build.encode_clip(name, options, task)
    except UserError as error:
        logging.warning("left out: %s", error)
        beam.metrics.Metrics.counter("psrjax", "clips_left_out").inc()
        return
    for view_split, view in views:
        for example in view.examples if view_split == split else ():
            yield f"{view.clip}/{view.view}/{int(example['start']):09d}", example


def build_on_beam(
    name: str,
    root: str | os.PathLike,
    directory: str | os.PathLike,
    options: adapter.DatasetOptions,
    *,
    runner: str,
    pipeline_options: Sequence[str] = (),
) -> dict[str, Any]:
    """Builds a stored dataset as `build.build` does, on Apache Beam.

    Args:
      name: of `catalogue.NAMES`.
      root: the dataset's own files, on a disk that all workers see.
      directory: the new folder; must not exist.
      options: size, crop and further options.
      runner: Beam's name of the runner, such as "DirectRunner".
      pipeline_options: further options of Beam, as "--name=value".

    Raises:
      UserError: if Apache Beam is not installed, or as `build.build` does.
    """
    try:
        import apache_beam as beam  # pyright: ignore[reportMissingImports] (an extra)
    except ImportError as error:
        raise UserError("--beam_runner needs Apache Beam: pip install 'psrjax[beam]'") from error
    options = adapter.complete_options(catalogue.get(name), options)
    found = adapter.find_tasks(catalogue.get(name), root, options)
    directory = store.require_free(directory)
    work = directory.with_name(directory.name + ".beam")
    fields = {"ADAPTER": name, "name": name}
    builder_class = types.new_class(
        "Builder", (AdapterBuilder,), {"skip_registration": True}, lambda body: body.update(fields)
    )
    builder = builder_class(data_dir=os.fspath(work), options=options)
    given = beam.options.pipeline_options.PipelineOptions([f"--runner={runner}", *pipeline_options])
    config = tfds.download.DownloadConfig(manual_dir=os.fspath(root), beam_options=given)
    builder.download_and_prepare(download_config=config)
    return adopt(name, builder.data_dir, directory, options, found=found, remove=work)


def adopt(
    name: str,
    built: str | os.PathLike,
    directory: str | os.PathLike,
    options: adapter.DatasetOptions,
    *,
    found: adapter.TaskList | None = None,
    remove: Path | None = None,
) -> dict[str, Any]:
    """Makes a dataset that TFDS has built (on Beam, in any order) a stored dataset.

    Args:
      name: of `catalogue.NAMES`.
      built: the folder with `dataset_info.json`.
      directory: the folder of the stored dataset.
      options: those it was built with.
      found: the clips it was built of; missing ones are reported.
      remove: a folder that is removed at the end.

    Raises:
      UserError: if the folder is no such dataset, or a clip in it is not whole.
    """
    options = adapter.complete_options(catalogue.get(name), options)
    try:
        builder = tfds.builder_from_directory(os.fspath(built))
        splits = {split: _Built(builder, split) for split in builder.info.splits}
    except (OSError, ValueError, tfds.core.DatasetNotFoundError) as error:
        raise UserError(f"{built}: no dataset that TFDS has built ({error})") from error
    views = {split: splits[split].views() for split in sorted(splits, key=build.train_first)}
    manifest = store.write(directory, views, meta=build.meta_of(name, options))
    found = found or adapter.TaskList(())
    stored = {entry["clip"] for views in manifest["splits"].values() for entry in views}
    failed = {
        task.name: "could not be used; the workers' logs say why"
        for task in found.tasks
        if not any(clip == task.name or clip.startswith(f"{task.name}_") for clip in stored)
    }
    summary = {"clips": len(stored), "failed": failed, "notes": list(found.notes)}
    io.write_json(Path(directory) / build.SUMMARY, summary)
    if remove is not None:
        shutil.rmtree(remove, ignore_errors=True)
    return summary


class _Built:
    """The records of one split that TFDS wrote."""

    def __init__(self, builder: tfds.core.DatasetBuilder, split: str):
        self._features: Any = builder.info.features
        self._readers = [store.open_records(path) for path in builder.info.splits[split].filepaths]

    def views(self) -> Iterator[codec.EncodedView]:
        """Yields the stored views, in the order of clips, views and frames."""
        places = []
        for file, reader in enumerate(self._readers):
            for record in range(reader.num_records()):
                example = self._example(file, record)
                names = (example["clip"].decode(), example["view"].decode())
                places.append((*names, int(example["start"]), file, record))
        streams = tuple(sorted(name for name in self._features if name in codec.STREAMS))
        for clip, view, start, file, record in sorted(places):
            example = self._example(file, record)
            yield codec.restored(clip, view, start, streams, example)

    def _example(self, file: int, record: int) -> dict[str, Any]:
        return self._features.deserialize_example_np(self._readers[file].read([record])[0])
