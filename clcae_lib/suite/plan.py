"""The notebooks of a run, in order, with their parameters.

`notebooks/suite.yaml` lists the notebooks in order (`Entry`); `notebooks/profiles/<name>.yaml` holds one set
of parameters (`Profile`).

A notebook declares its parameters in one cell tagged `parameters`, as plain literals. The cell is parsed, not
run; papermill's inspection would skip what it cannot read, and accept parameters that do not exist.
"""

import ast
import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import nbformat
from pydantic import BaseModel, BeforeValidator, Field

from clcae_lib.settings import parse_text, parse_yaml, read_yaml, split_setting, validated
from clcae_lib.suite.record import SuiteError

REQUIRED = ("world", "seed", "device", "output_dir")
Declared = Mapping[str, Mapping[str, Any]]
"""The parameters of each notebook, with their default values."""
Values = Annotated[dict[str, Any], BeforeValidator(lambda found: {} if found is None else found)]
"""`name: value` lines of a YAML file; there may be none."""
Seconds = Annotated[float, Field(gt=0, strict=True)]
Term = tuple[str | int | float, ...]
"""Factors of a product: names of parameters, and numbers."""


class Entry(BaseModel, extra="forbid", frozen=True):
    """A notebook as `suite.yaml` lists it.

    Attributes:
        name: its name, such as "06_ablation_report".
        needs: notebooks that run before it; a failure there stops this one.
        inputs: patterns of the weights under data/<world>/ that it depends on.
        reads: what else it depends on, under results/.
        folders: parameters that name folders whose files it depends on.
        work: units of `clcae_lib.suite.run_cost`, each with terms; their sum is the number of units.
    """

    name: str
    needs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ("*",)
    reads: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    work: dict[str, tuple[Term, ...]] = {}


class Profile(BaseModel, extra="forbid", frozen=True):
    """A named set of parameters and limits.

    Attributes:
        name: the file's name.
        about: one line for the report.
        common: parameters of every notebook that declares them.
        notebooks: parameters of single notebooks.
        timeout: seconds for one notebook; None for no limit.
        start_timeout: seconds for a kernel to start, in case it hangs; a dead one is noticed earlier.
        estimate: whether a run begins with an estimate of its time.
    """

    name: str
    about: Annotated[str, BeforeValidator(lambda found: str(found or ""))] = ""
    common: Values = {}
    notebooks: Annotated[dict[str, Values], BeforeValidator(lambda found: found or {})] = {}
    timeout: Seconds | None = None
    start_timeout: Seconds = 1200.0
    estimate: bool = False


@dataclass(frozen=True)
class Job:
    """One execution: a notebook, its file and its parameters, except `output_dir`."""

    entry: Entry
    path: Path
    parameters: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The notebook's name."""
        return self.entry.name


class _Listing(BaseModel, extra="forbid"):
    notebooks: list[Entry] = Field(min_length=1)


def read_suite(folder: Path) -> list[Entry]:
    """Return the notebooks that `suite.yaml` lists, in order.

    Raises:
        SuiteError: a notebook is on disk and not listed, or listed and not on disk, or the list is wrong.
    """
    path = folder / "suite.yaml"
    content = read_yaml(path, error=SuiteError)
    entries = validated(_Listing, content, source=str(path), error=SuiteError).notebooks
    names = [entry.name for entry in entries]
    on_disk = {file.stem for file in folder.glob("*.ipynb")}
    for name in sorted(on_disk - set(names)):
        raise SuiteError(f"{path}: does not list {name}.ipynb, which is in its folder; list it or move it")
    for position, entry in enumerate(entries):
        before = names[:position]
        if entry.name not in on_disk:
            raise SuiteError(f"{path}: lists {entry.name}, but there is no {entry.name}.ipynb in its folder")
        if entry.name in before:
            raise SuiteError(f"{path}: lists {entry.name} twice")
        for need in entry.needs:
            if need not in before:
                raise SuiteError(f"{path}: {entry.name} needs {need}, which is not listed before it")
    return entries


def named_file(folder: Path, kind: str, name: str) -> Path:
    """Return the file `<name>.yaml` of a folder; raise a SuiteError that names the kind if it is missing."""
    there = sorted(file.stem for file in folder.glob("*.yaml") if file.stem != "suite")
    if name not in there:
        raise SuiteError(f"{kind} {name[:100]!r}: not in {folder}; there is {', '.join(there) or 'none'}")
    return folder / f"{name}.yaml"


def read_profile(folder: Path, name: str) -> Profile:
    """Return the profile `profiles/<name>.yaml`; raise a SuiteError if it is missing or not valid."""
    path = named_file(folder / "profiles", "profile", name)
    content = {**read_yaml(path, error=SuiteError), "name": name}
    return validated(Profile, content, source=str(path), error=SuiteError)


