"""TFDS builder of one person, one long clip, as HPT and D2G-Net train on it.

See README.md beside this file.
"""

from psrjax.prepare.datasets import tfds_builder


class SinglePerson(tfds_builder.AdapterBuilder):
    """One person's long clip, its end held out, and the clips to imitate beside it."""

    ADAPTER = "single_person"
