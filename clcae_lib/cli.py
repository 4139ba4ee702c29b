"""The `clcae` command: a thin face on the suite and on training. Each command imports what it needs."""

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from clcae_lib import paths
from clcae_lib.commands import files, invert, suite, worlds
from clcae_lib.commands.common import RequestError, Settings, World, check_world, told

app = typer.Typer(
    help="CLCAE: invert pictures into StyleGAN2, edit them, and measure the edits.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
train_app = typer.Typer(help="Train the networks, one link of the chain or all.", no_args_is_help=True)
app.add_typer(suite.app)
app.add_typer(train_app, name="train")
app.add_typer(worlds.app, name="world")
app.add_typer(files.app)
app.add_typer(invert.app)


@app.callback()
def own_process() -> None:
    """Set for the whole process, and the kernels that it starts, that GPUs do not multiply in TF32."""
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")


STAGES = {
    "generator": ("adversarial", "GeneratorConfig"),
    "judges": ("judges", "JudgesConfig"),
    "body": ("body", "BodyConfig"),
    "alignment": ("alignment", "AlignmentConfig"),
    "inversion": ("inversion", "InversionConfig"),
    "peer": ("peers", "PeerConfig"),
}
CHAIN = (
    ("generator", "generator", ()),
    ("judges", "judges", ()),
    ("alignment", "alignment", ()),
    ("inversion_foundation", "inversion", ("preset=foundation",)),
    ("inversion_published", "inversion", ("preset=published",)),
)

Out = Annotated[Path | None, typer.Option(help="Folder of the run; runs/<world>/<link> by default.")]
File = Annotated[Path | None, typer.Option("--config", help="A YAML of parameters.", exists=True)]
NoResume = Annotated[bool, typer.Option("--no-resume", help="Start afresh in the folder.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Build all at full size, train two steps, estimate, keep nothing.")
]
Install = Annotated[bool, typer.Option("--install", help="Put the weights into data/<world>/.")]


def train_stage(
    stage: str,
    *,
    file: Path | None,
    overrides: Sequence[str],
    resume: bool,
    install: bool,
    folder: Path | None = None,
    dry_run: bool = False,
) -> None:
    """Trains one link of the chain in a folder and, if asked, puts its weights into the world's data.

    By default the folder is that of `train all`: runs/<world>/<link>, an inversion's with its preset's name.
    """
    module, config_name = STAGES[stage]
    trainer = importlib.import_module(f"clcae_lib.training.{module}")
    training = importlib.import_module("clcae_lib.training")
    config = training.load_config(getattr(trainer, config_name), file, overrides)
    _check_device(config.device)
    check_world(config.world)
    sizes = _full_size(stage, config.world)
    if sizes:
        config = training.load_config(getattr(trainer, config_name), file, [*sizes, *overrides])
    if dry_run:
        dry = importlib.import_module("clcae_lib.training.dry")
        for line in dry.rehearse(trainer, config).lines():
            typer.echo(line)
        return
    if folder is None:
        link = f"{stage}_{config.preset}" if hasattr(config, "preset") else stage
        folder = paths.root() / "runs" / config.world / link
    trainer.train(config, folder, resume=resume)
    typer.echo(f"trained: {folder}")
    for path in training.install(folder, config.world) if install else []:
        typer.echo(f"installed: {path}")


def _full_size(stage: str, name: str) -> list[str]:
    """Settings that a world of photographs has in the place of the portraits' small ones."""
    from clcae_lib.worlds import PhotoWorld, get_world

    world = get_world(name)
    if not isinstance(world, PhotoWorld):
        return []
    return importlib.import_module("clcae_lib.training.dry").full_size(stage, world.resolution)


def _check_device(name: str) -> None:
    from clcae_lib.devices import resolve_device

    try:
        resolve_device(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _add_stage(stage: str, text: str) -> None:
    """Declares `clcae train <stage>`."""

    @train_app.command(stage, help=text)
    def command(
        world: World = "portraits",
        config: File = None,
        settings: Settings = None,
        out: Out = None,
        no_resume: NoResume = False,
        install: Install = False,
        dry_run: DryRun = False,
    ) -> None:
        overrides = [f"world={world}", *(settings or [])]
        with told():
            train_stage(
                stage,
                file=config,
                overrides=overrides,
                folder=out,
                resume=not no_resume,
                install=install,
                dry_run=dry_run,
            )


_add_stage("generator", "The StyleGAN2, adversarially on the world's images.")
_add_stage("judges", "The oracle, the identity embedding and the perceptual features, two copies each.")
_add_stage("body", "The backbone that compared encoders start from, supervised with the world's factors.")
_add_stage("alignment", "The two encoders that align images and W, by contrast.")
_add_stage("inversion", "The encoder from image to w, W+ and F (--set preset=foundation or published).")
_add_stage("peer", "A method to compare with (--set method=psp, e4e, restyle_psp, restyle_e4e or hfgi).")


@train_app.command("all")
def train_all(
    world: World = "portraits",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="LINK.NAME=VALUE", help="Such as generator.steps=100."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the runs; runs/<world> by default.")] = None,
    no_resume: NoResume = False,
    install: Install = False,
    measured: Annotated[
        int, typer.Option(help="Pictures the generator is measured on at the end; 0: it is not.")
    ] = 5000,
) -> None:
    """Rebuild the whole chain in order, each link on the one before; what is finished is not trained again.

    Without --install the chain is built in <out>/data and data/ is left alone.
    """
    folder = (out or paths.root() / "runs" / world).resolve()
    if not install:
        os.environ["CLCAE_DATA"] = str(folder / "data")
    with told():
        shares = _share_settings(settings or [])
        for link, stage, fixed in CHAIN:
            typer.echo(f"{link}:")
            overrides = [f"world={world}", *fixed, *shares[link]]
            train_stage(
                stage,
                file=None,
                overrides=overrides,
                folder=folder / link,
                resume=not no_resume,
                install=True,
            )
        typer.echo("directions:")
        _install_directions(world, device="auto")
        if measured:
            _measure_generator(world, samples=measured, device="auto")


def _share_settings(settings: Sequence[str]) -> dict[str, list[str]]:
    """The settings of each link; "inversion" stands for both presets."""
    shares: dict[str, list[str]] = {link: [] for link, _, _ in CHAIN}
    for setting in settings:
        prefix, dot, rest = setting.partition(".")
        links = [link for link in shares if link == prefix or link.startswith(f"{prefix}_")]
        if not dot or not links:
            raise RequestError(f"--set {setting}: write LINK.NAME=VALUE with a link of {', '.join(shares)}")
        if rest.startswith("devices="):
            # Each further process would run this whole command anew, and every link of the chain with it.
            raise RequestError(f"--set {setting}: train this link by itself, `clcae train {prefix}`")
        for link in links:
            shares[link].append(rest)
    return shares


@app.command()
def measure(
    world: World = "portraits",
    samples: Annotated[int, typer.Option(min=2, help="Pictures in each of the sets compared.")] = 5000,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
) -> None:
    """Measure the shipped generator against the world's images and write the numbers on its card."""
    with told():
        check_world(world)
        for name, value in _measure_generator(world, samples=samples, device=device).items():
            typer.echo(f"{name:<18} {value}")


def _measure_generator(world: str, *, samples: int, device: str) -> dict[str, Any]:
    """Writes on the generator's card how near its samples come to the world's images."""
    from clcae_lib.checkpoints import read_card, write_card
    from clcae_lib.evaluation import evaluate_generator
    from clcae_lib.worlds import get_world

    place = get_world(world)
    measures = evaluate_generator(place, samples=samples, device=device)
    weights = place.weights("generator")
    write_card(weights, {**read_card(weights), "measures": measures})
    return measures


@app.command()
def directions(
    world: World = "portraits",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, ...")] = "auto",
) -> None:
    """Find the named directions of a world anew and keep them beside its weights."""
    with told():
        check_world(world)
        _install_directions(world, device=device)


def _install_directions(world: str, *, device: str) -> None:
    """Writes the directions and their card, and prints what each does."""
    from clcae_lib.checkpoints import read_card
    from clcae_lib.editing import install_directions
    from clcae_lib.worlds import get_world

    path = install_directions(get_world(world), device=device)
    for name, facts in read_card(path)["measures"].items():
        typer.echo(f"{name:<22} " + "  ".join(f"{key} {value}" for key, value in facts.items()))


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
    with told():
        check_world(world)
        from clcae_lib.visuals.explorer.server import serve

        typer.echo(f"the explorer: http://{host}:{port}/ (Ctrl-C ends it)")
        serve(world, device=device, host=host, port=port, visitors=visitors, idle=idle)


@app.command()
def info() -> None:
    """Show versions, the device, the worlds and the weights that are here."""
    with told():
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
    from clcae_lib.checkpoints import check_chain, read_card

    lines = []
    for path in sorted(folder.glob("*.safetensors")):
        card = read_card(path) if path.with_suffix(".json").is_file() else {}
        facts = [f"{card[name]} {text}" for name, text in _FACTS.items() if card.get(name) is not None]
        lines.append(f"{path.stem:<22} {path.stat().st_size / 1e6:5.1f} MB  {', '.join(facts)}")
    return lines + [f"problem: {problem}" for problem in check_chain(folder)] or ["no weights"]


_FACTS = {"steps": "steps", "images_seen": "images", "seconds": "s", "device": "", "kind": ""}


if __name__ == "__main__":
    sys.exit(app())
