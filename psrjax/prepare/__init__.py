"""Turns videos, recordings and published datasets into stored datasets."""
