"""TFDS builder of a folder of videos, cut to ten seconds and split by video."""

from psrjax.prepare.datasets import tfds_builder


class VideoFolder(tfds_builder.AdapterBuilder):
    """A folder of videos as clips of ten seconds, split by video, as Dance-500 is."""

    ADAPTER = "video_folder"
