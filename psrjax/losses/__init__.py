"""Floor 2: pure, unweighted loss functions without state."""
