"""Prepares datasets from monocular videos of one person."""
