"""Functions from arrays to arrays: no flax, no parameters; coordinates are always float32."""
