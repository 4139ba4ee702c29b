"""`clcae world`, and `clcae measure`, `directions` and `explore` for one world."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from clcae_lib.cli.common import Device, Face, RequestError, World
from clcae_lib.cli.train import install_directions, measure_generator

app = typer.Typer(help="Worlds of photographs: ffhq, cars and your own.", no_args_is_help=True)
commands = typer.Typer()


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="The name; `ffhq` and `cars` accept photographs too.")],
    images: Annotated[Path, typer.Option(help="The folder of photographs; it stays where it is.")],
    generator: Annotated[Path | None, typer.Option(help="A StyleGAN2: .pt, .pkl or .safetensors.")] = None,
    resolution: Annotated[int | None, typer.Option(help="Of its images; read off the generator.")] = None,
    kind: Annotated[str | None, typer.Option(help="faces, cars or other: framing and judges.")] = None,
    already_aligned: Annotated[
        bool, typer.Option("--already-aligned", help="The images are cut as FFHQ's already.")
    ] = False,
    recursive: Annotated[bool, typer.Option("--recursive", help="Search subfolders too.")] = False,
    widen: Annotated[float | None, typer.Option(help="Show more (above 1) around a face.")] = None,
    face: Face = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a world of that name.")] = False,
) -> None:
    """Make a world of a folder of photographs and a StyleGAN2, in data/<name>/world.yaml."""
    from clcae_lib.worlds import add_world

    options = {"kind": kind, "already_aligned": already_aligned or None, "recursive": recursive or None}
    options |= {"generator": generator, "resolution": resolution, "widen": widen, "face": face}
    made = add_world(name, images=images, replace=replace, **options)
    typer.echo(f"world {name}: {made.folder}")
    _print_photographs(made)


@app.command("list")
def list_all() -> None:
    """Show every world, its folder and its missing files."""
    from clcae_lib.inversion.methods import PRESETS
    from clcae_lib.worlds import PhotoWorld, WorldError, get_world, world_names

    for name in world_names():
        try:
            made = get_world(name)
        except WorldError as error:
            typer.echo(f"{name:<12} {error}")
            continue
        kind, lacks = "drawn", ""
        if isinstance(made, PhotoWorld):
            kind, lacks = made.settings.kind, " and ".join(made.missing)
        line = f"{name:<12} {kind}, {made.resolution} pixels, {made.folder}"
        line += f"; it lacks {lacks}" if lacks else ""
        if not any(map(made.inversion, PRESETS.values())):
            line += "; it has no encoder, so use `--method optimisation_w_plus`"
        typer.echo(line)


@app.command("check")
def check(name: Annotated[str, typer.Argument(help="A world of photographs.")]) -> None:
    """Read and cut every photograph of a world, and name the unusable ones; status 1 if all are."""
    from clcae_lib.worlds import PhotoWorld, get_world

    made = get_world(name)
    if not isinstance(made, PhotoWorld):
        raise RequestError(f"{name!r} is a rendered world; it has no photographs to check")
    _print_photographs(made)


@app.command("remove")
def remove(
    name: Annotated[str, typer.Argument(help="World whose world.yaml is removed.")],
    weights: Annotated[bool, typer.Option("--weights", help="Remove all of data/<name>/ too.")] = False,
) -> None:
    """Remove a world; its photographs stay where they are."""
    from clcae_lib.worlds import remove_world

    for path in remove_world(name, weights=weights):
        typer.echo(f"removed: {path}")


def _print_photographs(world: Any) -> None:
    """Print the number of photographs per split, and the unusable ones; status 1 if all are."""
    counts = {split: len(files) for split, files in world.split_files.items()}
    typer.echo("photographs: " + ", ".join(f"{split} {count}" for split, count in counts.items()))
    for refusal in world.refused:
        typer.echo(f"not used: {refusal.reason}")
    if not any(counts.values()):
        typer.echo(f"error: no photograph of {world.name!r} can be used, for the reasons above", err=True)
        raise typer.Exit(1)


@commands.command()
def measure(
    world: World = "portraits",
    samples: Annotated[int, typer.Option(min=2, help="Images in each set that is compared.")] = 5000,
    device: Device = "auto",
) -> None:
    """Measure the shipped generator against the world's images and write the numbers on its card."""
    for name, value in measure_generator(world, samples=samples, device=device).items():
        typer.echo(f"{name:<18} {value}")


@commands.command()
def directions(world: World = "portraits", device: Device = "auto") -> None:
    """Find the named directions of a world again, and write them next to its weights."""
    install_directions(world, device=device)


@commands.command()
def explore(
    world: World = "portraits",
    device: Device = "auto",
    host: Annotated[
        str, typer.Option(help="Address to serve at; 127.0.0.1: this machine only.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8866,
    visitors: Annotated[int, typer.Option(min=1, help="Kernels at a time.")] = 4,
    idle: Annotated[int, typer.Option(min=10, help="Seconds after which an idle kernel ends.")] = 900,
    name: Annotated[list[str] | None, typer.Option(help="A name that a proxy passes on as Host.")] = None,
    base_url: Annotated[str, typer.Option(help="Prefix of the page's path behind a proxy.")] = "/",
    stripped: Annotated[bool, typer.Option("--stripped", help="The proxy removes that prefix.")] = False,
) -> None:
    """Serve the latent explorer as a web page, with Voila."""
    from clcae_lib.devices import resolve_device

    resolve_device(device)
    from clcae_lib.explorer.server import require_port, serve
    from clcae_lib.worlds import get_world

    get_world(world)
    require_port(host, port)
    typer.echo(f"the explorer: http://{host}:{port}/{base_url.lstrip('/')} (Ctrl-C ends it)")
    limits = {"visitors": visitors, "idle": idle, "names": name or ()}
    serve(world, device=device, host=host, port=port, base_url=base_url, stripped=stripped, **limits)


def jupyter_entry() -> dict[str, Any]:
    """Return what jupyter-server-proxy needs to start the explorer from a Jupyter server or JupyterHub.

    The proxy authenticates the user, and passes the explorer's local name as Host.
    """
    command = [sys.executable, "-m", "clcae_lib.cli", "explore", "--port", "{port}"]
    return {
        "command": [*command, "--base-url", "{base_url}clcae-explorer/", "--stripped"],
        "timeout": 180,
        "request_headers_override": {"Host": "localhost", "Origin": "http://localhost"},
        "launcher_entry": {"title": "Latent explorer"},
    }
