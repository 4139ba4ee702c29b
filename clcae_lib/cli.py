"""The `clcae` command: a thin face on the suite and on training. Each command imports what it needs."""

import importlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from clcae_lib import paths

app = typer.Typer(
    help="CLCAE: invert pictures into StyleGAN2, edit them, and measure the edits.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)
train_app = typer.Typer(help="Train the networks, one link of the chain or all.", no_args_is_help=True)
app.add_typer(train_app, name="train")

STAGES = {
    "generator": ("adversarial", "GeneratorConfig"),
    "judges": ("judges", "JudgesConfig"),
    "alignment": ("alignment", "AlignmentConfig"),
    "inversion": ("inversion", "InversionConfig"),
}
CHAIN = (
    ("generator", "generator", ()),
    ("judges", "judges", ()),
    ("alignment", "alignment", ()),
    ("inversion_foundation", "inversion", ("preset=foundation",)),
    ("inversion_published", "inversion", ("preset=published",)),
)

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
Out = Annotated[Path | None, typer.Option(help="Folder of the run; runs/<world>/<link> by default.")]
File = Annotated[Path | None, typer.Option("--config", help="A YAML of parameters.", exists=True)]
NoResume = Annotated[bool, typer.Option("--no-resume", help="Start afresh in the folder.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Build all at full size, train two steps, estimate, keep nothing.")
]
Install = Annotated[bool, typer.Option("--install", help="Put the weights into data/<world>/.")]


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


class _Lists(TyperCommand):
    """A command whose list options take several values at once."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Splits the lists, then parses as usual."""
        return super().parse_args(ctx, expand_lists(args, ("--only", "--seeds", "--variants")))


@contextmanager
def _told() -> Iterator[None]:
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


@app.command(cls=_Lists)
def run(
    profile: Annotated[str, typer.Option(help="A file in notebooks/profiles/.")] = "quick",
    only: Annotated[list[str] | None, typer.Option(help="Notebooks, such as: --only 01 02")] = None,
    settings: Settings = None,
    force: Force = False,
    output: Annotated[Path | None, typer.Option(help="Folder; results/<profile> by default.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds for one notebook.")] = None,
    start_timeout: Annotated[float | None, typer.Option(help="Seconds for a kernel to start.")] = None,
) -> None:
    """Run the notebooks in order and write the report."""
    with _told():
        from clcae_lib.suite.runner import run_suite

        summary = run_suite(
            profile,
            only=only or [],
            settings=settings or [],
            force=force,
            output=output,
            timeout=timeout,
            start_timeout=start_timeout,
        )
    typer.echo(f"report: {summary.report}")
    if not summary.ok:
        failed = [outcome.notebook for outcome in summary.outcomes if outcome.state == "failed"]
        typer.echo(f"failed: {', '.join(failed)}; see {summary.folder / 'failed'}", err=True)
        raise typer.Exit(1)


@app.command()
def keep(
    profile: Annotated[str, typer.Option(help="Which run under results/.")] = "quick",
) -> None:
    """Keep a run's report, without the executed notebooks, as results/reference to commit."""
    with _told():
        from clcae_lib.suite.keep import keep_report

        page = keep_report(paths.results_dir() / profile)
    typer.echo(f"kept: {page}")


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
    _check_world(config.world)
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


def _check_world(name: str) -> None:
    from clcae_lib.worlds import world_names

    if name not in world_names():
        raise RequestError(f"there is no world {name!r}; choose one of {', '.join(world_names())}")


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
        with _told():
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
_add_stage("alignment", "The two encoders that align images and W, by contrast.")
_add_stage("inversion", "The encoder from image to w, W+ and F (--set preset=foundation or published).")


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
    with _told():
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
    with _told():
        _check_world(world)
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
    with _told():
        _check_world(world)
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
    with _told():
        _check_world(world)
        from clcae_lib.visuals.explorer.server import serve

        typer.echo(f"the explorer: http://{host}:{port}/ (Ctrl-C ends it)")
        serve(world, device=device, host=host, port=port, visitors=visitors, idle=idle)


@app.command()
def info() -> None:
    """Show versions, the device, the worlds and the weights that are here."""
    with _told():
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


@app.command()
def fetch(
    names: Annotated[list[str] | None, typer.Argument(help="Sets or single files, such as: ffhq")] = None,
    listed: Annotated[bool, typer.Option("--list", help="Show what there is and what is here.")] = False,
) -> None:
    """Fetch published files into data/, resumed and checked, or say where to put them by hand."""
    with _told():
        from clcae_lib.assets import Fetcher, read_manifest

        fetcher = Fetcher(read_manifest(), paths.data_dir(), tell=lambda text: typer.echo(text, err=True))
        if listed:
            typer.echo("\n".join(_asset_lines(fetcher)))
            return
        if not names:
            raise RequestError(f"name what to fetch: {', '.join(fetcher.manifest.sets)}, or see --list")
        missing = [name for name in fetcher.manifest.select(names) if not _fetch_one(fetcher, name)]
    if missing:
        typer.echo(f"not there: {', '.join(missing)}", err=True)
        raise typer.Exit(1)


def _fetch_one(fetcher: Any, name: str) -> bool:
    """Whether an asset is there in the end; tells what happened."""
    from clcae_lib.assets import AssetError

    try:
        path, fetched = fetcher.fetch(name)
    except AssetError as error:
        typer.echo(f"error: {error}", err=True)
        return False
    licence = fetcher.manifest.assets[name].licence
    typer.echo(f"{name}: {'fetched to' if fetched else 'already'} {path} (licence {licence})")
    return True


def _asset_lines(fetcher: Any) -> list[str]:
    """The sets, then each asset with whether it is here and what is known of it."""
    manifest = fetcher.manifest
    lines = [f"set {name:<16} {', '.join(members)}" for name, members in manifest.sets.items()]
    for name, asset in manifest.assets.items():
        state = "here" if fetcher.is_there(name) else "by hand" if asset.by_hand else "to fetch"
        digest = f"{asset.sha256_begins}…" if asset.sha256_begins else asset.sha256[:12]
        facts = f"size {asset.size}, sha256 {digest}, licence {asset.licence}"
        lines.append(f"{name:<20} {state:<8} data/{asset.place}: {asset.about} ({facts}; {asset.address})")
    return lines


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="Weights of any layout: .safetensors, .pt, .pth, .pkl, .npy.")],
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Say what a weights file is, how big, and what takes it; nothing in it is run."""
    with _told():
        from clcae_lib.formats import inspect_file

        report = inspect_file(file)
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=2))
    else:
        for name, text in report.lines():
            typer.echo(f"{name:<18} {text}")


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="What `clcae inspect` knows.")],
    target: Annotated[Path, typer.Argument(help="A .safetensors file.")],
    half: Annotated[bool, typer.Option("--half", help="Store matrices as float16.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the target.")] = False,
    part: Annotated[
        str | None, typer.Option(help="Of a CLCAE checkpoint: encoder (the default) or generator.")
    ] = None,
) -> None:
    """Write a weights file from elsewhere as this project's safetensors; nothing in it is run."""
    with _told():
        from clcae_lib.formats import convert_file, inspect_file

        path = convert_file(source, target, half=half, force=force, part=part)
        report = inspect_file(path)
    typer.echo(f"written: {path} ({report.bytes / 1e6:.1f} MB, {report.what}) for {report.fits}")


