"""A folder of photographs to images and codes: `clcae invert`."""

from pathlib import Path
from typing import Annotated

import typer

from clcae_lib.cli.common import Device, RequestError, report_user_errors

app = typer.Typer()


@app.command()
def invert(
    source: Annotated[Path, typer.Option("--input", metavar="DIR", help="The photographs.")],
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="Where the results go.")],
    world: Annotated[str, typer.Option(help="Whose encoder and generator: ffhq, cars or your own.")] = "ffhq",
    preset: Annotated[str, typer.Option(help="published or foundation.")] = "published",
    spaces: Annotated[
        list[str] | None, typer.Option("--space", help="w, w_plus, f; repeat for more.")
    ] = None,
    device: Device = "auto",
) -> None:
    """Invert every photograph of a folder: images, codes and measures.csv; goes on where it stopped."""
    wanted = spaces or ["f"]
    with report_user_errors():
        from clcae_lib.cli.album import TABLE, Album
        from clcae_lib.inversion import ClcaeInverter
        from clcae_lib.spaces import SPACES
        from clcae_lib.worlds import PhotoWorld, get_world

        made = get_world(world)
        if not isinstance(made, PhotoWorld):
            raise RequestError(f"--world {world}: it is drawn; name a world of photographs, such as ffhq")
        if wrong := [space for space in wanted if space not in SPACES]:
            raise RequestError(f"--space {wrong[0]}: use {', '.join(SPACES)}")
        if preset not in ("published", "foundation"):
            raise RequestError(f"--preset {preset}: use published or foundation")
        inverter = ClcaeInverter.load(made, preset, device)
        weights = [path for path in (made.inversion(preset), made.generator_file) if path]
        album = Album(made, inverter, made_by=weights, spaces=wanted, published=preset == "published")
        rows = album.invert(source, output, report=typer.echo)
    failed = {row["file"] for row in rows if row.get("error")}
    inverted = {row["file"] for row in rows} - failed
    typer.echo(f"{len(inverted)} inverted, {len(failed)} not: {output / TABLE}")
    if failed:
        raise typer.Exit(1)
