"""Discriminators of images, patches and videos; all return logits and features."""
