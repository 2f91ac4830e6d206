"""Discriminators of images, of several frames in a row, and of clips."""
