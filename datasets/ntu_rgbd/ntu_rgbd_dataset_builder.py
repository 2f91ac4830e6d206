"""TFDS builder of NTU RGB+D as PSR-Net reads it: three views and a body on the skeletons."""

from psrjax.prepare.datasets import tfds_builder


class NtuRgbd(tfds_builder.AdapterBuilder):
    """NTU RGB+D: actions of one person, captured by three Kinects at the same time."""

    ADAPTER = "ntu_rgbd"
