"""What a file from elsewhere is refused with: one sentence with its name and the remedy."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import BadZipFile

from clcae_lib.errors import ClcaeError

#: What reading damaged data raises inside this package and in the standard library's decoders.
_DAMAGE = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    EOFError,
    RuntimeError,  # RecursionError and NotImplementedError too
    MemoryError,
    struct.error,
    BadZipFile,
)


class FormatError(ClcaeError, ValueError):
    """A file cannot be read or used; the message names it and the remedy."""


class UnsafeFileError(FormatError):
    """A file asks for more than data, or for more memory than its size justifies; nothing in it was run."""


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Give whatever goes wrong inside the block the file's name and a remedy."""
    try:
        yield
    except UnsafeFileError as error:
        raise UnsafeFileError(
            f"{path} is refused: {error}. Nothing in it was run; take the file from its official source"
        ) from error
    except FormatError as error:
        raise FormatError(f"{path} {error}") from error
    except _DAMAGE as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise FormatError(f"{path} is damaged ({reason}); fetch it again") from error
