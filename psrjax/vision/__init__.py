"""Host-side geometry in NumPy: cameras, body meshes, rasterization, visibility, backgrounds."""
