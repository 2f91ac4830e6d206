"""TFDS builder of NTU RGB+D as PSR-Net reads it: triplets of views and a body on the skeletons.

See README.md beside this file.
"""

from psrjax.prepare.datasets import tfds_builder


class NtuRgbd(tfds_builder.AdapterBuilder):
    """NTU RGB+D: actions of one person, filmed by three Kinects at the same time."""

    ADAPTER = "ntu_rgbd"
