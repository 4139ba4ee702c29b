"""The `clcae` command: a thin face on the suite and on training. Each command imports what it needs."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from clcae_lib import paths
from clcae_lib.cli import files, invert, suite, train, worlds
from clcae_lib.cli.common import World, report_user_errors
from clcae_lib.cli.train import install_directions, measure_generator

app = typer.Typer(
    help="CLCAE: invert pictures into StyleGAN2, edit them, and measure the edits.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
app.add_typer(suite.app)
app.add_typer(train.app, name="train")
app.add_typer(worlds.app, name="world")
app.add_typer(files.app)
app.add_typer(invert.app)


@app.callback()
def own_process() -> None:
    """Set for the whole process, and the kernels that it starts, that GPUs do not multiply in TF32."""
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")


@app.command()
def measure(
    world: World = "portraits",
    samples: Annotated[int, typer.Option(min=2, help="Pictures in each of the sets compared.")] = 5000,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
) -> None:
    """Measure the shipped generator against the world's images and write the numbers on its card."""
    with report_user_errors():
        from clcae_lib.devices import resolve_device

        resolve_device(device)
        for name, value in measure_generator(world, samples=samples, device=device).items():
            typer.echo(f"{name:<18} {value}")


@app.command()
def directions(
    world: World = "portraits",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
) -> None:
    """Find the named directions of a world anew and keep them beside its weights."""
    with report_user_errors():
        from clcae_lib.devices import resolve_device

        resolve_device(device)
        install_directions(world, device=device)


@app.command()
def explore(
    world: World = "portraits",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
    host: Annotated[str, typer.Option(help="Address served; 127.0.0.1 is this machine alone.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8866,
    visitors: Annotated[int, typer.Option(min=1, help="Kernels at once.")] = 4,
    idle: Annotated[int, typer.Option(min=10, help="Seconds after which an idle kernel ends.")] = 900,
) -> None:
    """Serve the latent explorer as a page of its own, with Voila."""
    with report_user_errors():
        from clcae_lib.devices import resolve_device

        resolve_device(device)
        from clcae_lib.explorer.server import serve
        from clcae_lib.worlds import get_world

        get_world(world)
        typer.echo(f"the explorer: http://{host}:{port}/ (Ctrl-C ends it)")
        serve(world, device=device, host=host, port=port, visitors=visitors, idle=idle)


@app.command()
def info() -> None:
    """Show versions, the device, the worlds and the weights that are here."""
    with report_user_errors():
        from clcae_lib.provenance import commit, device_text, versions
        from clcae_lib.worlds import world_names

        typer.echo(f"commit    {commit() or 'none'}")
        typer.echo(f"versions  {versions()}")
        typer.echo(f"device    {device_text('auto')}")
        for name in world_names():
            typer.echo(f"world     {name}: {paths.world_dir(name)}")
            for line in _weights_lines(paths.world_dir(name)):
                typer.echo(f"  {line}")


def _weights_lines(folder: Path) -> list[str]:
    """One line for each weights file, with what its card tells, then what is wrong with the chain."""
    from clcae_lib.weights.checkpoints import WeightsError, check_chain, read_card

    lines = []
    for path in sorted(path for path in folder.glob("*") if path.suffix in (".safetensors", ".pt", ".pth")):
        try:
            card = read_card(path) if path.with_suffix(".json").is_file() else {}
        except WeightsError:  # among the problems below
            card = {}
        facts = [f"{card[name]} {text}" for name, text in _FACTS.items() if card.get(name) is not None]
        lines.append(f"{path.stem:<22} {path.stat().st_size / 1e6:5.1f} MB  {', '.join(facts)}")
    return lines + [f"problem: {problem}" for problem in check_chain(folder)] or ["no weights"]


_FACTS = {"steps": "steps", "images_seen": "images", "seconds": "s", "device": "", "kind": ""}


if __name__ == "__main__":
    sys.exit(app())
