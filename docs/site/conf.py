"""Configuration of the course's website, built by `make site` (Sphinx; nothing is executed or fetched)."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

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
autosummary_generate = True
autodoc_default_options = {"members": True, "show-inheritance": True}
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
