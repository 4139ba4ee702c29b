"""A folder of photographs to pictures and codes: `clcae invert`."""

from pathlib import Path
from typing import Annotated

import typer

from clcae_lib.cli.common import RequestError, report_user_errors
from clcae_lib.spaces import SPACES

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
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
) -> None:
    """Invert every photograph of a folder: pictures, codes and measures.csv; goes on where it stopped."""
    wanted = spaces or ["f"]
    with report_user_errors():
        from clcae_lib.cli.album import TABLE, Album
        from clcae_lib.inversion import ClcaeInverter
        from clcae_lib.worlds import PhotoWorld, get_world

        made = get_world(world)
        if not isinstance(made, PhotoWorld):
            raise RequestError(f"--world {world}: it is drawn; name a world of photographs, such as ffhq")
        if wrong := [space for space in wanted if space not in SPACES]:
            raise RequestError(f"--space {wrong[0]}: take {', '.join(SPACES)}")
        if preset not in ("published", "foundation"):
            raise RequestError(f"--preset {preset}: take published or foundation")
        inverter = ClcaeInverter.load(made, preset, device)
        weights = [path for path in (made.inversion(preset), made.generator_file) if path]
        album = Album(made, inverter, made_by=weights, spaces=wanted, published=preset == "published")
        rows = album.invert(source, output, tell=typer.echo)
    failed = {row["file"] for row in rows if row.get("error")}
    typer.echo(
        f"{len({row['file'] for row in rows}) - len(failed)} inverted, {len(failed)} not: {output / TABLE}"
    )
    if failed:
        raise typer.Exit(1)
