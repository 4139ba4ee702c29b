"""The disk cache: results that can be computed again, each named by a key of everything that it depends on.

A key covers settings, the contents of input files, and the program: the modules that compute the result and
every module of this package that they import, directly or not. Comments, docstrings and layout do not count.
The versions of other packages and the device are not part of a key (no section of the paper).
"""

import ast
import hashlib
import json
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from clcae_lib.files import sha256

_ROOT = Path(__file__).resolve().parent


def key(*parts: Any, modules: Iterable[str] = (), files: Iterable[Path | str] = ()) -> str:
    """Return 24 hexadecimal digits that change with anything that a result depends on.

    Args:
        parts: settings, as JSON values.
        modules: names of the modules that compute the result.
        files: input files; their contents count, their names do not.
    """
    content = {"parts": parts, "files": [sha256(file) for file in files], "program": program(*modules)}
    return _hash(json.dumps(content, sort_keys=True))[:24]


def made(path: Path, make: Callable[[], Any]) -> Path:
    """Return `path`; if the file does not exist, `make` writes it first, completely or not at all.

    Processes that call this at the same time wait for the one that writes.
    """
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / f".{path.name}.lock"):
            if not path.is_file():
                make()
    return path


@cache
def program(*modules: str) -> str:
    """Return a digest of modules and of every module of this package that they import, directly or not.

    A name that a package re-exports is followed to the module that defines it. A module that is imported by a
    computed name is not found: add it to `modules`. Of a module of another package only its own file counts.
    The digest is computed once per process.
    """
    found: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        path = _file(name)
        if name in found or path is None:
            continue
        source = _read(path, path.stat().st_mtime_ns)
        found[name] = source.digest
        waiting += [_origin(module, part) for module, part, _ in source.imports if _is_own(module)]
    return _hash(json.dumps(sorted(found.items())))


def source_digest(path: Path) -> str:
    """Return a digest of a source file without comments, docstrings and layout."""
    return _read(path, path.stat().st_mtime_ns).digest


class _Source(NamedTuple):
    """A source file's digest and its imports: module, name in it (or ""), and local name."""

    digest: str
    imports: list[tuple[str, str, str]]


@cache
def _read(path: Path, changed: int) -> _Source:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [part for part in node.body if not _is_text(part)]
        elif isinstance(node, ast.Import):
            imports += [(part.name, "", "") for part in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(
                    f"{path}: line {node.lineno}: a relative import is not followed; name the package"
                )
            imports += [(node.module, part.name, part.asname or part.name) for part in node.names]
    return _Source(_hash(repr(_plain(tree))), imports)


def _plain(node: object) -> object:
    """Return a syntax tree as nested tuples; empty fields, which differ between versions, are left out."""
    if isinstance(node, ast.AST):
        fields = [(name, value) for name, value in ast.iter_fields(node) if value not in (None, [])]
        return (type(node).__name__, *((name, _plain(value)) for name, value in fields))
    return tuple(map(_plain, node)) if isinstance(node, list) else node


def _origin(module: str, name: str) -> str:
    """Return the module that defines a name of `module`, which may only re-export it."""
    if not name:
        return module
    if _file(f"{module}.{name}") is not None:
        return f"{module}.{name}"
    path = _file(module)
    passed_on = _read(path, path.stat().st_mtime_ns).imports if path and path.name == "__init__.py" else []
    return next((_origin(source, part) for source, part, called in passed_on if called == name), module)


def _is_own(module: str) -> bool:
    return module.split(".")[0] == _ROOT.name


def _file(module: str) -> Path | None:
    """Return the source file of a module of this package, or of another package's module if it is loaded."""
    if not _is_own(module):
        source = getattr(sys.modules.get(module), "__file__", None) or ""
        return Path(source) if source.endswith(".py") else None
    place = _ROOT.joinpath(*module.split(".")[1:])
    return next((path for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()), None)


def _is_text(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _hash(content: str) -> str:
    return hashlib.sha256(content.encode()).hexdigest()
