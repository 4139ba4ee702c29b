"""The open bench: `clcae bench` and `clcae bench-directions`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from clcae_lib.cli.common import World

app = typer.Typer()

Name = Annotated[str, typer.Argument(help="package.module:Name, or an entry point.")]
Output = Annotated[Path | None, typer.Option(help="Folder; results/bench/<name> by default.")]
Images = Annotated[int, typer.Option(min=8, help="Renders that are inverted.")]
Edits = Annotated[int, typer.Option(min=4, help="How many of these renders are edited.")]
Accessories = Annotated[int, typer.Option(min=4, help="Renders with an accessory.")]
Codes = Annotated[int, typer.Option(min=4, help="Samples whose codes are known.")]


@app.command()
def bench(
    name: Name,
    weights: Annotated[Path | None, typer.Option(help="A file that is given to the class.")] = None,
    images_seen: Annotated[
        int | None, typer.Option(min=0, help="Images seen in training, a column of the table.")
    ] = None,
    world: World = "portraits",
    images: Images = 128,
    edits: Edits = 48,
    accessories: Accessories = 48,
    codes: Codes = 64,
    output: Output = None,
) -> None:
    """Measure your inverter and compare it with the committed methods."""
    from clcae_lib.suite.bench import Sizes, bench_inverter

    sizes = Sizes(images=images, edits=edits, accessories=accessories, codes=codes)
    _import_from_here()
    options = {"weights": weights, "world": world, "images_seen": images_seen, "output": output}
    typer.echo(bench_inverter(name, sizes=sizes, **options))


@app.command("bench-directions")
def bench_directions(
    name: Name, world: World = "portraits", edits: Edits = 24, output: Output = None
) -> None:
    """Measure your finder of directions and compare it with the library's."""
    from clcae_lib.suite.bench import Sizes, bench_directions

    _import_from_here()
    typer.echo(bench_directions(name, world=world, sizes=Sizes(images=edits, edits=edits), output=output))


def _import_from_here() -> None:
    """Let modules of the working directory be imported, as `python -m` does."""
    if "" not in sys.path:
        sys.path.insert(0, "")