def plan(
    folder: Path,
    profile: str,
    *,
    only: Sequence[str] = (),
    settings: Sequence[str] = (),
    **limits: float | None,
) -> tuple[Profile, list[Job]]:
    """Return the profile and the jobs of a run, in order, after checking every parameter.

    `only` holds names of notebooks or their beginnings; none means all. `settings` are `name=value` for all
    notebooks that declare the parameter, or `01.name=value` for one notebook. If the default of a parameter
    is text, its value is not interpreted; a folder may begin with `~`, and is relative to the working
    directory. Other values are read as YAML. `limits` replace `timeout` and `start_timeout` of the profile.
    Any fault raises a SuiteError that names it.
    """
    entries = read_suite(folder)
    chosen = read_profile(folder, profile)
    chosen = chosen.model_copy(update={name: value for name, value in limits.items() if value})
    files = {entry.name: folder / f"{entry.name}.ipynb" for entry in entries}
    declared = {name: declared_parameters(path) for name, path in files.items()}
    source, given = f"{folder / 'profiles' / profile}.yaml", list(chosen.common.items())
    for text, part in chosen.notebooks.items():
        notebook = _match(text, declared, source=source)
        given += [(f"{notebook}.{name}", value) for name, value in part.items()]
    values = _distribute(given, declared, source=source)
    selected = [_match(text, declared, source="--only") for text in only] or list(declared)
    texts = [split_setting(setting, error=SuiteError) for setting in settings]
    takers = {name: declared[name] for name in declared if name in selected}
    overrides = _distribute(texts, takers, source="--set", read=_read_text)
    jobs = []
    for entry in [entry for entry in entries if entry.name in selected]:
        parameters = {**declared[entry.name], **values[entry.name], **overrides[entry.name]}
        del parameters["output_dir"]
        jobs.append(Job(entry, files[entry.name], parameters))
    return chosen, jobs


def declared_parameters(path: Path) -> dict[str, Any]:
    """Return names and default values that a notebook declares in its cell tagged `parameters`.

    Raises:
        SuiteError: there is not exactly one such cell, it holds more than plain literals, or one of
            `REQUIRED` is missing.
    """
    if not path.is_file():
        raise SuiteError(f"{path}: there is no such notebook")
    try:
        code = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise SuiteError(
            f"{path}: is not a notebook ({reason}); take it from the repository again"
        ) from error
    cells = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise SuiteError(f"{path.name}: needs exactly one code cell tagged `parameters`, has {len(cells)}")
    try:
        statements = ast.parse(cells[0].source).body
    except SyntaxError as error:
        raise SuiteError(f"{path.name}: its parameters cell does not parse: {error}") from error
    declared = dict(_literal(path, statement) for statement in statements)
    missing = [name for name in REQUIRED if name not in declared]
    if missing:
        raise SuiteError(f"{path.name}: its parameters cell must declare {', '.join(missing)}")
    return declared


def _literal(path: Path, statement: ast.stmt) -> tuple[str, Any]:
    match statement:
        case (
            ast.Assign(targets=[ast.Name(id=name)], value=value)
            | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
        ):
            try:
                return name, ast.literal_eval(value)
            except ValueError:
                pass
    raise SuiteError(
        f"{path.name}: its parameters cell may hold only `name = literal`: {ast.unparse(statement)}"
    )


def check_value(source: str, name: str, value: Any, declared: Mapping[str, Any]) -> Any:
    """Return the value of a notebook's parameter, after comparing it with the declared defaults.

    Raises:
        SuiteError: there is no such parameter, or it has another type; the message begins with `source`.
    """
    if name not in declared:
        hint = _did_you_mean(name, declared) or f"; it has {', '.join(declared)}"
        raise SuiteError(f"{source}: has no parameter {name!r}{hint}")
    if name == "output_dir":
        raise SuiteError(f"{source}: the runner sets output_dir; use --output for the folder")
    default = declared[name]
    if default is None or value is None or _same_kind(value, default):
        return value
    raise SuiteError(
        f"{source}: parameter {name!r} takes {type(default).__name__}, not {value!r} ({type(value).__name__})"
    )


def _same_kind(value: Any, default: Any) -> bool:
    if isinstance(value, bool) or isinstance(default, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    kinds = {float: int | float, list: list | tuple, tuple: list | tuple}
    return isinstance(value, kinds.get(type(default), type(default)))


def _did_you_mean(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _distribute(
    settings: Iterable[tuple[str, Any]],
    declared: Declared,
    *,
    source: str,
    read: Callable[[str, Any, Any], Any] = lambda setting, value, default: value,
) -> dict[str, dict[str, Any]]:
    """Add each setting to all notebooks that declare it, or `01.name` only to notebook 01."""
    given: dict[str, dict[str, Any]] = {notebook: {} for notebook in declared}
    for setting, value in settings:
        prefix, dot, name = setting.rpartition(".")
        takers = [notebook for notebook, names in declared.items() if name in names]
        if dot:
            takers = [_match(prefix, declared, source=source)]
        elif not takers:
            hint = _did_you_mean(name, sorted({known for names in declared.values() for known in names}))
            raise SuiteError(f"{source}: none of {', '.join(declared)} has a parameter {name!r}{hint}")
        for notebook in takers:
            found = read(setting, value, declared[notebook].get(name))
            given[notebook][name] = check_value(f"{source}: {notebook}", name, found, declared[notebook])
    return given


def _match(text: str, names: Iterable[str], *, source: str) -> str:
    names = list(names)
    found = [name for name in names if name == text] or [name for name in names if name.startswith(text)]
    if len(found) != 1:
        problem = f"fits {', '.join(found)}" if found else "is not a notebook of the suite"
        raise SuiteError(f"{source}: {text!r} {problem}; there are {', '.join(names)}")
    return found[0]


def _read_text(setting: str, text: str, default: Any) -> Any:
    if not isinstance(default, str):
        return parse_yaml(text, source=f"--set {setting}", error=SuiteError) if text.strip() else ""
    value, name = parse_text(text), setting.rpartition(".")[2]
    is_folder = name == "folder" or name.endswith("_folder")
    return str(Path.cwd() / Path(value).expanduser()) if is_folder and value else value
