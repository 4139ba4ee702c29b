"""Read and write YAML: `--set`, profiles, sweeps, configurations of trainings and `world.yaml`.

`1e-4` is a number; `off`, `no` and `2024-01-31` are text. An error in a file is reported in one sentence with
the file's name and the place in it.
"""

import math
import re
from collections import Counter
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from clcae_lib.errors import ClcaeError

Model = TypeVar("Model", bound=BaseModel)
_BOOL, _TIMESTAMP = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:timestamp"
_FLOAT = (
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


class ConfigError(ClcaeError, ValueError):
    """A setting that does not exist, cannot be read, or must not change; the message names it."""


class _Loader(yaml.SafeLoader):
    """Reads this project's YAML; an error is a `yaml.MarkedYAMLError` with its place."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """Construct a value; a number or a date that Python cannot represent is an error with its place."""
        try:
            return super().construct_object(node, deep=True)  # deep, so that no node can contain itself
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            problem = f"{str(node.value)[:40]!r} is not a {node.tag.rpartition(':')[2]}: {error}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Construct a mapping; a name that is given twice is an error."""
        names = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<" and names[key.value] > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value!r} is given twice", key.start_mark
                )
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [resolver for resolver in resolvers if resolver[0] not in (_BOOL, _TIMESTAMP)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOL, re.compile(r"^(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(*_FLOAT)


class _Dumper(yaml.SafeDumper):
    """Writes YAML that `_Loader` and other readers read alike."""


_Dumper.add_implicit_resolver(*_FLOAT)


def read_yaml(path: Path | str, *, error: type[ClcaeError] = ConfigError) -> dict[str, Any]:
    """Return the mapping in a YAML file, empty for an empty file; raise `error` if the file is wrong."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as problem:
        raise error(f"{path}: cannot be read ({problem.strerror})") from problem
    except UnicodeDecodeError as problem:
        raise error(f"{path}: is not UTF-8 text (byte {problem.start}); save it as UTF-8") from problem
    content = parse_yaml(text, source=str(path), error=error)
    if content is not None and not isinstance(content, dict):
        raise error(f"{path}: must hold `name: value` lines, not a {type(content).__name__}")
    for name in content or {}:
        if not isinstance(name, str):
            raise error(f"{path}: {name!r} is not a name; put it in quotes")
    return content or {}


def parse_yaml(text: str, *, source: str, error: type[ClcaeError] = ConfigError) -> Any:
    """Return the value of a YAML text; raise `error`, which names `source`, if it is not valid."""
    try:
        return yaml.load(text, Loader=_Loader)
    except RecursionError as problem:
        raise error(f"{source}: lists and mappings are nested too deeply") from problem
    except yaml.MarkedYAMLError as problem:
        mark, what = problem.problem_mark or problem.context_mark, problem.problem or problem.context
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise error(f"{source}{place}: is not valid YAML ({what})") from problem
    except yaml.YAMLError as problem:
        raise error(f"{source}: is not valid YAML ({' '.join(str(problem).split())})") from problem


def dump_yaml(values: Any) -> str:
    """Return values as YAML, in their order; each text on one line."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=math.inf)


def split_setting(text: str, *, error: type[ClcaeError] = ConfigError) -> tuple[str, str]:
    """Return name and text of `name=text`, as given to `--set`; raise `error` if one is missing."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise error(f"--set {text}: write --set name=value, such as seed=1")
    return name.strip(), value


def parse_text(text: str) -> str:
    """Return the value of a setting that is text, without quotes around it."""
    if text[:1] in ("'", '"'):
        try:
            value = yaml.load(text, Loader=_Loader)
        except yaml.YAMLError:
            return text
        return value if isinstance(value, str) else text
    return text


def validated(
    model: type[Model], content: Any, *, source: str, error: type[ClcaeError] = ConfigError
) -> Model:
    """Return content as a pydantic model; raise `error`, which names `source`, if it is wrong."""
    try:
        return model.model_validate(content)
    except ValidationError as problem:
        first, text = problem.errors()[0], explain(problem)
        if first["type"] == "extra_forbidden":
            names = f"; it may have {', '.join(model.model_fields)}" if len(first["loc"]) == 1 else ""
            text = f"unknown key {'.'.join(map(str, first['loc']))!r}{names}"
        raise error(f"{source}: {text}") from problem


def explain(error: ValidationError) -> str:
    """Return the first problem that pydantic found, on one line: "timeout: Input should be ..., not 'x'"."""
    first = error.errors()[0]
    place = ".".join(str(part)[:80] for part in first["loc"])
    text = f"{first['msg'].removeprefix('Value error, ')}, not {repr(first['input'])[:80]}"
    return f"{place}: {text}" if place else text
