"""The errors that every part of the package shares."""

EXIT_DONE = 0
EXIT_BUG = 1
EXIT_USER = 2
EXIT_PARTLY = 3


class UserError(ValueError):
    """Something that the user must change: a config, a path, an argument, the data.

    Commands show its text on stderr without a traceback and end with exit code 2. The text
    says what was wanted, what was found, and what to do.
    """


class ProcessLostError(RuntimeError):
    """Another process of a run, or its machine, is gone.

    Commands show its text on stderr without a traceback and end with exit code 1: there is
    nothing to change, and the same command goes on.
    """
