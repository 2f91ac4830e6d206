"""TFDS builder of one person's long clip, as HPT and D2G-Net train on."""

from psrjax.prepare.datasets import tfds_builder


class SinglePerson(tfds_builder.AdapterBuilder):
    """One person's long clip, its end held out, and the clips to imitate beside it."""

    ADAPTER = "single_person"
