"""Metrics of images, of motion and of sets of clips; `registry` defines each."""

from psrjax.metrics.registry import Metric, available, get

__all__ = ["Metric", "available", "get"]
