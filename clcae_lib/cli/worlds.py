"""Worlds of photographs: `clcae world`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from clcae_lib.cli.common import RequestError, report_user_errors

app = typer.Typer(help="Worlds of photographs: ffhq, cars and your own.", no_args_is_help=True)


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="What it is called; `ffhq` and `cars` take photographs too.")],
    images: Annotated[Path, typer.Option(help="The folder of photographs; it stays where it is.")],
    generator: Annotated[Path | None, typer.Option(help="A StyleGAN2: .pt, .pkl or .safetensors.")] = None,
    resolution: Annotated[int | None, typer.Option(help="Of its pictures; read off the generator.")] = None,
    kind: Annotated[str | None, typer.Option(help="faces, cars or other: framing and judges.")] = None,
    already_aligned: Annotated[
        bool, typer.Option("--already-aligned", help="The faces are cut as FFHQ's already.")
    ] = False,
    recursive: Annotated[bool, typer.Option("--recursive", help="Search the folder's folders too.")] = False,
    widen: Annotated[float | None, typer.Option(help="Show more (above 1) around a face.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a world of that name.")] = False,
) -> None:
    """Make a world of a folder of photographs and a StyleGAN2, in data/<name>/world.yaml."""
    with report_user_errors():
        from clcae_lib.worlds import add_world

        options = {"kind": kind, "already_aligned": already_aligned or None, "recursive": recursive or None}
        made = add_world(
            name,
            images=images,
            generator=generator,
            resolution=resolution,
            replace=replace,
            widen=widen,
            **options,
        )
        typer.echo(f"world {name}: {made.folder}")
        _tell_photographs(made)


@app.command("list")
def list_all() -> None:
    """Show every world, where it lies and what it lacks."""
    with report_user_errors():
        from clcae_lib.worlds import PhotoWorld, WorldError, get_world, world_names

        for name in world_names():
            try:
                made = get_world(name)
            except WorldError as error:
                typer.echo(f"{name:<12} {error}")
                continue
            kind = made.settings.kind if isinstance(made, PhotoWorld) else "drawn"
            lacks = " and ".join(made.missing) if isinstance(made, PhotoWorld) else ""
            line = f"{name:<12} {kind}, {made.resolution} pixels, {made.folder}"
            typer.echo(f"{line}; it lacks {lacks}" if lacks else line)


@app.command("check")
def check(name: Annotated[str, typer.Argument(help="A world of photographs.")]) -> None:
    """Read and cut every photograph of a world, and name those that cannot be used; status 1 if none can."""
    with report_user_errors():
        from clcae_lib.worlds import PhotoWorld, get_world

        made = get_world(name)
        if not isinstance(made, PhotoWorld):
            raise RequestError(f"{name!r} is drawn; it has no photographs to check")
        _tell_photographs(made)


@app.command("remove")
def remove(
    name: Annotated[str, typer.Argument(help="Whose world.yaml is removed.")],
    weights: Annotated[bool, typer.Option("--weights", help="Remove all of data/<name>/ too.")] = False,
) -> None:
    """Take a world away; its photographs stay where they are."""
    with report_user_errors():
        from clcae_lib.worlds import remove_world

        for path in remove_world(name, weights=weights):
            typer.echo(f"removed: {path}")


def _tell_photographs(world: Any) -> None:
    """Print how many photographs each split has, and each that cannot be used; status 1 if none can."""
    counts = {split: len(files) for split, files in world.split_files.items()}
    typer.echo("photographs: " + ", ".join(f"{split} {count}" for split, count in counts.items()))
    for refusal in world.refused:
        typer.echo(f"not used: {refusal.reason}")
    if not any(counts.values()):
        typer.echo(f"error: no photograph of {world.name!r} can be used, for the reasons above", err=True)
        raise typer.Exit(1)
