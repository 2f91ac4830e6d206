"""Timing, FLOPs and the comparison with PyTorch."""
