"""Metrics of runs and of folders of videos, their statistics and their files."""
