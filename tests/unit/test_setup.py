"""The set-up: pins, requirements and conda environment agree, and the Makefile does nothing twice."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

PIN = re.compile(r"^([A-Za-z0-9._-]+)==([0-9][0-9A-Za-z.]*)$")
# Builds of torch for GPUs bring libraries that torch itself pins exactly.
PINNED_BY_TORCH = re.compile(r"^(nvidia|cuda|triton)")


@pytest.fixture
def project(repository):
    return tomllib.loads((repository / "pyproject.toml").read_text())["project"]


@pytest.fixture
def pins(repository):
    lines = (repository / "constraints.txt").read_text().splitlines()
    found = [PIN.match(line) for line in lines if line and not line.startswith("#")]
    assert all(found), "every line of constraints.txt is an exact pin, without a local part such as +cpu"
    names = [canonicalize_name(match[1]) for match in found]
    assert len(names) == len(set(names)), "no package is pinned twice"
    return dict(zip(names, [match[2] for match in found], strict=True))


def requirements(project):
    return [Requirement(line) for line in project["dependencies"] + project["optional-dependencies"]["dev"]]


def test_every_requirement_has_a_pin_that_fits_it(project, pins):
    for requirement in requirements(project):
        assert pins[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_what_the_requirements_bring_along_is_pinned_too(project, pins):
    waiting = [(canonicalize_name(r.name), frozenset(r.extras)) for r in requirements(project)]
    seen = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen or PINNED_BY_TORCH.match(name):
            continue
        seen.add((name, extras))
        assert name in pins, f"add {name} to constraints.txt"
        waiting += needs(name, extras)


def needs(name, extras):
    """What an installed package needs here, with the extras asked for."""
    for line in importlib.metadata.requires(name) or []:
        requirement = Requirement(line)
        environments = [{"extra": extra} for extra in ("", *extras)]
        if requirement.marker is None or any(map(requirement.marker.evaluate, environments)):
            yield canonicalize_name(requirement.name), frozenset(requirement.extras)


def test_conda_users_get_the_same_pins(repository, project):
    environment = yaml.safe_load((repository / "environment.yml").read_text())
    plain = [part for part in environment["dependencies"] if isinstance(part, str)]
    (pip,) = [part["pip"] for part in environment["dependencies"] if isinstance(part, dict)]
    assert pip == ["-c constraints.txt", "-e .[dev]"], "packages come from pyproject.toml under the pins"
    assert [part.split("=")[0] for part in plain] == ["python", "pip"], "conda itself brings no package"
    assert plain[0].split("=")[1] in SpecifierSet(project["requires-python"])


def test_conda_accepts_the_environment(repository):
    conda = next(filter(None, map(shutil.which, ("conda", "mamba", "micromamba"))), None)
    if conda is None:
        pytest.skip("no conda, mamba or micromamba on this machine, so the environment was only read")
    command = [conda, "env", "create", "--dry-run", "--name", "clcae-dry-run", "-f", "environment.yml"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=600)
    if re.search(
        "CONNECTION FAILED|could not resolve|failed to connect|timed out", done.stderr, re.IGNORECASE
    ):
        pytest.skip(f"{conda} reaches no channel from this machine, so the environment was only read")
    assert done.returncode == 0, done.stderr


def test_the_commands_without_make_are_those_of_the_makefile(repository):
    page = (repository / "docs" / "running.md").read_text()
    _, linux, windows, conda = re.split("On Linux and macOS|On Windows, in PowerShell|With conda", page)
    for line in re.findall(r"\t\$\(BIN\)/(?:python )?(.*)", (repository / "Makefile").read_text()):
        command = re.sub(r" --quiet| --disable-pip-version-check| \$\(ARGS\)", "", line)
        if command.startswith("-m pip install") or command in ("clcae explore", "jupyter lab notebooks"):
            assert command in linux
            assert command in windows
    assert "conda env create -f environment.yml" in conda


def make(repository: Path, *arguments: str) -> str:
    command = ["make", "--no-print-directory", "-C", str(repository), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def test_make_installs_once(tmp_path, repository):
    """A copy of the Makefile with a stamp newer than the lists has nothing to install; an older one has."""
    for file in ("Makefile", "pyproject.toml", "constraints.txt"):
        (tmp_path / file).write_text((repository / file).read_text())
    assert "pip install" in make(tmp_path, "-n", "test")
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / ".installed").touch()
    assert "pip install" not in make(tmp_path, "-n", "test")
    later = (tmp_path / ".venv" / ".installed").stat().st_mtime + 10

    os.utime(tmp_path / "constraints.txt", (later, later))
    assert "pip install" in make(tmp_path, "-n", "test")


def test_training_needs_neither_jupyter_nor_papermill_and_help_not_even_torch():
    training = """
import importlib, pkgutil
import clcae_lib.training as training
for module in pkgutil.iter_modules(training.__path__, "clcae_lib.training."):
    importlib.import_module(module.name)
"""
    helps = """
from clcae_lib.cli import app
for command in ("--help", "run --help", "sweep --help"):
    app(command.split(), standalone_mode=False)
"""
    jupyter = {"papermill", "IPython", "ipykernel", "nbclient", "jupyter_client"}
    forbidden = {training: jupyter, helps: jupyter | {"torch", "pandas", "distributed"}}
    for program, names in forbidden.items():
        program += f"\nimport sys\nsys.exit(', '.join({names!r} & {{*map(str, sys.modules)}}) or 0)"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("given", "expected"), [({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7")])
def test_threads_that_wait_soon_sleep_unless_the_user_says_otherwise(given, expected):
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    code = "import sys, clcae_lib, os; print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, env=environment | given, capture_output=True, text=True, check=True)
    assert found.stdout.split() == [expected, "False"]


def test_notebooks_are_read_without_a_grammar_of_web_addresses_and_its_parser_lark():
    code = "import clcae_lib.suite, nbformat, jsonschema, sys; sys.exit('lark' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
