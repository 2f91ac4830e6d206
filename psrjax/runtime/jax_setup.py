"""Sets up JAX for the whole process: the compilation cache."""

import os

import jax

from psrjax import io


def use_compilation_cache() -> None:
    """Keeps compiled programs in the user's own cache folder, unless JAX has another one."""
    if jax.config.values["jax_compilation_cache_dir"]:
        return
    folder = io.cache_folder() / "compiled"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # who writes here runs code in our name
    jax.config.update("jax_compilation_cache_dir", os.fspath(folder))