world_app = typer.Typer(help="Worlds of photographs: ffhq, cars and your own.", no_args_is_help=True)
app.add_typer(world_app, name="world")


@world_app.command("add")
def add_world_command(
    name: Annotated[str, typer.Argument(help="What it is called; `ffhq` and `cars` take photographs too.")],
    images: Annotated[Path, typer.Option(help="The folder of photographs; it stays where it is.")],
    generator: Annotated[Path | None, typer.Option(help="A StyleGAN2, .pt or .safetensors; copied.")] = None,
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
    with _told():
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
        for line in _photograph_lines(made):
            typer.echo(f"  {line}")


@world_app.command("list")
def list_worlds() -> None:
    """Show every world, where it lies and what it lacks."""
    with _told():
        from clcae_lib.worlds import PhotoWorld, WorldError, get_world, world_names

        for name in world_names():
            try:
                made = get_world(name)
            except WorldError as error:
                typer.echo(f"{name:<12} {error}")
                continue
            kind = made.settings.kind if isinstance(made, PhotoWorld) else "drawn"
            typer.echo(f"{name:<12} {kind}, {made.resolution} pixels, {made.folder}")


@world_app.command("check")
def check_world(name: Annotated[str, typer.Argument(help="A world of photographs.")]) -> None:
    """Read and cut every photograph of a world, and name those that cannot be used."""
    with _told():
        from clcae_lib.worlds import PhotoWorld, get_world

        _check_world(name)
        made = get_world(name)
        if not isinstance(made, PhotoWorld):
            raise RequestError(f"{name!r} is drawn; it has no photographs to check")
        for line in _photograph_lines(made):
            typer.echo(line)


@world_app.command("remove")
def remove_world_command(
    name: Annotated[str, typer.Argument(help="Whose world.yaml is removed.")],
    weights: Annotated[bool, typer.Option("--weights", help="Remove all of data/<name>/ too.")] = False,
) -> None:
    """Take a world away; its photographs stay where they are."""
    with _told():
        from clcae_lib.worlds import remove_world

        for path in remove_world(name, weights=weights):
            typer.echo(f"removed: {path}")


def _photograph_lines(world: Any) -> list[str]:
    """How many photographs each split has, and each that cannot be used."""
    counts = ", ".join(f"{split} {len(files)}" for split, files in world.split_files.items())
    return [f"photographs: {counts}", *(f"not used: {refusal.reason}" for refusal in world.refused)]


Seeds = Annotated[list[int] | None, typer.Option(help="Such as: --seeds 0 1 2 (the default)")]
Pem = Annotated[Path | None, typer.Option(help="A PEM file, for a tls:// scheduler.")]


@app.command(cls=_Lists)
def sweep(
    name: Annotated[str, typer.Argument(help="A file in notebooks/ without .yaml, such as ablations.")],
    seeds: Seeds = None,
    variants: Annotated[list[str] | None, typer.Option(help="Names in that file; all by default.")] = None,
    profile: Annotated[str, typer.Option(help="A file in notebooks/profiles/.")] = "quick",
    jobs: Annotated[int | None, typer.Option("--jobs", "--workers", min=1, help="Notebooks at once.")] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Of a Dask cluster: tcp://127.0.0.1:8786, beyond it tls://host:8786.")
    ] = None,
    tls_ca: Pem = None,
    tls_cert: Pem = None,
    tls_key: Pem = None,
    retries: Annotated[int, typer.Option(min=0, help="Further tries of a run that fails.")] = 1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Tell what it would cost, and stop.")] = False,
    settings: Settings = None,
    force: Force = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep complete runs although code or weights have changed.")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="Folder; results/sweeps/<name> by default.")] = None,
) -> None:
    """Run a notebook with every variant and seed; what is complete is not run again."""
    with _told():
        from clcae_lib.suite._cluster import Place, check_place
        from clcae_lib.suite.sweep import plan_sweep, run_sweep

        place = Place(jobs=jobs, scheduler=scheduler, ca=tls_ca, cert=tls_cert, key=tls_key)
        check_place(place)
        options: dict[str, Any] = {"profile": profile, "seeds": [0, 1, 2] if seeds is None else seeds}
        options |= {"variants": variants or [], "settings": settings or [], "force": force, "keep": keep}
        for line in plan_sweep(name, output=output, **options).cost(jobs).lines():
            typer.echo(line)
        if dry_run:
            return
        summary = run_sweep(name, place=place, retries=retries, output=output, **options)
    typer.echo(f"{summary.complete} runs complete: {summary.folder / 'runs.csv'}")
    for run_name, reason in summary.failed.items():
        typer.echo(f"failed: {run_name}: {reason}", err=True)
    if summary.failed:
        raise typer.Exit(1)


