"""TFDS builder of DanceFashion in first-order-motion's layout, as INTERnet reads it."""

from psrjax.prepare.datasets import tfds_builder


class DanceFashion(tfds_builder.AdapterBuilder):
    """DanceFashion (UBC Fashion): models turning before a white wall, 500 and 100 clips."""

    ADAPTER = "dance_fashion"
