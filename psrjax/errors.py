"""The one exception that means "the user can fix this": one line, exit code 2, no traceback."""


class UserError(Exception):
    """A mistake in the input, the config or the command line.

    The message is one line: what is wrong, which file or key, and what to do about it. `psrjax.cli`
    prints it and exits with code 2.
    """
