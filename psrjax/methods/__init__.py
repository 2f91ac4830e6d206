"""Floor 3: how each paper trains and runs."""
