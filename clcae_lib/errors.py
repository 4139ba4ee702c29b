"""The root of every error that is the request's fault, not the program's (a leaf: it imports nothing)."""


class ClcaeError(Exception):
    """A request cannot be met; the message names the file or the parameter, and the remedy.

    The command line prints the message without a traceback. Any other exception is a fault of the program and
    keeps its traceback.
    """


class MissingFileError(ClcaeError, FileNotFoundError):
    """A file that was named in the request does not exist."""
