"""What a weights file is refused with: one sentence that names the file and the remedy."""

import pickle
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import safetensors

from clcae_lib.weights.checkpoints import WeightsError

#: What reading a damaged file raises, here and in the libraries that read it.
_DAMAGE = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, RuntimeError, TypeError),
    *(ValueError, pickle.UnpicklingError, safetensors.SafetensorError, struct.error, zipfile.BadZipFile),
)


class UnsafeFileError(WeightsError):
    """A file asks for more than data, or for more memory than its size justifies; nothing in it was run."""


@contextmanager
def naming(path: Path | str) -> Iterator[None]:
    """Name the file and a remedy in every error that is raised inside the block."""
    try:
        yield
    except UnsafeFileError as error:
        raise UnsafeFileError(
            f"{path} is refused: {error}. Nothing in it was run; take the file from its official source"
        ) from error
    except WeightsError as error:
        raise WeightsError(f"{path} {str(error).removeprefix(f'{path} ')}") from error
    except _DAMAGE as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise WeightsError(f"{path} is damaged ({reason[:200]}); fetch it again") from error
