"""Videos of one person become datasets."""
