"""The parameters of notebooks: what each declares, and what a profile or the command line may set.

A notebook declares its parameters in one cell tagged `parameters`, as plain literals. The cell is parsed, not
run. A parameter that no notebook declares is an error; papermill alone would only warn about it.
"""

import ast
import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import nbformat
import yaml

from clcae_lib.suite._errors import SuiteError

REQUIRED = ("world", "seed", "device", "output_dir")


class _Loader(yaml.SafeLoader):
    """YAML as people write it: 1e-4 is a number and not a text, off is a text and not a truth value."""


_BOOL = "tag:yaml.org,2002:bool"
_Loader.yaml_implicit_resolvers = {
    first: [resolver for resolver in resolvers if resolver[0] != _BOOL]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOL, re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds.

    Raises:
        SuiteError: the file is missing, is no YAML or holds no mapping.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        raise SuiteError(f"{path}: is no YAML: {error}") from error
    if not isinstance(content, dict):
        raise SuiteError(f"{path}: must hold `name: value` lines")
    return content


def parse_setting(text: str) -> tuple[str, Any]:
    """Name and value of `name=value`, the value read as YAML.

    Raises:
        SuiteError: there is no `=`, no name, or the value is no YAML.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise SuiteError(f"--set {text}: write --set name=value")
    try:
        return name.strip(), yaml.load(value, Loader=_Loader)
    except yaml.YAMLError as error:
        raise SuiteError(f"--set {text}: the value is no YAML") from error


def declared_parameters(path: Path) -> dict[str, Any]:
    """Names and default values that a notebook declares in its cell tagged `parameters`.

    Raises:
        SuiteError: there is not exactly one such cell, it holds more than plain literals, or one of `world`,
            `seed`, `device` and `output_dir` is missing.
    """
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if is_parameters(cell)]
    if len(cells) != 1:
        raise SuiteError(f"{path.name}: needs exactly one code cell tagged `parameters`, has {len(cells)}")
    declared = dict(_literal(path, statement) for statement in _statements(path, cells[0].source))
    missing = [name for name in REQUIRED if name not in declared]
    if missing:
        raise SuiteError(f"{path.name}: its parameters cell must declare {', '.join(missing)}")
    return declared


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
