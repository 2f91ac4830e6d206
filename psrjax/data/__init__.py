"""The data contract, stored datasets, sampling and the loader."""
