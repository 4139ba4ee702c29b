"""The base class of all errors that a wrong request causes. This module imports nothing."""


class ClcaeError(Exception):
    """A request cannot be met; the message names the file or the parameter, and the remedy.

    The command line prints the message without a traceback. Any other exception is a bug and keeps its
    traceback.
    """


class MissingFileError(ClcaeError, FileNotFoundError):
    """A file that was named in the request does not exist."""
