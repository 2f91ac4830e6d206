"""Sets up JAX for the whole process: the compilation cache."""

import os

import jax
from absl import logging

from psrjax import io
from psrjax.errors import UserError


def use_compilation_cache() -> None:
    """Keeps compiled programs in the user's own cache folder, unless JAX has another one.

    $JAX_COMPILATION_CACHE_DIR may be a gs:// address, which the processes of a run then share.

    Raises:
      UserError: if it is an address that nothing here can open.
    """
    if given := jax.config.values["jax_compilation_cache_dir"]:
        io.absolute(given)  # JAX would only warn, at every program
        return
    try:
        folder = io.cache_folder() / "compiled"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # who writes here runs code as us
    except (OSError, UserError) as error:  # many commands do without
        line = "programs are compiled each time, no folder keeps them: %s"
        logging.log_first_n(logging.WARNING, line, 1, error)
        return
    jax.config.update("jax_compilation_cache_dir", os.fspath(folder))
