"""The parameters of notebooks: what each declares, and what a profile or the command line may set.

A notebook declares its parameters in one cell tagged `parameters`, as plain literals. The cell is parsed, not
run. A parameter that no notebook declares is an error; papermill alone would only warn about it.
"""

import ast
import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import nbformat

from clcae_lib.settings import parse_text, parse_yaml, split_setting
from clcae_lib.suite._errors import SuiteError

REQUIRED = ("world", "seed", "device", "output_dir")


def declared_parameters(path: Path) -> dict[str, Any]:
    """Names and default values that a notebook declares in its cell tagged `parameters`.

    Raises:
        SuiteError: there is not exactly one such cell, it holds more than plain literals, or one of `world`,
            `seed`, `device` and `output_dir` is missing.
    """
    if not path.is_file():
        raise SuiteError(f"{path}: there is no such notebook")
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if is_parameters(cell)]
    if len(cells) != 1:
        raise SuiteError(f"{path.name}: needs exactly one code cell tagged `parameters`, has {len(cells)}")
    declared = dict(_literal(path, statement) for statement in _statements(path, cells[0].source))
    missing = [name for name in REQUIRED if name not in declared]
    if missing:
        raise SuiteError(f"{path.name}: its parameters cell must declare {', '.join(missing)}")
    return declared


def section(content: Mapping[str, Any], name: str, *, source: str) -> dict[str, Any]:
    """The mapping under a name of a YAML file; an empty one where there is none.

    Raises:
        SuiteError: something else is there.
    """
    found = content.get(name)
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise SuiteError(f"{source}: {name}: must be `name: value` lines, not {str(found)[:80]!r}")
    return found


def is_parameters(cell: nbformat.NotebookNode) -> bool:
    """Whether a cell is a code cell tagged `parameters`."""
    return cell.cell_type == "code" and "parameters" in cell.metadata.get("tags", [])


def _statements(path: Path, source: str) -> list[ast.stmt]:
    try:
        return ast.parse(source).body
    except SyntaxError as error:
        raise SuiteError(f"{path.name}: its parameters cell does not parse: {error}") from error


def _literal(path: Path, statement: ast.stmt) -> tuple[str, Any]:
    """Name and value of one assignment of a literal."""
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    if len(targets) == 1 and isinstance(targets[0], ast.Name) and getattr(statement, "value", None):
        try:
            return targets[0].id, ast.literal_eval(statement.value)
        except ValueError:
            pass
    raise SuiteError(
        f"{path.name}: its parameters cell may hold only `name = literal`: {ast.unparse(statement)}"
    )


def check_value(notebook: str, name: str, value: Any, declared: Mapping[str, Any]) -> Any:
    """The value for a notebook's parameter.

    Raises:
        SuiteError: the notebook declares no such parameter, or its default is of another type.
    """
    if name not in declared:
        near = difflib.get_close_matches(name, declared, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(declared)}"
        raise SuiteError(f"{notebook}: has no parameter {name!r}; {hint}")
    default = declared[name]
    if default is None or value is None or _same_kind(value, default):
        return value
    raise SuiteError(
        f"{notebook}: parameter {name!r} takes {type(default).__name__}, "
        f"not {value!r} ({type(value).__name__})"
    )


def _same_kind(value: Any, default: Any) -> bool:
    if isinstance(value, bool) or isinstance(default, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    if isinstance(default, list | tuple):
        return isinstance(value, list | tuple)
    return isinstance(value, type(default))


def distribute(
    settings: Mapping[str, Any], declared: Mapping[str, Mapping[str, Any]], *, source: str
) -> dict[str, dict[str, Any]]:
    """Give each setting to every notebook that declares it; `01.name` goes to the notebook that starts so.

    Args:
        settings: names and values.
        declared: what each selected notebook declares.
        source: where the settings come from, for the message.

    Raises:
        SuiteError: no notebook declares the parameter, or a value is of the wrong type.
    """
    given: dict[str, dict[str, Any]] = {notebook: {} for notebook in declared}
    for setting, value in settings.items():
        for notebook, name in _takers(setting, declared, source):
            given[notebook][name] = check_value(notebook, name, value, declared[notebook])
    return given


def distribute_texts(
    settings: Iterable[str], declared: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Give each `name=value` of the command line to every notebook that declares it, as `distribute` does.

    The value of a parameter whose default is text is taken as it is written. A folder among these may begin
    with `~`, and is relative to where the command was given. Any other value is read as YAML.

    Raises:
        SuiteError: a setting is malformed, no notebook declares it, or its value is of the wrong type.
    """
    given: dict[str, dict[str, Any]] = {notebook: {} for notebook in declared}
    for setting, text in (split_setting(item, error=SuiteError) for item in settings):
        for notebook, name in _takers(setting, declared, "--set"):
            value = _value(setting, name, text, declared[notebook].get(name))
            given[notebook][name] = check_value(notebook, name, value, declared[notebook])
    return given


def _value(setting: str, name: str, text: str, default: Any) -> Any:
    if not isinstance(default, str):
        return parse_yaml(text, source=f"--set {setting}", error=SuiteError) if text.strip() else ""
    value = parse_text(text)
    is_folder = name == "folder" or name.endswith("_folder")
    return str(Path.cwd() / Path(value).expanduser()) if is_folder and value else value


def _takers(
    setting: str, declared: Mapping[str, Mapping[str, Any]], source: str
) -> Iterable[tuple[str, str]]:
    """The notebooks that a setting goes to, each with the parameter's name."""
    prefix, dot, name = setting.rpartition(".")
    if dot:
        return [(match_notebook(prefix, declared, source=source), name)]
    takers = [(notebook, setting) for notebook, names in declared.items() if setting in names]
    if not takers:
        known = sorted({name for names in declared.values() for name in names})
        near = difflib.get_close_matches(setting, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise SuiteError(f"{source}: none of {', '.join(declared)} has a parameter {setting!r}{hint}")
    return takers


def match_notebook(text: str, names: Iterable[str], *, source: str) -> str:
    """The one notebook whose name is `text` or starts with it.

    Raises:
        SuiteError: there is none, or there are several.
    """
    names = list(names)
    found = [name for name in names if name == text] or [name for name in names if name.startswith(text)]
    if len(found) != 1:
        problem = f"fits {', '.join(found)}" if found else "is no notebook of the suite"
        raise SuiteError(f"{source}: {text!r} {problem}; there are {', '.join(names)}")
    return found[0]
