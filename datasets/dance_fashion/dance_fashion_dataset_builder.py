"""TFDS builder of DanceFashion in first-order-motion's layout, as INTERnet reads it.

See README.md beside this file.
"""

from psrjax.data import raw_builder


class DanceFashion(raw_builder.RawBuilder):
    """DanceFashion (UBC Fashion): models turning before a white wall, 500 and 100 clips."""

    RAW = "dance_fashion"
