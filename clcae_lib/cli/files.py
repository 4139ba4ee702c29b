"""Weights files: `clcae fetch`, `inspect`, `convert` and `info`."""

import json
import os
from pathlib import Path
from textwrap import shorten
from typing import Annotated, Any

import typer

from clcae_lib import paths
from clcae_lib.cli.common import RequestError

app = typer.Typer()


@app.command()
def fetch(
    names: Annotated[list[str] | None, typer.Argument(help="Sets or single files, such as: ffhq")] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the files, and which are here.")] = False,
) -> None:
    """Fetch published files into data/ and check them, or print how to fetch them by hand."""
    from clcae_lib.weights.fetch import Fetcher
    from clcae_lib.weights.manifest import AssetError, read_manifest

    fetcher = Fetcher(read_manifest(), paths.data_dir(), report=lambda text: typer.echo(text, err=True))
    if listed:
        typer.echo("\n".join(_asset_lines(fetcher)))
        return
    if not names:
        raise RequestError(f"name what to fetch: {', '.join(fetcher.manifest.sets)}, or see --list")
    missing = []
    for name in fetcher.manifest.select(names):
        try:
            path, fetched = fetcher.fetch(name)
        except AssetError as error:
            typer.echo(f"error: {error}", err=True)
            missing.append(name)
        else:
            licence = fetcher.manifest.assets[name].licence
            typer.echo(f"{name}: {'fetched to' if fetched else 'already'} {path} (licence {licence})")
    if missing:
        typer.echo(f"not there: {', '.join(missing)}", err=True)
        raise typer.Exit(1)


def _asset_lines(fetcher: Any) -> list[str]:
    """Return a line for each set, then one for each asset: whether it is here, and its facts."""
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
    """Print the kind and size of a weights file, and what reads it; no code in it is run."""
    from clcae_lib.weights import inspect_file

    report = inspect_file(file)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        for name, value in _rows(report).items():
            typer.echo(f"{name.replace('_', ' '):<18} {value}")


def _rows(report: dict[str, Any]) -> dict[str, Any]:
    """Return the facts about a file, with its settings at the top level."""
    rows = report | {name: f"{report[name]:,}" for name in ("parameters", "bytes")}
    details = rows.pop("details")
    rows |= {name: value for name, value in details.items() if not isinstance(value, dict)}
    for config in (value for value in details.values() if isinstance(value, dict)):
        rows |= {name: value for name, value in config.items() if name not in rows}
    return {name: value for name, value in rows.items() if value is not None}


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(help="A file that `clcae inspect` recognises.")],
    target: Annotated[Path, typer.Argument(help="A .safetensors file.")],
    half: Annotated[bool, typer.Option("--half", help="Store matrices as float16.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the target.")] = False,
    part: Annotated[
        str | None, typer.Option(help="Part of a CLCAE checkpoint: encoder (the default) or generator.")
    ] = None,
) -> None:
    """Convert a weights file of another project to safetensors; no code in it is run."""
    from clcae_lib.weights import convert_file, inspect_file

    path = convert_file(source, target, half=half, force=force, part=part)
    report = inspect_file(path)
    typer.echo(f"written: {path} ({report['bytes'] / 1e6:.1f} MB, {report['what']}) for {report['fits']}")


@app.command()
def info() -> None:
    """Show the versions, the device, and the installed worlds and weights."""
    from clcae_lib.provenance import commit, device_text, versions
    from clcae_lib.worlds import world_names

    typer.echo(f"commit    {commit() or 'none'}")
    typer.echo(f"versions  {versions()}")
    typer.echo(f"device    {device_text('auto')}")
    for name in world_names():
        typer.echo(f"world     {name}: {paths.world_dir(name)}")
        for line in _weights_lines(paths.world_dir(name)):
            typer.echo(f"  {line}")


_FACTS = {"steps": "steps", "images_seen": "images", "seconds": "s", "device": "", "kind": ""}


def _weights_lines(folder: Path) -> list[str]:
    """Return a line per weights file, with facts of its card, then a line per fault of the chain."""
    from clcae_lib.weights.checkpoints import WeightsError, check_chain, read_card

    lines = []
    files = [path for path in folder.glob("*") if path.suffix in (".safetensors", ".pt", ".pth")]
    for path in sorted(filter(os.path.isfile, files)):
        try:
            card = read_card(path)
        except (WeightsError, OSError):  # reported among the problems below
            card = {}
        known = {name: shorten(str(card[name]), 40) for name in _FACTS if card.get(name) is not None}
        facts = [f"{value} {_FACTS[name]}" for name, value in known.items()]
        lines.append(f"{path.stem:<22} {path.stat().st_size / 1e6:5.1f} MB  {', '.join(facts)}")
    return lines + [f"problem: {problem}" for problem in check_chain(folder)] or ["no weights"]
