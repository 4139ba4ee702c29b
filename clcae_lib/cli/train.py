"""`clcae train`: train one link of the chain of weights, or all links."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from clcae_lib import paths
from clcae_lib.cli.common import Settings, World

app = typer.Typer(help="Train the networks, one link of the chain or all.", no_args_is_help=True)

_STAGES = {
    "generator": "The StyleGAN2, adversarially on the world's images.",
    "judges": "The attribute regressor, identity and perceptual network, two copies each.",
    "body": "The backbone that compared encoders start from, trained to read the world's factors.",
    "alignment": "The two encoders that align images and W.",
    "inversion": "The encoder from image to w, W+ and F (--set preset=foundation or published).",
    "feature_editor": "The network that adapts F to edits of the shipped encoder's codes.",
    "peer": "A method to compare with (--set method=psp, e4e, restyle_psp, restyle_e4e or hfgi).",
}

OfWorld = Annotated[
    str | None,
    typer.Option("--world", help="World to train on; by default that of --config, else portraits."),
]
Out = Annotated[Path | None, typer.Option(help="Folder of the run; runs/<world>/<link> by default.")]
File = Annotated[Path | None, typer.Option("--config", help="A YAML of parameters.", exists=True)]
NoResume = Annotated[bool, typer.Option("--no-resume", help="Start over in the folder.")]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Train two steps at full size and print the estimated cost; keep nothing."
    ),
]
ShowConfig = Annotated[
    bool, typer.Option("--show-config", help="Print every setting with its origin as YAML; train nothing.")
]
Install = Annotated[bool, typer.Option("--install", help="Put the weights into data/<world>/.")]


def _add_stage(stage: str, text: str) -> None:
    @app.command(stage, help=text)
    def command(
        world: OfWorld = None,
        config: File = None,
        settings: Settings = None,
        out: Out = None,
        no_resume: NoResume = False,
        install: Install = False,
        dry_run: DryRun = False,
        show_config: ShowConfig = False,
    ) -> None:
        from clcae_lib.devices import check_devices
        from clcae_lib.training.chain import STAGES
        from clcae_lib.training.config import resolve_config

        overrides = [*([f"world={world}"] if world else []), *(settings or [])]
        trainer, kind = STAGES[stage]
        resolved, sources = resolve_config(kind, config, overrides)
        if show_config:
            typer.echo(_as_yaml(resolved, sources), nl=False)
            return
        check_devices(resolved.device, resolved.devices)
        if dry_run:
            from clcae_lib.training.dry import rehearse

            typer.echo("\n".join(rehearse(trainer, resolved)))
            return
        link = f"{stage}_{resolved.variant}" if hasattr(resolved, "variant") else stage
        folder = out or paths.root() / "runs" / resolved.world / link
        _train(stage, resolved, folder, resume=not no_resume, install=install)


for _stage, _text in _STAGES.items():
    _add_stage(_stage, _text)


@app.command("all")
def train_all(
    world: World = "portraits",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="LINK.NAME=VALUE", help="Such as generator.steps=100."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the runs; runs/<world> by default.")] = None,
    no_resume: NoResume = False,
    install: Install = False,
    show_config: ShowConfig = False,
    measured: Annotated[
        int, typer.Option(help="Images the generator is measured on at the end; 0: none.")
    ] = 5000,
) -> None:
    """Train the whole chain of weights in order; finished links are not trained again.

    Without --install the chain is built in <out>/data and data/ is not changed.
    """
    folder = (out or paths.root() / "runs" / world).resolve()
    from clcae_lib.devices import check_devices
    from clcae_lib.training.chain import LINKS, plan_chain
    from clcae_lib.worlds import get_world

    chain = plan_chain(world, settings or [])
    if show_config:
        typer.echo("---\n".join(f"# {link}\n{_as_yaml(c, {})}" for link, c in chain.links.items()), nl=False)
        return
    for config in chain.links.values():
        check_devices(config.device, config.devices)
    folder.mkdir(parents=True, exist_ok=True)  # fails now, not after minutes
    typer.echo("\n".join(chain.lines()))
    if not install:
        get_world(world).lend(folder / "data")
    with nullcontext() if install else paths.environment("CLCAE_DATA", str(folder / "data")):
        for link, config in chain.links.items():
            typer.echo(f"{link}:")
            _train(LINKS[link][0], config, folder / link, resume=not no_resume, install=True)
        device = list(chain.links.values())[-1].device
        if "directions" not in chain.left_out:
            typer.echo("directions:")
            install_directions(world, device=device)
        if measured and "measure" not in chain.left_out:
            measure_generator(world, samples=measured, device=device)


def _train(stage: str, config: Any, folder: Path, *, resume: bool, install: bool) -> None:
    """Train one link in a folder and, with `install` copy its weights into the world's data."""
    from clcae_lib import training
    from clcae_lib.training.chain import STAGES

    STAGES[stage][0].train(config, folder, resume=resume)
    typer.echo(f"trained: {folder}")
    for path in training.install(folder, config.world) if install else []:
        typer.echo(f"installed: {path}")


def _as_yaml(config: Any, sources: Mapping[str, str]) -> str:
    """Return settings as a `--config` file; each line ends with its origin, unless it is the default."""
    from clcae_lib.settings import dump_yaml

    names = {field.alias or name: name for name, field in type(config).model_fields.items()}
    lines = []
    for name, value in config.model_dump(mode="json", by_alias=True).items():
        first, newline, rest = dump_yaml({name: value}).partition("\n")
        source = sources.get(names[name])
        lines.append(first + (f"  # {source}" if source else "") + newline + rest)
    return "".join(lines)


def measure_generator(world: str, *, samples: int, device: str) -> dict[str, Any]:
    """Measure how close the generator's samples are to the world's images, and write it on its card."""
    from clcae_lib.evaluation import GeneratorMeasure
    from clcae_lib.weights.checkpoints import read_card, write_card
    from clcae_lib.worlds import get_world

    place = get_world(world)
    measures = GeneratorMeasure(place, samples=samples, device=device)()
    weights = place.generator_file
    write_card(weights, {**read_card(weights), "measures": measures})
    return measures


def install_directions(world: str, *, device: str) -> None:
    """Write the directions and their card, and print the measures of each."""
    from clcae_lib.editing import install_directions as install
    from clcae_lib.weights.checkpoints import read_card
    from clcae_lib.worlds import get_world

    path = install(get_world(world), device=device)
    for name, facts in read_card(path)["measures"].items():
        typer.echo(f"{name:<22} " + "  ".join(f"{key} {value}" for key, value in facts.items()))
