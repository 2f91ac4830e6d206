"""Floor 1: linen blocks that two or more models use."""
