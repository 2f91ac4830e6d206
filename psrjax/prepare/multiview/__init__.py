"""Calibrated multi-view recordings become datasets."""
