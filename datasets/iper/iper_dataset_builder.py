"""TFDS builder of iPER as D2G-Net reads it: joints and IUV by SMPL's angles."""

from psrjax.prepare.datasets import tfds_builder


class Iper(tfds_builder.AdapterBuilder):
    """iPER: people in several clothes who turn about and act, one still camera."""

    ADAPTER = "iper"
