"""Linen layers and blocks that two or more models use."""
