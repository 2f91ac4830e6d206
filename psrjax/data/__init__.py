"""Floor 2: the data contract, the embedded world, readers, stores and the loader."""
