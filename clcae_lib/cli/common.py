"""Common parts of the commands: error messages, options with lists, and shared options."""

import errno
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from clcae_lib.errors import ClcaeError

Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Override a parameter.")
]
Force = Annotated[bool, typer.Option("--force", help="Run unchanged notebooks too.")]
World = Annotated[str, typer.Option(help="The world, as `clcae world list` names it.")]
Face = Annotated[
    str | None,
    typer.Option(help="Of several faces: largest (the default), middle, or 2: the second from left."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, ...")]
_LISTS = {"--only": False, "--seeds": True, "--variants": False}
"""The options that have several values, and whether the values are whole numbers."""


class RequestError(ClcaeError):
    """The arguments of a command are wrong; the message names the argument and the remedy."""


def expand_lists(
    arguments: Sequence[str],
    lists: Mapping[str, bool],
    *,
    valued: Collection[str] = (),
    positional: int = 0,
) -> list[str]:
    """Return arguments with `--only 01 02` replaced by `--only 01 --only 02`, which the parser needs.

    A list of whole numbers ends at the first other value. If positional arguments are missing, the last
    values of lists of texts are used for them, but never the first value of a list. `lists` is such as
    `_LISTS`; `valued` are the other options with a value, `positional` is the number of other arguments.
    """
    expanded: list[str] = []
    spare: list[int] = []
    current, first = "", True
    for index, argument in enumerate(arguments):
        if argument == "--":
            positional -= len(arguments) - index - 1
            expanded += arguments[index:]
            break
        if argument.startswith("-"):
            current, first = argument if argument in lists else "", True
        elif current and first:
            first = False
        elif current and (not lists[current] or argument.isdecimal()):
            if not lists[current]:
                spare.append(len(expanded))
            expanded.append(current)
        elif index == 0 or arguments[index - 1] not in valued:
            current, positional = "", positional - 1
        expanded.append(argument)
    for at in spare[::-1][: max(0, positional)]:
        del expanded[at]
    return expanded


class Lists(TyperCommand):
    """A command whose list options have several values in a row."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Split the lists, then parse as usual."""
        options = [option for option in self.params if option.param_type_name == "option"]
        valued = {name for o in options if not o.is_flag for name in o.opts} - _LISTS.keys()
        needed = len(self.params) - len(options)
        return super().parse_args(ctx, expand_lists(args, _LISTS, valued=valued, positional=needed))


_ROOM = "free some space and run the command again, finished files are kept"
_ANOTHER = "give another file or folder"
_REMEDIES = dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), _ROOM)
_REMEDIES |= dict.fromkeys((errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS), _ANOTHER)
_REMEDIES |= dict.fromkeys((errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP), _ANOTHER)
"""The remedy for each error of the operating system that a request can cause."""


@contextmanager
def report_user_errors() -> Iterator[None]:
    """Report a `ClcaeError`, a full disk or an unusable path in one line, with exit status 2.

    Ctrl-C ends with status 130. Any other exception is a bug and keeps its traceback.
    """
    try:
        yield
    except KeyboardInterrupt:
        # The task that waited for the kernel may be collected later; asyncio would then report it as lost.
        logging.getLogger("asyncio").disabled = True
        typer.echo("interrupted; earlier results are unchanged", err=True)
        raise typer.Exit(130) from None
    except ClcaeError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        where = f" at {str(error.filename)[:200]!r}" if error.filename else ""
        typer.echo(f"error: {error.strerror}{where}; {_REMEDIES[error.errno]}", err=True)
        raise typer.Exit(2) from error
