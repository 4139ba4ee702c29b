"""Configuration of the course's website, built by `make site` (Sphinx; nothing is executed or fetched)."""

import ast
import importlib
import inspect
import pkgutil
import sys
from pathlib import Path
from types import ModuleType

from docutils.nodes import Element
from sphinx.addnodes import desc_annotation
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import clcae_lib  # noqa: E402

project = "CLCAE, step by step"
author = "CLCAE contributors"
root_doc = "index"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx-mathjax-offline",
]
exclude_patterns = ["README.md", "docs/site", "**/profiles", "results/README.md"]
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header", "mystnb.unknown_mime_type"]
default_role = "py:obj"  # `name` in a docstring is code, and a link if the library has a page with it
autosummary_generate = True
templates_path = [str(ROOT / "docs" / "site" / "templates")]  # no table above the members
autodoc_default_options = {
    "members": True,
    "show-inheritance": True,
    "exclude-members": "model_config",  # of pydantic
}
napoleon_use_ivar = True  # an attribute with a default is a member too, and would be described twice
autodoc_typehints = "description"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
html_theme = "pydata_sphinx_theme"
html_title = project
html_favicon = "favicon.svg"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_context = {"default_mode": "auto"}
html_theme_options = {"show_prev_next": True, "navbar_align": "left", "secondary_sidebar_items": ["page-toc"]}
html_show_sourcelink = False


def setup(app: Sphinx) -> None:
    """Name what each package offers, for autodoc."""
    app.connect("object-description-transform", shorten)
    for module in pkgutil.iter_modules(clcae_lib.__path__, "clcae_lib."):
        if module.ispkg:
            offer(importlib.import_module(module.name))


def shorten(app: Sphinx, domain: str, kind: str, description: Element) -> None:
    """Leave the value of a constant out if it is a table, which would fill the page."""
    for part in list(description.parent.findall(desc_annotation)):
        if part.astext().startswith(" = ") and len(part.astext()) > 100:
            part.parent.remove(part)


def offer(package: ModuleType) -> None:
    """Make the page of a package show what its `__init__` imports, in this order; that is what it offers.

    Autodoc leaves imported names out unless `__all__` lists them, and it looks for the description of a
    constant only in the file that imports it.
    """
    shown = ModuleAnalyzer.for_module(package.__name__)
    shown.analyze()
    package.__all__ = []
    for node in ast.parse(inspect.getsource(package)).body:
        if isinstance(node, ast.ImportFrom):
            source = ModuleAnalyzer.for_module(str(node.module))
            source.analyze()
            keys = [("", alias.name) for alias in node.names]
            package.__all__ += [name for _, name in keys]
            shown.attr_docs |= {key: source.attr_docs[key] for key in keys if key in source.attr_docs}
