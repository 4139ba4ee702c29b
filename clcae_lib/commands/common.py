"""What all of the commands share: how they fail, lists as options, and options that many take."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

# What a request can get wrong, by name, so that nothing is imported before it is needed.
_REQUEST_ERRORS = (
    "RequestError",
    "SuiteError",
    "ConfigError",
    "WorldError",
    "FileNotFoundError",
    "ExplorerError",
    "AssetError",
    "PhotoError",
    "FormatError",
    "UnsafeFileError",
)

Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Override a parameter.")
]
Force = Annotated[bool, typer.Option("--force", help="Run what is unchanged too.")]
World = Annotated[str, typer.Option(help="What to train on.")]


class RequestError(Exception):
    """Something is wrong with what was typed; the message names it and the remedy."""


def expand_lists(arguments: Sequence[str], names: Sequence[str]) -> list[str]:
    """Arguments in which `--only 01 02` reads `--only 01 --only 02`, as the parser wants it."""
    expanded: list[str] = []
    current = ""
    for argument in arguments:
        if argument in names:
            current = argument
        elif argument.startswith("-"):
            current = ""
            expanded.append(argument)
        else:
            expanded += [current, argument] if current else [argument]
    return expanded


class Lists(TyperCommand):
    """A command whose list options take several values at once."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Splits the lists, then parses as usual."""
        return super().parse_args(ctx, expand_lists(args, ("--only", "--seeds", "--variants")))


@contextmanager
def told() -> Iterator[None]:
    """Turns what is wrong with a request into one line and exit status 2, and Ctrl-C into 130."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("interrupted; earlier results are as they were", err=True)
        raise typer.Exit(130) from None
    except Exception as error:
        if not {kind.__name__ for kind in type(error).__mro__}.intersection(_REQUEST_ERRORS):
            raise
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error


def check_world(name: str) -> None:
    """Refuse a world that is not there.

    Raises:
        RequestError: there is none of that name.
    """
    from clcae_lib.worlds import world_names

    if name not in world_names():
        raise RequestError(f"there is no world {name!r}; choose one of {', '.join(world_names())}")