@app.command()
def report(
    results: Annotated[Path | None, typer.Option(help="A run's folder; results/quick by default.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder; <results>/report by default.")] = None,
) -> None:
    """Write a run's report as one page that needs no other file, and all its tables as tables.csv."""
    with _told():
        from clcae_lib.suite.portable import portable_report

        page = portable_report(results or paths.results_dir() / "quick", target=output)
    typer.echo(f"report: {page}")


@app.command(cls=_Lists)
def check(
    against: Annotated[Path | None, typer.Option(help="Results kept; results/reference by default.")] = None,
    results: Annotated[
        Path | None, typer.Option(help="Results to check, not run anew: of a sweep or of a run.")
    ] = None,
    seeds: Annotated[list[int] | None, typer.Option(help="Such as: --seeds 0 (the default)")] = None,
    variants: Annotated[list[str] | None, typer.Option(help="Names in notebooks/ablations.yaml.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Notebooks at once.")] = None,
) -> None:
    """Run the quick ablations anew and fail where a headline measure leaves its kept interval."""
    with _told():
        from clcae_lib.suite._cluster import Place
        from clcae_lib.suite.check import check_runs
        from clcae_lib.suite.sweep import run_sweep

        failed: dict[str, str] = {}
        asked: dict[str, Any] = {"variants": variants or [], "seeds": seeds or []}
        if results is None:
            asked["seeds"] = seeds or [0]
            folder = paths.results_dir() / "check"
            summary = run_sweep("ablations", place=Place(jobs=jobs), output=folder, **asked)
            results, failed = summary.folder, dict(summary.failed)
        outcome = check_runs(results, against or paths.results_dir() / "reference", **asked)
    for name, reason in failed.items():
        typer.echo(f"failed: {name}: {reason}", err=True)
    for deviation in outcome.deviations:
        typer.echo(str(deviation), err=True)
    inside = outcome.compared - len(outcome.deviations)
    typer.echo(f"{inside} of {outcome.compared} headline measures are inside their intervals")
    if failed or not outcome.ok:
        raise typer.Exit(1)


if __name__ == "__main__":
    sys.exit(app())
