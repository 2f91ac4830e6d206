"""Floor 2: image, temporal and Frechet metrics."""

from psrjax.metrics.registry import Metric, available, get

__all__ = ["Metric", "available", "get"]
