"""Networks, named by what they do."""
