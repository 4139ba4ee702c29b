"""What can be wrong with a suite, a profile or a run, told in one line that names the file and the remedy."""

from clcae_lib.errors import ClcaeError


class SuiteError(ClcaeError):
    """The suite cannot start: a list, a profile or a parameter is wrong."""


class NotebookError(ClcaeError):
    """A notebook failed while running.

    Args:
        reason: one line for the report.
        details: the traceback, kept beside the executed copy.
    """

    def __init__(self, reason: str, *, details: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.details = details or reason
