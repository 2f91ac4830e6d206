"""Floor 0: arrays to arrays. No flax, no parameters; coordinates are always float32."""
