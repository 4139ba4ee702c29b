"""What can be wrong with a published file or on the way to it."""

from clcae_lib.errors import ClcaeError


class AssetError(ClcaeError, ValueError):
    """A file cannot be had or be trusted; the message names it and the remedy."""


class CutError(Exception):
    """An attempt ended early and another may succeed.

    Args:
        reason: for the message if no attempt succeeds.
        wait: seconds the server asked for.
    """

    def __init__(self, reason: str, *, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait
