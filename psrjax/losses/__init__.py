"""Pure, unweighted loss functions without state."""
