"""Frozen feature networks, the registry of their weights, and converters."""
