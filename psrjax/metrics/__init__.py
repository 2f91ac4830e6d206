"""Floor 2: image, temporal and Frechet metrics."""
