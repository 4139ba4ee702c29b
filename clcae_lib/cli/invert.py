"""`clcae invert`: photographs to images and codes. `clcae export`: a generator to a file."""

from pathlib import Path
from typing import Annotated

import typer

from clcae_lib.cli.common import Device, Face, RequestError
from clcae_lib.settings import validated

app = typer.Typer()


@app.command()
def invert(
    source: Annotated[Path, typer.Option("--input", metavar="DIR", help="The photographs.")],
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="Where the results go.")],
    world: Annotated[
        str, typer.Option(help="World of encoder and generator: ffhq, cars or your own.")
    ] = "ffhq",
    preset: Annotated[str, typer.Option(help="published or foundation.")] = "published",
    method: Annotated[
        str | None,
        typer.Option(help="Instead of CLCAE: psp, e4e, restyle_e4e, optimisation_w_plus, pti, ..."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Encoder in place of the world's; official checkpoints too.")
    ] = None,
    spaces: Annotated[
        list[str] | None, typer.Option("--space", help="w, w_plus, f; repeat for more.")
    ] = None,
    face: Face = None,
    device: Device = "auto",
) -> None:
    """Invert every photograph of a folder to images, codes and measures.csv; a second run continues."""
    from clcae_lib.cli.album import TABLE, Album
    from clcae_lib.inversion.methods import METHODS, PEERS, PRESETS, make_inverter
    from clcae_lib.spaces import SPACES
    from clcae_lib.worlds import PhotoWorld, WorldError, WorldSettings, get_world

    made = get_world(world)
    if not isinstance(made, PhotoWorld):
        raise RequestError(
            f"--world {world}: its images are rendered; name a world of photographs, such as ffhq"
        )
    if face is not None:
        values = made.settings.model_dump() | {"face": face}
        made = PhotoWorld(world, validated(WorldSettings, values, source="--face", error=WorldError))
    of_preset = {preset: name for name, preset in PRESETS.items()}
    if preset not in of_preset:
        raise RequestError(f"--preset {preset}: use published or foundation")
    chosen = METHODS.get(method or of_preset[preset])
    if chosen is None:
        raise RequestError(f"--method {method}: use one of {', '.join(METHODS)}")
    known = SPACES if chosen.space == "f" else SPACES[:2]
    wanted = spaces or [chosen.space]
    if wrong := [space for space in wanted if space not in known]:
        raise RequestError(f"--space {wrong[0]}: {chosen.name} has {', '.join(known)}")
    ours = PRESETS.get(chosen.name.removesuffix("_edited"))
    own = made.inversion(ours) if ours else made.weights(f"peer_{chosen.name}")
    if chosen.name in PEERS and not (weights or own.is_file()):
        raise RequestError(
            f"--method {method} needs its encoder: --weights FILE, an official checkpoint, or train one, "
            f"`clcae train peer --world {world} --set method={method} --install`"
        )
    perceptual = "world" if made.measures_with("perceptual") else "none"
    inverter = make_inverter(chosen.name, made, device=device, weights=weights, perceptual=perceptual)
    if ours and ours != (found := inverter.preset):
        raise RequestError(f"{weights or own} is of the preset {found}; give --preset {found}")
    used = [path for path in (weights or own, made.generator_file) if path and path.is_file()]
    options = {"made_by": used, "spaces": wanted, "method": chosen.name, "published": ours == "published"}
    album = Album(made, inverter, **options)
    rows = album.invert(source, output, report=typer.echo)
    failed = {row["file"] for row in rows if row.get("error")}
    inverted = {row["file"] for row in rows} - failed
    typer.echo(f"{len(inverted)} inverted, {len(failed)} not: {output / TABLE}")
    if failed:
        raise typer.Exit(1)


@app.command()
def export(
    world: Annotated[str, typer.Argument(help="The world whose generator is written.")],
    output: Annotated[Path, typer.Option("--output", metavar="FILE", help="A .pt file.")],
    tuned: Annotated[
        Path | None, typer.Option(help="Codes of `clcae invert --method pti`, with their tuned weights.")
    ] = None,
) -> None:
    """Write a generator, unchanged or tuned for a photograph, in the PyTorch (rosinality) layout."""
    from clcae_lib.cli.album import tune
    from clcae_lib.weights import export_generator
    from clcae_lib.worlds import get_world

    if output.exists():
        raise RequestError(f"--output {output}: it exists; name another file")
    generator = get_world(world).generator()
    if tuned is not None:
        tune(generator, tuned)
    typer.echo(f"written: {export_generator(output, generator)}")
