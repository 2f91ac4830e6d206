"""Floor 4: state, step, checkpoints and the loop. Names no method."""
