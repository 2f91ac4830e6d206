"""The exception for mistakes that the user can fix."""


class UserError(Exception):
    """A mistake in the input, the config or the command line.

    The message is one line: what is wrong, in which file or key, and what to do. `psrjax.cli`
    prints it without a traceback and exits with code 2.
    """
