"""Converters of other projects' checkpoints into runs."""
