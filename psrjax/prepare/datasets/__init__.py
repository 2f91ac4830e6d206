"""Adapters of published datasets."""
