"""TFDS builder of one person, one long clip, as HPT and D2G-Net train on it.

See README.md beside this file.
"""

from psrjax.data import raw_builder


class SinglePerson(raw_builder.RawBuilder):
    """One person's long clip, its end held out, and the clips to imitate beside it."""

    RAW = "single_person"
