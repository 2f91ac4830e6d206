"""Some frames of one clip as a dataset of their own, small enough to take along."""

import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from psrjax.data import codec, store
from psrjax.data.source import Source

_FROM_BEFORE = ("flow", "flow_forward", "mesh_flow")  # 0 at a clip's first frame


def write(
    directory: str | os.PathLike[str],
    source: Source,
    clip: str,
    frames: range,
    streams: Collection[str],
) -> None:
    """Writes frames of all views of a clip, under the same names and in the same split.

    The views' mean training frames are those of the whole dataset.

    Args:
      directory: the new folder; must not exist, or be empty.
      source: the split that has the clip.
      clip: its name.
      frames: of it.
      streams: those to keep, where the dataset has them.

    Raises:
      UserError: if the folder is in use, or the clip has no such frames.
    """
    store.write(directory, {source.split: _views(source, clip, frames, streams)}, meta=source.meta)
    shutil.copyfile(source.directory / store.STATISTICS, Path(directory) / store.STATISTICS)


def _views(
    source: Source, clip: str, frames: range, streams: Collection[str]
) -> Iterator[codec.ClipView]:
    views = source.clip(clip).views
    for name, view in views.items():
        loaded = source.load(clip, name, frames)
        kept = {}
        for stream in sorted({"frames", *streams} & set(source.streams)):
            if codec.STREAMS[stream].by_source:
                others = [other for other in views if other != name]
                kept[stream] = {other: loaded.read(stream, source=other) for other in others}
                continue
            kept[stream] = np.array(loaded.read(stream))
            if stream in _FROM_BEFORE:
                kept[stream][0] = 0
        yield codec.ClipView(clip, name, kept, view.meta, loaded.camera)
