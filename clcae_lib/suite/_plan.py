"""Which notebooks a run executes, in which order, with which parameters.

`notebooks/suite.yaml` lists the notebooks in order:

    notebooks:
      - name: 06_ablation_report
        needs: [05_metric_ablations]      # run before it; a failure there stops this one
        inputs: ["generator.*"]           # weights under data/<world>/ it depends on; all of them by default
        reads: [reference/sweeps]         # what else it depends on, under results/
        folders: [folder]                 # parameters that name folders whose files it depends on

`notebooks/profiles/<name>.yaml` holds one set of parameters:

    about: one line for the report
    common: {seed: 0, world: portraits}   # to every notebook that declares it
    timeout: 1200                         # seconds for one notebook; start_timeout: for its kernel
    notebooks:
      01_contrastive_alignment: {steps: 100}
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clcae_lib.settings import read_yaml
from clcae_lib.suite._errors import SuiteError
from clcae_lib.suite._parameters import (
    check_value,
    declared_parameters,
    distribute,
    distribute_texts,
    match_notebook,
    section,
)

_PROFILE_KEYS = {"about", "common", "timeout", "start_timeout", "notebooks"}
_ENTRY_KEYS = {"name", "needs", "inputs", "reads", "folders"}
START_TIMEOUT = 1200.0
"""Seconds for a kernel to start: a limit for one that hangs, not for slow machines; a dead one is noticed."""


@dataclass(frozen=True)
class Entry:
    """A notebook as `suite.yaml` lists it."""

    name: str
    path: Path
    needs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ("*",)
    reads: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()


@dataclass(frozen=True)
class Profile:
    """A named set of parameters and limits; times in seconds."""

    name: str
    about: str = ""
    common: Mapping[str, Any] = field(default_factory=dict)
    notebooks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    timeout: float | None = None
    start_timeout: float = START_TIMEOUT


@dataclass(frozen=True)
class Job:
    """One execution: a notebook with its parameters, `output_dir` excepted."""

    entry: Entry
    parameters: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The notebook's name."""
        return self.entry.name


def read_suite(folder: Path) -> list[Entry]:
    """The notebooks that `suite.yaml` lists, in order.

    Raises:
        SuiteError: a notebook is on disk and not listed, or listed and not on disk, or the list is wrong.
    """
    path = folder / "suite.yaml"
    listed = read_yaml(path, error=SuiteError).get("notebooks")
    if not isinstance(listed, list) or not listed:
        raise SuiteError(f"{path}: lists no notebooks")
    entries = [_entry(path, item) for item in listed]
    _check_listing(path, [entry.name for entry in entries])
    _check_needs(path, entries)
    return entries


def _entry(path: Path, item: Any) -> Entry:
    if not isinstance(item, dict) or "name" not in item or set(item) - _ENTRY_KEYS:
        raise SuiteError(
            f"{path}: an entry has `name` and may have needs, inputs, reads, folders; not {item!r}"
        )
    lists = {key: tuple(item[key]) for key in _ENTRY_KEYS - {"name"} if key in item}
    return Entry(name=item["name"], path=path.parent / f"{item['name']}.ipynb", **lists)


def _check_listing(path: Path, names: list[str]) -> None:
    """The list and the folder hold the same notebooks, each once."""
    on_disk = {file.stem for file in path.parent.glob("*.ipynb")}
    for name in sorted(on_disk - set(names)):
        raise SuiteError(f"{path}: does not list {name}.ipynb, which lies beside it; list it or move it away")
    for name in names:
        if name not in on_disk:
            raise SuiteError(f"{path}: lists {name}, but there is no {name}.ipynb beside it")
        if names.count(name) > 1:
            raise SuiteError(f"{path}: lists {name} twice")


def _check_needs(path: Path, entries: list[Entry]) -> None:
    """A notebook needs only notebooks that come before it."""
    before: set[str] = set()
    for entry in entries:
        for need in entry.needs:
            if need not in before:
                raise SuiteError(f"{path}: {entry.name} needs {need}, which is not listed before it")
        before.add(entry.name)


def read_profile(folder: Path, name: str, known: Iterable[str]) -> Profile:
    """The profile `profiles/<name>.yaml`, its notebooks checked against the suite's.

    Raises:
        SuiteError: no such profile, an unknown key, or an unknown notebook.
    """
    path = folder / "profiles" / f"{name}.yaml"
    if not path.is_file():
        there = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml"))) or "none"
        raise SuiteError(f"profile {name!r}: no file {path}; there is {there}")
    content = read_yaml(path, error=SuiteError)
    for key in sorted(set(content) - _PROFILE_KEYS):
        raise SuiteError(f"{path}: unknown key {key!r}; it may have {', '.join(sorted(_PROFILE_KEYS))}")
    notebooks = section(content, "notebooks", source=str(path))
    for notebook in sorted(set(notebooks) - set(known)):
        raise SuiteError(f"{path}: {notebook!r} is no notebook of the suite")
    limits = {key: content[key] for key in ("timeout", "start_timeout") if content.get(key) is not None}
    for key, value in limits.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise SuiteError(f"{path}: {key}: {value!r} is not a number of seconds")
    return Profile(
        name=name,
        about=str(content.get("about") or ""),
        common=section(content, "common", source=str(path)),
        notebooks={key: section(notebooks, key, source=str(path)) for key in notebooks},
        **limits,
    )


def plan(
    folder: Path, profile: str, *, only: Sequence[str] = (), settings: Sequence[str] = ()
) -> tuple[Profile, list[Job]]:
    """The profile and the jobs of a run, in order, every parameter checked before anything starts.

    Args:
        folder: where the notebooks, `suite.yaml` and `profiles/` lie.
        profile: the profile's name.
        only: names or beginnings of names; none means all.
        settings: `name=value` for all that declare it, `01.name=value` for one notebook.

    Raises:
        SuiteError: whatever is wrong, by name.
    """
    entries = read_suite(folder)
    chosen = read_profile(folder, profile, [entry.name for entry in entries])
    declared = {entry.name: declared_parameters(entry.path) for entry in entries}
    values = profile_values(folder, chosen, declared)
    selected = [match_notebook(text, declared, source="--only") for text in only] or list(declared)
    overrides = distribute_texts(settings, {name: declared[name] for name in declared if name in selected})
    _refuse_output_dir(overrides, "--set")
    jobs = [Job(entry, {**values[entry.name], **overrides.get(entry.name, {})}) for entry in entries]
    return chosen, [job for job in jobs if job.name in selected]


def profile_values(
    folder: Path, profile: Profile, declared: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Every notebook's parameters under a profile: the notebook's own values, then the profile's over them.

    Raises:
        SuiteError: the profile sets a parameter that nobody declares, or one to a wrong type.
    """
    source = f"profiles/{profile.name}.yaml"
    given = distribute(profile.common, declared, source=f"{source}, common")
    for notebook, values in profile.notebooks.items():
        for name, value in values.items():
            given[notebook][name] = check_value(f"{source}, {notebook}", name, value, declared[notebook])
    _refuse_output_dir(given, source)
    return {notebook: {**_without_output(declared[notebook]), **given[notebook]} for notebook in declared}


def _without_output(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name != "output_dir"}


def _refuse_output_dir(given: Mapping[str, Mapping[str, Any]], source: str) -> None:
    for notebook, values in given.items():
        if "output_dir" in values:
            raise SuiteError(f"{source}: {notebook}: the runner sets output_dir; use --output for the folder")
