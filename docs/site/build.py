"""Gather the sources of the website and build it into build/site: `python docs/site/build.py [--strict]`."""

import argparse
import json
import re
import shutil
from pathlib import Path

from sphinx.cmd.build import main as sphinx

ROOT = Path(__file__).parents[2]
SOURCE, TARGET = ROOT / "build" / "site-source", ROOT / "build" / "site"
COLLAPSED = {"solution", "injected-parameters"}
COPIED = ("README.md", "LICENSE", "CITATION.cff", "environment.yml", "docs", "notebooks", "data/README.md")


def gather() -> None:
    """Copy the sources in the layout of the repository, so that relative links hold."""
    for folder in (SOURCE, TARGET):
        shutil.rmtree(folder, ignore_errors=True)
    for name in COPIED:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, SOURCE / name, ignore=shutil.ignore_patterns(".*", "*.py"))
        elif path.is_file():
            (SOURCE / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, SOURCE / name)
    reference = ROOT / "results" / "reference"
    without = shutil.ignore_patterns("sweeps", "*.ipynb", "index.html")
    shutil.copytree(reference, SOURCE / "results" / "reference", ignore=without)
    for executed in sorted((reference / "notebooks").glob("*.ipynb")):
        text = executed.read_text(encoding="utf-8").replace("](../../../notebooks/", "](")
        text = collapse(text.replace("](../../../docs/", "](../docs/"))
        (SOURCE / "notebooks" / executed.name).write_text(text, encoding="utf-8")
    for page in (ROOT / "docs" / "site").glob("*.md"):
        shutil.copyfile(page, SOURCE / page.name)
    readme = SOURCE / "README.md"  # here a notebook's page is its executed copy
    text = re.sub(r", \[executed\]\([^)]*\)", "", readme.read_text(encoding="utf-8"))
    readme.write_text(text, encoding="utf-8")


def collapse(text: str) -> str:
    """Return a notebook whose solutions and injected parameters are collapsed on the website."""
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        tags = cell["metadata"].get("tags", [])
        if COLLAPSED.intersection(tags):
            cell["metadata"]["tags"] = sorted({*tags, "hide-cell"})
    return json.dumps(notebook)


def main() -> int:
    """Build the site and return Sphinx's exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strict", action="store_true", help="fail on a warning")
    strict = ["-W", "--keep-going"] if parser.parse_args().strict else []
    gather()
    return sphinx(["-b", "html", "-q", *strict, "-c", str(ROOT / "docs" / "site"), str(SOURCE), str(TARGET)])


if __name__ == "__main__":
    raise SystemExit(main())
