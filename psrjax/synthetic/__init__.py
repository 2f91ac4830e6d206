"""The synthetic dataset: people who act in scenes, rendered for calibrated cameras."""
