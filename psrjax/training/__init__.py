"""State, step, checkpoints and the loop. Names no method."""
