"""Floor 2: what the networks are, named by what they do."""
