"""Layers and blocks that two or more models use."""
