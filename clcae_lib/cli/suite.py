"""The notebooks: `clcae run`, `keep`, `sweep`, `report` and `check`."""

import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from clcae_lib import paths
from clcae_lib.cli.common import Force, Lists, Settings

app = typer.Typer()

Profile = Annotated[str, typer.Option(help="A file in notebooks/profiles/.")]
Seeds = Annotated[list[int] | None, typer.Option(help="Such as 0 1 2; by default those of the sweep's file.")]
Variants = Annotated[list[str] | None, typer.Option(help="Names in the sweep's file; all by default.")]
Jobs = Annotated[int | None, typer.Option("--jobs", "--workers", min=1, help="Notebooks at a time.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the estimated cost, and stop.")]
Pem = Annotated[Path | None, typer.Option(help="A PEM file, for a tls:// scheduler.")]


@app.command(cls=Lists)
def run(
    profile: Profile = "quick",
    only: Annotated[list[str] | None, typer.Option(help="Notebooks, such as: --only 01 02")] = None,
    settings: Settings = None,
    force: Force = False,
    output: Annotated[Path | None, typer.Option(help="Folder; results/<profile> by default.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds for one notebook.")] = None,
    start_timeout: Annotated[float | None, typer.Option(help="Seconds for a kernel to start.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Run the notebooks in order and write the report."""
    if dry_run:
        from clcae_lib.suite.plan import plan
        from clcae_lib.suite.run_cost import run_cost

        options = {"only": only or [], "settings": settings or [], "timeout": timeout}
        typer.echo("\n".join(run_cost(*plan(paths.notebooks_dir(), profile, **options))))
        return
    # A request to terminate ends the run as Ctrl-C does, so that kernels end with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    from clcae_lib.suite.runner import run_suite

    options = {"force": force, "output": output, "timeout": timeout, "start_timeout": start_timeout}
    summary = run_suite(profile, only=only or [], settings=settings or [], **options)
    typer.echo(f"report: {summary.report}")
    if not summary.ok:
        failed = [outcome.notebook for outcome in summary.outcomes if outcome.state == "failed"]
        typer.echo(f"failed: {', '.join(failed)}; see {summary.folder / 'failed'}", err=True)
        raise typer.Exit(1)


@app.command()
def keep(
    profile: Annotated[str, typer.Option(help="Which run under results/.")] = "quick",
) -> None:
    """Copy a run's report and executed notebooks to results/reference, to be committed."""
    from clcae_lib.suite.reference import keep_report

    page = keep_report(paths.results_dir() / profile)
    typer.echo(f"kept: {page}")


@app.command(cls=Lists)
def sweep(
    name: Annotated[str, typer.Argument(help="A file in notebooks/ without .yaml, such as ablations.")],
    seeds: Seeds = None,
    variants: Variants = None,
    profile: Profile = "quick",
    jobs: Jobs = None,
    scheduler: Annotated[
        str | None, typer.Option(help="A Dask scheduler: tcp://127.0.0.1:8786, or remote tls://host:8786.")
    ] = None,
    tls_ca: Pem = None,
    tls_cert: Pem = None,
    tls_key: Pem = None,
    retries: Annotated[int, typer.Option(min=0, help="How often a failed run is repeated.")] = 1,
    dry_run: DryRun = False,
    settings: Settings = None,
    force: Force = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep complete runs although code or weights have changed.")
    ] = False,
    output: Annotated[Path | None, typer.Option(help="Folder; results/sweeps/<name> by default.")] = None,
) -> None:
    """Run a notebook with every variant and seed; complete runs are not repeated."""
    from clcae_lib.suite.cluster import Place
    from clcae_lib.suite.sweep import plan_sweep, run_sweep
    from clcae_lib.suite.sweep_cost import sweep_cost

    place = Place(jobs=jobs, scheduler=scheduler, ca=tls_ca, cert=tls_cert, key=tls_key)
    place.check()
    options: dict[str, Any] = {"profile": profile, "seeds": seeds}
    options |= {"variants": variants or [], "settings": settings or [], "force": force, "keep": keep}
    typer.echo("\n".join(sweep_cost(plan_sweep(name, output=output, **options), jobs)))
    if dry_run:
        return
    summary = run_sweep(name, place=place, retries=retries, output=output, **options)
    typer.echo(f"{summary.complete} runs complete: {summary.folder / 'runs.csv'}")
    _print_failures(summary.failed)
    if summary.failed:
        raise typer.Exit(1)


def _print_failures(failed: Mapping[str, str]) -> None:
    for name, reason in failed.items():
        typer.echo(f"failed: {name}: {reason}", err=True)


@app.command()
def report(
    results: Annotated[Path | None, typer.Option(help="A run's folder; results/quick by default.")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder; <results>/report by default.")] = None,
) -> None:
    """Write a run's report as one page that needs no other file, and all its tables as tables.csv."""
    from clcae_lib.suite.report import portable_report

    page = portable_report(results or paths.results_dir() / "quick", target=output)
    typer.echo(f"report: {page}")


@app.command(cls=Lists)
def check(
    against: Annotated[Path | None, typer.Option(help="Results kept; results/reference by default.")] = None,
    results: Annotated[
        Path | None, typer.Option(help="Check these results of a sweep or run; run nothing.")
    ] = None,
    seeds: Annotated[list[int] | None, typer.Option(help="Such as: --seeds 0 (the default)")] = None,
    variants: Variants = None,
    jobs: Jobs = None,
) -> None:
    """Run the quick ablations again; fail if a headline measure is outside its kept interval."""
    from clcae_lib.suite.cluster import Place
    from clcae_lib.suite.reference import check_runs
    from clcae_lib.suite.sweep import run_sweep

    failed: Mapping[str, str] = {}
    asked: dict[str, Any] = {"variants": variants or [], "seeds": seeds or []}
    if results is None:
        asked["seeds"] = seeds or [0]
        folder = paths.results_dir() / "check"
        summary = run_sweep("ablations", place=Place(jobs=jobs), output=folder, **asked)
        results, failed = summary.folder, summary.failed
    outcome = check_runs(results, against or paths.results_dir() / "reference", **asked)
    _print_failures(failed)
    for deviation in outcome.deviations:
        typer.echo(deviation, err=True)
    inside = outcome.compared - len(outcome.deviations)
    typer.echo(f"{inside} of {outcome.compared} headline measures are inside their intervals")
    if failed or not outcome.ok:
        raise typer.Exit(1)
