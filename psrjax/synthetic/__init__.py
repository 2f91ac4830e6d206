"""The synthetic dataset: rendered people who act in scenes, filmed by calibrated cameras."""
